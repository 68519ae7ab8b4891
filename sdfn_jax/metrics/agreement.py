"""How far several readers agree."""

import numpy as np


def fleiss_kappa(yes: np.ndarray, of: np.ndarray) -> float:
    """Computes the agreement of readers beyond chance, for yes and no (Fleiss 1971, Psychol. Bull. 76:378-382).

    The number of readers may differ between images: each pair of answers to an image counts once. With equal numbers
    this is Fleiss' formula.

    Args:
      yes: (N,) int, readers who said yes to each image.
      of: (N,) int, readers who answered.

    Returns:
      At most 1; 0 for chance; NaN if no image has two answers, or if all answers are alike.
    """
    yes, of = np.asarray(yes, np.float64), np.asarray(of, np.float64)
    yes, of = yes[of > 1], of[of > 1]
    if not of.size:
        return float("nan")
    no = of - yes
    alike = (yes * (yes - 1) + no * (no - 1)).sum() / (of * (of - 1)).sum()
    share = yes.sum() / of.sum()
    chance = share**2 + (1 - share) ** 2
    return float((alike - chance) / (1 - chance)) if chance < 1 else float("nan")


def unanimous(yes: np.ndarray, of: np.ndarray) -> float:
    """Returns the share of images with two answers or more whose readers all agree; NaN if there is none.

    Arguments as of `fleiss_kappa`.
    """
    yes, of = np.asarray(yes), np.asarray(of)
    several = of > 1
    return float(((yes == 0) | (yes == of))[several].mean()) if several.any() else float("nan")
