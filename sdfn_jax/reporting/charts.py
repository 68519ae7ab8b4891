"""Figures of the report. Each function returns another that draws into a path, whose suffix chooses the format."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sdfn_jax.core import palette
from sdfn_jax.core.files import appears_when_complete
from sdfn_jax.metrics.calibration import Reliability
from sdfn_jax.radiographs.findings import FINDINGS, display_name
from sdfn_jax.reporting.estimates import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKERS = ("o", "s", "D", "^")


def forest(
    names: Sequence[str], series: dict[str, Sequence[Estimate]], label: str, reference: float | None
) -> Callable[[Path], None]:
    """Draws estimates with intervals, one row a name, one colour a series.

    Args:
      names: of the rows, from above.
      series: {name in the legend: an estimate for each row}; an undefined one is left out.
      label: of the axis.
      reference: where a line marks "no difference"; None for no line.
    """

    def fill(figure: "Figure") -> None:
        axes = figure.subplots()
        if reference is not None:
            axes.axvline(reference, color=palette.REFERENCE, linewidth=1)
        for number, (name, estimates) in enumerate(series.items()):
            rows = np.arange(len(names)) + 0.22 * (number - (len(series) - 1) / 2)
            value, low, high = np.array([(each.value, each.low, each.high) for each in estimates]).T
            style = {"color": palette.SERIES[number % len(palette.SERIES)], "linewidth": 1.6}
            axes.hlines(rows, low, high, **style)
            axes.plot(value, rows, _MARKERS[number % len(_MARKERS)], label=name, markersize=5, color=style["color"])
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlabel(label)
        axes.grid(axis="x", color=palette.GRID)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        if len(series) > 1:
            figure.legend(loc="outside upper left", ncols=len(series), frameon=False)

    return _drawn(fill, (9, 1.4 + 0.36 * len(names)))


def reliability(curves: dict[str, Sequence[Reliability]]) -> Callable[[Path], None]:
    """Draws reliability curves, one panel a finding, one curve a network; both axes logarithmic.

    Most probabilities are below a tenth, where linear axes show nothing. Bins without a positive are on the lower edge.
    """
    low = 1e-3

    def fill(figure: "Figure") -> None:
        panels = figure.subplots(3, 5, sharex=True, sharey=True).flat
        for index, finding in enumerate(FINDINGS):
            panel = panels[index]
            panel.plot([low, 1], [low, 1], color=palette.DIAGONAL, linewidth=1)
            for number, each in enumerate(curves.values()):
                values = np.maximum(np.stack([each[index].predicted, each[index].observed]), low)
                panel.plot(*values, _MARKERS[number] + "-", color=palette.SERIES[number], markersize=4, linewidth=1.2)
            panel.set(xscale="log", yscale="log", xlim=(low, 1.1), ylim=(low, 1.1))
            panel.minorticks_off()  # they take most of the time and add nothing
            panel.set_title(display_name(finding), fontsize=11)
        panels[14].set_axis_off()
        for number, name in enumerate(curves):
            panels[14].plot([], [], _MARKERS[number] + "-", color=palette.SERIES[number], label=name)
        panels[14].legend(loc="upper left", frameon=False)
        figure.supxlabel("mean predicted probability of a bin")
        figure.supylabel("share of positives in it")

    return _drawn(fill, (15, 9))


def sizes(curves: dict[str, Sequence[tuple[float, float, Estimate]]], label: str) -> Callable[[Path], None]:
    """Draws accuracy over the size of the reference box.

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


def _drawn(fill: Callable[["Figure"], None], size: tuple[float, float]) -> Callable[[Path], None]:
    def draw(path: Path) -> None:
        from matplotlib.figure import Figure  # here, because importing it takes longer than reading a result

        figure = Figure(figsize=size, layout="constrained")
        fill(figure)
        with appears_when_complete(path) as unfinished:
            figure.savefig(unfinished, dpi=120)

    return draw
