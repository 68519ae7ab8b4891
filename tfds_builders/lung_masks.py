"""Radiographs with lung masks, in five fixed folds: what `jsrt` and `montgomery` share."""

import abc
import dataclasses
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from sdfn_jax import images
from tfds_builders import base

FOLDS = 5
DEFAULT_SIZE = 256
RADIOGRAPH, LEFT, RIGHT, BOTH = "radiograph", "left lung mask", "right lung mask", "lung mask"


@dataclasses.dataclass(eq=False, kw_only=True)
class LungMaskConfig(tfds.core.BuilderConfig):
    """A configuration: height and width of the resized views, in pixels."""

    size: int


def config(size: int) -> LungMaskConfig:
    """Returns the configuration for views of `size` x `size` pixels."""
    return LungMaskConfig(name=f"size{size}", description=f"Resized views of {size} x {size} pixels.", size=size)


@dataclasses.dataclass(frozen=True)
class Film:
    """A radiograph and its lung masks (one of both lungs, or one of each)."""

    name: str
    radiograph: Path
    masks: tuple[Path, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that it is read from."""
        return self.radiograph, *self.masks


class LungMaskBuilder(base.RadiographBuilder, skip_registration=True):
    """A set of radiographs with lung masks, whose official numbers decide the folds."""

    OFFICIAL_NAMES: tuple[str, ...]
    HOMEPAGE: str

    @abc.abstractmethod
    def _find_files(self, manual_dir: Path) -> tuple[dict[tuple[str, str], Path], str]:
        """Returns ({(name, part): file}, where it looked); part is one of `RADIOGRAPH`, `LEFT`, `RIGHT`, `BOTH`."""

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
        view = {"shape": (size, size), "dtype": np.uint8, "encoding": "bytes"}
        return self.dataset_info_from_configs(
            homepage=self.HOMEPAGE,
            metadata=tfds.core.MetadataDict(),
            features=tfds.features.FeaturesDict(
                {
                    "name": tfds.features.Text(doc="official name, without a suffix"),
                    "image": tfds.features.Tensor(doc="radiograph, bones bright", **view),
                    "mask": tfds.features.Tensor(doc="share of each pixel in a lung, 0..255", **view),
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
        """Returns {name and part: file}."""
        self.inputs(manual_dir)
        return {" ".join(key): path for key, path in self._files.items()}

    def _read_inputs(self, manual_dir: Path) -> base.Inputs:
        files, searched = self._find_files(manual_dir)
        self._files = files
        films, missing = {}, []
        for name in sorted({*self.OFFICIAL_NAMES, *(name for name, _ in files)}):
            masks = (BOTH,) if (name, BOTH) in files else (LEFT, RIGHT)
            absent = [part for part in (RADIOGRAPH, *masks) if (name, part) not in files]
            missing += [(name, part) for part in absent]
            if not absent and name not in self._faults.reasons:
                films[name] = Film(name, files[name, RADIOGRAPH], tuple(files[name, part] for part in masks))
        if not films:
            raise base.NothingFoundError(
                f"no radiograph with its lung masks was found in {searched}; found {_how_many(files)}\n"
                f"{self.MANUAL_DOWNLOAD_INSTRUCTIONS}"
            )
        splits = {f"fold_{fold}": [] for fold in range(FOLDS)}
        for name, film in films.items():
            splits[f"fold_{self._number(name) % FOLDS}"].append(film)
        return base.Inputs(
            splits={split: items for split, items in splits.items() if items},
            missing=missing,
            digest=self._digest((*key, path.stat().st_size) for key, path in sorted(files.items())),
        )

    def _make_example(self, item: Film) -> dict[str, Any]:
        radiograph = images.read_radiograph(item.radiograph)
        lungs = self._read_lungs(item, radiograph.shape)
        size = (self.builder_config.size, self.builder_config.size)
        png = io.BytesIO()
        Image.fromarray(lungs).save(png, "PNG", compress_level=1)
        return {
            "name": item.name,
            "image": images.resize(radiograph, size),
            "mask": images.resize(lungs, size),
            "mask_original": png.getvalue(),
            "image_size": np.array(radiograph.shape, np.int32),
        }

    def _read_lungs(self, film: Film, radiograph: tuple[int, int]) -> np.ndarray:
        """Returns both lungs, (H, W) uint8 of 0 and 255."""
        lungs = None
        for path in film.masks:
            mask = images.read_radiograph(path)
            if not self._fits(mask.shape, radiograph) or (lungs is not None and mask.shape != lungs.shape):
                other = film.radiograph if lungs is None else film.masks[0]
                raise ValueError(
                    f"{path}: a mask of {_size(mask.shape)} pixels does not fit {other} with "
                    f"{_size(radiograph if lungs is None else lungs.shape)}"
                )
            if not mask.any():
                raise ValueError(f"{path}: an empty mask")
            # Copies carry {0, 255} or {0, 1}.
            inside = mask > mask.max() // 2
            lungs = inside if lungs is None else lungs | inside
        return np.where(lungs, np.uint8(255), np.uint8(0))


def _how_many(files: Iterable[tuple[str, str]]) -> str:
    parts = [part for _, part in files]
    return ", ".join(f"{parts.count(part)} {part}s" for part in (RADIOGRAPH, LEFT, RIGHT, BOTH))


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[1]} x {shape[0]}"
