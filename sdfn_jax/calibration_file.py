"""`calibration.json` of a run: what its validation split says of its probabilities, beside its checkpoint. No JAX.

Written whenever the validation split is evaluated; never from test. It holds for one checkpoint alone, whose digest it
names: how each finding's probabilities are calibrated (`platt`), and its operating point.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sdfn_jax import calibration, operating_points, platt
from sdfn_jax.errors import UserError
from sdfn_jax.files import appears_when_complete
from sdfn_jax.findings import FINDINGS
from sdfn_jax.predictions import Evaluation, image_list_digest
from sdfn_jax.reading import Threshold

FILE = "calibration.json"
# Ten events for each fitted number (Peduzzi et al., J Clin Epidemiol 1996), and two are fitted.
MINIMUM = 20


@dataclasses.dataclass(frozen=True)
class Effect:
    """What calibration does on validation, each image calibrated by a scaling that saw nothing of its patient.

    Attributes:
      brier: score before and after.
      error: expected calibration error before and after.
    """

    brier: tuple[float, float]
    error: tuple[float, float]

    def __post_init__(self):
        for name in ("brier", "error"):  # JSON gives lists back
            object.__setattr__(self, name, tuple(getattr(self, name)))


@dataclasses.dataclass(frozen=True)
class Calibrated:
    """One finding.

    Attributes:
      positives: of the validation split.
      negatives: of the validation split.
      scaling: None where there is none.
      reason: why there is none; empty where there is one.
      effect: None where there is no scaling.
      threshold: operating point by Youden's index, before calibration; None without positives or without negatives.
    """

    positives: int
    negatives: int
    scaling: platt.Scaling | None
    reason: str
    effect: Effect | None
    threshold: Threshold | None


@dataclasses.dataclass(frozen=True)
class Record:
    """The file.

    Attributes:
      checkpoint: digest of the checkpoint that it holds for.
      stage: of the run.
      data_version: full name of the data set whose validation split was evaluated.
      label_version: of its labels.
      drawings: whether its images are drawings.
      images: of the validation split.
      image_list_sha256: which they are.
      findings: {finding: what validation says of it}, all 14 in their order.
    """

    checkpoint: str
    stage: str
    data_version: str
    label_version: str
    drawings: bool
    images: int
    image_list_sha256: str
    findings: Mapping[str, Calibrated]

    def apply(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrates (..., 14) probabilities; NaN for a finding without a scaling."""
        calibrated = np.full(np.shape(probabilities), np.nan)
        for index, finding in enumerate(self.findings.values()):
            if finding.scaling is not None:
                calibrated[..., index] = finding.scaling(probabilities[..., index])
        return calibrated

    def calibrated(self) -> tuple[str, ...]:
        """Returns the findings that have a scaling."""
        return tuple(name for name, each in self.findings.items() if each.scaling is not None)

    def thresholds(self) -> dict[str, Threshold]:
        """Returns {finding: operating point}, for the findings that have one."""
        return {name: each.threshold for name, each in self.findings.items() if each.threshold is not None}


def make(evaluation: Evaluation) -> Record:
    """Fits calibration and operating points.

    Raises:
      ValueError: for an evaluation of another split than validation.
    """
    origin, predictions = evaluation.origin, evaluation.predictions
    if origin.split != "validation":
        raise ValueError(f"calibration is fitted on validation, not on {origin.split}")
    columns = zip(FINDINGS, predictions.labels.T, predictions.probabilities.T, strict=True)
    return Record(
        checkpoint=origin.checkpoint,
        stage=origin.stage,
        data_version=origin.data_version,
        label_version=origin.label_version,
        drawings=origin.drawings,
        images=len(predictions.images),
        image_list_sha256=image_list_digest(predictions.images),
        findings={name: _finding(labels, values, predictions.patients) for name, labels, values in columns},
    )


def write(run: str | Path, record: Record) -> None:
    """Writes the file of a run, complete or not at all."""
    with appears_when_complete(Path(run) / FILE) as path:
        path.write_text(json.dumps(dataclasses.asdict(record), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read(run: str | Path) -> Record | None:
    """Reads the file of a run; None where there is none.

    Raises:
      UserError: naming the file, where it is not one.
    """
    path = Path(run) / FILE
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        findings = {name: _from_json(record["findings"][name]) for name in FINDINGS}
        return Record(**record | {"findings": findings})
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: not the calibration of a run ({type(error).__name__}: {error}); delete it, or make it anew by "
            "evaluating the validation split"
        ) from error


def _finding(labels: np.ndarray, probabilities: np.ndarray, patients: np.ndarray) -> Calibrated:
    positives = int(labels.sum())
    counts = positives, len(labels) - positives
    threshold = operating_points.youden(labels, probabilities)
    if np.isnan(threshold):
        return Calibrated(*counts, None, _few(counts), None, None)
    called = probabilities >= threshold
    point = Threshold(
        probability=threshold,
        sensitivity=float(called[labels == 1].mean()),
        specificity=float(1 - called[labels == 0].mean()),
        positives=counts[0],
        negatives=counts[1],
    )
    if min(counts) < MINIMUM:
        return Calibrated(*counts, None, _few(counts), None, point)
    scaling = platt.fit(labels, probabilities)
    if scaling is None:
        return Calibrated(*counts, None, "validation is ordered no better than by chance", None, point)
    values = (probabilities, platt.cross_fit(labels, probabilities, patients))
    effect = Effect(
        brier=tuple(calibration.brier(labels, each) for each in values),
        error=tuple(calibration.reliability(labels, each).error for each in values),
    )
    return Calibrated(*counts, scaling, "", effect, point)


def _few(counts: tuple[int, int]) -> str:
    return f"{counts[0]} positives and {counts[1]} negatives in validation; it takes {MINIMUM} of each"


def _from_json(record: dict) -> Calibrated:
    kinds = {"scaling": platt.Scaling, "effect": Effect, "threshold": Threshold}
    parts = {name: kind(**record[name]) for name, kind in kinds.items() if record[name] is not None}
    return Calibrated(**record | parts)
