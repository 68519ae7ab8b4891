"""Sections on where the findings are: localization next to its floors, and the pages of heatmaps."""

from collections.abc import Mapping, Sequence

import numpy as np

from sdfn_jax.heatmaps import floors, localization
from sdfn_jax.metrics import bootstrap, published
from sdfn_jax.metrics.evaluation import SMALL_SAMPLE
from sdfn_jax.radiographs.findings import display_name
from sdfn_jax.reporting import charts
from sdfn_jax.reporting.estimates import Estimate
from sdfn_jax.reporting.material import SEED, Material
from sdfn_jax.reporting.page import Cell, Picture, Section, Table
from sdfn_jax.reporting.runs import Localization

_CHOSEN = (
    "Chosen: of the films that have a finding (and a reference box of it, where the data set has boxes), those with "
    "the SDFN's highest probability of it. These are its surest cases, not its typical ones"
)


def localization_section(material: Material) -> Section:
    """Boxes from heatmaps against reference boxes, next to the floors."""
    title = "Localization"
    methods = material.localizations
    if not methods:
        return Section(
            "localization",
            title,
            ["NOTE: not computed: no run has detections. python -m sdfn_jax.localize --run=RUN draws them."],
        )
    cases = methods[0].cases
    floor = Localization("median box", floors.median_floor(cases), {})
    resamples = {
        each.name: bootstrap.draw(np.array([case.patient for case in each.cases]), material.replicates, SEED)
        for each in (*methods, floor)
    }
    scores = {each.name: localization.score(each.cases, resamples[each.name]) for each in (*methods, floor)}
    return Section(
        "localization",
        title,
        _notes(methods),
        [
            _levels(cases, methods, floor, scores),
            _by_finding(methods, floor, scores, with_wang=material.table.has_papers),
            _each_threshold(methods, resamples),
            _by_size([*methods, floor], resamples),
            _everything(scores),
        ],
    )


def heatmaps(material: Material) -> Section:
    """The pages of heatmaps that a fusion run left."""
    pictures = []
    for run in material.runs:
        for name, caption in (
            (
                "figure_9",
                "Class activation maps: the entire CXR network's own above, the SDFN's below (Figure 9). " + _CHOSEN,
            ),
            (
                "heatmaps",
                "The SDFN's maps: entire image, lung region (eq. 5), and their sum. "
                "The paper does not say what the lung region's map counts as outside the lung box. " + _CHOSEN,
            ),
        ):
            pictures += [Picture(name, caption, path) for path in run.pictures(f"{name}.png")]
    text = [] if pictures else ["NOTE: not there: the main job of a fusion run draws them into its results/."]
    return Section("heatmaps", "Heatmaps", text, pictures)


def _estimate(row: localization.Score) -> Estimate:
    # A mean is as good as the findings in it.
    least = SMALL_SAMPLE * len(published.WANG_ACCURACY) if row.finding == "mean" else SMALL_SAMPLE
    return Estimate(row.accuracy, *row.interval, row.of < least)


def _notes(methods: Sequence[Localization]) -> list[str]:
    boxes = sum(len(case.references) for case in methods[0].cases)
    notes = [
        "Heatmaps of 0 to 255 are cut at 60 and at 180, a box is drawn around each connected region of either cut, and "
        "a reference box is found if some drawn box overlaps it by more than the level (Wang et al., CVPR 2017). IoBB "
        "divides the overlap by the area of the drawn box, so tiny boxes score well: read it with IoU, false boxes "
        "and the pointing game (is the heatmap's maximum in the box). False boxes are drawn boxes that match nothing, "
        f"over all {boxes} reference boxes; only heatmaps of a finding that has a box in the image are scored.",
        "The median box never sees the image: it is the median of the finding's boxes over the other patients. The "
        "random box has the size of some box of the finding and is anywhere in the image.",
        "An interval without width means that all boxes or none were found, not that this is certain.",
        "A 7 x 7 map has cells of 146 pixels on the entire image of 1024, about 100 on a lung region: it cannot box a "
        "nodule of 70 pixels.",
    ]
    if rules := {each.name: each.origin["outside"] for each in methods if each.origin.get("checkpoint")}:
        said = "; ".join(f"{name}: {rule}" for name, rule in rules.items())
        notes.append(f"What a lung region's map counts as outside the lung box, where the paper is silent: {said}.")
    if boxes != 984:
        notes.append(
            f"NOTE: {boxes} reference boxes, not the 984 of the official list: no figure compares with Wang's."
        )
    if any(method.origin.get("drawings") for method in methods):
        notes.append("NOTE: These images are synthetic radiographs, not films of patients.")
    return notes


