"""Radiographs with findings, each entire and as its lung region: what the classifiers' data sets share."""

import abc
import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sdfn_jax.core import files as core_files
from sdfn_jax.core import sealed
from sdfn_jax.core.errors import UserError
from sdfn_jax.lungs import box_table as lungs_box_table
from sdfn_jax.radiographs import crops, find, reader
from tfds_builders import base, registry

DEFAULT_SIZE = 224  # pixels (B.3)
BOX_TABLE = "lung_boxes.csv"
SPLITS = ("train", "validation", "test")
# In place of a split: films of which a share of the patients goes to validation.
TRAIN_VAL = "train_val"
# Hand-drawn boxes are floats; one that leaves its image by rounding is clipped.
_TOLERANCE = 1.0
_Rows = Mapping[str, lungs_box_table.BoxRow]


@dataclasses.dataclass(frozen=True)
class LabelledFilm:
    """An available radiograph.

    Attributes:
      name: its name in the prepared set and in the box table, unlike that of any other.
      path: its file.
      patient: as the tables call them.
      split: one of `SPLITS`; `TRAIN_VAL`; or None, for the draw by patient to decide.
      lung: its row of the box table; None as long as that is not read.
    """

    name: str
    path: Path
    patient: str
    split: str | None
    lung: lungs_box_table.BoxRow | None = dataclasses.field(default=None, kw_only=True)

    @property
    def files(self) -> tuple[Path, ...]:
        """The file that it is read from."""
        return (self.path,)


@dataclasses.dataclass(frozen=True)
class Folder:
    """What the user's folder holds, except the lung boxes.

    Attributes:
      films: {name: film} of the available films that the tables name, in the order of the tables.
      missing: (name, what is missing of it) of the other films that the tables name.
      left_out: what else was left out.
      findings: names of the labels, in their order.
      metadata: further metadata of the prepared set.
    """

    films: dict[str, Any]
    missing: list[tuple[str, str]]
    left_out: list[find.LeftOut]
    findings: tuple[str, ...]
    metadata: dict[str, Any]


