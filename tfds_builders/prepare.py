"""Prepares a data set from the user's own download: python -m tfds_builders.prepare chestxray14 --manual_dir=..."""

import contextlib
import dataclasses
import functools
import io
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from sdfn_jax.core import errors, parallel, progress, ray_engine
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.faults import Faults
from sdfn_jax.core.files import bring_back, locked, make_folder, put_in_place
from sdfn_jax.core.shards import UNDIVIDED, Shard, ShardedWork
from sdfn_jax.radiographs import find
from tfds_builders import base, freshness, pieces, registry
from tfds_builders.arguments import AGAIN, parse_arguments

_FORMAT = 1  # of the pieces of a divided preparation


def prepared_dir(name: str, data_dir: str | Path, size: int | None = None, **settings: Any) -> Path:
    """Returns the folder where a prepared set is, or would be; `tfds.builder_from_directory` opens it.

    Args:
      name: of the data set, in `registry.DATA_SETS`.
      data_dir: the folder of all prepared sets.
      size: height and width of the images, in pixels; the set's own if None.
      settings: `CONFIG_SETTINGS` of its builder; the set's defaults for the others.
    """
    builder = registry.builder(name)
    return Path(data_dir, name, builder.config(size, **settings).name, str(builder.VERSION))


def prepare(
    name: str,
    *,
    manual_dir: str | Path,
    data_dir: str | Path,
    size: int | None = None,
    require_complete: bool = False,
    skip_bad_files: bool = False,
    shard: Shard = UNDIVIDED,
    engine: parallel.Engine = parallel.here,
    **settings: Any,
) -> Path | None:
    """Prepares a data set, unless it already exists from the same inputs; prints a summary.

    The set is built in a scratch folder of `data_dir` and takes its place when it is complete: whatever stops the
    work, an older version stays usable. What a killed run left is removed by the next one. In shards, or by an engine,
    the films are first decoded into journals in `data_dir`, some 1.4 times as large as the set, from which an
    interrupted call resumes.

    Args:
      name: of the data set, in `registry.DATA_SETS`.
      manual_dir: the user's download.
      data_dir: the folder of all prepared sets.
      size: height and width of the images, in pixels; the set's own if None.
      require_complete: whether a missing official file is an error.
      skip_bad_files: whether bad files are listed and left out, instead of an error.
      shard: the part of the films that this process decodes.
      engine: what decodes.
      settings: those of the set (`registry.DataSet`); its defaults for the others.

    Returns:
      The folder of the prepared set, as `prepared_dir`; None if other shards are not finished.

    Raises:
      UserError: for what the user must fix, naming file and row.
    """
    source, manual_dir, data_dir = str(manual_dir), Path(manual_dir).absolute(), Path(data_dir).absolute()
    if not manual_dir.is_dir():
        raise UserError(
            f"--manual_dir={manual_dir} is not a folder\n{registry.builder(name).MANUAL_DOWNLOAD_INSTRUCTIONS}"
        )
    job = _Job(name, source, manual_dir, data_dir, size, settings, require_complete, skip_bad_files)
    if shard == UNDIVIDED and engine is parallel.here:
        return job.build()
    return job.build_divided(shard, engine)


