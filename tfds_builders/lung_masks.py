"""Radiographs with lung masks, in five fixed folds: what `jsrt` and `montgomery` share."""

import abc
import dataclasses
import filecmp
import io
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from sdfn_jax.radiographs import find, pixels, reader
from tfds_builders import base, levels
from tfds_builders.registry import FOLDS

_DEFAULT_SIZE = 256
RADIOGRAPH, LEFT, RIGHT, BOTH = "radiograph", "left lung mask", "right lung mask", "lung mask"
_OTHER = "a mask of another structure"
# What a folder holds, by the letters of its name without `png`, `gif` and the like at its end: SCR's `left lung`,
# Montgomery's `leftMask`, copies' `left_lung_png`, `masks`, `heart`.
_FOLDERS = (
    (re.compile(r".*(heart|clavicle).*"), _OTHER),
    (re.compile(r"left(lung)?s?(masks?)?"), LEFT),
    (re.compile(r"right(lung)?s?(masks?)?"), RIGHT),
    (re.compile(r"(both)?(lungs?(masks?)?|masks?)"), BOTH),
    (re.compile(r".*(image|cxr|xray|film|radiograph|raw|original).*|img|org"), RADIOGRAPH),
)
_FORMAT = re.compile(r"(png|gif|jpe?g|bmp|tiff?|img)$")
# These say nothing about their content: the folder above does.
_NEUTRAL = re.compile(r"(fold|train|training|val|validation|test|part|set)?")
# Marks in the name of a file that is a mask of both lungs.
_MARK = r"([ _-]?(msk|mask|lungs?|lung_?masks?))?"


@dataclasses.dataclass(eq=False, kw_only=True)
class LungMaskConfig(tfds.core.BuilderConfig):
    """A configuration: height and width of the resized radiograph and mask, in pixels."""

    size: int


def config(size: int | None = None) -> LungMaskConfig:
    """Returns the configuration for radiographs and masks of `size` x `size` pixels; of 256 x 256 if None."""
    size = size or _DEFAULT_SIZE
    return LungMaskConfig(
        name=f"size{size}", description=f"Radiographs and masks, resized to {size} x {size} pixels.", size=size
    )


