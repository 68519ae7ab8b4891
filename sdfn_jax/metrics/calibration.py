"""`calibration.json` of a run, next to its checkpoint: calibration and operating points from validation. No JAX.

It is written whenever the validation split is evaluated; never from test. It is valid for one checkpoint, whose digest
it names: the calibration of each finding's probabilities (`platt`), and its operating point, or why it has none.

The file is sealed. An older or damaged one is not used: its content is computed again from the evaluation of validation
in the same run.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sdfn_jax.core import sealed
from sdfn_jax.metrics import bootstrap, operating_points, platt, reliability, scores
from sdfn_jax.metrics.evaluation import Evaluation, evaluation_folder, read_evaluation
from sdfn_jax.metrics.operating_points import Threshold
from sdfn_jax.metrics.predictions import image_list_digest
from sdfn_jax.radiographs.findings import display_name

CALIBRATION_FILE = "calibration.json"
_SHARES = sealed.several(sealed.SHARE, 2)
_AUC = sealed.Later(sealed.Maybe({"value": sealed.SHARE, "low": sealed.SHARE, "high": sealed.SHARE}))
_FINDING: dict[str, sealed.Shape] = {
    "positives": sealed.COUNT,
    "negatives": sealed.COUNT,
    "scaling": sealed.Maybe({"slope": sealed.POSITIVE, "intercept": sealed.NUMBER}),
    "reason": sealed.TEXT,
    "effect": sealed.Maybe({"brier": _SHARES, "error": _SHARES}),
    "threshold": sealed.Maybe(
        {
            "probability": sealed.SHARE,
            "sensitivity": sealed.SHARE,
            "specificity": sealed.SHARE,
            "positives": sealed.COUNT,
            "negatives": sealed.COUNT,
        }
    ),
    "undecided": sealed.TEXT,
    "auc": _AUC,
}
_RECORD: dict[str, sealed.Shape] = {
    "checkpoint": sealed.TEXT,
    "stage": sealed.TEXT,
    "data_version": sealed.TEXT,
    "label_version": sealed.TEXT,
    "drawings": sealed.BOOLEAN,
    "images": sealed.COUNT,
    "image_list_sha256": sealed.TEXT,
    "mean_auc": _AUC,
    "findings": sealed.Each(_FINDING),
}


@dataclasses.dataclass(frozen=True)
class Auc:
    """An AUC on the validation split.

    Attributes:
      value: 0 to 1.
      low: lower end of its 95 % interval, from a bootstrap over patients.
      high: upper end.
    """

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Validation:
    """How well a finding's images of the validation split are told apart from the others.

    Attributes:
      positives: images known to have it.
      negatives: images known not to.
      auc: None if it is undefined or unknown.
    """

    positives: int
    negatives: int
    auc: Auc | None


@dataclasses.dataclass(frozen=True)
class Effect:
    """The effect of calibration on validation, each image calibrated by a scaling fitted without its patient.

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
      scaling: None if there is none.
      reason: why there is none; empty otherwise.
      effect: None without a scaling.
      threshold: operating point by Youden's index, before calibration; None if there is none.
      undecided: why there is no operating point (`operating_points.undecided`); empty otherwise.
      auc: None without positives or without negatives, and in older files.
    """

    positives: int
    negatives: int
    scaling: platt.Scaling | None
    reason: str
    effect: Effect | None
    threshold: Threshold | None
    undecided: str
    auc: Auc | None = None


@dataclasses.dataclass(frozen=True)
class Record:
    """The file.

    Attributes:
      checkpoint: digest of the checkpoint that it is valid for.
      stage: of the run.
      data_version: full name of the data set whose validation split was evaluated.
      label_version: of its labels.
      drawings: whether its images are synthetic.
      images: of the validation split.
      image_list_sha256: digest of their names.
      findings: {finding: its calibration}, all of the network in their order.
      mean_auc: of the findings that have an AUC; None if none has one, and in older files.
    """

    checkpoint: str
    stage: str
    data_version: str
    label_version: str
    drawings: bool
    images: int
    image_list_sha256: str
    findings: Mapping[str, Calibrated]
    mean_auc: Auc | None = None

    def apply(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrates (..., K) probabilities; NaN for a finding without a scaling."""
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

    def undecided(self) -> dict[str, str]:
        """Returns {finding: why it has no operating point}, for the findings that have none."""
        return {name: each.undecided for name, each in self.findings.items() if each.threshold is None}

    def validation(self) -> dict[str, "Validation"]:
        """Returns {finding: how well validation was told apart}."""
        return {name: Validation(each.positives, each.negatives, each.auc) for name, each in self.findings.items()}

    def no_better_than_chance(self) -> str:
        """Returns a sentence if the mean AUC on validation is not above chance; empty otherwise, or if unknown."""
        mean = self.mean_auc
        if mean is None or mean.low > 0.5:
            return ""
        word = "mean AUC" if len(self.findings) > 1 else "AUC"
        return (
            f"Validation does not show this network to be better than chance: {word} {mean.value:.2f}, 95 % interval "
            f"{mean.low:.2f} to {mean.high:.2f}. Do not rely on its findings."
        )

    def gaps(self) -> str:
        """Returns a line that names the findings without a calibration or an operating point, and why; may be empty."""
        kinds: dict[str, list[str]] = {}
        for name, each in self.findings.items():
            missing = [
                what
                for what, there in (("no decision", each.threshold), ("no calibration", each.scaling))
                if there is None
            ]
            if missing:
                rare = min(each.positives, each.negatives) < operating_points.MINIMUM
                why = (
                    f"fewer than {operating_points.MINIMUM} positives or negatives in validation"
                    if rare
                    else ("no better than chance on validation")
                )
                kinds.setdefault(f"{' and '.join(missing)} ({why})", []).append(display_name(name))
        return "; ".join(
            f"{kind}: {f'all {len(names)} findings' if 1 < len(names) == len(self.findings) else ', '.join(names)}"
            for kind, names in kinds.items()
        )


