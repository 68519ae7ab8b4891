"""What the checks of a network's heatmaps found: `heatmap_checks.json`, table, `heatmap_checks.png`. No JAX."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sdfn_jax.core import palette, sealed
from sdfn_jax.core.files import appears_when_complete
from sdfn_jax.heatmaps import faithfulness

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHECKS_FILE, CHECKS_FIGURE = "heatmap_checks.json", "heatmap_checks.png"
CURVES = ("deletion", "insertion")
_RECORD = {
    "checkpoint": sealed.TEXT,
    "outside": sealed.TEXT,
    "cases": sealed.WHOLE,
    **dict.fromkeys(("rules", "randomised", "curves", "areas"), sealed.OBJECT),
}


@dataclasses.dataclass(frozen=True)
class CaseMean:
    """A mean over cases and its 95 % interval, over patients."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """As in the table."""
        return f"{self.mean:>7.3f}  [{self.low:.3f}, {self.high:.3f}]"


@dataclasses.dataclass(frozen=True)
class Checks:
    """What the checks found; a case is a finding with a reference box on an image.

    Attributes:
      cases: their number.
      rules: {rule of `cam.OUTSIDE`: (share of peaks in the lung box, pointing game)}.
      randomised: {what has random weights: rank correlation with the trained network's heatmaps}.
      curves: {`deletion`, `insertion`: (2, fractions) mean probability, for the heatmap and for its shuffled cells}.
      areas: {curve: (area for the heatmap, area for its shuffled cells, their difference)}.
    """

    cases: int
    rules: dict[str, tuple[CaseMean, ...]]
    randomised: dict[str, CaseMean]
    curves: dict[str, np.ndarray]
    areas: dict[str, tuple[CaseMean, ...]]


def write(folder: Path, found: Checks, origin: dict) -> None:
    """Writes the record and the figure into a folder."""
    record = dataclasses.asdict(found) | {"curves": {name: each.tolist() for name, each in found.curves.items()}}
    record["fractions"] = faithfulness.FRACTIONS.tolist()
    sealed.write(folder / CHECKS_FILE, origin | record)
    with appears_when_complete(folder / CHECKS_FIGURE) as unfinished:
        figure(found, drawings=origin["drawings"]).savefig(unfinished)


def read(folder: Path) -> tuple[Checks, dict]:
    """Reads what `write` wrote: what was found, and the record with its origin.

    Raises:
      DamagedError: for a record that is not one.
      OSError: for a missing file.
    """
    path = folder / CHECKS_FILE
    record = sealed.read(path, _RECORD, "the record of heatmap checks", "check again")
    try:
        found = Checks(
            cases=record["cases"],
            rules=_means(record["rules"]),
            randomised={name: CaseMean(**each) for name, each in record["randomised"].items()},
            curves={name: np.reshape(record["curves"][name], (2, len(faithfulness.FRACTIONS))) for name in CURVES},
            areas=_means(record["areas"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise sealed.DamagedError(f"{path}: not the record of heatmap checks ({error!r}); check again") from error
    return found, record


def _means(record: dict) -> dict[str, tuple[CaseMean, ...]]:
    return {name: tuple(CaseMean(**each) for each in values) for name, values in record.items()}


def table(found: Checks, origin: dict) -> str:
    """Formats the checks for a terminal."""
    lines = [
        f"Heatmaps of {origin['method']}: {found.cases} findings with a reference box, 95 % interval over patients",
        f"{'outside the lung box':<24}{'peaks in the lung box':>25}{'pointing game':>25}",
        *(f"{rule:<24}{inside!s:>25}{pointing!s:>25}" for rule, (inside, pointing) in found.rules.items()),
        f"(The paper does not say what the lung region's map counts as there. Below: {origin['outside']}.)",
        f"{'random weights':<24}{'rank correlation':>25}    with the trained network's heatmaps; 0 is best",
        *(f"{part:<24}{alike!s:>25}" for part, alike in found.randomised.items()),
        f"{'area under the curve':<24}{'heatmap':>25}{'shuffled cells':>25}{'difference':>26}",
    ]
    for name, values in found.areas.items():
        wanted = "below 0" if name == "deletion" else "above 0"
        mine, control, difference = map(str, values)
        lines.append(f"{name:<24}{mine:>25}{control:>25}{difference:>26}  ({wanted}: better than chance)")
    return "\n".join(lines)


def figure(found: Checks, *, drawings: bool) -> "Figure":
    """Draws the curves, and the rank correlations, in one picture."""
    from matplotlib.figure import Figure  # here: slow to import

    drawn = Figure(figsize=(11, 3.4), dpi=100, layout="constrained")
    *panels, last = drawn.subplots(1, 3)
    for panel, (name, (mine, control)) in zip(panels, found.curves.items(), strict=True):
        panel.plot(faithfulness.FRACTIONS, mine, "o-", markersize=4, color=palette.BLUE, label="heatmap")
        panel.plot(
            faithfulness.FRACTIONS, control, "s--", markersize=4, color=palette.VERMILION, label="its cells shuffled"
        )
        done = "deleted" if name == "deletion" else "inserted"
        panel.set(title=name.capitalize(), xlabel=f"share of pixels {done}, hottest first", ylabel="mean probability")
        panel.set_ylim(bottom=0)
        panel.legend(frameon=False)
        _plain(panel)
    names, values = list(found.randomised), list(found.randomised.values())
    places = np.arange(len(names))
    last.vlines(places, [each.low for each in values], [each.high for each in values], color=palette.BLUE)
    last.plot(places, [each.mean for each in values], "o", color=palette.BLUE)
    last.axhline(0, color=palette.REFERENCE, linewidth=1)
    last.set_xticks(places, names)
    last.set(
        title="Random weights", xlim=(-0.5, len(names) - 0.5), ylim=(-1, 1), ylabel="rank correlation with trained"
    )
    _plain(last)
    if drawings:
        drawn.suptitle("SYNTHETIC radiographs, not films of patients", color=palette.WARNING)
    return drawn


def _plain(panel: "Axes") -> None:
    panel.grid(color=palette.GRID)
    panel.spines[["top", "right"]].set_visible(False)
