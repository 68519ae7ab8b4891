"""The section on operating points: chosen on validation, reported on test."""

from sdfn_jax.metrics import bootstrap, operating_points
from sdfn_jax.metrics import scores as metrics_scores
from sdfn_jax.reporting.estimates import Estimate
from sdfn_jax.reporting.material import Material
from sdfn_jax.reporting.page import Cell, Section, Table
from sdfn_jax.reporting.runs import Run

_TITLE = "Operating points"
_RULES = (
    ("Youden", operating_points.youden),
    (f"sensitivity {operating_points.SENSITIVITY:.0%}", operating_points.at_sensitivity),
)


def thresholds(material: Material) -> Section:
    """Operating points, chosen on validation."""
    chosen = [run for run in material.runs if run.validation is not None]
    if not chosen:
        return Section(
            "operating-points",
            _TITLE,
            [
                "NOTE: not computed. Thresholds are chosen on validation, never on test, and "
                f"{material.runs[0].folder} has no evaluation/validation: "
                "python -m sdfn_jax.main --config=... --mode=evaluate --split=validation"
            ],
        )
    rows = []
    for run in chosen:
        resamples = operating_points.resample(run.validation.predictions.patients)
        for index in range(len(material.finding_names)):
            rows += _rows(material, run, index, resamples)
    heads = [
        *("Finding", "network", "rule", "threshold", "validation positives", "positives", "called"),
        *("sensitivity", "specificity", "predictive value", "why no decision"),
    ]
    return Section(
        "operating-points",
        _TITLE,
        [
            "Each threshold was chosen on the validation split (Youden's index, or the highest one that finds "
            f"{operating_points.SENSITIVITY:.0%} of the positives) and is reported on test, where it was never tuned. "
            "The predictive value holds at this prevalence only. A finding has no threshold without "
            f"{operating_points.MINIMUM} positives and {operating_points.MINIMUM} negatives in validation, or if "
            "the 95 % interval of its AUC on validation, over patients, is not above 0.5: nothing is decided.",
        ],
        [Table("operating_points", "Thresholds of validation, on test", heads, rows)],
    )


def _rows(material: Material, run: Run, index: int, resamples: bootstrap.Resamples) -> list[list[Cell]]:
    """Returns a row for each rule, or one with the reason why there is no threshold.

    Args:
      material: of the report.
      run: with an evaluation on validation.
      index: of the finding.
      resamples: of the patients of the validation split.
    """
    labels, scores = (getattr(run.validation.predictions, each)[:, index] for each in ("labels", "probabilities"))
    name, positives = material.finding_names[index], int(metrics_scores.counts(labels)[0])
    if why := operating_points.undecided(labels, scores, resamples):
        nothing = float("nan")
        on_test = int(material.table.positives[index])
        return [[name, run.name, "none", nothing, positives, on_test, "", *[nothing] * 3, why]]
    rows: list[list[Cell]] = []
    rare = bool(material.few[index])
    for rule, choose in _RULES:
        threshold = choose(labels, scores)
        mine = run.probabilities[:, index]
        point = operating_points.apply(material.labels[:, index], mine, threshold, material.resamples)
        rows.append(
            [
                *(name, run.name, rule, threshold, positives, point.positives, point.called),
                Estimate(point.sensitivity, *point.sensitivity_interval, rare),
                Estimate(point.specificity, *point.specificity_interval, rare),
                Estimate(point.predictive_value, *point.predictive_value_interval, rare),
                "",
            ]
        )
    return rows
