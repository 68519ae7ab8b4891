"""The 14 findings, in the paper's order (B.1), and the NIH label columns that name them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sdfn_jax.core.tables import shown

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
NO_FINDING = "No Finding"
_INDEX = {name: index for index, name in enumerate(FINDINGS)}
# BBox_List_2017.csv spells this one differently from Data_Entry_2017.csv.
_BOX_SPELLING = {"Infiltrate": "Infiltration"}


def parse_labels(text: str) -> np.ndarray:
    """Turns the table's `Finding Labels` into a vector.

    Args:
      text: findings joined by `|` (`Effusion|Mass`), or `No Finding`.

    Returns:
      (14,) uint8 of 0 and 1, in the order of `FINDINGS`; all 0 for `No Finding`.

    Raises:
      ValueError: for a name that is not one of the 14, or `No Finding` next to another name.
    """
    labels = np.zeros(len(FINDINGS), np.uint8)
    names = [name.strip() for name in text.split("|")]
    if names == [NO_FINDING]:
        return labels
    for name in names:
        labels[finding_index(name)] = 1
    return labels


def finding_index(name: str) -> int:
    """Returns the index of a finding in `FINDINGS`, for either spelling of the official tables.

    Raises:
      ValueError: for any other name.
    """
    name = _BOX_SPELLING.get(name, name)
    if name not in _INDEX:
        raise ValueError(f"unknown finding {shown(name)}; expected one of {', '.join(FINDINGS)}")
    return _INDEX[name]


def named_in(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the findings that the metadata of a data set or of a checkpoint names, in the order of its labels.

    Metadata written before it named any is of the 14.
    """
    return tuple(metadata.get("findings", FINDINGS))


def display_name(name: str) -> str:
    """Returns a finding as people write it: `Pleural thickening`; those of other class lists in their own spelling."""
    text = name.replace("_", " ")
    return text.capitalize() if name in _INDEX else text[:1].upper() + text[1:]
