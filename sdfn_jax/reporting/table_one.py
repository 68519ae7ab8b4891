"""The paper's Table I as one object, rendered as text for a terminal and as a CSV file."""

import dataclasses
import itertools
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sdfn_jax.core import csv_table
from sdfn_jax.metrics import comparison, ensembles, published
from sdfn_jax.metrics import scores as metrics_scores
from sdfn_jax.metrics.evaluation import Evaluation
from sdfn_jax.metrics.predictions import image_list_digest
from sdfn_jax.radiographs.findings import FINDINGS, display_name
from sdfn_jax.radiographs.labels import known
from sdfn_jax.reporting.comparable import all_caveats, auc_text, in_table_order, measured_on, seeds

TABLE_ONE_FILE = "table_1.csv"
_WIDTH = 114  # characters
_NAMES = published.COLUMN_NAMES


@dataclasses.dataclass(frozen=True, eq=False)
class TableOne:
    """The AUC of each finding by each network, on the same images (section C, Table I).

    Attributes:
      evaluations: one for each column, in the paper's order of columns.
      aucs: {stage: (K,) float64}, by finding; NaN for one without positives or without negatives.
      members: {stage: (seeds, K)}, the same of each member, for the stages whose evaluation is an ensemble's.
    """

    evaluations: tuple[Evaluation, ...]
    aucs: dict[str, np.ndarray]
    members: dict[str, np.ndarray]

    @classmethod
    def of(cls, evaluations: Sequence[Evaluation]) -> "TableOne":
        """Computes the table.

        Args:
          evaluations: of one or more stages, in any order, on the same images.

        Raises:
          ValueError: for an unknown stage, a stage given twice, or evaluations of different images or labels.
        """
        ordered = tuple(in_table_order(evaluations))
        return cls(
            ordered,
            {each.origin.stage: _aucs(each) for each in ordered},
            {each.origin.stage: np.stack([*map(_aucs, each.members)]) for each in ordered if each.members},
        )

    @property
    def stages(self) -> tuple[str, ...]:
        """The columns."""
        return tuple(self.aucs)

    @property
    def findings(self) -> tuple[str, ...]:
        """The K rows."""
        return self.evaluations[0].predictions.findings

    @property
    def positives(self) -> np.ndarray:
        """Positive images of each finding, (K,) int64."""
        return metrics_scores.counts(self.evaluations[0].predictions.labels)[0]

    @property
    def known(self) -> np.ndarray:
        """Images of which each finding is known to be present or absent, (K,) int64."""
        return known(self.evaluations[0].predictions.labels).sum(axis=0, dtype=int)

    @property
    def all_known(self) -> bool:
        """Whether every finding is known of every image."""
        return bool((self.known == len(self.evaluations[0].predictions.images)).all())

    @property
    def has_papers(self) -> bool:
        """Whether the paper has figures for these findings: they are some of its own, on ChestX-ray14."""
        is_its_data = self.evaluations[0].origin.data_version.startswith("chestxray14/")
        return is_its_data and set(self.findings) <= set(FINDINGS)

    @property
    def defined(self) -> np.ndarray:
        """Findings whose AUC is defined, (K,) bool: those in the mean, of ours and of the paper's alike."""
        return ~np.isnan(self.aucs[self.stages[0]])

    def column(self, stage: str) -> np.ndarray:
        """Returns what is next to the paper's column, whose networks are one each, (K,) float64.

        It is the network's AUCs; of an ensemble not its own, but the means over its members.
        """
        return self.members[stage].mean(axis=0) if stage in self.members else self.aucs[stage]

    def mean(self, stage: str) -> float:
        """Returns the mean of a column over the defined findings; NaN if there are none."""
        return metrics_scores.mean_auc(self.column(stage))[0]

    def of_seeds(self, stage: str) -> np.ndarray:
        """Returns the mean AUC of each member of an ensemble over the defined findings, (seeds,) float64."""
        return np.array([metrics_scores.mean_auc(aucs)[0] for aucs in self.members[stage]])

    def in_paper(self, stage: str) -> bool:
        """Returns whether the paper has this column, for these findings."""
        return self.has_papers and stage in published.TABLE_ONE

    def papers_mean(self, stage: str) -> float:
        """Returns the mean of the paper's column over the findings that are defined in ours; NaN if there are none."""
        return self.published_mean(published.TABLE_ONE[stage])

    def published(self, column: Sequence[float]) -> np.ndarray:
        """Returns a published column's figures for these findings, (K,); there must be some (`has_papers`)."""
        return np.array([column[FINDINGS.index(name)] for name in self.findings])

    def published_mean(self, column: Sequence[float]) -> float:
        """Returns the mean of a published column over the findings that are defined in ours; NaN if there are none."""
        defined = self.published(column)[self.defined]
        return float(defined.mean()) if defined.size else math.nan


