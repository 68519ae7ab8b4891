"""What the networks found on one radiograph, and what it was made with. No JAX."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from sdfn_jax.core.run_metadata import Imported
from sdfn_jax.core.tables import shown
from sdfn_jax.heatmaps import cam, localization
from sdfn_jax.lungs import mask
from sdfn_jax.metrics.calibration import Validation
from sdfn_jax.metrics.operating_points import Threshold

Box = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class Provenance:
    """What a reading was made with; shown next to every reading.

    Attributes:
      stage: `entire`, `lung` or `fusion`; None without a classifier.
      checkpoint: digest of the classifier's checkpoint; None without one.
      lrg_checkpoint: digest of the lung region generator's; None if none was used.
      findings: the K findings that it looks for, in the order of its outputs; empty without a classifier.
      data_version: full name of the data set that the classifier was trained on; None if unknown.
      label_version: `2017` or `v2020`; None if unknown, or if the data set's labels have one version.
      drawings: whether it, or without one the lung region generator, was trained on synthetic radiographs: what it
        finds then means nothing; None if unknown.
      imported: {branch: weights file}, for the branches that were not trained here.
      preprocessing: `Preprocessing.as_dict()`.
      thresholds: {finding: operating point}, for the findings that have one.
      undecided: {finding: why it has none}, for the others: they are called neither positive nor negative.
      calibrated: the findings whose probabilities are calibrated.
      validation: {finding: how well validation was told apart}; empty without a calibration.
      no_better_than_chance: a sentence if the network's mean AUC on validation is not above chance; empty otherwise.
      software: {package: version}.
      members: of an ensemble, each one's `seed` and `checkpoint`; empty for one network.
    """

    stage: str | None
    checkpoint: str | None
    lrg_checkpoint: str | None
    findings: tuple[str, ...]
    data_version: str | None
    label_version: str | None
    drawings: bool | None
    imported: Mapping[str, Imported]
    preprocessing: Mapping[str, object]
    thresholds: Mapping[str, Threshold]
    undecided: Mapping[str, str]
    calibrated: tuple[str, ...]
    validation: Mapping[str, Validation]
    no_better_than_chance: str
    software: Mapping[str, str]
    members: tuple[Mapping[str, int | str], ...] = ()

    @property
    def classifies(self) -> bool:
        """Whether there was a classifier; without one, readings have lungs and no findings."""
        return self.stage is not None


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """What the networks found on one radiograph.

    Attributes:
      name: unlike that of any other: the path as given, or below the given folder. Never taken from a header.
      radiograph: (H, W) uint8 as the networks saw it before resizing, with the requested corrections.
      lung_box: (left, top, right, bottom) in its pixels, half-open; None if no lung region generator was used.
      rule: `none`, or the rules of B.2.2 that fired, joined by `+`; empty without a lung box.
      lung_area: share of the radiograph that is lung, 0 to 1; None without a lung box.
      confidence: the Dice coefficient that the lung mask is expected to have, 0 to 1 (`doubt.confidence`), or None.
      lung_outline: of the lung mask, as `outline.outline` returns it; empty without.
      flags: names from `flags.FLAGS`: what looks wrong with the radiograph, or with elements of its header.
      fixes: names from `quality.FIXES` of the requested corrections that were applied.
      probabilities: {finding: 0 to 1}, in the order of the network's findings; empty without a classifier.
      calibrated: {finding: 0 to 1; None for a finding without a calibration}, in that order.
      maps: {branch: (h, w, K) float32}, class activation maps (eq. 5), as `cam.on_radiograph` takes them.
      provenance: what it was made with: networks, data, operating points.
      lung_probabilities: (h, w) float32 of the lung mask in the network's pixels (`mask.decided`), or None.
      spread: {finding: standard deviation of the members' probabilities, 0 to 0.71}, of an ensemble: how far its
        trainings disagree; empty for one network.
    """

    name: str
    radiograph: np.ndarray
    lung_box: Box | None
    rule: str
    lung_area: float | None
    confidence: float | None
    lung_outline: tuple[np.ndarray, ...]
    flags: tuple[str, ...]
    fixes: tuple[str, ...]
    probabilities: Mapping[str, float]
    calibrated: Mapping[str, float | None]
    maps: Mapping[str, np.ndarray]
    provenance: Provenance
    lung_probabilities: np.ndarray | None = None
    spread: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def lung_mask(self) -> np.ndarray | None:
        """(H, W) bool, the lungs on the radiograph; None if no lung region generator was used."""
        small = self.lung_probabilities
        return None if small is None else mask.enlarge(small, self.radiograph.shape)

    @property
    def decisions(self) -> dict[str, bool | None]:
        """{finding: whether its probability reaches the operating point}; None for a finding that has none.

        `provenance.undecided` says why there is none.
        """
        points = self.provenance.thresholds
        return {
            name: probability >= points[name].probability if name in points else None
            for name, probability in self.probabilities.items()
        }

    @property
    def top(self) -> str | None:
        """The most probable finding; None without a classifier."""
        return max(self.probabilities, key=self.probabilities.__getitem__, default=None)

    def heatmap(self, finding: str) -> np.ndarray:
        """Returns where a finding is seen: the network's activation maps, added on the radiograph, as on the pages.

        The lung region's map is added as eq. 6 says, and counts as its mean outside the lung box, where the paper is
        silent (`cam.OUTSIDE`). The sum is rescaled on its own, its smallest value to 0 and its largest to 1, however
        small the probability.

        Args:
          finding: one of the network's.

        Returns:
          (H, W) float32, 0 to 1; all 0 for a map that is the same everywhere.

        Raises:
          ValueError: for another finding.
        """
        return np.minimum(self._heatmap_of_255(finding) / np.float32(255), 1)

    def boxes(self, finding: str) -> dict[str, list[list[int]]]:
        """Returns {threshold: boxes} of a heatmap (Wang et al., CVPR 2017, 5.2).

        Returns:
          for `60` and `180` of the heatmap's 0 to 255: (left, top, right, bottom) in pixels of the radiograph.
        """
        heatmap = self._heatmap_of_255(finding)
        return {
            str(threshold): localization.find_boxes(heatmap, threshold).astype(int).tolist()
            for threshold in localization.THRESHOLDS
        }

    @functools.cached_property
    def marked(self) -> dict[str, dict[str, list[list[int]]]]:
        """{finding: as `boxes` returns} of the most probable finding and of those called positive."""
        positive = self.decisions
        return {name: self.boxes(name) for name in self.probabilities if name == self.top or positive[name]}

    def to_dict(self) -> dict[str, Any]:
        """Returns everything but the pixels and maps, as JSON values: a line of `predictions.jsonl`.

        Returns:
          `image` (the name), `width`, `height`, `flags`, `fixes`, `lung_box`, `rule`, `lung_area`, `confidence`, `top`,
          `probabilities`, `calibrated`; `spread`, of an ensemble; `decisions`: {finding: `positive`, `threshold`,
          `sensitivity`, `specificity`} for those with an operating point, and `undecided`: {finding: why it has none};
          `boxes`: as `marked`.
        """
        height, width = self.radiograph.shape
        positive = self.decisions
        return {
            "image": self.name,
            "width": width,
            "height": height,
            "flags": list(self.flags),
            "fixes": list(self.fixes),
            "lung_box": None if self.lung_box is None else list(map(int, self.lung_box)),
            "rule": self.rule,
            "lung_area": self.lung_area,
            "confidence": self.confidence,
            "top": self.top,
            "probabilities": dict(self.probabilities),
            "calibrated": dict(self.calibrated),
            **({"spread": dict(self.spread)} if self.spread else {}),
            "decisions": {
                name: {"positive": positive[name], "threshold": point.probability}
                | {"sensitivity": point.sensitivity, "specificity": point.specificity}
                for name, point in self.provenance.thresholds.items()
            },
            "undecided": dict(self.provenance.undecided),
            "boxes": self.marked,
        }

    def maps_of(self, finding: str) -> dict[str, np.ndarray]:
        """Returns {branch: (h, w) float32}, the class activation maps of one finding.

        Raises:
          ValueError: for a finding that the network does not look for.
        """
        found = self.provenance.findings
        if finding not in found:
            raise ValueError(f"unknown finding {shown(finding)}; expected one of {', '.join(found)}")
        return {branch: each[..., found.index(finding)] for branch, each in self.maps.items()}

    def _heatmap_of_255(self, finding: str) -> np.ndarray:
        return cam.rescale(cam.on_radiograph(self.maps_of(finding), self.lung_box, self.radiograph.shape))
