"""The section on calibration: Brier score, calibration error, reliability curves, Platt scaling."""

from sdfn_jax.metrics import bootstrap, reliability
from sdfn_jax.metrics import scores as metrics_scores
from sdfn_jax.radiographs.labels import known
from sdfn_jax.reporting import charts, estimates
from sdfn_jax.reporting.estimates import Estimate
from sdfn_jax.reporting.material import Material
from sdfn_jax.reporting.page import Cell, Picture, Section, Table
from sdfn_jax.reporting.runs import Run


def calibration_section(material: Material) -> Section:
    """Brier score, calibration error, reliability curves."""
    curves = {
        run.name: [
            reliability.curve(*metrics_scores.known_only(*each))
            for each in zip(material.labels.T, run.probabilities.T, strict=True)
        ]
        for run in material.runs
    }
    rows: list[list[Cell]] = []
    for index, name in enumerate(material.finding_names):
        cells: list[Cell] = [name]
        for run in material.runs:
            error = curves[run.name][index].error
            cells += [_brier(material, run, index), estimates.without_interval(error, material.few[index])]
        rows.append(cells)
    heads = [f"{name}: {score}" for name in material.names for score in ("Brier", "calibration error")]
    return Section(
        "calibration",
        "Calibration",
        [
            f"Brier score with its interval, and expected calibration error over {reliability.BINS} bins of equal "
            "width. For a rare finding both are small for any network that commits to little: read them next to the "
            "reliability curves, whose axes are logarithmic.",
        ],
        [
            Table("calibration", "Calibration of the probabilities", ["Finding", *heads], rows),
            Picture("reliability", "Reliability curves", charts.reliability(material.finding_names, curves)),
            *_platt(material),
        ],
    )


def _brier(material: Material, run: Run, index: int) -> Estimate:
    resamples = bootstrap.subset(material.resamples, known(material.labels[:, index]))
    labels, mine = metrics_scores.known_only(material.labels[:, index], run.probabilities[:, index])
    replicates = bootstrap.ratio(bootstrap.sums((mine - labels) ** 2, resamples), resamples.images)
    return Estimate(reliability.brier(labels, mine), *bootstrap.interval(replicates), bool(material.few[index]))


def _platt(material: Material) -> list[Table]:
    """What `calibration.json` does to the probabilities: on validation, cross-fitted, and on test."""
    rows = [row for run in material.runs if run.calibration is not None for row in _platt_rows(material, run)]
    heads = [
        f"{score}, {split}, {when}"
        for split in ("validation", "test")
        for score in ("Brier", "error")
        for when in ("before", "after")
    ]
    caption = (
        "Platt scaling, fitted on validation alone: slope and intercept on the logit, and its effect; on validation "
        "each image is calibrated by a fit that never saw its patient. undefined: not calibrated"
    )
    columns = ["Finding", "network", "validation positives", "slope", "intercept", *heads, "why not"]
    return [Table("platt_scaling", caption, columns, rows, long=True)] if rows else []


def _platt_rows(material: Material, run: Run) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    found = run.calibration.findings.values()
    for index, (name, each) in enumerate(zip(material.finding_names, found, strict=True)):
        head: list[Cell] = [name, run.name, each.positives]
        if each.scaling is None:
            rows.append([*head, *[float("nan")] * 10, each.reason])
            continue
        labels, before = metrics_scores.known_only(material.labels[:, index], run.probabilities[:, index])
        scores = [
            (reliability.brier(labels, values), reliability.curve(labels, values).error)
            for values in (before, each.scaling(before))
        ]
        on_test = [
            estimates.without_interval(value, material.few[index])
            for pair in zip(*scores, strict=True)
            for value in pair
        ]
        fit = [each.scaling.slope, each.scaling.intercept, *each.effect.brier, *each.effect.error]
        rows.append([*head, *fit, *on_test, ""])
    return rows
