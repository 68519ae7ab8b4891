"""Prepares a data set from the user's own download: python -m tfds_builders.prepare chestxray14 --manual_dir=..."""

import contextlib
import dataclasses
import io
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from sdfn_jax.core import errors
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.files import bring_back, locked, put_in_place
from sdfn_jax.radiographs import find
from tfds_builders import base, freshness, lung_masks
from tfds_builders.arguments import AGAIN, parse_arguments
from tfds_builders.chestxray14 import chestxray14_dataset_builder as chestxray14
from tfds_builders.jsrt import jsrt_dataset_builder as jsrt
from tfds_builders.montgomery import montgomery_dataset_builder as montgomery

_BUILDERS = {"jsrt": jsrt.Builder, "montgomery": montgomery.Builder, "chestxray14": chestxray14.Builder}
_DEFAULT_LABELS = "2017"


def prepared_dir(
    name: str, data_dir: str | Path, size: int | None = None, label_version: str = _DEFAULT_LABELS
) -> Path:
    """Returns the folder where a prepared set stands or would stand; `tfds.builder_from_directory` opens it.

    Args:
      name: `jsrt`, `montgomery` or `chestxray14`.
      data_dir: the folder of all prepared sets.
      size: height and width of the images, in pixels; the set's own where it is None.
      label_version: `2017` or `v2020`; only `chestxray14` has labels.
    """
    return Path(data_dir, name, _config(name, size, label_version).name, str(_BUILDERS[name].VERSION))


def prepare(
    name: str,
    *,
    manual_dir: str | Path,
    data_dir: str | Path,
    size: int | None = None,
    label_version: str = _DEFAULT_LABELS,
    boxes: str | Path | None = None,
    validation_share: float = chestxray14.VALIDATION_SHARE,
    validation_seed: int = chestxray14.VALIDATION_SEED,
    require_complete: bool = False,
    skip_bad_files: bool = False,
) -> Path:
    """Prepares a data set, unless it is there from the same inputs already; prints a summary.

    The set is built in a scratch folder of `data_dir` and takes its place when it is complete: whatever stops the
    work, an older version stays usable. What a killed run left is removed by the next one.

    Args:
      name: `jsrt`, `montgomery` or `chestxray14`.
      manual_dir: the user's download.
      data_dir: the folder of all prepared sets.
      size: height and width of the images, in pixels; the set's own where it is None.
      label_version: `2017` or `v2020`; this and the next three only for `chestxray14`.
      boxes: the table of lung boxes; `lung_boxes.csv` in `manual_dir` where it is None.
      validation_share: expected share of the patients of train_val that go to validation, 0 to 1.
      validation_seed: which patients these are.
      require_complete: whether a missing official file is an error.
      skip_bad_files: whether bad files are listed and left out, instead of an error.

    Returns:
      The folder of the prepared set, as `prepared_dir`.

    Raises:
      UserError: for what the user must mend, naming file and row.
    """
    source, manual_dir, data_dir = str(manual_dir), Path(manual_dir).absolute(), Path(data_dir).absolute()
    if not manual_dir.is_dir():
        raise UserError(f"--manual_dir={manual_dir} is not a folder\n{_BUILDERS[name].MANUAL_DOWNLOAD_INSTRUCTIONS}")
    final = prepared_dir(name, data_dir, size, label_version)
    options: dict[str, Any] = {"require_complete": require_complete, "skip_bad_files": skip_bad_files}
    if name == "chestxray14":
        options |= {"boxes": boxes, "validation_share": validation_share, "validation_seed": validation_seed}
    with _scratch_folder(name, data_dir) as scratch:
        bring_back(final)
        builder = make_builder(name, scratch, source, size, label_version, **options)
        print(f"{name}: reading tables and looking for files in {manual_dir}", file=sys.stderr)
        inputs = builder.inputs(manual_dir)
        found = freshness.compare(final, builder, source)
        if found is not None and not found.differences and (skip_bad_files or not found.metadata["skipped"]):
            print("\n".join([f"{name}: already prepared from these files, in {final}", *found.notes]))
            return final
        _check_space(data_dir, len(inputs.items) * builder.example_bytes)
        # What TFDS prints is about the scratch folder.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(
                download_dir=scratch / "downloads", download_config=tfds.download.DownloadConfig(manual_dir=manual_dir)
            )
        put_in_place(scratch / final.relative_to(data_dir), final)
    print(_summary(name, final, manual_dir, inputs))
    return final


