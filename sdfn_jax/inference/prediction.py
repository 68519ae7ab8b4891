"""What the networks say of one radiograph, and what said it: what `predict` and the viewer hand to their writers."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from sdfn_jax.core.run_metadata import Imported
from sdfn_jax.metrics.operating_points import Threshold

Box = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class Provenance:
    """What a reading was made with; printed beside every reading.

    Attributes:
      stage: `entire`, `lung` or `fusion`.
      checkpoint: digest of the classifier's checkpoint.
      lrg_checkpoint: digest of the lung region generator's; None where none was used.
      data_version: full name of the data set that the classifier was trained on; None if it is not known.
      label_version: `2017` or `v2020`; None if it is not known.
      drawings: whether it was trained on synthetic radiographs: its findings then mean nothing of radiographs; None if
        it is not known.
      imported: {branch: weights file}, for the branches that were not trained here.
      preprocessing: `Preprocessing.as_dict()`.
      thresholds: {finding: operating point}, for the findings that have one.
      undecided: {finding: why it has none}, for the others: they are called neither positive nor negative.
      calibrated: the findings whose probabilities are calibrated.
      software: {package: version}.
    """

    stage: str
    checkpoint: str
    lrg_checkpoint: str | None
    data_version: str | None
    label_version: str | None
    drawings: bool | None
    imported: Mapping[str, Imported]
    preprocessing: Mapping[str, object]
    thresholds: Mapping[str, Threshold]
    undecided: Mapping[str, str]
    calibrated: tuple[str, ...]
    software: Mapping[str, str]


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """What the networks say of one radiograph.

    Attributes:
      name: tells it apart within its output: the path below the folder that was given. Never taken from a header.
      radiograph: (H, W) uint8 as the networks saw it before they resized it: after the corrections asked for.
      lung_box: (left, top, right, bottom) in its pixels, half-open; None where no lung region generator was used.
      rule: post-processing rules that fired (`lung_boxes`); empty without a lung box.
      flags: names from `flags.FLAGS`: what looks wrong with the film, what of its header could not be used.
      fixes: names from `guards.FIXES` of the corrections that were asked for and applied.
      probabilities: (14,) float64, 0 to 1, in the order of `FINDINGS`.
      calibrated: (14,) float64, NaN for a finding without a calibration.
      maps: {branch: (h, w, 14) float32}, class activation maps (eq. 5), as `cam.on_radiograph` takes them.
    """

    name: str
    radiograph: np.ndarray
    lung_box: Box | None
    rule: str
    flags: tuple[str, ...]
    fixes: tuple[str, ...]
    probabilities: np.ndarray
    calibrated: np.ndarray
    maps: Mapping[str, np.ndarray]
