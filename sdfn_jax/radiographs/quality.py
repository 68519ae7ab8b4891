"""Flags what looks wrong with a film before anyone trusts its probabilities; never corrects it unasked.

A frontal chest film, however exposed, has two dark lungs next to a bright middle, above a bright abdomen: a few slow
cosine waves, even about the vertical axis. Turned or inverted, the same waves change places or signs, so one small
template identifies which of the eight (four rotations, inverted or not) a film is in; and the distance of its waves
from those of chest films identifies what is not one. The numbers were fitted by `tools/guards.py` to 238 films of
ChestX-ray14 and Montgomery; its table shows what they do on the other 224, and on pictures of other things.
"""

import numpy as np
from scipy.fft import dctn
from skimage.exposure import equalize_hist

from sdfn_jax.radiographs.flags import FIXES, FLAGS
from sdfn_jax.radiographs.pixels import check_radiograph, resize

SMALLEST_SIDE = 224
# Of 255 grey levels: what varies by less, over the middle 98 % of its pixels, is empty.
_LEAST_CONTRAST = 16
# A line of the film is blank where the middle 80 % of its pixels vary by no more grey levels.
_BLANK_LINE = 8
_LEAST_CONTENT = 0.5
_OVERVIEW = 128
_SIDE = 64
# Waves looked at, down and across; and those of the template: of these, the even ones across are alike on both sides.
_WAVES = 8
_DOWN, _ACROSS = 4, 4
# Fitted: the template, in the order of `_even`; then the mean of `_description`, a triangle that makes its entries
# uncorrelated and of variance 1 (the inverse of the covariance's Cholesky factor), and the distance that 1 % exceed.
_TEMPLATE = np.array([-6.8, -5.5, 6.7, 2.5, -7.0, -3.0, -3.0])
_MEAN = np.array([-0.294, -0.42, 0.305, 0.067, -0.211, -0.111, -0.152, 0.809, 0.092])
_TRIANGLE = (
    (6.2,),
    (3.6, 5.7),
    (2.3, -2.4, 10.7),
    (-1.9, -1.8, 0.7, 8.9),
    (7.9, 4.1, -2.5, -7.8, 14.2),
    (-0.7, 3.8, -3.5, 1.1, -5.7, 12.8),
    (-0.5, -1.0, 3.1, 0.9, -3.0, -5.1, 20.8),
    (2.1, 5.8, -5.6, -1.3, 2.0, 4.1, -1.2, 13.5),
    (2.8, 4.2, -1.1, 0.2, 0.8, 2.0, -1.5, 29.3, 31.8),
)
_SCALE = np.array([row + (0.0,) * (len(_TRIANGLE) - len(row)) for row in _TRIANGLE])
_FARTHEST = 5.47


def check(radiograph: np.ndarray) -> tuple[str, ...]:
    """Names what looks wrong with a film.

    The orientation of a film that is nearly empty, or not of a chest, is not judged.

    Args:
      radiograph: (H, W) uint8, bones bright.

    Returns:
      names from `flags.FLAGS`, in its order; empty for an ordinary film.
    """
    found = set()
    if min(radiograph.shape) < SMALLEST_SIDE:
        found.add("too_small")
    content, share = _content(radiograph)
    if content is None:
        found.add("almost_empty")
    else:
        if share < _LEAST_CONTENT:
            found.add("border")
        found |= _looks(content)
    return tuple(name for name in FLAGS if name in found)


def fix(radiograph: np.ndarray, name: str) -> np.ndarray:
    """Applies one correction, whether or not the film is flagged.

    Args:
      radiograph: (H, W) uint8.
      name: from `FIXES`; `rotated_90` determines which way the film has to be turned.

    Returns:
      uint8, (W, H) for `rotated_90`, otherwise (H, W).

    Raises:
      ValueError: for another name, or an array of another kind.
    """
    check_radiograph(radiograph)
    if name == "inverted":
        return 255 - radiograph
    if name == "rotated_180":
        return np.ascontiguousarray(radiograph[::-1, ::-1])
    if name == "rotated_90":
        content, _ = _content(radiograph)
        if content is None:
            return np.ascontiguousarray(np.rot90(radiograph))
        left, right = _likeness(_hypotheses(_waves(content)))[1].max(axis=1)
        return np.ascontiguousarray(np.rot90(radiograph, -1 if left >= right else 1))
    raise ValueError(f"unknown correction {name!r}; expected one of {', '.join(FIXES)}")


