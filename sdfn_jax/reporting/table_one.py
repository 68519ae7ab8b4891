"""The paper's Table I, for a terminal and as CSV."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sdfn_jax.core import csv_table
from sdfn_jax.metrics import published
from sdfn_jax.metrics import scores as metrics_scores
from sdfn_jax.metrics.predictions import Evaluation, image_list_digest
from sdfn_jax.radiographs.findings import FINDINGS, display_name

if TYPE_CHECKING:
    pass
from sdfn_jax.reporting.comparable import (
    all_caveats,
    auc_text,
    aucs,
    count_positives,
    in_table_order,
    measured_on,
    seeds,
)

_WIDTH = 100


def table_one(evaluations: Sequence[Evaluation]) -> str:
    """Lays out Table I (section C) for a terminal: findings in the paper's order, one column a network, the mean.

    Args:
      evaluations: of one, two or all three stages, in any order, on the same images.

    Returns:
      Lines of at most 100 characters: what was evaluated, the table with the positives of each finding, the caveats.

    Raises:
      ValueError: for an unknown stage, a stage given twice, or evaluations of different images or labels.
    """
    evaluations = in_table_order(evaluations)
    names = [published.COLUMN_NAMES[evaluation.origin.stage] for evaluation in evaluations]
    widths = [max(len(name), len("undefined")) for name in names]
    columns = [aucs(evaluation) for evaluation in evaluations]
    means = [metrics_scores.mean_auc(column) for column in columns]
    left = max(len(name) for name in (*map(display_name, FINDINGS), "Mean of 14 findings"))

    def line(name: str, positives: object, cells: Sequence[str]) -> str:
        cells = [f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)]
        return "  ".join([f"{name:<{left}}", f"{positives:>9}", *cells])

    head = line("AUC", "positives", names)
    rows = [
        line(display_name(name), int(positives), [auc_text(column[index]) for column in columns])
        for index, (name, positives) in enumerate(zip(FINDINGS, count_positives(evaluations), strict=True))
    ]
    mean = line(f"Mean of {means[0][1]} findings", "", [auc_text(value) for value, _ in means])
    rule = "-" * len(head)
    notes = [part for sentence in all_caveats(evaluations) for part in textwrap.wrap(f"NOTE: {sentence}", _WIDTH)]
    heading = textwrap.wrap("; ".join(measured_on(evaluations)), _WIDTH)
    return "\n".join([*heading, "", head, rule, *rows, rule, mean, "", *notes]).rstrip() + "\n"


def write_table_one(path: str | Path, evaluations: Sequence[Evaluation]) -> None:
    """Writes Table I as CSV, the paper's columns beside ours.

    One row a finding and a last one for the mean, which averages the findings whose AUC is defined, of ours and of the
    paper's alike. An undefined AUC is an empty cell. What the numbers were measured on stands in every row, so that it
    cannot be parted from them: `data` is `drawings` or `radiographs`.

    Raises:
      ValueError: as `table_one`.
    """
    evaluations = in_table_order(evaluations)
    origin, predictions = evaluations[0].origin, evaluations[0].predictions
    ours = {evaluation.origin.stage: aucs(evaluation) for evaluation in evaluations}
    theirs = {stage: np.array(column) for stage, column in published.TABLE_ONE.items()}
    defined = ~np.isnan(ours[origin.stage])
    measured_on = {
        "images": len(predictions.images),
        "patients": len(np.unique(predictions.patients)),
        "data": "drawings" if origin.drawings else "radiographs",
        "data_version": origin.data_version,
        "split": origin.split,
        "label_version": origin.label_version,
        "seed": seeds(evaluations),
        "image_list_sha256": image_list_digest(predictions.images),
    } | {f"checkpoint_{evaluation.origin.stage}": evaluation.origin.checkpoint for evaluation in evaluations}
    rows = [
        {"finding": name, "positives": int(positives)}
        | {stage: _cell(column[index]) for stage, column in ours.items()}
        | {f"paper_{stage}": f"{column[index]:.3f}" for stage, column in theirs.items()}
        | measured_on
        for index, (name, positives) in enumerate(zip(FINDINGS, count_positives(evaluations), strict=True))
    ]
    mean = (
        {"finding": f"Mean of {defined.sum()} findings", "positives": ""}
        | {stage: _cell(metrics_scores.mean_auc(column)[0]) for stage, column in ours.items()}
        | {f"paper_{s}": f"{column[defined].mean():.3f}" if defined.any() else "" for s, column in theirs.items()}
        | measured_on
    )
    with csv_table.writing(path) as table:
        table.row(mean)
        table.rows(row.values() for row in [*rows, mean])


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"
