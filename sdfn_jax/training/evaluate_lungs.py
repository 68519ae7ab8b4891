"""A trained lung region generator over the films of a fold: Dice, IoU, lung recall."""

import dataclasses
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from sdfn_jax.core import csv_table, progress, sealed
from sdfn_jax.core.files import file_digest
from sdfn_jax.lungs import contact_sheet, lung_boxes
from sdfn_jax.lungs.finder import LungFinder
from sdfn_jax.lungs.mask import THRESHOLD
from sdfn_jax.lungs.segmenter import Segmenter
from sdfn_jax.metrics import scores
from sdfn_jax.radiographs import pixels, reader
from sdfn_jax.training.input_pipeline import Examples


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """How well the LRG found the lungs of one film.

    Attributes:
      image: name of the film.
      fold: its fold, 0 to 4.
      dice: Dice coefficient at the network's size.
      iou: intersection over union at the network's size.
      dice_original: Dice at the reference mask's own resolution.
      iou_original: intersection over union there.
      surface_distance: average distance of the two outlines, in pixels of the network's size; NaN without a mask.
      lung_recall: share of the reference lungs inside the lung box.
      rule: post-processing rules that fired.
    """

    image: str
    fold: int
    dice: float
    iou: float
    dice_original: float
    iou_original: float
    surface_distance: float
    lung_recall: float
    rule: str


def score_fold(config: ConfigDict, data: Path, fold: int) -> list[Segmentation]:
    """Scores a trained LRG on a fold it has not been trained on.

    The mask is the network's, above the threshold, cleaned of specks and holes as [21] does before scoring.

    Args:
      config: of the trained LRG.
      data: the prepared data set with masks.
      fold: the held-out fold.
    """
    segmenter = Segmenter.load(config.workdir, config.evaluation_batch_size)
    processing = lung_boxes.PostProcessing(**config.postprocessing)
    examples = Examples(data, [f"fold_{fold}"])
    results = []
    with progress.bar(what=f"evaluate lrg on fold {fold}", unit="image", total=len(examples)) as bar:
        for start in range(0, len(examples), config.evaluation_batch_size):
            stop = min(start + config.evaluation_batch_size, len(examples))
            films = [examples[index] for index in range(start, stop)]
            found = segmenter.probabilities(np.stack([film["image"] for film in films]))
            results += [
                score_film(film, probability, fold, processing) for film, probability in zip(films, found, strict=True)
            ]
            bar.update(len(films))
    return results


def draw_worst(config: ConfigDict, data: Path, results: list[Segmentation], path: Path, *, drawings: bool) -> None:
    """Draws the films of the lowest Dice of a fold on one page, the lowest first.

    Args:
      config: of the trained LRG.
      data: the prepared data set with masks.
      results: of `score_fold` on one fold.
      path: the page.
      drawings: whether the films are synthetic; the page is then marked.
    """
    finder = LungFinder.load(config.workdir, config.evaluation_batch_size)
    examples = Examples(data, [f"fold_{results[0].fold}"])
    worst = sorted(range(len(results)), key=lambda index: results[index].dice)[: contact_sheet.FILMS_A_ROW]
    films = [examples[index] for index in worst]
    found = finder.segmenter.probabilities(np.stack([film["image"] for film in films]))
    drawn = [
        finder.lungs(film["name"], tuple(int(side) for side in film["image_size"]), film["image"], probabilities)
        for film, probabilities in zip(films, found, strict=True)
    ]
    contact_sheet.lung_box_page(drawn, path, drawings=drawings)


