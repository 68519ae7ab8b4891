"""Many radiographs through the lung region generator, in order."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from sdfn_jax.core import sources
from sdfn_jax.core.parallel import in_batches, map_in_order, one_ahead
from sdfn_jax.lungs import lung_boxes
from sdfn_jax.lungs.contrast import contrast
from sdfn_jax.lungs.lung_boxes import LungRegion, PostProcessing
from sdfn_jax.lungs.segmenter import THRESHOLD, Segmenter
from sdfn_jax.radiographs import pixels, reader


@dataclasses.dataclass(frozen=True, eq=False)
class Film:
    """One radiograph on its way through the lung region generator.

    Attributes:
      path: its file.
      resized: (S, S) uint8, as the network sees it before the contrast normalisation.
      size: (height, width) of the file, in pixels.
      region: its lung region.
      problem: what is wrong with a file that cannot be read; resized, size and region are then None. None otherwise.
      source: the file as it was read, for a record; None for a film that comes from no file, or could not be opened.
    """

    path: Path
    resized: np.ndarray | None = None
    size: tuple[int, int] | None = None
    region: LungRegion | None = None
    problem: str | None = None
    source: sources.Source | None = None


def segment_films(segmenter: Segmenter, paths: Iterable[Path], postprocessing: PostProcessing) -> Iterator[Film]:
    """Finds the lung region of every film, in order: reading, the network and post-processing run side by side.

    Threads read ahead of the network, and threads box what comes out of it; at most some ten batches are in memory. A
    film is always in the same batch, at the same place, for the same `paths`; an unreadable one leaves its place empty.

    Yields:
      a `Film` for each path; one that cannot be read has a `problem` and no region.
    """

    def read(path: Path) -> tuple[Film, np.ndarray]:
        source = None
        try:
            source = sources.look_at(path)
            image = reader.read_radiograph(path)
        except (ValueError, OSError) as error:
            return Film(path, problem=str(error), source=source), np.zeros((segmenter.size,) * 2, np.float32)
        resized = pixels.resize(image, (segmenter.size,) * 2)
        return Film(path, resized, image.shape, source=source), contrast(resized, segmenter.contrast)

    def masks() -> Iterator[tuple[Film, np.ndarray]]:
        batches = in_batches(map_in_order(read, paths), segmenter.batch_size)
        for films, found in one_ahead(map(start, batches)):
            yield from zip(films, np.asarray(found) > THRESHOLD, strict=False)

    def start(batch: Sequence[tuple[Film, np.ndarray]]) -> tuple[Sequence[Film], jax.Array]:
        films, inputs = zip(*batch, strict=True)
        return films, segmenter.start(np.stack(inputs))

    def box(film_and_mask: tuple[Film, np.ndarray]) -> Film:
        film, mask = film_and_mask
        if film.problem is not None:
            return film
        return dataclasses.replace(film, region=lung_boxes.lung_box(mask, film.size, postprocessing))

    return map_in_order(box, masks())
