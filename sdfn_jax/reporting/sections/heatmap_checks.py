"""The section on whether the heatmaps are about the network: what `localize --checks` found."""

from collections.abc import Callable
from pathlib import Path

from sdfn_jax.heatmaps import check_results
from sdfn_jax.heatmaps.check_results import CaseMean, Checks
from sdfn_jax.metrics.evaluation import SMALL_SAMPLE
from sdfn_jax.reporting import charts
from sdfn_jax.reporting.estimates import Estimate
from sdfn_jax.reporting.material import Material
from sdfn_jax.reporting.page import Cell, Picture, Section, Table

_WANTED = {"deletion": "below 0: better than chance", "insertion": "above 0: better than chance"}


def heatmap_checks(material: Material) -> Section:
    """Peaks by rule, random weights, deletion and insertion, of each network whose heatmaps were checked."""
    title = "Checks of the heatmaps"
    checked = {run.name: (run.stage, *run.checks) for run in material.runs if run.checks is not None}
    if not checked:
        return Section(
            "heatmap-checks",
            title,
            ["NOTE: not computed: no run has checks. python -m sdfn_jax.localize --run=RUN --checks makes them."],
        )
    parts = [part for name, each in checked.items() for part in _of_network(name, *each)]
    outside = "; ".join(f"{name}: {record['outside']}" for name, (_, _, record) in checked.items())
    return Section(
        "heatmap-checks",
        title,
        [
            "Do the heatmaps say what the network looks at? Cases are findings with a reference box on an image, "
            "intervals are over patients. Random weights: the rank correlation with the trained network's heatmaps, 0 "
            "is best (Adebayo et al., NeurIPS 2018). Deletion greys out the hottest pixels first, insertion shows them "
            "first, and the area is under the finding's probability (Petsiuk et al., BMVC 2018); the control has the "
            "same values in shuffled cells.",
            f"The paper does not say what a lung region's map counts as outside the lung box; here: {outside}.",
        ],
        parts,
    )


def _of_network(name: str, stage: str, found: Checks, record: dict) -> list[Table | Picture]:
    def estimate(mean: CaseMean, *, signed: bool = False) -> Estimate:
        return Estimate(mean.mean, mean.low, mean.high, found.cases < SMALL_SAMPLE, signed)

    def table(kind: str, caption: str, heads: list[str], rows: list[list[Cell]]) -> Table:
        return Table(f"heatmap_{kind}_{stage}", f"{name}: {caption}, {found.cases} cases", heads, rows)

    rules: list[list[Cell]] = [[rule, *map(estimate, means)] for rule, means in found.rules.items()]
    weights: list[list[Cell]] = [[part, estimate(mean, signed=True)] for part, mean in found.randomised.items()]
    areas: list[list[Cell]] = [
        [curve, estimate(mine), estimate(control), estimate(difference, signed=True), _WANTED[curve]]
        for curve, (mine, control, difference) in found.areas.items()
    ]
    return [
        table("rules", "the rules outside the lung box", ["Rule", "peaks in the lung box", "pointing game"], rules),
        table("random_weights", "random weights", ["Random", "rank correlation"], weights),
        table("areas", "area under the curve", ["Curve", "heatmap", "shuffled cells", "difference", "wanted"], areas),
        Picture(f"heatmap_checks_{stage}", f"{name}: deletion, insertion and random weights", _figure(found, record)),
    ]


def _figure(found: Checks, record: dict) -> Callable[[Path], None]:
    return lambda path: charts.save(check_results.figure(found, drawings=bool(record.get("drawings"))), path)