def _aucs(evaluation: Evaluation) -> np.ndarray:
    return metrics_scores.class_aucs(evaluation.predictions.labels, evaluation.predictions.probabilities)


def text(table: TableOne) -> str:
    """Lays out a table for a terminal: findings in their order, each network's column next to the paper's, if any.

    Returns:
      Lines of at most 114 characters, more with a fine-tuned network or with ensembles: what was evaluated, the table
      with the positives of each finding, its means, the paper's paired t-test between the networks, the caveats. The
      last columns are the ones the paper compares with. Of ensembles the table has the mean and the standard deviation
      over their members, and below it are the members' means and the ensembles'.
    """
    mean_of = f"Mean of {table.defined.sum()} findings"
    left = max(len(name) for name in (*map(display_name, table.findings), mean_of, "Mean of 14 findings"))
    columns: list[tuple[str, int, list[str]]] = []  # head, width, the findings and their mean
    for stage in table.stages:
        head = _NAMES[stage].rpartition(", ")[2]  # of "SDFN, fine-tuned", next to the SDFN, the rest
        columns.append((head, 13 if table.members else 11, _ours(table, stage)))
        if table.in_paper(stage):
            columns.append(("paper", 5, _published(table, published.TABLE_ONE[stage])))
    if table.has_papers:
        columns += [(name, 6, _published(table, column)) for name, column in published.OTHERS.items()]

    def line(name: str, counts: Sequence[object], cells: Sequence[str]) -> str:
        padded = [f"{cell:>{width}}" for cell, (_, width, *_) in zip(cells, columns, strict=True)]
        return "  ".join([f"{name:<{left}}", *(f"{count:>9}" for count in counts), *padded])

    counted = {"positives": table.positives} | ({} if table.all_known else {"of films": table.known})
    head = line("AUC", list(counted), [name for name, *_ in columns])
    rows = [
        line(
            display_name(name),
            [int(count[index]) for count in counted.values()],
            [cells[index] for *_, cells in columns],
        )
        for index, name in enumerate(table.findings)
    ]
    rule = "-" * len(head)
    if len(table.findings) > 1:
        rows += [rule, line(mean_of, [""] * len(counted), [cells[-1] for *_, cells in columns])]
    notes = [f"NOTE: {sentence}" for sentence in all_caveats(table.evaluations)]
    wrapped = [part for sentence in notes for part in textwrap.wrap(sentence, _WIDTH)]
    heading = textwrap.wrap("; ".join(measured_on(table.evaluations)), _WIDTH)
    lines = [*heading, "", head, rule, *rows, "", *_of_seeds(table), *_differences(table), "", *wrapped]
    return "\n".join(lines).rstrip() + "\n"


def _published(table: TableOne, column: Sequence[float]) -> list[str]:
    """Returns the cells of a published column: the findings, and their mean."""
    return [auc_text(value) for value in (*table.published(column), table.published_mean(column))]


def _ours(table: TableOne, stage: str) -> list[str]:
    """Returns the cells of a column: the findings, and their mean; of an ensemble with the sd over its members."""
    values = [*table.column(stage), table.mean(stage)]
    if stage not in table.members:
        return list(map(auc_text, values))
    spreads = [*ensembles.spread(table.members[stage]), ensembles.spread(table.of_seeds(stage))]
    return [
        auc_text(value) if math.isnan(value) else f"{value:.3f} ({sd:.3f})"
        for value, sd in zip(values, spreads, strict=True)
    ]