def _content(radiograph: np.ndarray) -> tuple[np.ndarray | None, float]:
    """Returns a small copy of the film without its blank border, and its share of the film.

    None and 0 for an almost empty film.
    """
    overview = resize(radiograph, (_OVERVIEW, _OVERVIEW))
    if np.ptp(np.percentile(overview, (1, 99))) < _LEAST_CONTRAST:
        return None, 0.0
    top, bottom, left, right = 0, _OVERVIEW, 0, _OVERVIEW
    for _ in range(3):  # once blank columns are gone, a row may turn out to be blank, and so on
        for across in (True, False):
            inner = overview[top:bottom, left:right]
            used = np.flatnonzero(np.ptp(np.percentile(inner, (10, 90), axis=int(across)), axis=0) > _BLANK_LINE)
            if not used.size:
                return None, 0.0
            if across:
                top, bottom = top + used[0], top + used[-1] + 1
            else:
                left, right = left + used[0], left + used[-1] + 1
    return overview[top:bottom, left:right], (bottom - top) * (right - left) / _OVERVIEW**2


def _waves(content: np.ndarray) -> np.ndarray:
    """Returns the slow cosine waves of a film as shares of all its variation, (8, 8) float64; [0, 0] is 0."""
    small = resize(np.ascontiguousarray(content), (_SIDE, _SIDE))
    waves = dctn(equalize_hist(small), norm="ortho")
    waves[0, 0] = 0
    return waves[:_WAVES, :_WAVES] / np.linalg.norm(waves)


def _hypotheses(waves: np.ndarray) -> np.ndarray:
    """Returns the film's waves as they would be upright, for each way it may be turned or inverted, (2, 2, 2, 8, 8).

    The axes: whether it is on its side; whether the neck is then at the right, or at the bottom; whether it is
    inverted. Mirror images are not distinguished.
    """
    sides = np.stack([waves, waves.T])
    odd = (-1.0) ** np.arange(_WAVES)[:, None]
    turned = np.stack([sides, sides * odd], axis=1)
    return np.stack([turned, -turned], axis=2)


def _even(hypotheses: np.ndarray) -> np.ndarray:
    """Returns the (..., 7) waves that the template has."""
    slow = hypotheses[..., :_DOWN, 0:_ACROSS:2]
    return slow.reshape(*slow.shape[:-2], -1)[..., 1:]


def _likeness(hypotheses: np.ndarray) -> np.ndarray:
    """Returns how probable each of the (2, 2, 2) hypotheses is, for a chest film."""
    scores = _even(hypotheses) @ _TEMPLATE
    likeness = np.exp(scores - scores.max())
    return likeness / likeness.sum()


def _strangeness(upright: np.ndarray) -> float:
    """Returns how far a film's upright waves are from those of chest films: the Mahalanobis distance."""
    return float(np.linalg.norm(_SCALE @ (_description(upright) - _MEAN)))


def _description(upright: np.ndarray) -> np.ndarray:
    """Returns the (9,) numbers that distinguish a chest from other things: waves, and how much is even and odd."""
    return np.append(_even(upright), [(upright[:, 0::2] ** 2).sum(), (upright[:, 1::2] ** 2).sum()])


def _looks(content: np.ndarray) -> set[str]:
    hypotheses = _hypotheses(_waves(content))
    likeness = _likeness(hypotheses)
    sideways, reversed_, inverted = np.unravel_index(likeness.argmax(), likeness.shape)
    if _strangeness(hypotheses[sideways, reversed_, inverted]) > _FARTHEST:
        return {"not_frontal_chest"}
    if likeness.max() < 0.5:
        return set()
    turned = {"rotated_90"} if sideways else {"rotated_180"} if reversed_ else set()
    return turned | ({"inverted"} if inverted else set())