@dataclasses.dataclass(frozen=True)
class _Job:
    """A data set to prepare: the arguments of `prepare`, `source` as the user calls `manual_dir`."""

    name: str
    source: str
    manual_dir: Path
    data_dir: Path
    size: int | None
    settings: Mapping[str, Any]
    require_complete: bool
    skip_bad_files: bool

    @property
    def final(self) -> Path:
        """The folder of the prepared set."""
        return _directory(self.name, self.data_dir, self.size, self.settings)

    def build(self, decoded: Mapping[str, dict] | None = None) -> Path:
        """Builds the set, of films decoded before if there are any, unless it already exists."""
        final = self.final
        with _scratch_folder(self.name, self.data_dir) as scratch:
            bring_back(final)
            builder = self._builder(scratch)
            builder.decoded = decoded
            if self._exists(builder):
                return final
            # What TFDS prints is about the scratch folder.
            with contextlib.redirect_stdout(io.StringIO()):
                builder.download_and_prepare(
                    download_dir=scratch / "downloads",
                    download_config=tfds.download.DownloadConfig(manual_dir=self.manual_dir),
                )
            put_in_place(scratch / final.relative_to(self.data_dir), final)
        print(_summary(self.name, final, self.manual_dir, builder, builder.inputs(self.manual_dir)))
        return final

    def build_divided(self, shard: Shard, engine: parallel.Engine) -> Path | None:
        """Decodes the films of a shard into its journal, and builds the set if that was the last shard."""
        make_folder(self.data_dir)
        builder = self._builder(self.data_dir / f".decoding_{self.name}")
        if self._exists(builder):
            return self.final
        items = builder.inputs(self.manual_dir).items
        kept = pieces.Pieces(items, self.manual_dir)
        settings = {key: str(value) for key, value in sorted(self.settings.items())}
        made_by = {"format": _FORMAT, "data_set": builder.info.full_name, "settings": settings}
        with ShardedWork(self.data_dir / f".decoding_{self.name}.jsonl", made_by, shard) as work:
            mine = work.mine(items)
            rest = [item for item in mine if not _is_done(item.name, work.journal, kept)]
            if len(rest) < len(mine):
                print(f"resuming: {len(mine) - len(rest):,} of {len(mine):,} images are decoded", flush=True)
            what = f"decode {builder.info.full_name}"
            decode = functools.partial(_decode, self.name, self.size, self.settings)
            with progress.bar(what=what, unit="image", total=len(mine), initial=len(mine) - len(rest)) as bar:
                for name, piece in engine(decode, rest, 1):
                    if "problem" in piece:
                        Faults(self.skip_bad_files).report(name, piece["problem"])
                    work.journal.write(name, kept.add_item(name, piece))
                    bar.update()
            decoded = work.all_pieces([item.name for item in items], kept.is_current)
            if decoded is None:
                return None
            final = self.build(decoded)
            work.delete()
        return final

    def _builder(self, data_dir: Path) -> base.RadiographBuilder:
        """Returns the builder, which has read tables and found files."""
        options = {"require_complete": self.require_complete, "skip_bad_files": self.skip_bad_files}
        builder = make_builder(self.name, data_dir, self.source, self.size, **self.settings, **options)
        print(f"{self.name}: reading tables and looking for files in {self.manual_dir}", file=sys.stderr)
        builder.inputs(self.manual_dir)
        return builder

    def _exists(self, builder: base.RadiographBuilder) -> bool:
        """Returns whether the set exists, made from the same inputs; otherwise checks that there is room for it."""
        found = freshness.compare(self.final, builder, self.source)
        if found is not None and not found.differences and (self.skip_bad_files or not found.metadata["skipped"]):
            print("\n".join([f"{self.name}: already prepared from these files, in {self.final}", *found.notes]))
            return True
        _check_space(self.data_dir, len(builder.inputs(self.manual_dir).items) * builder.example_bytes)
        return False


def _decode(
    name: str, size: int | None, settings: Mapping[str, Any], items: Sequence[Any]
) -> Iterator[tuple[str, dict]]:
    """Decodes films, in whatever process; yields (name, piece) for each."""
    return pieces.make(make_builder(name, f".decoding_{name}", None, size, **settings), items)


def _is_done(name: str, found: Mapping[str, dict], kept: pieces.Pieces) -> bool:
    """Returns whether a film is decoded; one that could not be is tried again."""
    return name in found and "problem" not in (piece := found[name]) and kept.is_current(name, piece)


@dataclasses.dataclass(frozen=True)
class Look:
    """The state of a data set before anything is made.

    Attributes:
      prepared: the prepared set, compared with what would be prepared now; None if there is none.
      counts: {split: films} that would be prepared now, before decoding.
      films: {name: file} of all films that are there.
      problem: why nothing could be prepared now; None if something could.
      findings: that it labels; empty if there are none, or if nothing could be prepared.
    """

    prepared: freshness.Freshness | None
    counts: dict[str, int]
    films: dict[str, Path]
    problem: str | None
    findings: tuple[str, ...] = ()


