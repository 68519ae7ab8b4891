"""The labels of the CheXpert labeler, which CheXpert, MIMIC-CXR-JPG and BRAX share: one reader for the three sets.

Of 14 observations 13 are findings; those that ChestX-ray14 has, too, have its names. `1` is present, `0` absent, `-1`
uncertain. A blank says that the report does not mention it: unknown, unless the report has `No Finding` (positive if
nothing is positive or uncertain; Irvin et al., AAAI 2019): then it is absent. Support devices, which are no pathology,
stay unknown.
"""

import functools

import numpy as np

from sdfn_jax.core import tables
from sdfn_jax.radiographs import labels

_NO_FINDING, _DEVICES = "No Finding", "Support Devices"
# {column: the finding's name here}
_NAMES = {
    "Enlarged Cardiomediastinum": "Enlarged_Cardiomediastinum",
    "Cardiomegaly": "Cardiomegaly",
    "Lung Opacity": "Lung_Opacity",
    "Lung Lesion": "Lung_Lesion",
    "Edema": "Edema",
    "Consolidation": "Consolidation",
    "Pneumonia": "Pneumonia",
    "Atelectasis": "Atelectasis",
    "Pneumothorax": "Pneumothorax",
    "Pleural Effusion": "Effusion",
    "Pleural Other": "Pleural_Other",
    "Fracture": "Fracture",
    _DEVICES: "Support_Devices",
}
CHEXPERT_FINDINGS = tuple(_NAMES.values())
# Required columns, as `tables.read_table` takes them.
COLUMNS = {
    _NO_FINDING: (),
    "Lung Opacity": ("Airspace Opacity",),
    **{name: () for name in _NAMES if name != "Lung Opacity"},
}
_CODES = {"1": labels.PRESENT, "0": labels.ABSENT, "-1": labels.UNCERTAIN, "": labels.UNKNOWN}


def codes(record: dict[str, str]) -> np.ndarray:
    """Returns the labels of a row, (13,) uint8; raises ValueError for a value outside the convention."""
    return _codes(tuple(record[name] for name in (_NO_FINDING, *_NAMES)))


@functools.cache  # most films have one of few combinations
def _codes(texts: tuple[str, ...]) -> np.ndarray:
    plain = [text.removesuffix(".0") for text in texts]
    for name, text in zip((_NO_FINDING, *_NAMES), plain, strict=True):
        if text not in _CODES:
            raise ValueError(f"{name} is {tables.shown(text)}; expected 1, 0, -1 or nothing")
    no_finding, *found = (_CODES[text] for text in plain)
    codes = np.array(found, np.uint8)
    if no_finding == labels.PRESENT:
        codes[:-1][codes[:-1] == labels.UNKNOWN] = labels.ABSENT
    return codes