@dataclasses.dataclass(frozen=True)
class Film:
    """A radiograph and its lung masks.

    Attributes:
      name: the official one.
      radiograph: its file.
      masks: {`BOTH`, `LEFT` or `RIGHT`: files}; of both lungs, or of each, or all three. Several files of one
        kind must show the same.
    """

    name: str
    radiograph: Path
    masks: dict[str, list[Path]]

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that it is read from."""
        return self.radiograph, *(path for paths in self.masks.values() for path in paths)


class LungMaskBuilder(base.RadiographBuilder, skip_registration=True):
    """A set of radiographs with lung masks, whose official numbers decide the folds."""

    OFFICIAL_NAMES: tuple[str, ...]
    HOMEPAGE: str
    # A pattern of an official name, and the suffixes of the official files: they come before copies of other formats.
    NAME: str
    BUILDER_CONFIGS = [config()]
    config = staticmethod(config)  # type: ignore[assignment]  # it has no settings
    OFFICIAL_SUFFIXES: tuple[str, ...] = ()

    @staticmethod
    @abc.abstractmethod
    def _number(name: str) -> int:
        """Returns the official number in a name."""

    @staticmethod
    @abc.abstractmethod
    def _fits(mask: tuple[int, int], radiograph: tuple[int, int]) -> bool:
        """Returns whether a mask of this (height, width) may belong to a radiograph of that."""

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.size
        square = {"shape": (size, size), "dtype": np.uint8, "encoding": "bytes"}
        return self.dataset_info_from_configs(
            homepage=self.HOMEPAGE,
            metadata=tfds.core.MetadataDict(),
            features=tfds.features.FeaturesDict(
                {
                    "name": tfds.features.Text(doc="official name, without a suffix"),
                    "image": tfds.features.Tensor(doc="radiograph, bones bright", **square),
                    "mask": tfds.features.Tensor(doc="share of each pixel in a lung, 0..255", **square),
                    "mask_original": tfds.features.Image(
                        shape=(None, None, 1), encoding_format="png", doc="both lungs, 0 or 255, as large as the mask"
                    ),
                    "image_size": tfds.features.Tensor(
                        shape=(2,), dtype=np.int32, doc="height, width of the radiograph's file"
                    ),
                }
            ),
        )

    def films(self, manual_dir: Path) -> dict[str, Path]:
        """Returns {name and part: file}, further files of the same with a number."""
        self.inputs(manual_dir)
        return {
            " ".join((*key, str(number) if number > 1 else "")).rstrip(): path
            for key, paths in self._files.items()
            for number, path in enumerate(paths, start=1)
        }

    def _read_inputs(self, manual_dir: Path) -> base.Inputs:
        found, left_out = self._find_files(manual_dir)
        radiographs = {
            name: self._one_of(name, paths, left_out) for (name, part), paths in found.items() if part == RADIOGRAPH
        }
        self._files = found
        films, missing = {}, []
        for name in sorted({*self.OFFICIAL_NAMES, *(name for name, _ in found)}):
            masks = {part: found[name, part] for part in (BOTH, LEFT, RIGHT) if (name, part) in found}
            absent = [] if name in radiographs else [RADIOGRAPH]
            absent += [] if BOTH in masks else [part for part in (LEFT, RIGHT) if part not in masks]
            missing += [(name, part) for part in absent]
            if not absent and name not in self._faults.reasons:
                films[name] = Film(name, radiographs[name], masks)
        if not films:
            raise base.NothingFoundError(
                f"no radiograph with its lung masks was found in {manual_dir} and all folders below it; found "
                f"{_how_many(found)}\n{find.describe(left_out)}\n{self.MANUAL_DOWNLOAD_INSTRUCTIONS}"
            )
        splits: dict[str, list[Film]] = {f"fold_{fold}": [] for fold in range(FOLDS)}
        for name, film in films.items():
            splits[f"fold_{self._number(name) % FOLDS}"].append(film)
        return base.Inputs(
            splits={split: items for split, items in splits.items() if items},
            missing=missing,
            left_out=left_out,
            digest=self._digest((*key, path.stat().st_size) for key, paths in sorted(found.items()) for path in paths),
        )

    def _find_files(self, manual_dir: Path) -> tuple[dict[tuple[str, str], list[Path]], list[find.LeftOut]]:
        """Returns ({(name, part): files, the official format first}, what was left out)."""
        below = find.below(manual_dir)
        found: dict[tuple[str, str], list[Path]] = {}
        left_out = list(below.left_out)
        for path in below.films:
            name, marked = self._official_name(path)
            part = _part(path.parent.relative_to(manual_dir))
            if part == RADIOGRAPH and marked:
                part = BOTH
            if name is None:
                left_out.append(find.LeftOut(path, "not a name of this data set"))
            elif part == _OTHER:
                left_out.append(find.LeftOut(path, _OTHER))
            else:
                found.setdefault((name, part), []).append(path)
        for paths in found.values():
            paths.sort(key=lambda path: path.suffix.lower() not in self.OFFICIAL_SUFFIXES)
        return found, left_out

    def _official_name(self, path: Path) -> tuple[str | None, bool]:
        """Returns (the official name in a file's name, whether the file is marked as a mask)."""
        stem = path.name
        while Path(stem).suffix.lower() in reader.SUFFIXES:  # NAME.IMG.png too
            stem = Path(stem).stem
        match = re.fullmatch(f"(?P<name>{self.NAME}){_MARK}", stem, re.IGNORECASE)
        if match is None:
            return None, False
        name = match["name"]
        return name.upper() if self.OFFICIAL_NAMES else name, name != stem

    def _one_of(self, name: str, paths: list[Path], left_out: list[find.LeftOut]) -> Path:
        """Returns the radiograph to use: the official file, whatever copies there are, or one of equal files."""
        first, *others = paths
        for other in others:
            official = [path.suffix.lower() in self.OFFICIAL_SUFFIXES for path in (first, other)]
            if official == [True, False] or filecmp.cmp(first, other, shallow=False):
                left_out.append(find.LeftOut(other, "a copy", f"of {first}"))
            else:
                self._faults.report(
                    name,
                    f"{other}: a second radiograph of {name}, next to {first}; keep one, and name a folder of lung "
                    "masks `masks`, or `left lung` and `right lung`",
                )
        return first

    def _make_example(self, item: Film) -> dict[str, Any]:
        radiograph = reader.read_radiograph(item.radiograph)
        if levels.is_mask(radiograph):
            raise ValueError(
                f"{item.radiograph}: two grey levels, like a mask; expected a radiograph. Name a folder of lung masks "
                "`masks`, or `left lung` and `right lung`, and remove other masks"
            )
        lungs = self._read_lungs(item, radiograph.shape)
        size = (self.builder_config.size, self.builder_config.size)
        png = io.BytesIO()
        Image.fromarray(lungs).save(png, "PNG", compress_level=1)
        return {
            "name": item.name,
            "image": pixels.resize(radiograph, size),
            "mask": pixels.resize(lungs, size),
            "mask_original": png.getvalue(),
            "image_size": np.array(radiograph.shape, np.int32),
        }

    def _read_lungs(self, film: Film, radiograph: tuple[int, int]) -> np.ndarray:
        """Returns both lungs, (H, W) uint8 of 0 and 255."""
        found = {}
        for part, (first, *others) in film.masks.items():
            found[part] = self._read_mask(first, part, film.radiograph, radiograph)
            for other in others:
                _check_equal(found[part], first, self._read_mask(other, part, film.radiograph, radiograph), other)
        if LEFT in found and RIGHT in found:
            (left, *_), (right, *_) = film.masks[LEFT], film.masks[RIGHT]
            _check_fits(found[RIGHT].shape, right, found[LEFT].shape, left, lambda one, other: one == other)
            union = found[LEFT] | found[RIGHT]
            if BOTH in found:
                _check_equal(found[BOTH], film.masks[BOTH][0], union, left)
            found[BOTH] = union
        return np.where(found[BOTH], np.uint8(255), np.uint8(0))

    def _read_mask(self, path: Path, part: str, film: Path, radiograph: tuple[int, int]) -> np.ndarray:
        mask = reader.read_radiograph(path)
        _check_fits(mask.shape, path, radiograph, film, self._fits)
        try:
            return levels.lungs(mask, both=part == BOTH)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error


def _part(folder: Path) -> str:
    """Returns what the files of a folder are, by the nearest folder name in its path that says so."""
    unknown = False
    for name in reversed(folder.parts):
        letters = _FORMAT.sub("", re.sub(r"[^a-z]", "", name.lower()))
        if part := next((part for pattern, part in _FOLDERS if pattern.fullmatch(letters)), None):
            # A folder of masks may hold folders of other masks, whatever they are called.
            return _OTHER if unknown and part != RADIOGRAPH else part
        unknown = unknown or _NEUTRAL.fullmatch(letters) is None
    return RADIOGRAPH


def _check_fits(
    mask: tuple[int, int],
    path: Path,
    other: tuple[int, int],
    other_path: Path,
    fits: Callable[[tuple[int, int], tuple[int, int]], bool],
) -> None:
    if not fits(mask, other):
        raise ValueError(f"{path}: a mask of {_size(mask)} pixels does not fit {other_path} with {_size(other)}")


def _check_equal(lungs: np.ndarray, path: Path, other: np.ndarray, other_path: Path) -> None:
    if not np.array_equal(lungs, other):
        raise ValueError(f"{other_path}: not the same lungs as {path}; keep the right one")


def _how_many(found: Iterable[tuple[str, str]]) -> str:
    parts = [part for _, part in found]
    return ", ".join(f"{parts.count(part)} {part}s" for part in (RADIOGRAPH, LEFT, RIGHT, BOTH))


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[1]} x {shape[0]}"
