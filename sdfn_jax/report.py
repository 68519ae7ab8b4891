"""The paper's Table I and Figure 8 from prediction files; no JAX, no checkpoint. As a command, the whole report.

python -m sdfn_jax.report runs/entire runs/lung runs/fusion runs/lrg --tables=data/chestxray14 --output=report/

RUN is the folder of an evaluated network, or of the lung region generator. It writes report/index.html, which needs no
other file and no network, every table as CSV and every figure as PNG and SVG. Sex, age, view and both label versions
come from the official tables; sections that lack their input say what makes it.

Every result carries what it was measured on: data, split, label version, seed, images, patients, positives, and the
caveats that go with them.
"""

from sdfn_jax.core import csv_table, errors

if __name__ == "__main__":
    errors.begin_command()

import argparse
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sdfn_jax.core import progress
from sdfn_jax.core.arguments import positive
from sdfn_jax.core.errors import run_command
from sdfn_jax.core.files import appears_when_complete
from sdfn_jax.metrics import published
from sdfn_jax.metrics import scores as metrics_scores
from sdfn_jax.metrics.predictions import Evaluation, caveats, image_list_digest
from sdfn_jax.radiographs.findings import FINDINGS, display_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette: told apart with any colour vision; the dashes tell them apart in grey print.
_LINES = {
    "entire": {"color": "#0072B2", "linestyle": "--"},
    "lung": {"color": "#D55E00", "linestyle": ":"},
    "fusion": {"color": "#000000", "linestyle": "-"},
}
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
    columns = [_aucs(evaluation) for evaluation in evaluations]
    means = [metrics_scores.mean_auc(column) for column in columns]
    left = max(len(name) for name in (*map(display_name, FINDINGS), "Mean of 14 findings"))

    def line(name: str, positives: object, cells: Sequence[str]) -> str:
        cells = [f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)]
        return "  ".join([f"{name:<{left}}", f"{positives:>9}", *cells])

    head = line("AUC", "positives", names)
    rows = [
        line(display_name(name), int(positives), [_auc_text(column[index]) for column in columns])
        for index, (name, positives) in enumerate(zip(FINDINGS, _positives(evaluations), strict=True))
    ]
    mean = line(f"Mean of {means[0][1]} findings", "", [_auc_text(value) for value, _ in means])
    rule = "-" * len(head)
    notes = [part for sentence in all_caveats(evaluations) for part in textwrap.wrap(f"NOTE: {sentence}", _WIDTH)]
    heading = textwrap.wrap("; ".join(_measured_on(evaluations)), _WIDTH)
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
    ours = {evaluation.origin.stage: _aucs(evaluation) for evaluation in evaluations}
    theirs = {stage: np.array(column) for stage, column in published.TABLE_ONE.items()}
    defined = ~np.isnan(ours[origin.stage])
    measured_on = {
        "images": len(predictions.images),
        "patients": len(np.unique(predictions.patients)),
        "data": "drawings" if origin.drawings else "radiographs",
        "data_version": origin.data_version,
        "split": origin.split,
        "label_version": origin.label_version,
        "seed": _seeds(evaluations),
        "image_list_sha256": image_list_digest(predictions.images),
    } | {f"checkpoint_{evaluation.origin.stage}": evaluation.origin.checkpoint for evaluation in evaluations}
    rows = [
        {"finding": name, "positives": int(positives)}
        | {stage: _cell(column[index]) for stage, column in ours.items()}
        | {f"paper_{stage}": f"{column[index]:.3f}" for stage, column in theirs.items()}
        | measured_on
        for index, (name, positives) in enumerate(zip(FINDINGS, _positives(evaluations), strict=True))
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


def roc_figure(path: str | Path, evaluations: Sequence[Evaluation]) -> None:
    """Draws the ROC curves as in Figure 8: one panel a finding, one curve a network, its AUC beside it.

    A finding without positives or without negatives has a panel that says so. The last panel holds the legend and what
    the curves were measured on; the caveats stand below.

    Args:
      path: of the picture; its suffix chooses the format (`.png`).
      evaluations: as for `table_one`.

    Raises:
      ValueError: as `table_one`.
    """
    from matplotlib.figure import Figure  # here, because importing it takes longer than reading a result

    evaluations = in_table_order(evaluations)
    figure = Figure(figsize=(15, 10), layout="constrained")
    panels = figure.subplots(3, 5).flat
    for index, (name, positives) in enumerate(zip(FINDINGS, _positives(evaluations), strict=True)):
        panel = panels[index]
        panel.set_title(f"{display_name(name)} ({positives} positive)", fontsize=11)
        _draw_curves(panel, evaluations, index)
    for index in (0, 5, 10):
        panels[index].set_ylabel("True positive rate")
    for index in range(10, 14):
        panels[index].set_xlabel("False positive rate")
    _draw_legend(panels[14], evaluations)
    notes = "\n".join(part for sentence in all_caveats(evaluations) for part in textwrap.wrap(sentence, 150))
    if notes:
        figure.supxlabel(notes, fontsize=11, color="#A00000")
    with appears_when_complete(path) as unfinished:
        figure.savefig(unfinished, dpi=120)


def write_report(
    folders: Sequence[Path], output: Path, tables: Path | None, others: Sequence[Path], replicates: int
) -> Path:
    """Writes the report.

    Args:
      folders: of runs.
      output: where it goes.
      tables: folder of the official tables.
      others: folders of other methods' localisation.
      replicates: of the bootstrap.

    Returns:
      the page.

    Raises:
      UserError: for runs, tables and files that do not fit, before anything is written.
    """
    from sdfn_jax.reporting import card, classification, material, page, places

    gathered = material.gather(folders, tables, others, replicates)
    makers = (
        *(card.measured, classification.table_one, classification.roc, classification.differences),
        *(classification.calibrated, classification.thresholds, classification.by_group, classification.versions),
        *(places.localised, places.heatmaps, places.lungs, places.segmentation, card.model_card),
    )
    sections = [make(gathered) for make in progress.bar(makers, what="report", unit="section")]
    title = f"SDFN on chest radiographs: {', '.join(published.COLUMN_NAMES[stage] for stage in gathered.aucs)}"
    return page.write(output, title, sections)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        "python -m sdfn_jax.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--output", type=Path, required=True, help="folder of the report")
    parser.add_argument("--tables", type=Path, help="folder of the official tables")
    parser.add_argument(
        "--localization", nargs="+", type=Path, default=[], help="folders that sdfn_jax.localize --heatmaps wrote"
    )
    parser.add_argument("--replicates", type=positive, default=2000, help="of the bootstrap")
    options = parser.parse_args(arguments)
    print(write_report(options.runs, options.output, options.tables, options.localization, options.replicates))


