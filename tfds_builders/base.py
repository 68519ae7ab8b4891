"""What the builders share: decoding ahead of the writer, bad files raised or listed, the lists next to the records."""

import abc
import dataclasses
import hashlib
import itertools
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from array_record.python import array_record_module

from sdfn_jax.core import csv_table, parallel, progress, sealed, sources
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.faults import Faults
from sdfn_jax.radiographs import find, synthetic_dataset
from tfds_builders import pieces
from tfds_builders.record_shards import RecordShard

MISSING_LIST = "missing_files.csv"
SKIPPED_LIST = "skipped_files.csv"
LEFT_OUT_LIST = "left_out.csv"
_SPLITS = sealed.Kind(
    "an object that counts the images of each split",
    lambda value: (
        isinstance(value, dict)
        and all(isinstance(split, dict) and sealed.COUNT.fits(split.get("images")) for split in value.values())
    ),
)
METADATA: dict[str, sealed.Shape] = {
    "inputs_digest": sealed.TEXT,
    "drawings": sealed.BOOLEAN,
    "splits": _SPLITS,
    "missing": sealed.COUNT,
    "skipped": sealed.COUNT,
}
# TFDS keeps the examples of a shard in memory until it is written.
_SHARD_BYTES = 128 * 2**20


class NothingFoundError(UserError):
    """No film of the data set is in the folder."""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a builder found in the user's folder.

    Attributes:
      splits: {split: what to decode, in order}; each item has a `name`, and `files`, its films and masks. No split is
        empty.
      missing: (image, what is missing of it), one row per file.
      digest: SHA-256 of everything that decides the result, in hexadecimal.
      left_out: what in the folder was left out, and why.
      metadata: further metadata of the prepared set.
    """

    splits: dict[str, list[Any]]
    missing: list[tuple[str, str]]
    digest: str
    left_out: list[find.LeftOut]
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def items(self) -> list[Any]:
        """All items, split after split."""
        return [item for items in self.splits.values() for item in items]


class _LocalInfo(tfds.core.DatasetInfo):
    """The description of a set that is in none of TFDS's buckets."""

    def initialize_from_bucket(self) -> None:
        """Does nothing: TFDS would ask its bucket over the network, and leave an empty temporary folder each time."""


class _RecordWriter(tfds.core.writer.ExampleWriter):
    """Writes array_record uncompressed: compression would shrink grey levels by a sixth and take an eighth of the time.

    (TFDS's own writer compresses with zstd. Readers take either; uncompressed files are read four times as fast.)
    """

    def write(self, path: str, examples: Iterable[tuple[Any, bytes]]) -> None:
        """Writes one shard of (key, serialised example)."""
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1,uncompressed")
        for _, example in examples:
            writer.write(example)
        writer.close()


