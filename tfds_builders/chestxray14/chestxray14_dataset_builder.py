"""NIH ChestX-ray14, each image entire and as its lung region."""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sdfn_jax.core import files as core_files
from sdfn_jax.core import sealed
from sdfn_jax.core.errors import UserError
from sdfn_jax.lungs import box_table as lungs_box_table
from sdfn_jax.radiographs import crops, find, nih_tables, reader
from sdfn_jax.radiographs.findings import FINDINGS
from tfds_builders import base

_DEFAULT_SIZE = 224
_DEFAULT_LABELS = "2017"
# The paper takes an unnamed share of train_val for validation.
_VALIDATION_SHARE = 0.1
_VALIDATION_SEED = 0
BOX_TABLE = "lung_boxes.csv"
_SPLITS = ("train", "validation", "test")
# Hand-drawn boxes are floats; one that leaves its image by rounding is clipped.
_TOLERANCE = 1.0


@dataclasses.dataclass(eq=False, kw_only=True)
class ChestXray14Config(tfds.core.BuilderConfig):
    """A configuration: height and width of the two images in pixels, and the version of the label table."""

    size: int
    label_version: str


def config(size: int | None = None, label_version: str = _DEFAULT_LABELS) -> ChestXray14Config:
    """Returns the configuration for images of `size` x `size` pixels and a version of the labels.

    Args:
      size: 224 if None.
      label_version: `2017` or `v2020`.
    """
    size = size or _DEFAULT_SIZE
    return ChestXray14Config(
        name=f"size{size}_labels{label_version}",
        description=f"Images of {size} x {size} pixels, labels of {nih_tables.LABEL_TABLES[label_version]}.",
        size=size,
        label_version=label_version,
    )


