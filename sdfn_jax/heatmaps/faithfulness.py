"""Does a heatmap show what the network uses? The arithmetic of the checks. No JAX.

Deletion and insertion (Petsiuk et al., BMVC 2018): grey out the hottest pixels first and watch the probability fall, or
show them first on a grey image and watch it rise. Weight randomisation (Adebayo et al., NeurIPS 2018): a heatmap that
stays the same under random weights shows the image, not the network.
"""

from collections.abc import Mapping

import numpy as np
from scipy.stats import spearmanr

from sdfn_jax.heatmaps import cam

FRACTIONS = np.linspace(0, 1, 11)  # of the pixels that are greyed out or shown


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Returns Spearman's correlation of two heatmaps of one shape; 0 if one of them is the same everywhere."""
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(spearmanr(one, other, axis=None).statistic)


def shuffled(maps: Mapping[str, np.ndarray], generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Moves the cells of each map, (h, w), to random places: the same values and smoothness, about nothing."""
    return {branch: generator.permutation(each.ravel()).reshape(each.shape) for branch, each in maps.items()}


def hottest(
    heatmap: np.ndarray, lung_box: tuple[int, int, int, int] | None, sides: Mapping[str, int]
) -> dict[str, np.ndarray]:
    """Returns which pixels of each branch's image are the hottest, for each of `FRACTIONS` of the pixels.

    A place of the radiograph is chosen or not in both images: what is greyed out in one is not left in the other.

    Args:
      heatmap: (H, W) float, on the radiograph.
      lung_box: of the branches in `cam.CROPPED`, half-open; None if there is none of them.
      sides: {branch: side of its image}.

    Returns:
      {branch: (fractions, side, side) bool}. The fractions are of the entire image, or of the lung region's if the
      network sees nothing else; more is chosen where several pixels are equally hot. Fraction 0 has none.
    """
    read = {}
    for branch, side in sides.items():
        left, top, right, bottom = lung_box if branch in cam.CROPPED else (0, 0, heatmap.shape[1], heatmap.shape[0])
        rows, columns = (
            start + ((np.arange(side) + 0.5) * (stop - start) / side).astype(int)
            for start, stop in ((top, bottom), (left, right))
        )
        read[branch] = heatmap[np.ix_(rows, columns)]
    counted = next((each for branch, each in read.items() if branch not in cam.CROPPED), None)
    counted = next(iter(read.values())) if counted is None else counted
    ordered = np.sort(counted, axis=None)[::-1]
    counts = np.rint(FRACTIONS * ordered.size).astype(int)
    # The last count takes whatever is left: a lung region's image can hold a colder pixel than the entire one's grid.
    cuts = [np.inf, *ordered[counts[1:-1] - 1], -np.inf]
    return {branch: np.stack([each >= cut for cut in cuts]) for branch, each in read.items()}


def altered(image: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Returns the images of both curves, in which pixels are replaced by the image's mean grey.

    Args:
      image: (S, S) uint8.
      chosen: (fractions, S, S) bool, as from `hottest`.

    Returns:
      (2 * fractions, S, S) uint8: without the chosen pixels (deletion), then with nothing else (insertion).
    """
    grey = np.uint8(np.rint(image.mean()))
    return np.concatenate([np.where(chosen, grey, image), np.where(chosen, image, grey)])


def area(curve: np.ndarray) -> np.ndarray:
    """Returns the area under a curve over `FRACTIONS`: (..., fractions) -> (...)."""
    return np.trapezoid(curve, FRACTIONS, axis=-1)
