"""The ROC curves of Figure 8."""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sdfn_jax.core.files import appears_when_complete
from sdfn_jax.metrics import published
from sdfn_jax.metrics import scores as metrics_scores
from sdfn_jax.metrics.predictions import Evaluation
from sdfn_jax.radiographs.findings import FINDINGS, display_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
from sdfn_jax.reporting.comparable import all_caveats, auc_text, aucs, count_positives, in_table_order, measured_on

# Okabe and Ito's palette: told apart with any colour vision; the dashes tell them apart in grey print.
_LINES = {
    "entire": {"color": "#0072B2", "linestyle": "--"},
    "lung": {"color": "#D55E00", "linestyle": ":"},
    "fusion": {"color": "#000000", "linestyle": "-"},
}


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
    for index, (name, positives) in enumerate(zip(FINDINGS, count_positives(evaluations), strict=True)):
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
        mean, defined = metrics_scores.mean_auc(aucs(evaluation))
        label = f"{published.COLUMN_NAMES[stage]}: mean {auc_text(mean)} of {defined}"
        panel.plot([], [], linewidth=2, label=label, **_LINES[stage])
    panel.legend(loc="upper left", frameon=False, borderaxespad=0, title="AUC", alignment="left")
    panel.text(0.02, 0, "\n".join(measured_on(evaluations)), fontsize=9, va="bottom", transform=panel.transAxes)