class RadiographBuilder(tfds.core.dataset_builder.ShardBasedBuilder, skip_registration=True):
    """Writes radiographs as array_record, decoded and resized by threads.

    Built shard by shard, in the order of the items, because TFDS's other builder sorts a split through temporary files
    once it is over 1 GB, and needs TensorFlow for that.

    A subclass finds what there is (`_read_inputs`), and makes examples of it (`_make_example`).

    A builder can be pickled, and its shards can be made by other processes: TFDS's `beam_runner` does both.

    Attributes:
      CONFIG_SETTINGS: {setting that chooses the configuration, an argument of `config`: its values}; of the set's own
        settings (`registry.DataSet`).
      METADATA: {key: kind} of its `metadata.json`.
      looked_at: the files as they were when they were decoded.
      decoded: the journal's pieces (`pieces`), {name: piece}, of a set that was decoded before; None if it was not.
    """

    CONFIG_SETTINGS: dict[str, tuple[str, ...]] = {}
    METADATA = METADATA

    @staticmethod
    @abc.abstractmethod
    def config(size: int | None = None, **settings: Any) -> tfds.core.BuilderConfig:
        """Returns the configuration for images of `size` x `size` pixels; of the set's own size if None."""

    @classmethod
    def get_builder_config(cls, name: str, version: Any = None) -> tfds.core.BuilderConfig | None:
        """Returns the configuration of a name, of any size: BUILDER_CONFIGS, which `tfds build` prepares, is one."""
        if (found := super().get_builder_config(name, version)) is None and (size := re.match(r"size(\d+)", name)):
            for values in itertools.product(*cls.CONFIG_SETTINGS.values()):
                config = cls.config(int(size[1]), **dict(zip(cls.CONFIG_SETTINGS, values, strict=True)))
                if config.name == name:
                    return cls.builder_configs.setdefault(name, config)  # TFDS wants one object for each name
        return found

    def summary(self, metadata: dict[str, Any]) -> list[str]:
        """Returns the set's own lines of the summary that `prepare` prints, each a `summary_line`."""
        del metadata
        return []

    def __new__(cls, **kwargs: Any) -> "RadiographBuilder":
        """Keeps the arguments, for pickling: TFDS keeps only its own."""
        builder = super().__new__(cls)
        builder._arguments = kwargs
        return builder

    def __getstate__(self) -> dict[str, Any]:
        return self._arguments | {"config": self.builder_config.name, "file_format": self.info.file_format.value}

    def __setstate__(self, arguments: dict[str, Any]) -> None:
        self._arguments = arguments
        self.__init__(**arguments)  # type: ignore[misc]

    def __init__(
        self,
        *,
        require_complete: bool = False,
        skip_bad_files: bool = False,
        source: str | None = None,
        file_format: Any = None,
        **kwargs: Any,
    ):
        """Makes a builder.

        Args:
          require_complete: whether a missing official file is an error.
          skip_bad_files: whether bad files are listed and left out, instead of an error.
          source: what the user calls manual_dir, for the metadata; its path if None.
          file_format: as TFDS's; if None, that of the set if it is there, or else array_record, the one format that is
            written without TensorFlow. TFDS reads it by `as_data_source`; only `tfrecord` can be read by tf.data.
          **kwargs: TFDS's `data_dir`, `config` and `version`.
        """
        self._require_complete = require_complete
        self._faults = Faults(skip_bad_files)
        self._source = source
        self._inputs: Inputs | None = None
        self.looked_at: dict[Path, sources.Source] = {}
        self.decoded: Mapping[str, dict] | None = None
        self._bar: Any = None  # of the process that prepares
        super().__init__(file_format=file_format, **kwargs)
        if file_format is None and not self.info.initialized:
            self.info.set_file_format("array_record", override=True)

    def dataset_info_from_configs(self, **kwargs: Any) -> tfds.core.DatasetInfo:
        """Returns the description, with README.md and CITATIONS.bib of the builder's folder."""
        metadata = self.get_metadata()
        return _LocalInfo(builder=self, description=metadata.description, citation=metadata.citation, **kwargs)

    @abc.abstractmethod
    def _read_inputs(self, manual_dir: Path) -> Inputs:
        """Finds files and reads tables; decodes nothing.

        Raises:
          UserError: for what the user must fix.
        """

    @abc.abstractmethod
    def films(self, manual_dir: Path) -> dict[str, Path]:
        """Returns {name: file} of the available films and masks of the set; decodes nothing.

        Raises:
          NothingFoundError: if there is no film.
          UserError: for what else the user must fix.
        """

    def tables(self, manual_dir: Path) -> dict[str, Path]:
        """Returns {name: file} of the tables that the set is made with, whether they exist or not."""
        del manual_dir
        return {}

    def findings(self, manual_dir: Path) -> tuple[str, ...]:
        """Returns the names of the labels, in their order; none for a set without findings."""
        del manual_dir
        return ()

    def split_counts(self, manual_dir: Path) -> dict[str, int]:
        """Returns how many of the available films each split will have, as far as known before decoding."""
        return {split: len(items) for split, items in self.inputs(manual_dir).splits.items()}

    def other_settings(self, metadata: dict[str, Any], manual_dir: Path) -> list[str]:
        """Returns a phrase for each setting in which a prepared set with this metadata differs."""
        del manual_dir
        if self._require_complete and metadata["missing"]:
            return [f"it lacks {metadata['missing']:,} official images, but require_complete demands all"]
        return []

    @abc.abstractmethod
    def _make_example(self, item: Any) -> dict[str, Any]:
        """Decodes one item, in a thread.

        Raises:
          ValueError, OSError: for a bad file, naming it.
        """

    def _example_writer(self) -> tfds.core.writer.ExampleWriter:
        if self.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
            return super()._example_writer()
        return _RecordWriter(self.info.file_format)

    @property
    def example_bytes(self) -> int:
        """Size of an example's two resized images."""
        return 2 * self.builder_config.size**2

    def inputs(self, manual_dir: Path) -> Inputs:
        """Returns what is in the folder; reads it at the first call.

        Raises:
          UserError: for what the user must fix, naming file and row.
        """
        if self._inputs is None:
            inputs = self._read_inputs(manual_dir)
            if self._require_complete and inputs.missing:
                first = "; ".join(f"{image} ({what})" for image, what in inputs.missing[:3])
                raise UserError(
                    f"--require_complete: {manual_dir} lacks {len(inputs.missing):,} official files, first: {first}"
                )
            self._inputs = inputs
        return self._inputs

    def _shard_iterators_per_split(self, dl_manager: tfds.download.DownloadManager):
        self._manual_dir = Path(dl_manager.manual_dir)
        inputs = self.inputs(self._manual_dir)
        self._bar = progress.bar(what=self.info.full_name, unit="image", total=len(inputs.items))
        size = max(1, _SHARD_BYTES // self.example_bytes)
        self._shards = {
            split: [
                RecordShard(self, items[start : start + size], Path(self.data_dir, f".{split}_{start}.json"))
                for start in range(0, len(items), size)
            ]
            for split, items in inputs.splits.items()
        }
        return self._shards

    def decode(self, items: Sequence[Any]) -> Iterator[tuple[Any, dict[str, Any] | None, str | None]]:
        """Yields (item, its example, None), or (item, None, why there is none) where bad files are skipped.

        Raises:
          UserError: for a bad file where they are not.
        """
        found = parallel.map_in_order(self.try_example, items) if self.decoded is None else map(self._take, items)
        for item, (example, error) in zip(items, found, strict=True):
            if self._bar is not None:
                self._bar.update()
            if error is not None:
                self._faults.report(item.name, str(error))
            yield item, example, None if error is None else str(error)

    def try_example(self, item: Any) -> tuple[dict[str, Any] | None, Exception | None]:
        """Decodes one item, in a thread, and records its files in `looked_at`; returns (example, why there is none)."""
        try:
            for path in item.files:
                self.looked_at[path] = sources.look_at(path)
            return self._make_example(item), None
        except (ValueError, OSError) as error:
            return None, error

    def _take(self, item: Any) -> tuple[dict[str, Any] | None, Exception | None]:
        """Takes one item from `decoded`."""
        piece = self.decoded[item.name]
        self.looked_at |= pieces.sources_of(piece, item.files)
        return pieces.example_of(piece)

    def download_and_prepare(self, **kwargs: Any) -> None:
        """As TFDS's; a user's mistake does not end `tfds build` in a traceback."""
        try:
            super().download_and_prepare(**kwargs)
        except UserError as error:
            if Path(sys.argv[0]).stem == "tfds":
                raise SystemExit(f"error: {error}") from None
            raise

    def _download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
        try:
            super()._download_and_prepare(*args, **kwargs)
        finally:
            if self._bar is not None:
                self._bar.close()
        outcomes = {split: [shard.outcome() for shard in shards] for split, shards in self._shards.items()}
        for outcome in itertools.chain.from_iterable(outcomes.values()):
            self._faults.reasons |= outcome.bad
            self.looked_at |= outcome.looked_at
        written = {split: [item for outcome in some for item in outcome.made] for split, some in outcomes.items()}
        if not any(written.values()):
            image, reason = next(iter(self._faults.reasons.items()))
            raise UserError(f"all {len(self._inputs.items):,} images are bad; {image}: {reason}")
        self._set_splits({split: [len(outcome.made) for outcome in some] for split, some in outcomes.items()})
        skipped = sorted(self._faults.reasons.items())
        _write_list(Path(self.data_dir) / MISSING_LIST, ("image", "missing"), self._inputs.missing)
        _write_list(Path(self.data_dir) / SKIPPED_LIST, ("image", "reason"), skipped)
        find.write_list(Path(self.data_dir) / LEFT_OUT_LIST, self._inputs.left_out)
        record = self._record()
        sources.write(Path(self.data_dir) / sources.SOURCES_FILE, record)
        metadata = self._inputs.metadata | {
            "inputs_digest": self._inputs.digest,
            "content_digest": sources.content_digest(record),
            "source": str(self._source or self._manual_dir),
            "drawings": synthetic_dataset.is_synthetic(self._manual_dir),
            "splits": {split: self._count(items) for split, items in written.items() if items},
            "missing": len({image for image, _ in self._inputs.missing}),
            "skipped": len(skipped),
            "left_out": len(self._inputs.left_out),
        }
        self.info.metadata.update(sealed.seal(metadata))

    def _set_splits(self, lengths: Mapping[str, Sequence[int]]) -> None:
        """Sets how many examples are in each shard; leaves splits without any out, which TFDS can't open.

        TFDS's `beam_runner` lists the lengths of over ten shards by their numbers as text, and leaves a file of them.
        """
        splits = [split.replace(shard_lengths=list(lengths[name])) for name, split in self.info.splits.items()]
        self.info.set_splits(tfds.core.splits.SplitDict([split for split in splits if split.num_examples]))
        for path in Path(self.data_dir).glob("*.shard_infos.json"):
            path.unlink()

    def _record(self) -> dict[str, sources.Source]:
        """Returns the record of every film, mask and table: as they were when decoded, or as they are now."""
        files = {**self.films(self._manual_dir), **self.tables(self._manual_dir)}
        there = {name: path for name, path in files.items() if path.exists()}
        return {name: self.looked_at.get(path) or sources.look_at(path) for name, path in there.items()}

    def _count(self, items: Sequence[Any]) -> dict[str, int]:
        """Returns what the metadata counts in a split."""
        return {"images": len(items)}

    def _digest(self, parts: Iterable[object]) -> str:
        """Returns the digest of the inputs for this configuration and version."""
        digest = hashlib.sha256(self.info.full_name.encode())
        for part in parts:
            digest.update(f"\n{part}".encode())
        return digest.hexdigest()


def summary_line(what: str, count: object, text: str) -> str:
    """Returns a line of the summary that `prepare` prints."""
    return f"  {what:<11}{count:>8}{text}"


def read_metadata(directory: Path, shape: Mapping[str, sealed.Shape]) -> dict[str, Any]:
    """Reads what the preparation of a data set wrote of it: `metadata.json`.

    Args:
      directory: of the prepared set, as TFDS names it: `chestxray14/size224_labels2017/1.0.0`.
      shape: `METADATA` of its builder.

    Raises:
      DamagedError: naming the file and the key that is wrong.
      OSError: for a file that cannot be read.
    """
    mend = f"delete {directory} to have it prepared again"
    return sealed.read(directory / "metadata.json", shape, "the metadata of a prepared data set", mend)


def _write_list(path: Path, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    with csv_table.writing(path) as table:
        table.rows([columns, *rows])
