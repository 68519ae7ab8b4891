"""What speaks against a lung region: how sure the network is of it, and whether it looks like a pair of lungs."""

import numpy as np

from sdfn_jax.lungs.lung_boxes import NO_RULE, LungRegion

# Lungs and box of Montgomery's 138 reference masks: no lungs cover less than 0.10 of the film, no box has a side below
# 0.54 of it.
_LEAST_LUNG = 0.05
_LEAST_BOX_SIDE = 0.4


def confidence(probabilities: np.ndarray, kept: np.ndarray) -> float:
    """Returns the Dice coefficient that a mask has with the true lungs, if each pixel's probability is true.

    2 sum(p m) / (sum(p) + sum(m)): 1 for a mask whose pixels are all certain, lower for a wide unsure border, for lung
    that was left out, and for lung that was kept though it is none.

    Args:
      probabilities: (h, w) float in [0, 1], each pixel's of being lung.
      kept: (h, w) bool, the mask.

    Returns:
      0 to 1; 0 for an empty mask.
    """
    if not kept.any():
        return 0.0
    return float(2 * probabilities[kept].sum(dtype=np.float64) / (probabilities.sum(dtype=np.float64) + kept.sum()))


def doubts(region: LungRegion, size: tuple[int, int], least_confidence: float | None) -> tuple[str, ...]:
    """Names what speaks against a lung region.

    Args:
      region: with its confidence.
      size: (height, width) of the radiograph.
      least_confidence: a region below it is doubtful, and so is one that needed a rule; None if no bound was chosen for
        the lung region generator: then neither is.

    Returns:
      `lung_region_fallback`, `lung_region_doubtful` or nothing: names of `flags.FLAGS`.
    """
    left, top, right, bottom = region.box
    side = min((right - left) / size[1], (bottom - top) / size[0])
    if "whole_image" in region.rule or region.lung_area < _LEAST_LUNG or side < _LEAST_BOX_SIDE:
        return ("lung_region_fallback",)
    if least_confidence is not None and (region.rule != NO_RULE or region.confidence < least_confidence):
        return ("lung_region_doubtful",)
    return ()
