"""Radiographs -> their lungs: a lung region generator with its post-processing (B.2)."""

import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import ArrayLike

from sdfn_jax.core.arguments import BATCH_SIZE
from sdfn_jax.core.parallel import map_in_order
from sdfn_jax.lungs import doubt, lung_boxes
from sdfn_jax.lungs.lung_boxes import LungRegion, PostProcessing
from sdfn_jax.lungs.mask import THRESHOLD, decided, enlarge
from sdfn_jax.lungs.segmenter import Segmenter
from sdfn_jax.radiographs import flags, opening, pixels, quality
from sdfn_jax.radiographs.opening import ImageArray, ImageFile, Unreadable


@dataclasses.dataclass(frozen=True, eq=False)
class Lungs:
    """The lungs of one radiograph.

    Attributes:
      name: of the file or array.
      size: (height, width) of the radiograph, in pixels.
      resized: (S, S) uint8, the radiograph as the network sees it before the contrast normalisation.
      probabilities: (S, S) float32, the network's, of each pixel being lung.
      region: what the post-processing made of them.
      flags: names from `flags.FLAGS` of what looks wrong; empty for an ordinary film.
    """

    name: str
    size: tuple[int, int]
    resized: np.ndarray
    probabilities: np.ndarray
    region: LungRegion
    flags: tuple[str, ...]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) in pixels of the radiograph, half-open: `radiograph[top:bottom, left:right]`."""
        return self.region.box

    @property
    def rule(self) -> str:
        """`none`, or the rules of B.2.2 that fired, joined by `+`."""
        return self.region.rule

    @property
    def confidence(self) -> float:
        """The Dice coefficient that the mask is expected to have, 0 to 1 (`doubt.confidence`)."""
        return self.region.confidence

    @functools.cached_property
    def mask(self) -> np.ndarray:
        """(H, W) bool at the radiograph's size: the lungs that the rules kept."""
        return enlarge(decided(self.probabilities, self.region.kept), self.size)


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
    def load(cls, run: str | Path | None = None, batch_size: int = BATCH_SIZE) -> "LungFinder":
        """Loads a trained lung region generator, with the post-processing that its config names.

        Args:
          run: its folder, such as `runs/lrg`; None stands for the one that comes with the package, which was trained
            on adult frontal radiographs (`lungs/shipped/MODEL_CARD.md`).
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
        return cast(Lungs, found)  # the radiograph was loaded

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
            radiograph, carried = loaded
            resized = self.shrink(radiograph)
            return (image.name, radiograph.shape, resized, quality.check(radiograph) + carried), resized

        def box(found: tuple) -> Lungs | Unreadable:
            kept, probabilities = found
            if probabilities is None:
                return kept
            name, size, resized, noticed = kept
            return self.lungs(name, size, resized, probabilities, noticed)

        return map_in_order(box, self.segmenter.stream(images, read))

    def shrink(self, radiograph: np.ndarray) -> np.ndarray:
        """(H, W) uint8 -> (S, S) uint8, the size at which the network works."""
        return pixels.resize(radiograph, (self.segmenter.size,) * 2)

    def lungs(
        self,
        name: str,
        size: tuple[int, int],
        resized: np.ndarray,
        probabilities: np.ndarray,
        noticed: tuple[str, ...] = (),
    ) -> Lungs:
        """Post-processes what the network found on one radiograph.

        Args:
          name: of the radiograph.
          size: (height, width) of it.
          resized: (S, S) uint8.
          probabilities: (S, S) float32 in [0, 1].
          noticed: names from `flags.FLAGS` that it carries already.
        """
        region = self.region(probabilities, size)
        found = flags.in_order(noticed + self.doubts(region, size))
        return Lungs(name, size, resized, probabilities, region, found)

    def region(self, probabilities: np.ndarray, size: tuple[int, int]) -> LungRegion:
        """(S, S) float32 probabilities -> the lung region of a radiograph of `size` (height, width)."""
        region = lung_boxes.lung_box(probabilities > THRESHOLD, size, self.postprocessing)
        return dataclasses.replace(region, confidence=doubt.confidence(probabilities, region.kept))

    def doubts(self, region: LungRegion, size: tuple[int, int]) -> tuple[str, ...]:
        """Names what speaks against a lung region (`doubt.doubts`)."""
        return doubt.doubts(region, size, self.segmenter.least_confidence)


load_lungs = LungFinder.load
