"""Radiographs -> their lungs: a lung region generator with its post-processing (B.2)."""

import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from sdfn_jax.core.arguments import BATCH_SIZE
from sdfn_jax.core.parallel import map_in_order
from sdfn_jax.lungs import lung_boxes
from sdfn_jax.lungs.lung_boxes import LungRegion, PostProcessing
from sdfn_jax.lungs.segmenter import Segmenter
from sdfn_jax.radiographs import opening, pixels
from sdfn_jax.radiographs.opening import ImageArray, ImageFile, Unreadable


@dataclasses.dataclass(frozen=True, eq=False)
class Lungs:
    """The lungs of one radiograph.

    Attributes:
      name: of the file or array.
      size: (height, width) of the radiograph, in pixels.
      resized: (S, S) uint8, the radiograph as the network sees it before the contrast normalisation.
      region: what the post-processing made of the network's mask.
    """

    name: str
    size: tuple[int, int]
    resized: np.ndarray
    region: LungRegion

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) in pixels of the radiograph, half-open: `radiograph[top:bottom, left:right]`."""
        return self.region.box

    @property
    def rule(self) -> str:
        """`none`, or the rules of B.2.2 that fired, joined by `+`."""
        return self.region.rule

    @functools.cached_property
    def mask(self) -> np.ndarray:
        """(H, W) bool at the radiograph's size: the lungs that the rules kept, enlarged from the network's mask."""
        return pixels.resize(self.region.kept * np.uint8(255), self.size) > 127


@dataclasses.dataclass(frozen=True, eq=False)
class LungFinder:
    """A lung region generator and its post-processing.

    Attributes:
      segmenter: radiographs -> masks.
      postprocessing: masks -> boxes.
    """

    segmenter: Segmenter
    postprocessing: PostProcessing

    @classmethod
    def load(cls, run: str | Path, batch_size: int = BATCH_SIZE) -> "LungFinder":
        """Loads a trained lung region generator, with the post-processing that its config names.

        Args:
          run: its folder, such as `runs/lrg`.
          batch_size: radiographs that the network takes at a time.

        Raises:
          UserError: if `run` holds no trained checkpoint, or one of another stage; a ValueError.
        """
        segmenter = Segmenter.load(run, batch_size)
        return cls(segmenter, segmenter.postprocessing)

    def __call__(
        self, radiographs: str | os.PathLike | ArrayLike | Iterable[str | os.PathLike | ArrayLike]
    ) -> Lungs | Iterator[Lungs | Unreadable]:
        """Finds the lungs of one radiograph or of many.

        Args:
          radiographs: a path, an (H, W) array in any form that `grey_levels.as_radiograph` takes, or an iterable of
            these.

        Returns:
          the lungs of one; of many an iterator, in order, with an `Unreadable` for each that cannot be read.

        Raises:
          ValueError: for one radiograph that cannot be read as one.
          OSError: for one file that cannot be opened.
          TypeError: for anything else than a path or an array.
        """
        if not opening.is_one(radiographs):
            return self.stream(opening.as_images(radiographs))
        image = opening.as_image(radiographs)
        (found,) = self.single.stream([ImageArray(image.name, *image.load())])
        return found

    @functools.cached_property
    def single(self) -> "LungFinder":
        """The same, compiled for one radiograph at a time."""
        return dataclasses.replace(self, segmenter=dataclasses.replace(self.segmenter, batch_size=1))

    def stream(self, images: Iterable[ImageFile | ImageArray]) -> Iterator[Lungs | Unreadable]:
        """Finds the lungs of many radiographs, in order: reading, the network and post-processing run side by side.

        At most some ten batches are in memory, each radiograph at the network's size.

        Yields:
          `Lungs` for each image, or `Unreadable`.
        """

        def read(image: ImageFile | ImageArray) -> tuple[tuple | Unreadable, np.ndarray | None]:
            loaded = opening.load(image)
            if isinstance(loaded, Unreadable):
                return loaded, None
            radiograph, _ = loaded
            resized = self.shrink(radiograph)
            return (image.name, radiograph.shape, resized), resized

        def box(found: tuple) -> Lungs | Unreadable:
            kept, mask = found
            if mask is None:
                return kept
            name, size, resized = kept
            return Lungs(name, size, resized, self.region(mask, size))

        return map_in_order(box, self.segmenter.masks(images, read))

    def shrink(self, radiograph: np.ndarray) -> np.ndarray:
        """(H, W) uint8 -> (S, S) uint8, the size at which the network works."""
        return pixels.resize(radiograph, (self.segmenter.size,) * 2)

    def region(self, mask: np.ndarray, size: tuple[int, int]) -> LungRegion:
        """(S, S) bool mask -> the lung region of a radiograph of `size` (height, width)."""
        return lung_boxes.lung_box(mask, size, self.postprocessing)


load_lungs = LungFinder.load