class LabelledFilmsBuilder(base.RadiographBuilder, skip_registration=True):
    """Radiographs with findings, split by patient, each with its lung box.

    A subclass reads its tables (`_read_folder`), and describes a film (`_describe`).
    """

    METADATA = base.METADATA | {
        "label_version": sealed.TEXT,
        "findings": sealed.Later(sealed.several(sealed.TEXT)),
        "validation_share": sealed.SHARE,
        "validation_seed": sealed.WHOLE,
        "box_table_digest": sealed.TEXT,
    }

    def __init__(
        self,
        *,
        boxes: str | os.PathLike[str] | None = None,
        validation_share: float = registry.SPLIT["validation_share"],
        validation_seed: int = registry.SPLIT["validation_seed"],
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
        self._draws: dict[str, float | int] = {"validation_share": validation_share, "validation_seed": validation_seed}
        self._folder: Folder | None = None
        super().__init__(**kwargs)

    @abc.abstractmethod
    def _read_folder(self, manual_dir: Path) -> Folder:
        """Finds films and reads tables; decodes nothing.

        Raises:
          NothingFoundError: if there is no film.
          UserError: for what else the user must fix.
        """

    @abc.abstractmethod
    def _describe(self, film: Any, height: int, width: int) -> dict[str, Any]:
        """Returns the features of an example that are the set's own.

        Args:
          film: of `Folder.films`.
          height: of the decoded radiograph, in pixels.
          width: of the decoded radiograph, in pixels.

        Raises:
          ValueError: for what does not fit the radiograph.
        """

    def films(self, manual_dir: Path) -> dict[str, Path]:
        """Returns {name: path} of the films that the tables name."""
        return {name: film.path for name, film in self._look_into(manual_dir).films.items()}

    def findings(self, manual_dir: Path) -> tuple[str, ...]:
        """Returns the names of the labels, in their order."""
        return tuple(self._look_into(manual_dir).findings)

    def split_counts(self, manual_dir: Path) -> dict[str, int]:
        """Counts without the lung boxes, which may be made later."""
        splits = [self._split(film) for film in self._good(self._look_into(manual_dir))]
        return {split: splits.count(split) for split in SPLITS if split in splits}

    def other_settings(self, metadata: dict[str, Any], manual_dir: Path) -> list[str]:
        """Compares the draws of splits, and the lung boxes if their table exists."""
        other = super().other_settings(metadata, manual_dir)
        other += [
            f"it was prepared with {name} = {metadata[name]}, but {value} was requested"
            for name, value in self._draws.items()
            if metadata[name] != value
        ]
        box_table = self._box_table(manual_dir)
        if box_table.is_file() and core_files.file_digest(box_table) != metadata["box_table_digest"]:
            other.append(f"it was prepared with other lung boxes than {box_table} holds now")
        return other

    def _box_table(self, manual_dir: Path) -> Path:
        return Path(self._boxes) if self._boxes else manual_dir / BOX_TABLE

    def _look_into(self, manual_dir: Path) -> Folder:
        if self._folder is None:
            self._folder = self._read_folder(manual_dir)
        return self._folder

    def _good(self, folder: Folder) -> list[Any]:
        return [film for name, film in folder.films.items() if name not in self._faults.reasons]

    def _read_inputs(self, manual_dir: Path) -> base.Inputs:
        folder = self._look_into(manual_dir)
        films = self._good(folder)
        if not films:
            name, reason = next(iter(self._faults.reasons.items()))
            raise UserError(f"all {len(folder.films):,} images are bad; {name}: {reason}")
        box_table = self._box_table(manual_dir)
        lungs = self._read_lung_boxes(box_table, films)
        films = [dataclasses.replace(film, lung=lungs[film.name]) for film in films if film.name in lungs]
        splits: dict[str, list[LabelledFilm]] = {split: [] for split in SPLITS}
        for film in films:
            splits[self._split(film)].append(film)
        box_table_digest = core_files.file_digest(box_table)
        return base.Inputs(
            splits={split: items for split, items in splits.items() if items},
            missing=folder.missing,
            left_out=[each for each in folder.left_out if each.path != box_table],
            digest=self._digest(
                [
                    *(core_files.file_digest(table) for table in self.tables(manual_dir).values()),
                    box_table_digest,
                    *self._draws.values(),
                    *(f"{film.name} {film.path.stat().st_size}" for film in films),
                ]
            ),
            metadata={
                "findings": list(folder.findings),
                **self._draws,
                "box_table_digest": box_table_digest,
                **folder.metadata,
            },
        )

    def _make_example(self, item: Any) -> dict[str, Any]:
        radiograph = reader.read_radiograph(item.path)
        height, width = radiograph.shape
        lung = item.lung
        if (lung.width, lung.height) != (width, height):
            raise ValueError(
                f"{item.path}: {width} x {height} pixels, but its lung box was made from an image of "
                f"{lung.width} x {lung.height}"
            )
        return {
            "name": item.name,
            **crops.cut(radiograph, lung.box, self.builder_config.size),
            "image_size": np.array([height, width], np.int32),
            "lung_box": np.array(lung.box, np.int32),
            "lung_rule": lung.rule,
            **self._describe(item, height, width),
        }

    def _count(self, items: Sequence[Any]) -> dict[str, int]:
        return {"images": len(items), "patients": len({item.patient for item in items})}

    def _split(self, film: LabelledFilm) -> str:
        """Decides by split and patient alone, so that it is the same for any subset of the files."""
        split = film.split
        if split is None:
            split = "test" if self._drawn("test_share", film.patient) else TRAIN_VAL
        if split != TRAIN_VAL:
            return split
        return "validation" if self._drawn("validation_share", film.patient) else "train"

    def _drawn(self, share: str, patient: str) -> bool:
        """Returns whether the draw for a share takes a patient."""
        own = "" if share == "validation_share" else f"{share}:"  # a draw of its own for each share
        draw = hashlib.sha256(f"{self._draws['validation_seed']}:{own}{patient}".encode()).digest()
        return int.from_bytes(draw[:8], "big") < self._draws[share] * 2**64

    def _read_lung_boxes(self, path: Path, films: Sequence[LabelledFilm]) -> _Rows:
        """Returns {name: its row}, for the given films, in their order."""
        write_it = "write them with python -m sdfn_jax.lrg"
        if not path.is_file():
            raise UserError(f"no table of lung boxes at {path}; {write_it}, or name the table with --boxes")
        rows = _by_film(lungs_box_table.read_box_table(path), films)
        absent = [film.name for film in films if film.name not in rows]
        if len(absent) == len(films) or (absent and not self._faults.skip):
            raise UserError(
                f"{path}: no lung box for {len(absent):,} of {len(films):,} images, first: {', '.join(absent[:3])}; "
                f"{write_it}, or leave such images out and list them with --skip_bad_files"
            )
        # A table written with --skip_bad_files has no row for the bad ones.
        for name in absent:
            self._faults.report(name, f"{path}: no lung box for {name}")
        return rows


def _by_film(rows: _Rows, films: Sequence[LabelledFilm]) -> _Rows:
    """Returns {name of a film: its row}; by the files' own names where these are different on either side."""
    by_file = {Path(name).name: row for name, row in rows.items()}
    if len(by_file) < len(rows) or len({film.path.name for film in films}) < len(films):
        by_file = {}
    found = {film.name: rows.get(film.name, by_file.get(film.path.name)) for film in films}
    return {name: row for name, row in found.items() if row is not None}


def inside(edges: Sequence[float], width: int, height: int, source: str) -> np.ndarray:
    """Returns a reference box clipped to its image.

    Args:
      edges: (left, top, right, bottom) in pixels of the image.
      width: of the image.
      height: of the image.
      source: file and row, for the message.

    Returns:
      (4,) float32.

    Raises:
      ValueError: for a box that leaves the image by more than a pixel.
    """
    box = np.array(edges, np.float32)
    clipped = box.clip(0, [width, height, width, height])
    if np.abs(box - clipped).max() > _TOLERANCE:
        raise ValueError(
            f"{source}: the box (left, top, right, bottom) = {tuple(box.round(1).tolist())} is not inside its "
            f"{width} x {height} image"
        )
    return clipped.astype(np.float32)