def look(name: str, *, manual_dir: str | Path, data_dir: str | Path, size: int | None = None, **settings: Any) -> Look:
    """Looks at a prepared set and at the user's download; the arguments are those of `prepare`. Decodes nothing."""
    folder = Path(manual_dir)
    builder = make_builder(name, Path(data_dir, f".looking_{name}"), str(manual_dir), size, **settings)
    prepared = freshness.compare(_directory(name, data_dir, size, settings), builder, manual_dir)
    try:
        return Look(prepared, builder.split_counts(folder), builder.films(folder), None, builder.findings(folder))
    except UserError as error:
        return Look(prepared, {}, {}, str(error))


def make_builder(
    name: str,
    data_dir: str | Path,
    source: str | None = None,
    size: int | None = None,
    **settings: Any,
) -> base.RadiographBuilder:
    """Returns the builder of a set; makes nothing. The arguments are those of `prepare`, `source` is its manual_dir."""
    builder = registry.builder(name)
    config = builder.get_builder_config(builder.config(size, **_of_config(name, settings)).name)
    others = {key: value for key, value in settings.items() if key not in builder.CONFIG_SETTINGS}
    return builder(data_dir=data_dir, config=config, source=source, **others)


def _directory(name: str, data_dir: str | Path, size: int | None, settings: Mapping[str, Any]) -> Path:
    return prepared_dir(name, data_dir, size, **_of_config(name, settings))


def _of_config(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those of the settings that choose the configuration."""
    return {key: settings[key] for key in registry.builder(name).CONFIG_SETTINGS if key in settings}


@contextlib.contextmanager
def _scratch_folder(name: str, data_dir: Path) -> Iterator[Path]:
    """Yields an empty folder to one process at a time; it is removed afterwards, at the latest by the next one."""
    scratch = data_dir / f".preparing_{name}"
    with locked(data_dir / f".preparing_{name}.lock", f"{name} in {data_dir}"):
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _check_space(data_dir: Path, needed: int) -> None:
    free = shutil.disk_usage(data_dir).free
    if free < needed:
        raise UserError(
            f"{data_dir}: {needed / 2**30:.1f} GiB are needed, {free / 2**30:.1f} GiB are free; choose "
            "another --data_dir"
        )


def _summary(name: str, final: Path, manual_dir: Path, builder: base.RadiographBuilder, inputs: base.Inputs) -> str:
    metadata = base.read_metadata(final, builder.METADATA)
    lines = [f"{name}: prepared in {final}"]
    for split, counts in metadata["splits"].items():
        patients = f" of {counts['patients']:,} patients" if "patients" in counts else ""
        lines.append(base.summary_line(split, f"{counts['images']:,}", f" images{patients}"))
    missing = f"{metadata['missing']:,}"
    lines.append(base.summary_line("missing", missing, f" images not in {manual_dir}: {base.MISSING_LIST}"))
    lines.append(base.summary_line("skipped", f"{metadata['skipped']:,}", f" bad images: {base.SKIPPED_LIST}"))
    lines += builder.summary(metadata)
    if inputs.left_out:
        left_out = f"{len(inputs.left_out):,}"
        lines.append(base.summary_line("left out", left_out, f" files and folders: {base.LEFT_OUT_LIST}"))
        lines.append(textwrap.indent(find.describe(inputs.left_out), "    "))
    return "\n".join(lines)


def run(options: dict[str, Any]) -> None:
    """Prepares what a command line asks for (`arguments.parse_arguments`)."""
    with ray_engine.engine(options.pop("engine"), _nothing, on_gpus=False) as engine:
        prepare(engine=engine, **options)


def _nothing() -> None:
    """Starts a worker: nothing has to be set up to decode."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    run(parse_arguments(arguments, "python -m tfds_builders.prepare"))


if __name__ == "__main__":
    errors.run_as_process(main, AGAIN)