def in_table_order(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Returns evaluations in the order of Table I's columns, once they are known to be comparable.

    Raises:
      ValueError: for none at all, an unknown stage, a stage given twice, or evaluations that differ in images (the
        first few are named), labels, label version, split or kind of data.
    """
    if not evaluations:
        raise ValueError("no evaluation to report")
    stages = [evaluation.origin.stage for evaluation in evaluations]
    for stage in stages:
        if stage not in published.COLUMN_NAMES:
            raise ValueError(f"unknown stage {stage!r}; expected one of {', '.join(published.COLUMN_NAMES)}")
        if stages.count(stage) > 1:
            raise ValueError(f"{stages.count(stage)} evaluations of stage {stage!r}; Table I has one column for it")
    first, *others = sorted(
        evaluations, key=lambda evaluation: list(published.COLUMN_NAMES).index(evaluation.origin.stage)
    )
    for other in others:
        _check_comparable(first, other)
    return [first, *others]


def _check_comparable(first: Evaluation, other: Evaluation) -> None:
    stages = f"{first.origin.stage!r} and {other.origin.stage!r}"
    for field in ("label_version", "split", "drawings"):
        mine, its = getattr(first.origin, field), getattr(other.origin, field)
        if mine != its:
            raise ValueError(f"evaluations of {stages} differ in {field}: {mine} and {its}; evaluate both alike")
    mine, its = (dict(zip(each.predictions.images, each.predictions.labels, strict=True)) for each in (first, other))
    if mine.keys() != its.keys():
        only = sorted(mine.keys() ^ its.keys())
        raise ValueError(
            f"evaluations of {stages} saw different images; {len(only)} are in one only, such as {', '.join(only[:3])}"
        )
    wrong = [image for image, labels in mine.items() if not np.array_equal(labels, its[image])]
    if wrong:
        raise ValueError(
            f"evaluations of {stages} have different labels for {len(wrong)} images, such as {', '.join(wrong[:3])}"
        )


def _draw_curves(panel: "Axes", evaluations: Sequence[Evaluation], index: int) -> None:
    panel.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=0.8)
    panel.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), aspect="equal")
    for row, evaluation in enumerate(reversed(evaluations)):
        labels = evaluation.predictions.labels[:, index]
        scores = evaluation.predictions.probabilities[:, index]
        area = metrics_scores.auc(labels, scores)
        if math.isnan(area):
            panel.text(0.5, 0.5, "undefined:\none class is absent", ha="center", va="center", color="#666666")
            return
        style = _LINES[evaluation.origin.stage]
        panel.plot(*metrics_scores.roc_curve(labels, scores), linewidth=1.6, **style)
        name = published.COLUMN_NAMES[evaluation.origin.stage]
        behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
        panel.text(
            0.97, 0.04 + 0.1 * row, f"{name} {area:.3f}", ha="right", fontsize=9, color=style["color"], bbox=behind
        )


def _draw_legend(panel: "Axes", evaluations: Sequence[Evaluation]) -> None:
    panel.set_axis_off()
    for evaluation in evaluations:
        stage = evaluation.origin.stage
        mean, defined = metrics_scores.mean_auc(_aucs(evaluation))
        label = f"{published.COLUMN_NAMES[stage]}: mean {_auc_text(mean)} of {defined}"
        panel.plot([], [], linewidth=2, label=label, **_LINES[stage])
    panel.legend(loc="upper left", frameon=False, borderaxespad=0, title="AUC", alignment="left")
    panel.text(0.02, 0, "\n".join(_measured_on(evaluations)), fontsize=9, va="bottom", transform=panel.transAxes)


def all_caveats(evaluations: Sequence[Evaluation]) -> list[str]:
    """Returns the caveats of evaluations, each once."""
    return list(dict.fromkeys(sentence for evaluation in evaluations for sentence in caveats(evaluation)))


def _measured_on(evaluations: Sequence[Evaluation]) -> list[str]:
    origin, predictions = evaluations[0].origin, evaluations[0].predictions
    kind = "drawings (phantom)" if origin.drawings else "radiographs"
    return [
        f"{len(predictions.images)} {kind} of {len(np.unique(predictions.patients))} patients",
        f"split {origin.split}",
        f"data {origin.data_version}",
        f"labels {origin.label_version}",
        f"seed {_seeds(evaluations)}",
        f"checkpoints {', '.join(evaluation.origin.checkpoint[:8] for evaluation in evaluations)}",
    ]


def _seeds(evaluations: Sequence[Evaluation]) -> str:
    return "/".join(dict.fromkeys(seed_text(evaluation.origin.seed) for evaluation in evaluations))


def seed_text(seed: int | None) -> str:
    """Returns a training's seed for the reader."""
    return "unknown" if seed is None else str(seed)


def _positives(evaluations: Sequence[Evaluation]) -> np.ndarray:
    return evaluations[0].predictions.labels.sum(axis=0, dtype=int)


def _aucs(evaluation: Evaluation) -> np.ndarray:
    return metrics_scores.class_aucs(evaluation.predictions.labels, evaluation.predictions.probabilities)


def _auc_text(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.3f}"


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6f}"


if __name__ == "__main__":
    run_command(main)
