"""What the builders share: decoding ahead of the writer, bad files raised or listed, the lists next to the records."""

import abc
import dataclasses
import functools
import hashlib
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
METADATA = {
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

    Attributes:
      CONFIG_SETTINGS: those of its settings (`registry.DataSet`) that choose the configuration, arguments of `config`.
      METADATA: {key: kind} of its `metadata.json`.
      looked_at: the files as they were when they were decoded.
      decoded: the journal's pieces (`pieces`), {name: piece}, of a set that was decoded before; None if it was not.
    """

    CONFIG_SETTINGS: tuple[str, ...] = ()
    METADATA: dict[str, sealed.Kind] = METADATA

    @staticmethod
    @abc.abstractmethod
    def config(size: int | None = None, **settings: Any) -> tfds.core.BuilderConfig:
        """Returns the configuration for images of `size` x `size` pixels; of the set's own size if None."""

    def summary(self, metadata: dict[str, Any]) -> list[str]:
        """Returns the set's own lines of the summary that `prepare` prints, each a `summary_line`."""
        del metadata
        return []

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
          file_format: as TFDS's; array_record if None, the one format that needs no TensorFlow.
          **kwargs: TFDS's `data_dir`, `config` and `version`.
        """
        self._require_complete = require_complete
        self._faults = Faults(skip_bad_files)
        self._source = source
        self._inputs = None
        self.looked_at: dict[Path, sources.Source] = {}
        self.decoded: Mapping[str, dict] | None = None
        super().__init__(file_format=file_format or "array_record", **kwargs)

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
        self._written = {split: [] for split in inputs.splits}
        shard = max(1, _SHARD_BYTES // self.example_bytes)
        return {
            split: [
                functools.partial(self._examples, split, items[start : start + shard])
                for start in range(0, len(items), shard)
            ]
            for split, items in inputs.splits.items()
        }

    def _examples(self, split: str, items: Sequence[Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        found = parallel.map_in_order(self.try_example, items) if self.decoded is None else map(self._take, items)
        for item, (example, error) in zip(items, found, strict=True):
            self._bar.update()
            if error is not None:
                self._faults.report(item.name, str(error))
                continue
            self._written[split].append(item)
            yield item.name, example

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

    def _download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
        try:
            super()._download_and_prepare(*args, **kwargs)
        finally:
            if hasattr(self, "_bar"):
                self._bar.close()
        if not any(self._written.values()):
            image, reason = next(iter(self._faults.reasons.items()))
            raise UserError(f"all {len(self._inputs.items):,} images are bad; {image}: {reason}")
        # TFDS can't open a split without examples.
        self.info.set_splits(
            tfds.core.splits.SplitDict([split for split in self.info.splits.values() if split.num_examples])
        )
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
            "splits": {split: self._count(items) for split, items in self._written.items() if items},
            "missing": len({image for image, _ in self._inputs.missing}),
            "skipped": len(skipped),
            "left_out": len(self._inputs.left_out),
        }
        self.info.metadata.update(sealed.seal(metadata))

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


def read_metadata(directory: Path, shape: Mapping[str, sealed.Kind]) -> dict[str, Any]:
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
