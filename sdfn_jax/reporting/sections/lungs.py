"""The report's sections on lung regions."""

from pathlib import Path

import numpy as np

from sdfn_jax.core import csv_table, sealed
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.files import file_digest
from sdfn_jax.lungs import box_table, lung_boxes
from sdfn_jax.metrics import bootstrap, published
from sdfn_jax.metrics.evaluation import SMALL_SAMPLE
from sdfn_jax.reporting.estimates import Estimate
from sdfn_jax.reporting.material import SEED, Material
from sdfn_jax.reporting.page import Cell, Picture, Section, Table

_SCORES = {
    "dice": "Dice",
    "iou": "IoU",
    "dice_original": "Dice, own size",
    "iou_original": "IoU, own size",
    "surface_distance": "surface distance, pixels",
    "lung_recall": "lung recall",
}

_REGIONS = {
    "lung_regions_ordinary": "Ordinary films, on which no rule fired, at equal steps from the smallest lungs to the "
    "largest",
    "lung_regions_rules": "Films on which a rule fired, for each the smallest lungs",
}


def lung_regions(material: Material) -> Section:
    """The lung region generator: its rules, lung areas, recall and pages."""
    title = "Lung regions"
    parts: list[Table | Picture] = []
    tables = [folder / "lung_boxes.csv" for folder in material.generators]
    for path in (path for path in tables if path.is_file()):
        parts.append(_rules(list(box_table.read_box_table(path).values()), material.table.has_papers))
    of_runs = [path for run in material.runs for path in run.pictures("lung_*.png")]
    of_generators = [path for folder in material.generators for path in sorted(folder.glob("lung_boxes_*.png"))]
    found = {path.name: path for path in [*of_generators, *of_runs]}
    for name in sorted(found, key=lambda name: (not name.startswith("lung_regions_"), name)):
        parts.append(Picture(found[name].stem, _caption(found[name].stem), found[name]))
    missing = "NOTE: not there: add the folder of the lung region generator (runs/lrg) to the command."
    return Section("lung-regions", title, [] if parts else [missing], parts)


def _caption(name: str) -> str:
    what = _REGIONS.get(name, "")
    if what:
        return (
            f"{what}: the original; its lungs, the box before it is widened (thin) and the lung box; the lung region "
            "(as the paper's Figures 3, 4, 6 and 7)"
        )
    what = name.removeprefix("lung_boxes_").replace("_", " ")
    return f"Lung boxes ({what}): mask green, dropped regions red, mirror image yellow, box blue"


def segmentation(material: Material) -> Section:
    """Dice, IoU, surface distance and lung recall per fold."""
    title = "Lung segmentation"
    parts: list[Table | Picture] = []
    notes: list[str] = []
    for generator in material.generators:
        for folder in (generator / "cross_validation", generator / "evaluation" / "test"):
            if (folder / "segmentation.csv").is_file():
                rows = _read_segmentation(folder / "segmentation.csv")
                parts.append(_folds(rows, f"segmentation_{folder.name}", material.replicates))
                few = len(rows) < SMALL_SAMPLE
                notes += [f"NOTE: SMALL SAMPLE: {len(rows)} films."] if few else []
                parts += [
                    Picture(path.stem, "The films of the lowest Dice of a fold, the lowest first", path)
                    for path in sorted(folder.glob("worst_*.png"))
                ]
    if not parts:
        notes = [
            "NOTE: not computed: no run has a segmentation.csv. Cross-validate the LRG (--mode=cross_validate) and add "
            "its folder to the command."
        ]
    else:
        notes = [
            "Mean over films with its 95 % interval (films resampled; each is of another patient), and the standard "
            "deviation. The paper: Dice 0.98, IoU 0.97 (JSRT, five folds). Lung recall is the share of the reference "
            "lungs inside the box: what the crop leaves to the SDFN.",
            *notes,
        ]
    return Section("segmentation", title, notes, parts)


def _rules(rows: list[box_table.BoxRow], with_paper: bool) -> Table:
    rules = [row.rule for row in rows]
    counts = {rule: rules.count(rule) for rule in sorted(set(rules) - {lung_boxes.NO_RULE})}
    none = rules.count(lung_boxes.NO_RULE)
    table: list[list[Cell]] = [
        ["no rule needed", none, none / len(rows), published.NO_RULE_SHARE],
        ["some rule", len(rows) - none, 1 - none / len(rows), published.SOME_RULE_SHARE],
    ]
    table += [[f"of these: {rule}", count, count / len(rows), ""] for rule, count in counts.items()]
    heads = ["Rule", "images", "share", *["paper (112,120 images)"] * with_paper]
    caption = f"Rules of post-processing that fired on {len(rows):,} images"
    return Table("lung_rules", caption, heads, [row[: len(heads)] for row in table])


def _read_segmentation(path: Path) -> list[dict[str, str | float]]:
    record = path.with_suffix(".json")
    mend = "evaluate the LRG again"
    if record.is_file():
        said = sealed.read(record, {}, "the record of a segmentation", mend)
        # Older versions kept no digest of the table.
        if said.get("segmentation_sha256", digest := file_digest(path)) != digest:
            raise UserError(f"{path}: not the file that {record.name} next to it describes; {mend}")
    try:
        columns, records = csv_table.records(path)
    except ValueError as error:
        raise UserError(f"{error}; {mend}") from error
    needed = {"fold", "dice", "iou", "dice_original", "iou_original", "lung_recall"}
    absent = sorted(needed - set(columns if records else ()))
    if absent:
        raise UserError(f"{path}: no column {', '.join(absent)}, or no rows; {mend}")
    rows: list[dict[str, str | float]] = []
    for number, row in records:
        try:
            rows.append({**row, **{score: float(row[score]) for score in _SCORES if score in row}})
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}, row {number}: {error}") from error
    return rows


def _folds(rows: list[dict[str, str | float]], name: str, replicates: int) -> Table:
    scores = [score for score in _SCORES if score in rows[0]]
    folds = {f"fold {fold}": [row for row in rows if row["fold"] == fold] for fold in sorted({r["fold"] for r in rows})}
    table = []
    for head, mine in (folds | {"all films": rows}).items():
        cells: list[Cell] = [head, len(mine)]
        resamples = bootstrap.draw(np.arange(len(mine)), replicates, SEED)
        for score in scores:
            values = np.array([row[score] for row in mine])
            defined = ~np.isnan(values)
            sums = (bootstrap.sums(each, resamples) for each in (np.where(defined, values, 0), defined))
            mean = float(values[defined].mean()) if defined.any() else float("nan")
            spread = float(values[defined].std()) if defined.any() else float("nan")
            cells += [Estimate(mean, *bootstrap.interval(bootstrap.ratio(*sums)), len(mine) < SMALL_SAMPLE), spread]
        recall = np.array([row["lung_recall"] for row in mine])
        table.append([*cells, float((recall < 0.99).mean()), float((recall < 0.95).mean())])
    heads = [head for score in scores for head in (_SCORES[score], f"{_SCORES[score]}, sd")]
    return Table(
        name,
        "Lung segmentation by fold",
        ["Films", "number", *heads, "share with recall < 0.99", "share with recall < 0.95"],
        table,
    )