def score_film(film: dict, probability: np.ndarray, fold: int, processing: lung_boxes.PostProcessing) -> Segmentation:
    """Scores one film's lung probabilities against its reference masks.

    Args:
      film: an example of `jsrt` or `montgomery`.
      probability: (S, S) float in [0, 1].
      fold: the film's fold.
      processing: how masks become boxes.
    """
    reference = reader.decode(film["mask_original"]) > 0
    region = lung_boxes.lung_box(probability > THRESHOLD, reference.shape, processing)
    enlarged = pixels.resize(np.rint(probability * 255).astype(np.uint8), reference.shape)
    found_original = lung_boxes.clean(enlarged > 255 * THRESHOLD, processing)
    truth = film["mask"] > 127
    return Segmentation(
        image=film["name"],
        fold=fold,
        dice=scores.dice(region.cleaned, truth),
        iou=scores.iou(region.cleaned, truth),
        dice_original=scores.dice(found_original, reference),
        iou_original=scores.iou(found_original, reference),
        surface_distance=scores.surface_distance(region.cleaned, truth),
        lung_recall=scores.lung_recall(reference, region.box),
        rule=region.rule,
    )


def write_segmentation(folder: Path, results: list[Segmentation], origin: dict) -> str:
    """Writes `segmentation.csv` (by film) and `segmentation.json` (per fold, mean, sd); returns the table as text.

    Args:
      folder: where they go.
      results: of one or several folds.
      origin: what the numbers come from (data version, checkpoints, seed), copied into the JSON.
    """
    names = [field.name for field in dataclasses.fields(Segmentation)]
    with csv_table.writing(folder / "segmentation.csv") as table:
        table.row(names)
        table.rows([getattr(result, name) for name in names] for result in results)
    folds = sorted({result.fold for result in results})
    rows = {f"fold {fold}": _means([result for result in results if result.fold == fold]) for fold in folds}
    rows["all films"] = _means(results)
    digest = file_digest(folder / "segmentation.csv")
    record = {**origin, "films": len(results), "folds": rows, "segmentation_sha256": digest}
    sealed.write(folder / "segmentation.json", record)
    return _segmentation_table(rows, origin)


_PUBLISHED = "Paper (JSRT, five folds, 256): Dice 0.98, IoU 0.97. [21]: JSRT 0.985 / 0.971, Montgomery 0.972 / 0.956."
_SCORES = ("dice", "iou", "dice_original", "iou_original", "lung_recall")


def _means(results: list[Segmentation]) -> dict:
    values = {name: np.array([getattr(result, name) for result in results]) for name in _SCORES}
    recall = values["lung_recall"]
    return {
        "films": len(results),
        **{name: {"mean": float(array.mean()), "sd": float(array.std())} for name, array in values.items()},
        "surface_distance": _defined_mean(np.array([result.surface_distance for result in results])),
        "lung_recall_below_0.99": float((recall < 0.99).mean()),
        "lung_recall_below_0.95": float((recall < 0.95).mean()),
        "no_rule_needed": float(np.mean([result.rule == "none" for result in results])),
    }


def _defined_mean(values: np.ndarray) -> dict:
    defined = values[~np.isnan(values)]
    if not defined.size:
        return {"mean": None, "sd": None, "films": 0}
    return {"mean": float(defined.mean()), "sd": float(defined.std()), "films": int(defined.size)}


def _segmentation_table(rows: dict, origin: dict) -> str:
    size = origin["size"]
    lines = [
        f"Lung segmentation, {origin['data_version']}, mean (sd) over films, seed {origin['seed']}",
        f"{'':<10}{'films':>6}  {f'Dice {size}':>15}  {f'IoU {size}':>15}  {'Dice own size':>15}  {'IoU own size':>15}"
        f"  {'lung recall':>15}  {'< 0.99':>7}  {'< 0.95':>7}",
    ]
    for name, row in rows.items():
        cells = "".join(f"  {row[score]['mean']:>7.4f} ({row[score]['sd']:.4f})" for score in _SCORES)
        below = "".join(f"  {row[f'lung_recall_below_{limit}']:>7.1%}" for limit in ("0.99", "0.95"))
        lines.append(f"{name:<10}{row['films']:>6}{cells}{below}")
    lines.append(_PUBLISHED)
    if origin["drawings"]:
        lines.append("These films are synthetic: the numbers show that the pipeline runs, nothing about patients.")
    return "\n".join(lines)
