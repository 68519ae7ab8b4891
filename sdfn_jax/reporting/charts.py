"""Figures of the report. Each function returns another that draws into a PNG file and an SVG file next to it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sdfn_jax.core import palette
from sdfn_jax.core.files import appears_when_complete
from sdfn_jax.metrics.reliability import Curve
from sdfn_jax.reporting.estimates import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKERS = ("o", "s", "D", "^")


def forest(
    names: Sequence[str],
    series: Mapping[str, Sequence[Estimate]],
    label: str,
    *,
    reference: float | None = None,
    paper: Sequence[float] = (),
    mean_last: bool = False,
) -> Callable[[Path], None]:
    """Draws estimates with intervals, one row per name, one colour per series.

    Args:
      names: of the rows, from top to bottom.
      series: {name in the legend: an estimate for each row}; an undefined one is left out.
      label: of the axis.
      reference: where a line marks "no difference"; None for no line.
      paper: the paper's figure for each row, which has no interval; empty for none.
      mean_last: whether the last row is the mean of the others, and set apart.
    """

    def fill(figure: "Figure") -> None:
        axes = figure.subplots()
        if reference is not None:
            axes.axvline(reference, color=palette.REFERENCE, linewidth=1)
        if mean_last:
            axes.axhline(len(names) - 1.5, color=palette.REFERENCE, linewidth=0.8)
        for number, (name, estimates) in enumerate(series.items()):
            rows = np.arange(len(names)) + 0.22 * (number - (len(series) - 1) / 2)
            value, low, high = np.array([(each.value, each.low, each.high) for each in estimates]).T
            style = {"color": palette.SERIES[number % len(palette.SERIES)], "linewidth": 1.8}
            axes.hlines(rows, low, high, **style)
            axes.plot(value, rows, _MARKERS[number % len(_MARKERS)], label=name, markersize=5.5, color=style["color"])
        if len(paper):
            hollow = {"markeredgecolor": palette.VERMILION, "markerfacecolor": "none", "markeredgewidth": 1.8}
            axes.plot(paper, range(len(names)), "D", markersize=7, label="paper", **hollow)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel(label)
        axes.grid(axis="x", color=palette.GRID)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        if len(series) > 1 or len(paper):
            figure.legend(loc="outside upper left", ncols=len(series) + bool(len(paper)), frameon=False)

    return _drawn(fill, (7, 1.2 + 0.36 * len(names)))


def grid(findings: int) -> tuple[int, int]:
    """Returns rows and columns of panels: one for each finding and, last, one for the legend; 3 x 5 for the 14."""
    columns = min(findings + 1, 5)
    return -(-(findings + 1) // columns), columns


def reliability(names: Sequence[str], curves: Mapping[str, Sequence[Curve]]) -> Callable[[Path], None]:
    """Draws reliability curves, one panel per finding, one curve per network; both axes logarithmic.

    Most probabilities are below a tenth, where linear axes show nothing. Bins without a positive are on the lower edge.
    """
    low = 1e-3
    rows, columns = grid(len(names))

    def fill(figure: "Figure") -> None:
        panels = figure.subplots(rows, columns, sharex=True, sharey=True).flat
        for index, name in enumerate(names):
            panel = panels[index]
            panel.plot([low, 1], [low, 1], color=palette.DIAGONAL, linewidth=1)
            for number, each in enumerate(curves.values()):
                values = np.maximum(np.stack([each[index].predicted, each[index].observed]), low)
                panel.plot(*values, _MARKERS[number] + "-", color=palette.SERIES[number], markersize=4, linewidth=1.2)
            panel.set(xscale="log", yscale="log", xlim=(low, 1.1), ylim=(low, 1.1))
            panel.minorticks_off()  # they take most of the time and add nothing
            panel.set_title(name, fontsize=11)
        for panel in panels[len(names) :]:
            panel.set_axis_off()
        for number, name in enumerate(curves):
            panels[-1].plot([], [], _MARKERS[number] + "-", color=palette.SERIES[number], label=name)
        panels[-1].legend(loc="upper left", frameon=False)
        figure.supxlabel("mean predicted probability of a bin")
        figure.supylabel("share of positives in it")

    return _drawn(fill, (3 * columns, 3 * rows))


def sizes(curves: Mapping[str, Sequence[tuple[float, float, Estimate]]], label: str) -> Callable[[Path], None]:
    """Draws accuracy against the size of the reference box.

    Args:
      curves: {method: (smallest, largest, accuracy) of each group}.
      label: of the accuracy.
    """

    def fill(figure: "Figure") -> None:
        axes = figure.subplots()
        for number, (name, groups) in enumerate(curves.items()):
            centre = np.array([(low + high) / 2 for low, high, _ in groups]) + 4 * number
            value, low, high = np.array([(each.value, each.low, each.high) for *_, each in groups]).T
            spread = np.stack([value - low, high - value]).clip(0)
            style = {"marker": _MARKERS[number % len(_MARKERS)], "color": palette.SERIES[number % len(palette.SERIES)]}
            axes.errorbar(centre, value, spread, label=name, capsize=3, **style)
        axes.set(xlabel="side of the reference box (root of its area), pixels", ylabel=label, ylim=(-0.02, 1.02))
        axes.grid(color=palette.GRID)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside upper left", ncols=3, frameon=False)

    return _drawn(fill, (9, 4.5))


def learning_curves(curves: Mapping[str, Sequence[Sequence[dict]]], auc: str) -> Callable[[Path], None]:
    """Draws the training: losses on the left, the score that is watched on the right, one row per network.

    Args:
      curves: {name of the network: the lines of its log, for each of its trainings}.
      auc: what the mean AUC is called.
    """
    scores = {"validation_mean_auc": f"validation {auc}", "validation_dice": "validation Dice"}

    def fill(figure: "Figure") -> None:
        panels = figure.subplots(len(curves), 2, squeeze=False)
        for (loss, score), (name, logs) in zip(panels, curves.items(), strict=True):
            watched = next((key for key in scores if key in logs[0][-1]), None)
            _curves(loss, logs, "train_loss", palette.SERIES[0], "training")
            _curves(loss, logs, "validation_loss", palette.SERIES[1], "validation", kept=True)
            if watched is not None:
                _curves(score, logs, watched, palette.SERIES[1], scores[watched], kept=True)
            loss.set_title(f"{name}: loss", loc="left", fontsize=10)
            score.set_title(f"{name}: {scores.get(watched, '')}", loc="left", fontsize=10)
            for axes in (loss, score):
                axes.grid(color=palette.GRID)
                axes.spines[["top", "right"]].set_visible(False)
        for axes in panels[-1]:
            axes.set_xlabel("epoch")
        panels[0, 0].legend(frameon=False, fontsize=9)

    return _drawn(fill, (9, 0.6 + 1.7 * len(curves)))


def _curves(axes, logs: Sequence[Sequence[dict]], key: str, colour: str, label: str, kept: bool = False) -> None:
    width = 1.6 if len(logs) == 1 else 1.0
    for number, lines in enumerate(logs):
        values = {line["epoch"]: line.get(key, np.nan) for line in lines}
        axes.plot([*values], [*values.values()], color=colour, linewidth=width, label=None if number else label)
        best = lines[-1].get("best_epoch")
        if kept and best in values:
            axes.plot(best, values[best], "o", color=colour, markersize=6)


def _drawn(fill: Callable[["Figure"], None], size: tuple[float, float]) -> Callable[[Path], None]:
    def draw(path: Path) -> None:
        from matplotlib.figure import Figure  # here, because importing it takes longer than reading a result

        figure = Figure(figsize=size, layout="constrained")
        fill(figure)
        save(figure, path)

    return draw


def save(figure: "Figure", path: Path) -> None:
    """Writes a figure as the PNG of a path, and as an SVG next to it; the layout is computed once."""
    for each in (path, path.with_suffix(".svg")):
        with appears_when_complete(each) as unfinished:
            figure.savefig(unfinished, dpi=120)
        figure.set_layout_engine("none")