@dataclasses.dataclass(frozen=True)
class Radiograph:
    """An available image, and what the tables say about it."""

    name: str
    path: Path
    entry: nih_tables.Entry
    lung: lungs_box_table.BoxRow
    reference_boxes: tuple[nih_tables.ReferenceBox, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """The file that it is read from."""
        return (self.path,)


@dataclasses.dataclass(frozen=True)
class _Folder:
    """What the user's folder holds, except the lung boxes.

    Attributes:
      entries: the label table.
      reference_boxes: the box list.
      test: the official test list.
      images: {file name: path} of the available PNG files that the label table names.
      unknown: how many PNG files it does not name.
      left_out: what else is there.
    """

    entries: dict[str, nih_tables.Entry]
    reference_boxes: dict[str, list[nih_tables.ReferenceBox]]
    test: set[str]
    images: dict[str, Path]
    unknown: int
    left_out: list[find.LeftOut]


class Builder(base.RadiographBuilder):
    """DatasetBuilder for `chestxray14`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    CONFIG_SETTINGS = ("label_version",)
    METADATA = base.METADATA | {
        "label_version": sealed.TEXT,
        "validation_share": sealed.SHARE,
        "validation_seed": sealed.WHOLE,
        "box_table_digest": sealed.TEXT,
    }
    BUILDER_CONFIGS = [config(size, labels) for labels in nih_tables.LABEL_TABLES for size in (None, 448, 512)]
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
manual_dir holds the PNG files (all or some; next to the tables, or in any folders: images/, images_001/images/), and
Data_Entry_2017.csv or Data_Entry_2017_v2020.csv, BBox_List_2017.csv, train_val_list.txt and test_list.txt of the NIH,
and, unless --boxes names another one, lung_boxes.csv, the table of lung boxes."""

    def __init__(
        self,
        *,
        boxes: str | os.PathLike[str] | None = None,
        validation_share: float = _VALIDATION_SHARE,
        validation_seed: int = _VALIDATION_SEED,
        **kwargs: Any,
    ):
        """Makes a builder.

        Args:
          boxes: the table of lung boxes; `lung_boxes.csv` in manual_dir if None.
          validation_share: expected share of the patients of train_val in validation, 0 to 1.
          validation_seed: which patients these are.
          **kwargs: as `RadiographBuilder`'s.
        """
        self._boxes = boxes
        self._validation_share = validation_share
        self._validation_seed = validation_seed
        self._folder: _Folder | None = None
        super().__init__(**kwargs)

    config = staticmethod(config)

    def summary(self, metadata: dict[str, Any]) -> list[str]:
        """Returns how the label version was recognised, and how many files the label table does not name."""
        images = metadata["images_that_tell_the_labels"]
        reason = (
            f"recognised by {images:,} images that the versions label differently"
            if images
            else "as requested: nothing in the table distinguishes the versions"
        )
        lines = [base.summary_line("labels", metadata["label_version"], f", {reason}")]
        if metadata["unknown"]:
            unknown = f"{metadata['unknown']:,}"
            lines.append(base.summary_line("unknown", unknown, " PNG files that the label table does not name"))
        return lines

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.size
        square = {"shape": (size, size), "dtype": np.uint8, "encoding": "bytes"}
        features = tfds.features
        return self.dataset_info_from_configs(
            homepage="https://nihcc.app.box.com/v/ChestXray-NIHCC",
            metadata=tfds.core.MetadataDict(),
            features=features.FeaturesDict(
                {
                    "name": features.Text(doc="file name"),
                    "entire": features.Tensor(doc="the whole radiograph, bones bright", **square),
                    "lung": features.Tensor(doc="its lung region, cut at full resolution", **square),
                    "labels": features.Tensor(shape=(len(FINDINGS),), dtype=np.uint8, doc=", ".join(FINDINGS)),
                    "patient": features.Scalar(np.int32, doc="number of the patient"),
                    "age": features.Scalar(np.float32, doc="years"),
                    "sex": features.Text(doc="M or F"),
                    "view_position": features.Text(doc="PA or AP"),
                    "follow_up": features.Scalar(np.int32, doc="number of the patient's radiograph, from 0"),
                    "image_size": features.Tensor(shape=(2,), dtype=np.int32, doc="height, width of the file"),
                    "original_size": features.Tensor(
                        shape=(2,), dtype=np.int32, doc="height, width before NIH reduced it"
                    ),
                    "lung_box": features.Tensor(
                        shape=(4,), dtype=np.int32, doc="left, top, right, bottom; pixels of the file, half-open"
                    ),
                    "lung_rule": features.Text(doc="the post-processing rules (B.2.2) that made the box"),
                    "reference_boxes": features.Sequence(
                        {
                            "finding": features.Scalar(np.int32, doc="place in labels"),
                            "box": features.Tensor(
                                shape=(4,), dtype=np.float32, doc="left, top, right, bottom; pixels of the file"
                            ),
                        }
                    ),
                }
            ),
        )

    def films(self, manual_dir: Path) -> dict[str, Path]:
        """Returns {file name: path} of the images that the label table names."""
        return self._look_into(manual_dir).images

    def tables(self, manual_dir: Path) -> dict[str, Path]:
        """Returns {file name: path} of the official tables; the lung boxes are not among them."""
        labels = nih_tables.LABEL_TABLES[self.builder_config.label_version]
        names = (labels, nih_tables.BOX_LIST, nih_tables.TRAIN_VAL_LIST, nih_tables.TEST_LIST)
        return {name: manual_dir / name for name in names}

    def split_counts(self, manual_dir: Path) -> dict[str, int]:
        """Counts without the lung boxes, which may be made later."""
        folder = self._look_into(manual_dir)
        splits = [self._split(name, folder) for name in self._present(folder)]
        return {split: splits.count(split) for split in _SPLITS if split in splits}

    def other_settings(self, metadata: dict[str, Any], manual_dir: Path) -> list[str]:
        """Compares the validation split, and the lung boxes if their table exists."""
        asked = {"validation_share": self._validation_share, "validation_seed": self._validation_seed}
        other = super().other_settings(metadata, manual_dir)
        other += [
            f"it was prepared with {name} = {metadata[name]}, but {value} was requested"
            for name, value in asked.items()
            if metadata[name] != value
        ]
        box_table = self._box_table(manual_dir)
        if box_table.is_file() and core_files.file_digest(box_table) != metadata["box_table_digest"]:
            other.append(f"it was prepared with other lung boxes than {box_table} holds now")
        return other

    def _box_table(self, manual_dir: Path) -> Path:
        return Path(self._boxes) if self._boxes else manual_dir / BOX_TABLE

    def _look_into(self, manual_dir: Path) -> _Folder:
        if self._folder is None:
            self._folder = self._read_folder(manual_dir)
        return self._folder

    def _read_folder(self, manual_dir: Path) -> _Folder:
        below = find.below(manual_dir)
        pictures = [path for path in below.films if path.suffix == ".png"]
        entry_table = self.tables(manual_dir)[nih_tables.LABEL_TABLES[self.builder_config.label_version]]
        looked = f"in {manual_dir} and all folders below it"
        if not pictures and not entry_table.is_file():
            raise base.NothingFoundError(f"no PNG file and no {entry_table.name} was found {looked}")
        entries = nih_tables.read_entries(entry_table, self.builder_config.label_version, self._faults)
        reference_boxes = nih_tables.read_boxes(manual_dir / nih_tables.BOX_LIST, entries, self._faults)
        train_val, test = nih_tables.read_lists(manual_dir, entries)
        for name in sorted(entries.keys() - train_val - test):
            self._faults.report(name, f"{entry_table}: {name} is in neither official list")
        named = [path for path in pictures if path.name in entries]
        if not named:
            raise base.NothingFoundError(
                f"no image file named in {entry_table} was found; looked for {next(iter(entries), 'PNG files')} and "
                f"{max(0, len(entries) - 1):,} others {looked}; found {len(below.films):,} pictures of other names"
                + (f", first {below.films[0]}" if below.films else "")
            )
        found, different, copies = find.by_name(named)
        for first, second in different:
            self._faults.report(first.name, f"{second} is not the same file as {first}; keep one")
        read = {self._box_table(manual_dir), *self.tables(manual_dir).values()}
        left_out = [each for each in (*below.left_out, *copies) if each.path not in read]
        return _Folder(entries, reference_boxes, test, found, len(pictures) - len(named), left_out)

    def _present(self, folder: _Folder) -> list[str]:
        return [name for name in folder.entries if name in folder.images and name not in self._faults.reasons]

    def _split(self, name: str, folder: _Folder) -> str:
        return "test" if name in folder.test else self._train_or_validation(folder.entries[name].patient)

    def _read_inputs(self, manual_dir: Path) -> base.Inputs:
        folder = self._look_into(manual_dir)
        entries, found = folder.entries, folder.images
        box_table = self._box_table(manual_dir)
        present = self._present(folder)
        if not present:
            name, reason = next(iter(self._faults.reasons.items()))
            raise UserError(f"all {len(found):,} images are bad; {name}: {reason}")
        lungs = self._read_lung_boxes(box_table, present)

        splits = {split: [] for split in _SPLITS}
        for name in lungs:
            boxes = tuple(folder.reference_boxes.get(name, ()))
            splits[self._split(name, folder)].append(Radiograph(name, found[name], entries[name], lungs[name], boxes))
        box_table_digest = core_files.file_digest(box_table)
        return base.Inputs(
            splits={split: items for split, items in splits.items() if items},
            missing=[(name, "radiograph") for name in entries if name not in found],
            left_out=folder.left_out,
            digest=self._digest(
                [
                    *(core_files.file_digest(table) for table in self.tables(manual_dir).values()),
                    box_table_digest,
                    self._validation_share,
                    self._validation_seed,
                    *(f"{name} {found[name].stat().st_size}" for name in lungs),
                ]
            ),
            metadata={
                "label_version": self.builder_config.label_version,
                "validation_share": self._validation_share,
                "validation_seed": self._validation_seed,
                "box_table_digest": box_table_digest,
                "images_that_tell_the_labels": len(nih_tables.revealing(manual_dir, entries)),
                "unknown": folder.unknown,
            },
        )

    def _make_example(self, item: Radiograph) -> dict[str, Any]:
        radiograph = reader.read_radiograph(item.path)
        height, width = radiograph.shape
        if (item.lung.width, item.lung.height) != (width, height):
            raise ValueError(
                f"{item.path}: {width} x {height} pixels, but its lung box was made from an image of "
                f"{item.lung.width} x {item.lung.height}"
            )
        return {
            "name": item.name,
            **crops.cut(radiograph, item.lung.box, self.builder_config.size),
            "labels": item.entry.labels,
            "patient": item.entry.patient,
            "age": item.entry.age,
            "sex": item.entry.sex,
            "view_position": item.entry.view_position,
            "follow_up": item.entry.follow_up,
            "image_size": np.array([height, width], np.int32),
            "original_size": np.array(item.entry.original_size, np.int32),
            "lung_box": np.array(item.lung.box, np.int32),
            "lung_rule": item.lung.rule,
            "reference_boxes": [
                {"finding": reference.finding, "box": _inside(reference, width, height)}
                for reference in item.reference_boxes
            ],
        }

    def _count(self, items: Sequence[Radiograph]) -> dict[str, int]:
        return {"images": len(items), "patients": len({item.entry.patient for item in items})}

    def _train_or_validation(self, patient: int) -> str:
        """Decides by the patient's number alone, so that it is the same for any subset of the files."""
        draw = hashlib.sha256(f"{self._validation_seed}:{patient}".encode()).digest()
        below = int.from_bytes(draw[:8], "big") < self._validation_share * 2**64
        return "validation" if below else "train"

    def _read_lung_boxes(self, path: Path, present: Sequence[str]) -> dict[str, lungs_box_table.BoxRow]:
        """Returns {file name: its row}, for the images that are there, in their order."""
        write_it = "write them with python -m sdfn_jax.lrg"
        if not path.is_file():
            raise UserError(f"no table of lung boxes at {path}; {write_it}, or name the table with --boxes")
        rows = lungs_box_table.read_box_table(path)
        absent = [name for name in present if name not in rows]
        if len(absent) == len(present) or (absent and not self._faults.skip):
            raise UserError(
                f"{path}: no lung box for {len(absent):,} of {len(present):,} images, first: {', '.join(absent[:3])}; "
                f"{write_it}, or leave such images out and list them with --skip_bad_files"
            )
        # A table written with --skip_bad_files has no row for the bad ones.
        for name in absent:
            self._faults.report(name, f"{path}: no lung box for {name}")
        return {name: rows[name] for name in present if name in rows}


def _inside(reference: nih_tables.ReferenceBox, width: int, height: int) -> np.ndarray:
    """Returns a reference box clipped to its image, (4,) float32."""
    box = np.array(reference.box, np.float32)
    clipped = box.clip(0, [width, height, width, height])
    if np.abs(box - clipped).max() > _TOLERANCE:
        raise ValueError(
            f"{reference.source}: the box (left, top, right, bottom) = {tuple(box.round(1).tolist())} is not inside "
            f"its {width} x {height} image"
        )
    return clipped.astype(np.float32)