def _each_threshold(methods: Sequence[Localization], resamples: Mapping[str, bootstrap.Resamples]) -> Table:
    shown = (("IoBB", 0.1), ("IoU", 0.1), ("IoU", 0.5))
    rows: list[list[Cell]] = []
    for method in methods:
        for threshold in localization.THRESHOLDS:
            found = localization.score(method.cases, resamples[method.name], [threshold])
            means = [row for row in found if row.finding == "mean" and (row.criterion, row.level) in shown]
            rows.append([method.name, f"{threshold} alone", *map(_estimate, means)])
    return Table(
        "localization_thresholds",
        "Either threshold alone, mean over the findings",
        ["Method", "cut", *(f"{criterion} > {level:g}" for criterion, level in shown)],
        rows,
    )


def _by_size(methods: Sequence[Localization], resamples: Mapping[str, bootstrap.Resamples]) -> Picture:
    curves = {
        each.name: [
            (low, high, _estimate(row)) for low, high, row in localization.by_size(each.cases, resamples[each.name])
        ]
        for each in methods
    }
    return Picture(
        "localization_size",
        "Share of boxes found at IoU > 0.1 by their size, four groups of equally many boxes, 95 % interval",
        charts.sizes(curves, "share of boxes found at IoU > 0.1"),
    )


def _everything(scores: Mapping[str, list[localization.Score]]) -> Table:
    return Table(
        "localization_all",
        "Every finding at every level",
        ["Method", "finding", "criterion", "level", "found", "boxes", "accuracy", "false boxes"],
        [
            [name, row.finding, row.criterion, row.level, row.found, row.of, _estimate(row), row.false_boxes]
            for name, rows in scores.items()
            for row in rows
        ],
        long=True,
    )


def _levels(
    cases: Sequence[localization.FindingBoxes],
    methods: Sequence[Localization],
    floor: Localization,
    scores: dict[str, list[localization.Score]],
) -> Table:
    rows = []
    for places in zip(*scores.values(), strict=True):
        one = places[0]
        if one.finding != "mean":
            continue
        pointing = one.criterion == "pointing"
        random = float("nan") if pointing else floors.random_floor(cases, one.criterion, one.level, SEED)["mean"]
        cells: list[Cell] = ["pointing game" if pointing else f"{one.criterion} > {one.level:g}"]
        for row in places:
            cells += [_estimate(row), "" if pointing else row.false_boxes]
        rows.append([*cells, "" if pointing else random])
    heads = [head for each in (*methods, floor) for head in (each.name, f"{each.name}: false boxes")]
    return Table("localization", "Accuracy, mean over the findings", ["Level", *heads, "random box"], rows)


def _by_finding(
    methods: Sequence[Localization],
    floor: Localization,
    scores: dict[str, list[localization.Score]],
    *,
    with_wang: bool,
) -> Table:
    names = [each.name for each in (*methods, floor)]
    levels = (("IoBB", 0.1), ("IoU", 0.1), ("IoU", 0.5), ("pointing", None))
    found = {
        (name, row.criterion, None if row.criterion == "pointing" else row.level, row.finding): row
        for name, rows in scores.items()
        for row in rows
    }
    rows: list[list[Cell]] = []
    for finding in [*localization.findings_of(methods[0].cases), "mean"]:
        boxes = found[names[0], "IoU", 0.1, finding].of
        for name in names:
            accuracies = [_estimate(found[name, *level, finding]) for level in levels]
            rows.append(
                [display_name(finding), name, boxes, *accuracies, found[name, "IoBB", 0.1, finding].false_boxes]
            )
        if not with_wang:
            continue
        wang = [
            float(np.mean(list(figures.values()))) if finding == "mean" else figures.get(finding, float("nan"))
            for figures in (published.WANG_ACCURACY, published.WANG_FALSE_BOXES)
        ]
        rows.append([display_name(finding), "Wang et al.", "", wang[0], "", "", "", wang[1]])
    return Table(
        "localization_findings",
        "Accuracy by finding" + ", and Wang et al.'s at IoBB > 0.1" * with_wang,
        ["Finding", "method", "boxes", "IoBB > 0.1", "IoU > 0.1", "IoU > 0.5", "pointing", "false boxes"],
        rows,
    )
