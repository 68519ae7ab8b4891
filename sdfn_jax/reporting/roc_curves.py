"""The ROC curves of Figure 8."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from sdfn_jax.core import palette
from sdfn_jax.metrics import scores as metrics_scores
from sdfn_jax.radiographs.findings import display_name
from sdfn_jax.reporting import charts
from sdfn_jax.reporting.comparable import all_caveats, auc_text, measured_on, network_name
from sdfn_jax.reporting.table_one import TableOne

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DASHES = {"entire": "--", "lung": ":", "fusion": "-", "finetuned": "-."}  # they tell the curves apart in grey print


def draw(path: Path, table: TableOne) -> None:
    """Draws the ROC curves as in Figure 8, as PNG and SVG: one panel per finding, one curve per network with its AUC.

    A finding without positives or without negatives has a panel with a remark. The last panel holds the legend and what
    the curves were measured on; the caveats are below.

    Args:
      path: of the PNG file.
      table: Table I of the networks.
    """
    from matplotlib.figure import Figure  # here, because importing it takes longer than reading a result

    count = len(table.findings)
    rows, columns = charts.grid(count)
    width, height = (3 * columns, 10 / 3 * rows) if rows > 1 else (5 * columns, 5)
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(rows, columns).flat
    for index, (name, positives) in enumerate(zip(table.findings, table.positives, strict=True)):
        panel = panels[index]
        panel.set_title(f"{display_name(name)} ({positives} positive)", fontsize=11)
        _draw_curves(panel, table, index)
    for index in range(0, count, columns):
        panels[index].set_ylabel("True positive rate")
    for index in range(columns * (rows - 1), count):
        panels[index].set_xlabel("False positive rate")
    for panel in panels[count:-1]:
        panel.set_axis_off()
    _draw_legend(panels[-1], table)
    notes = "\n".join(
        part for sentence in all_caveats(table.evaluations) for part in textwrap.wrap(sentence, 10 * width)
    )
    if notes:
        figure.supxlabel(notes, fontsize=11, color=palette.WARNING)
    charts.save(figure, path)


def _line(stage: str) -> dict[str, str]:
    return {"color": palette.NETWORKS[stage], "linestyle": _DASHES[stage]}


def _draw_curves(panel: "Axes", table: TableOne, index: int) -> None:
    panel.plot([0, 1], [0, 1], color=palette.DIAGONAL, linewidth=0.8)
    panel.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), aspect="equal")
    if not table.defined[index]:
        panel.text(0.5, 0.5, "undefined:\none class is absent", ha="center", va="center", color=palette.REMARK)
        return
    for row, evaluation in enumerate(reversed(table.evaluations)):
        labels, scores = metrics_scores.known_only(
            evaluation.predictions.labels[:, index], evaluation.predictions.probabilities[:, index]
        )
        stage = evaluation.origin.stage
        panel.plot(*metrics_scores.roc_curve(labels, scores), linewidth=1.6, **_line(stage))
        panel.text(
            *(0.97, 0.04 + 0.1 * row, f"{network_name(evaluation.origin)} {table.aucs[stage][index]:.3f}"),
            ha="right",
            fontsize=9,
            color=palette.NETWORKS[stage],
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )


def _draw_legend(panel: "Axes", table: TableOne) -> None:
    panel.set_axis_off()
    for evaluation in table.evaluations:
        stage = evaluation.origin.stage
        name, mean = network_name(evaluation.origin), auc_text(metrics_scores.mean_auc(table.aucs[stage])[0])
        label = f"{name}: mean {mean} of {table.defined.sum()}" if len(table.findings) > 1 else f"{name}: {mean}"
        panel.plot([], [], linewidth=2, label=label, **_line(stage))
    panel.legend(loc="upper left", frameon=False, borderaxespad=0, title="AUC", alignment="left")
    panel.text(0.02, 0, "\n".join(measured_on(table.evaluations)), fontsize=9, va="bottom", transform=panel.transAxes)