def make(evaluation: Evaluation) -> Record:
    """Fits calibration and operating points.

    Raises:
      ValueError: for an evaluation of any split but validation.
    """
    origin, predictions = evaluation.origin, evaluation.predictions
    if origin.split != "validation":
        raise ValueError(f"calibration is fitted on validation, not on {origin.split}")
    replicates = bootstrap.auc_replicates(
        predictions.labels, predictions.probabilities, operating_points.resample(predictions.patients)
    )
    aucs = [
        _auc(value, drawn)
        for value, drawn in zip(
            scores.class_aucs(predictions.labels, predictions.probabilities), replicates, strict=True
        )
    ]
    defined = [each.value for each in aucs if each is not None]
    columns = zip(predictions.findings, predictions.labels.T, predictions.probabilities.T, aucs, strict=True)
    return Record(
        checkpoint=origin.checkpoint,
        stage=origin.stage,
        data_version=origin.data_version,
        label_version=origin.label_version,
        drawings=origin.drawings,
        images=len(predictions.images),
        image_list_sha256=image_list_digest(predictions.images),
        mean_auc=_auc(float(np.mean(defined)), bootstrap.mean_replicates(replicates)) if defined else None,
        findings={
            name: _finding(auc, *scores.known_only(labels, values, predictions.patients))
            for name, labels, values, auc in columns
        },
    )


def calibrate(run: str | Path, evaluation: Evaluation) -> None:
    """Makes and writes the file of a run; prints a line that names the findings without a calibration or a decision."""
    record = make(evaluation)
    write(run, record)
    if gaps := record.gaps():
        print(f"{Path(run) / CALIBRATION_FILE}: {gaps}")


def write(run: str | Path, record: Record) -> None:
    """Writes the file of a run, complete or not at all."""
    sealed.write(Path(run) / CALIBRATION_FILE, dataclasses.asdict(record))


