"""Groups of images by sex, age and view position, and the AUC of pairs within a group."""

from collections.abc import Mapping, Sequence

import numpy as np

from sdfn_jax.metrics import bootstrap

# Upper ends, in years; the 2017 table has impossible ages up to 414.
_AGES = ((18, "0-17"), (40, "18-39"), (60, "40-59"), (80, "60-79"), (120, "80 and over"))
UNKNOWN_GROUP = "unknown"
SEXES = {"F": "female", "M": "male"}
VIEWS = {"PA": "PA", "AP": "AP"}
# The groups of each attribute, in their order.
NAMES = {
    "sex": (*SEXES.values(), UNKNOWN_GROUP),
    "age": (*(name for _, name in _AGES), UNKNOWN_GROUP),
    "view": (*VIEWS.values(), UNKNOWN_GROUP),
}


def age_band(years: float) -> str:
    """Returns the band of an age: `0-17` to `80 and over`, or `unknown` for one outside 0 to 120."""
    return next((name for end, name in _AGES if 0 <= years < end), UNKNOWN_GROUP)


def groups(sexes: Sequence[str], ages: Sequence[float], views: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
    """Sorts N images into groups.

    Args:
      sexes: N of `M` or `F`; anything else is `unknown`.
      ages: N, in years.
      views: N of `PA` or `AP`; anything else is `unknown`.

    Returns:
      {`sex`, `age` and `view`: {group: (N,) bool}}; each image is in one group of each, and no group is empty.
    """
    named = {
        "sex": [SEXES.get(sex, UNKNOWN_GROUP) for sex in sexes],
        "age": [age_band(age) for age in ages],
        "view": [VIEWS.get(view, UNKNOWN_GROUP) for view in views],
    }
    return {
        attribute: {name: np.array(found) == name for name in NAMES[attribute] if name in found}
        for attribute, found in named.items()
    }


def within(pairs: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Returns the AUC over pairs of images of the same group only.

    The view is a shortcut: bedside (AP) films are of sicker patients, so a model that tells AP from PA gains AUC
    without seeing a finding. Pairs within a view leave it nothing to gain.

    Args:
      pairs: {group: ordered pairs, all pairs}, (B,) each, as from `bootstrap.auc_pairs`.

    Returns:
      (B,); NaN where no group has a pair.
    """
    ordered, all_pairs = (np.sum([each[part] for each in pairs.values()], axis=0) for part in (0, 1))
    return bootstrap.ratio(ordered, all_pairs)
