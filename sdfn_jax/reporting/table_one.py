"""The paper's Table I as one object, rendered as text for a terminal and as a CSV file."""

import dataclasses
import itertools
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sdfn_jax.core import csv_table
from sdfn_jax.metrics import comparison, published
from sdfn_jax.metrics import scores as metrics_scores
from sdfn_jax.metrics.predictions import Evaluation, image_list_digest
from sdfn_jax.radiographs.findings import FINDINGS, display_name
from sdfn_jax.reporting.comparable import all_caveats, auc_text, in_table_order, measured_on, seeds

TABLE_ONE_FILE = "table_1.csv"
_WIDTH = 114  # characters
_NAMES = published.COLUMN_NAMES


@dataclasses.dataclass(frozen=True, eq=False)
class TableOne:
    """The AUC of each finding by each network, on the same images (section C, Table I).

    Attributes:
      evaluations: one for each column, in the paper's order of columns.
      aucs: {stage: (14,) float64}, by `FINDINGS`; NaN for a finding without positives or without negatives.
    """

    evaluations: tuple[Evaluation, ...]
    aucs: dict[str, np.ndarray]

    @classmethod
    def of(cls, evaluations: Sequence[Evaluation]) -> "TableOne":
        """Computes the table.

        Args:
          evaluations: of one, two or all three stages, in any order, on the same images.

        Raises:
          ValueError: for an unknown stage, a stage given twice, or evaluations of different images or labels.
        """
        ordered = tuple(in_table_order(evaluations))
        return cls(
            ordered,
            {
                each.origin.stage: metrics_scores.class_aucs(each.predictions.labels, each.predictions.probabilities)
                for each in ordered
            },
        )

    @property
    def stages(self) -> tuple[str, ...]:
        """The columns."""
        return tuple(self.aucs)

    @property
    def positives(self) -> np.ndarray:
        """Positive images of each finding, (14,) int64."""
        return self.evaluations[0].predictions.labels.sum(axis=0, dtype=int)

    @property
    def defined(self) -> np.ndarray:
        """Findings whose AUC is defined, (14,) bool: those in the mean, of ours and of the paper's alike."""
        return ~np.isnan(self.aucs[self.stages[0]])

    def mean(self, stage: str) -> float:
        """Returns the mean of a column over the defined findings; NaN if there are none."""
        return metrics_scores.mean_auc(self.aucs[stage])[0]

    def papers_mean(self, stage: str) -> float:
        """Returns the mean of the paper's column over the findings that are defined in ours; NaN if there are none."""
        return self.published_mean(published.TABLE_ONE[stage])

    def published_mean(self, column: Sequence[float]) -> float:
        """Returns the mean of a published column over the findings that are defined in ours; NaN if there are none."""
        defined = np.array(column)[self.defined]
        return float(defined.mean()) if defined.size else math.nan


def text(table: TableOne) -> str:
    """Lays out a table for a terminal: findings in the paper's order, each network's column next to the paper's.

    Returns:
      Lines of at most 114 characters: what was evaluated, the table with the positives of each finding, its means, the
      paper's paired t-test between the networks, the caveats. The last columns are the ones the paper compares with.
    """
    left = max(len(name) for name in (*map(display_name, FINDINGS), "Mean of 14 findings"))

    def line(name: str, positives: object, cells: Sequence[str], others: Sequence[str]) -> str:
        pairs = [f"{ours:>11}  {papers:>5}" for ours, papers in zip(cells[::2], cells[1::2], strict=True)]
        return "  ".join([f"{name:<{left}}", f"{positives:>9}", *pairs, *(f"{each:>6}" for each in others)])

    pairs = [cell for stage in table.stages for cell in (_NAMES[stage], "paper")]
    head = line("AUC", "positives", pairs, list(published.OTHERS))
    rows = []
    for index, (name, positives) in enumerate(zip(FINDINGS, table.positives, strict=True)):
        cells = [(table.aucs[stage][index], published.TABLE_ONE[stage][index]) for stage in table.stages]
        others = [auc_text(column[index]) for column in published.OTHERS.values()]
        ours = [auc_text(value) for pair in cells for value in pair]
        rows.append(line(display_name(name), int(positives), ours, others))
    means = [auc_text(value) for stage in table.stages for value in (table.mean(stage), table.papers_mean(stage))]
    rule = "-" * len(head)
    notes = [f"NOTE: {sentence}" for sentence in all_caveats(table.evaluations)]
    wrapped = [part for sentence in notes for part in textwrap.wrap(sentence, _WIDTH)]
    heading = textwrap.wrap("; ".join(measured_on(table.evaluations)), _WIDTH)
    others = [auc_text(table.published_mean(column)) for column in published.OTHERS.values()]
    mean = line(f"Mean of {table.defined.sum()} findings", "", means, others)
    return "\n".join([*heading, "", head, rule, *rows, rule, mean, "", *_t_tests(table), "", *wrapped]).rstrip() + "\n"


def _t_tests(table: TableOne) -> list[str]:
    """Returns a sentence for each pair of networks: the paper's paired t-test over the findings."""
    sentences = []
    for first, second in itertools.combinations(reversed(table.stages), 2):
        t, p = comparison.paper_t_test(table.aucs[first], table.aucs[second])
        gain = table.mean(first) - table.mean(second)
        found = "undefined"
        if not math.isnan(p):
            significant = "below" if p < published.SIGNIFICANT else "not below"
            found = f"t = {t:.2f}, p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}, {significant} the paper's 0.01"
        sentences.append(f"{_NAMES[first]} less {_NAMES[second]}: {gain:+.3f}; paired t-test over findings: {found}")
    return sentences


def write(path: str | Path, table: TableOne) -> None:
    """Writes a table as CSV, the paper's columns next to ours, and those it compares itself with.

    One row per finding, and a last one for the mean. An undefined AUC is an empty cell. Every row names what the
    numbers were measured on, so that they are never separated.
    """
    stages = {stage: (table.aucs[stage], table.mean(stage)) for stage in table.stages}
    papers = {f"paper_{stage}": column for stage, column in published.TABLE_ONE.items()}
    papers |= {f"paper_{name}": column for name, column in published.OTHERS.items()}
    constant = _measured_on(table)
    heads = ["finding", "positives", *stages, *papers, *constant]
    rows = [
        [
            name,
            positives,
            *(_cell([*column, mean][index], 6) for column, mean in stages.values()),
            *(_cell([*column, table.published_mean(column)][index], 3) for column in papers.values()),
            *constant.values(),
        ]
        for index, (name, positives) in enumerate(
            [*zip(FINDINGS, map(int, table.positives), strict=True), (f"Mean of {table.defined.sum()} findings", "")]
        )
    ]
    with csv_table.writing(path) as file:
        file.row(heads)
        file.rows(rows)


def _measured_on(table: TableOne) -> dict[str, object]:
    origin, predictions = table.evaluations[0].origin, table.evaluations[0].predictions
    return {
        "images": len(predictions.images),
        "patients": len(np.unique(predictions.patients)),
        "data": "drawings" if origin.drawings else "radiographs",
        "data_version": origin.data_version,
        "split": origin.split,
        "label_version": origin.label_version,
        "seed": seeds(table.evaluations),
        "image_list_sha256": image_list_digest(predictions.images),
    } | {f"checkpoint_{each.origin.stage}": each.origin.checkpoint for each in table.evaluations}


def _cell(value: float, decimals: int) -> str:
    return "" if math.isnan(value) else f"{value:.{decimals}f}"