@dataclasses.dataclass(frozen=True)
class Look:
    """What is there of a data set, before anything is made.

    Attributes:
      prepared: the prepared set, beside what would be prepared now; None where there is none.
      counts: {split: films} that would be prepared now, before decoding.
      problem: why nothing could be prepared now; None where something could.
    """

    prepared: freshness.Found | None
    counts: dict[str, int]
    problem: str | None


def look(name: str, *, manual_dir: str | Path, data_dir: str | Path, **options: Any) -> Look:
    """Looks at a prepared set and at the user's download; the arguments are those of `prepare`. Decodes nothing."""
    builder = make_builder(name, Path(data_dir, f".looking_{name}"), str(manual_dir), **options)
    size, label_version = options.get("size"), options.get("label_version", _DEFAULT_LABELS)
    prepared = freshness.compare(prepared_dir(name, data_dir, size, label_version), builder, manual_dir)
    try:
        return Look(prepared, builder.split_counts(Path(manual_dir)), None)
    except UserError as error:
        return Look(prepared, {}, str(error))


def make_builder(
    name: str,
    data_dir: str | Path,
    source: str | None = None,
    size: int | None = None,
    label_version: str = _DEFAULT_LABELS,
    **options: Any,
) -> base.RadiographBuilder:
    """Returns the builder of a set; makes nothing. The arguments are those of `prepare`, `source` is its manual_dir."""
    return _BUILDERS[name](data_dir=data_dir, config=_config(name, size, label_version), source=source, **options)


def _config(name: str, size: int | None, label_version: str) -> tfds.core.BuilderConfig:
    if name == "chestxray14":
        wanted = chestxray14.config(size or chestxray14.DEFAULT_SIZE, label_version)
    else:
        wanted = lung_masks.config(size or lung_masks.DEFAULT_SIZE)
    # TFDS wants one object for each name, and warns of one it does not know.
    return _BUILDERS[name].builder_configs.setdefault(wanted.name, wanted)


@contextlib.contextmanager
def _scratch_folder(name: str, data_dir: Path) -> Iterator[Path]:
    """Gives an empty folder to one process at a time; it is gone afterwards, at the latest when the next one starts."""
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
            f"{data_dir}: {needed / 2**30:.1f} GiB are needed and {free / 2**30:.1f} GiB free; name another --data_dir"
        )


def _summary(name: str, final: Path, manual_dir: Path, inputs: base.Inputs) -> str:
    metadata = base.read_metadata(final)
    lines = [f"{name}: prepared in {final}"]
    for split, counts in metadata["splits"].items():
        patients = f" of {counts['patients']:,} patients" if "patients" in counts else ""
        lines.append(f"  {split:<11}{counts['images']:>8,} images{patients}")
    lines.append(f"  {'missing':<11}{metadata['missing']:>8,} images not in {manual_dir}: {base.MISSING_LIST}")
    lines.append(f"  {'skipped':<11}{metadata['skipped']:>8,} bad images: {base.SKIPPED_LIST}")
    if "label_version" in metadata:
        lines.append(
            f"  {'labels':<11}{metadata['label_version']:>8}, {_told(metadata['images_that_tell_the_labels'])}"
        )
    if metadata.get("unknown"):
        lines.append(f"  {'unknown':<11}{metadata['unknown']:>8,} PNG files that the label table does not name")
    if inputs.left_out:
        lines.append(f"  {'left out':<11}{len(inputs.left_out):>8,} files and folders: {base.LEFT_OUT_LIST}")
        lines.append(textwrap.indent(find.describe(inputs.left_out), "    "))
    return "\n".join(lines)


def _told(images: int) -> str:
    if images:
        return f"as {images:,} images tell that the versions label differently"
    return "as asked for: nothing in the table tells the versions apart"


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    prepare(**parse_arguments(arguments, "python -m tfds_builders.prepare"))


if __name__ == "__main__":
    errors.run_as_process(main, AGAIN)
