"""Views, sexes and ages as tables write them."""

import math
import re

from sdfn_jax.core import tables

LATERAL, _UNKNOWN_VIEW, _OTHER_VIEW = "a lateral view", "an unknown view", "neither PA nor AP"
LATERAL_VIEWS = ("L", "LL", "RL", "LAT", "LATERAL", LATERAL)
_SEXES = {"": "", "M": "M", "MALE": "M", "F": "F", "FEMALE": "F", "UNKNOWN": "", "O": "", "U": ""}
_AGE = re.compile(r"(\d{1,3}(?:\.\d*)?)([YMWD]?)", re.ASCII | re.IGNORECASE)
_A_YEAR = {"": 1, "Y": 1, "M": 12, "W": 365.25 / 7, "D": 365.25}


def frontal(view: str, unknown_is_frontal: bool = True) -> dict[str, str]:
    """Returns {`view`: PA, AP or nothing, `left_out`: why a film of this view is left out, or nothing}, for `Row`.

    Args:
      view: as a table says it.
      unknown_is_frontal: whether films are kept of which no view is known.
    """
    if view in ("PA", "AP"):
        return {"view": view, "left_out": ""}
    if not view:
        return {"view": "", "left_out": "" if unknown_is_frontal else _UNKNOWN_VIEW}
    return {"view": "", "left_out": LATERAL if view in LATERAL_VIEWS else _OTHER_VIEW}


def sex_of(text: str) -> str:
    """Returns `M`, `F`, or nothing if unknown; raises ValueError for anything else."""
    return _one_of(text, _SEXES, "sex", "M, F, or nothing")


def age_of(text: str) -> float:
    """Returns years, NaN if unknown, of `58`, `58.5` or DICOM's `058Y`, `006M`; raises ValueError for anything else."""
    if not text:
        return math.nan
    if found := _AGE.fullmatch(text):
        return float(found[1]) / _A_YEAR[found[2].upper()]
    raise ValueError(f"age is {tables.shown(text)}; expected years (58, 058Y), or nothing")


def _one_of(text: str, meanings: dict[str, str], what: str, expected: str) -> str:
    try:
        return meanings[text.upper()]
    except KeyError:
        raise ValueError(f"{what} is {tables.shown(text)}; expected {expected}") from None