def _of_seeds(table: TableOne) -> list[str]:
    """Returns the lines of the members' and the ensembles' mean AUC; none without ensembles."""
    sentences = []
    for evaluation in table.evaluations:
        stage, seeds = evaluation.origin.stage, evaluation.origin.seeds
        if stage in table.members:
            each = zip(map(auc_text, table.of_seeds(stage)), seeds, strict=True)
            own = auc_text(metrics_scores.mean_auc(table.aucs[stage])[0])
            said = ", ".join(f"{mean} (seed {seed})" for mean, seed in each)
            word = "mean AUC" if len(table.findings) > 1 else "AUC"
            sentences.append(f"{_NAMES[stage]}, {word} of each: {said}; ensemble of {len(seeds)}: {own}")
    if sentences:
        paper = "; the paper has one of each" if table.has_papers else ""
        sentences.insert(0, f"Above: mean (standard deviation) over networks of several seeds{paper}.")
    return [part for sentence in sentences for part in textwrap.wrap(sentence, _WIDTH)] + [""] * bool(sentences)


def _differences(table: TableOne) -> list[str]:
    """Returns a sentence for each pair of networks: with several findings, the paper's paired t-test over them."""
    sentences = []
    for first, second in itertools.combinations(reversed(table.stages), 2):
        t, p = comparison.paper_t_test(table.column(first), table.column(second))
        gain = f"{_NAMES[first]} less {_NAMES[second]}: {table.mean(first) - table.mean(second):+.3f}"
        if len(table.findings) == 1:
            sentences.append(gain)
            continue
        found = "undefined"
        if not math.isnan(p):
            significant = "below" if p < published.SIGNIFICANT else "not below"
            found = f"t = {t:.2f}, p {'< 0.001' if p < 0.001 else f'= {p:.3f}'}, {significant} the paper's 0.01"
        sentences.append(f"{gain}; paired t-test over findings: {found}")
    return sentences


def write(path: str | Path, table: TableOne) -> None:
    """Writes a table as CSV, the paper's columns next to ours, and those it compares itself with.

    One row per finding, and a last one for the mean. An undefined AUC is an empty cell. Every row names what the
    numbers were measured on, so that they are never separated. An ensemble's column is the mean over its members; their
    standard deviation, each member's and the ensemble's own AUC have further columns.
    """
    stages = {stage: (table.column(stage), table.mean(stage)) for stage in table.stages} | _of_members(table)
    papers = {
        f"paper_{name}": (table.published(each), table.published_mean(each))
        for name, each in (published.TABLE_ONE | published.OTHERS).items()
        if table.has_papers
    }
    of_images = {} if table.all_known else {"images_known": [*map(int, table.known), ""]}
    constant = _measured_on(table)
    heads = ["finding", "positives", *of_images, *stages, *papers, *constant]
    rows = [
        [
            name,
            positives,
            *(each[index] for each in of_images.values()),
            *(_cell([*column, mean][index], 6) for column, mean in stages.values()),
            *(_cell([*column, mean][index], 3) for column, mean in papers.values()),
            *constant.values(),
        ]
        for index, (name, positives) in enumerate(
            [
                *zip(table.findings, map(int, table.positives), strict=True),
                *[(f"Mean of {table.defined.sum()} findings", "")] * (len(table.findings) > 1),
            ]
        )
    ]
    with csv_table.writing(path) as file:
        file.row(heads)
        file.rows(rows)


def _of_members(table: TableOne) -> dict[str, tuple[np.ndarray, float]]:
    """Returns {name of a column: (by finding, of the mean)} of what only ensembles have."""
    found: dict[str, tuple[np.ndarray, float]] = {}
    for evaluation in table.evaluations:
        stage = evaluation.origin.stage
        if stage in table.members:
            each, means = table.members[stage], table.of_seeds(stage)
            found[f"{stage}_sd"] = (ensembles.spread(each), float(ensembles.spread(means)))
            for seed, aucs, mean in zip(evaluation.origin.seeds, each, means.tolist(), strict=True):
                found[f"{stage}_seed_{seed}"] = (aucs, mean)
            found[f"{stage}_ensemble"] = (table.aucs[stage], metrics_scores.mean_auc(table.aucs[stage])[0])
    return found


def _measured_on(table: TableOne) -> dict[str, int | str]:
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