def read(run: str | Path) -> Record | None:
    """Reads the file of a run; None if there is none.

    Raises:
      DamagedError: naming a damaged file; `OlderError` for one of an older version.
    """
    path = Path(run) / CALIBRATION_FILE
    if not path.is_file():
        return None
    mend = "make it again by evaluating the validation split, or delete it"
    record = sealed.read(path, _RECORD, "the calibration of a run", mend, older=False)
    findings = {name: _from_json(each) for name, each in record["findings"].items()}
    mean = record.get("mean_auc")
    read = {"findings": findings, "mean_auc": None if mean is None else Auc(**mean)}
    return Record(**{key: record.get(key) for key in _RECORD} | read)


def of_checkpoint(run: str | Path, checkpoint: str) -> tuple[Record | None, str]:
    """Returns the calibration of a run's checkpoint, or None and what is wrong with the file.

    A damaged or older file is replaced in memory, with a note, if the run has a sound evaluation of validation.

    Raises:
      DamagedError: for a damaged file without such an evaluation.
    """
    path = Path(run) / CALIBRATION_FILE
    try:
        found = read(run)
    except sealed.DamagedError as error:
        made = _from_evaluation(run, checkpoint)
        if made is not None:
            state = "was written by an older version" if isinstance(error, sealed.OlderError) else "is damaged"
            sealed.say(f"{path} {state}; it is computed again from {evaluation_folder(run, 'validation')}")
            return made, ""
        if isinstance(error, sealed.OlderError):
            return None, "was written by an older version"
        raise
    if found is None:
        return None, "is missing"
    return (found, "") if found.checkpoint == checkpoint else (None, "belongs to another checkpoint")


def _from_evaluation(run: str | Path, checkpoint: str) -> Record | None:
    try:
        evaluation = read_evaluation(evaluation_folder(run, "validation"))
    except (sealed.DamagedError, OSError):
        return None
    origin = evaluation.origin
    return make(evaluation) if (origin.split, origin.checkpoint) == ("validation", checkpoint) else None


def _auc(value: float, replicates: np.ndarray) -> Auc | None:
    """Returns an AUC with the interval of its replicates; None if it is NaN."""
    return None if np.isnan(value) else Auc(float(value), *bootstrap.interval(replicates))


def _finding(auc: Auc | None, labels: np.ndarray, probabilities: np.ndarray, patients: np.ndarray) -> Calibrated:
    positives = int(labels.sum())
    scaling, reason, effect = _scaling(labels, probabilities, patients)
    undecided = operating_points.too_few(labels) or operating_points.no_better(*dataclasses.astuple(auc))
    point = None if undecided else _point(labels, probabilities)
    return Calibrated(positives, len(labels) - positives, scaling, reason, effect, point, undecided, auc)


def _scaling(
    labels: np.ndarray, probabilities: np.ndarray, patients: np.ndarray
) -> tuple[platt.Scaling | None, str, Effect | None]:
    """Returns scaling, why there is none, and its effect."""
    if few := operating_points.too_few(labels):
        return None, few, None
    scaling = platt.fit(labels, probabilities)
    if scaling is None:
        return None, "validation is ordered no better than by chance", None
    values = (probabilities, platt.cross_fit(labels, probabilities, patients))
    effect = Effect(
        brier=tuple(reliability.brier(labels, each) for each in values),
        error=tuple(reliability.curve(labels, each).error for each in values),
    )
    return scaling, "", effect


def _point(labels: np.ndarray, probabilities: np.ndarray) -> Threshold:
    threshold = operating_points.youden(labels, probabilities)
    called = probabilities >= threshold
    return Threshold(
        probability=threshold,
        sensitivity=float(called[labels == 1].mean()),
        specificity=float(1 - called[labels == 0].mean()),
        positives=int(labels.sum()),
        negatives=int((labels == 0).sum()),
    )


def _from_json(record: dict) -> Calibrated:
    kinds = {"scaling": platt.Scaling, "effect": Effect, "threshold": Threshold, "auc": Auc}
    parts = {name: kind(**record[name]) for name, kind in kinds.items() if record.get(name) is not None}
    return Calibrated(**{name: record.get(name) for name in _FINDING} | parts)
