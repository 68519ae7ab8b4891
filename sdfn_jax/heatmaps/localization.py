"""Boxes from heatmaps, and their scores against reference boxes (Wang et al., CVPR 2017, section 5.2). No JAX.

Wang et al. cut a heatmap of 0 to 255 at 60 and at 180, draw a box around each connected region of either cut, and count
a reference box as found if some drawn box of its finding overlaps it enough.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from skimage.measure import label, regionprops

from sdfn_jax.metrics import bootstrap
from sdfn_jax.radiographs.findings import FINDINGS

THRESHOLDS = (60, 180)
LEVELS = {"IoBB": (0.1, 0.25, 0.5, 0.75, 0.9), "IoU": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)}
_SIZES = 4  # groups of equally many reference boxes, for the curves over size


@dataclasses.dataclass(frozen=True)
class FindingBoxes:
    """One finding on one image: where it is, and where a method says it is.

    Attributes:
      image: file name.
      patient: number or name of the patient.
      finding: its name.
      size: (height, width) of the image, in pixels.
      references: (R, 4) float, its reference boxes, at least one; (left, top, right, bottom) in pixels, half-open.
      detections: {threshold: (D, 4) float}, the boxes around the regions above it.
      pointing: share of the heatmap's highest pixels that are in a reference box: 1 or 0 unless several are highest.
    """

    image: str
    patient: int | str
    finding: str
    size: tuple[int, int]
    references: np.ndarray
    detections: dict[int, np.ndarray]
    pointing: float


@dataclasses.dataclass(frozen=True)
class Score:
    """One row of the localization table: a finding (or their mean) at one level of overlap.

    Attributes:
      finding: name, or `mean`.
      criterion: `IoBB` (overlap over the drawn box), `IoU` (over the union) or `pointing`.
      level: the overlap that must be exceeded; NaN for pointing.
      found: reference boxes found (cases, for pointing).
      of: reference boxes (cases).
      accuracy: found / of; of the mean, that of the findings' accuracies.
      interval: 95 %, over patients.
      false_boxes: drawn boxes that match no reference box, over all reference boxes (984 in the official list): Wang's
        AFP. NaN for pointing.
    """

    finding: str
    criterion: str
    level: float
    found: float
    of: int
    accuracy: float
    interval: tuple[float, float]
    false_boxes: float


def find_boxes(heatmap: np.ndarray, threshold: float) -> np.ndarray:
    """Draws a box around each connected region above a threshold; pixels that touch at a corner are connected.

    Args:
      heatmap: (H, W) float, 0 to 255.
      threshold: the cut.

    Returns:
      (D, 4) float: (left, top, right, bottom), half-open; no row if nothing is above.
    """
    boxes = [region.bbox for region in regionprops(label(heatmap > threshold))]
    return np.array([(left, top, right, bottom) for top, left, bottom, right in boxes], float).reshape(-1, 4)


def locate(image: str, patient: int | str, finding: str, references: np.ndarray, heatmap: np.ndarray) -> FindingBoxes:
    """Draws the boxes of a heatmap, for scoring.

    Args:
      image: file name.
      patient: number or name of the patient.
      finding: its name.
      references: (R, 4) its reference boxes, R at least 1.
      heatmap: (H, W) float, 0 to 255, in the pixels of the reference boxes.
    """
    references = np.asarray(references, float).reshape(-1, 4)
    detections = {threshold: find_boxes(heatmap, threshold) for threshold in THRESHOLDS}
    pointed = pointing(heatmap, references)
    return FindingBoxes(image, patient, finding, heatmap.shape, references, detections, pointed)


def pointing(heatmap: np.ndarray, boxes: np.ndarray) -> float:
    """Returns the share of a heatmap's highest pixels whose centres are in some box.

    Args:
      heatmap: (H, W) float.
      boxes: (R, 4) float, (left, top, right, bottom) in its pixels, half-open.
    """
    rows, columns = np.nonzero(heatmap == heatmap.max())
    x, y = columns[:, None] + 0.5, rows[:, None] + 0.5
    left, top, right, bottom = np.asarray(boxes, float).T
    return float(((left <= x) & (x < right) & (top <= y) & (y < bottom)).any(axis=1).mean())


def overlaps(criterion: str, references: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Returns how much each drawn box overlaps each reference box.

    Args:
      criterion: `IoU`, overlap over union, or `IoBB`, overlap over the area of the DRAWN box.
      references: (R, 4).
      drawn: (D, 4).

    Returns:
      (R, D) float, 0 to 1.
    """
    a, b = references[:, None], drawn[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    both = np.prod(sides.clip(0), axis=-1)
    area_a, area_b = (np.prod(boxes[..., 2:] - boxes[..., :2], axis=-1) for boxes in (a, b))
    return both / (area_b if criterion == "IoBB" else area_a + area_b - both)


def findings_of(cases: Sequence[FindingBoxes]) -> list[str]:
    """Returns the findings that occur, those of the paper first and in its order."""
    found = list(dict.fromkeys(case.finding for case in cases))
    return sorted(found, key=lambda name: FINDINGS.index(name) if name in FINDINGS else len(FINDINGS))


def score(
    cases: Sequence[FindingBoxes], resamples: bootstrap.Resamples, thresholds: Sequence[int] = THRESHOLDS
) -> list[Score]:
    """Scores the boxes by Wang et al.'s rules, and the pointing game.

    The boxes of all thresholds compete together, as in Wang et al.; one that both thresholds draw counts once. Only
    heatmaps of findings that have a reference box in the image are scored.

    Args:
      cases: one for each image and finding that has reference boxes.
      resamples: of the patients of these cases, in their order.
      thresholds: those to use of the cases' detections.

    Returns:
      For each criterion and level, a row for each finding that occurs, in the paper's order, and one for their mean.
    """
    drawn = [np.unique(np.concatenate([case.detections[each] for each in thresholds]), axis=0) for case in cases]
    boxes = np.array([len(case.references) for case in cases])
    rows = []
    for criterion, levels in LEVELS.items():
        shared = [overlaps(criterion, case.references, mine) for case, mine in zip(cases, drawn, strict=True)]
        for level in levels:
            found = np.array([(each > level).any(axis=1).sum() for each in shared])
            false_boxes = np.array([(~(each > level).any(axis=0)).sum() for each in shared])
            rows += _by_finding(cases, resamples, criterion, level, found, boxes, false_boxes / boxes.sum())
    pointing = np.array([case.pointing for case in cases])
    nothing = np.full(len(cases), np.nan)
    return rows + _by_finding(cases, resamples, "pointing", float("nan"), pointing, np.ones(len(cases), int), nothing)


def by_size(
    cases: Sequence[FindingBoxes], resamples: bootstrap.Resamples, level: float = 0.1, criterion: str = "IoU"
) -> list[tuple[float, float, Score]]:
    """Scores reference boxes by their size, all findings together, in four groups of equally many boxes.

    Arguments as for `score`.

    Returns:
      (smallest, largest, score) of each group, smallest first; size is the square root of the area, in pixels.
    """
    sizes = np.concatenate([_side(case.references) for case in cases])
    edges = np.quantile(sizes, np.arange(_SIZES + 1) / _SIZES)
    rows = []
    for place, (low, high) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        found, of = np.zeros((2, len(cases)), int)
        for index, case in enumerate(cases):
            side = _side(case.references)
            chosen = (side >= low) & ((side < high) | (place == _SIZES - 1))
            drawn = np.concatenate([case.detections[each] for each in THRESHOLDS])
            hit = (overlaps(criterion, case.references, drawn) > level).any(axis=1)
            found[index], of[index] = np.sum(hit & chosen), np.sum(chosen)
        one = _total("all", criterion, level, found, of, np.full(len(cases), np.nan), resamples)
        rows.append((float(low), float(high), one))
    return rows


def _side(boxes: np.ndarray) -> np.ndarray:
    return np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))


def _by_finding(
    cases: Sequence[FindingBoxes],
    resamples: bootstrap.Resamples,
    criterion: str,
    level: float,
    found: np.ndarray,
    of: np.ndarray,
    false_boxes: np.ndarray,
) -> list[Score]:
    """Returns a row for each finding, and their mean; `found`, `of` and `false_boxes` are (cases,)."""
    finding = np.array([case.finding for case in cases])
    rows, replicates = [], []
    for each in findings_of(cases):
        chosen = finding == each
        counts = [np.where(chosen, values, 0) for values in (found, of, false_boxes)]
        rows.append(_total(each, criterion, level, *counts, resamples))
        replicates.append(_replicates(*counts[:2], resamples))
    mean = bootstrap.mean_replicates(np.stack(replicates))
    accuracy, wrong = (float(np.mean([getattr(row, name) for row in rows])) for name in ("accuracy", "false_boxes"))
    total = _total("mean", criterion, level, found, of, false_boxes, resamples)
    return [
        *rows,
        dataclasses.replace(total, accuracy=accuracy, interval=bootstrap.interval(mean), false_boxes=wrong),
    ]


def _total(
    name: str,
    criterion: str,
    level: float,
    found: np.ndarray,
    of: np.ndarray,
    false_boxes: np.ndarray,
    resamples: bootstrap.Resamples,
) -> Score:
    accuracy = float(found.sum() / of.sum()) if of.any() else float("nan")
    spread = bootstrap.interval(_replicates(found, of, resamples))
    return Score(name, criterion, level, float(found.sum()), int(of.sum()), accuracy, spread, float(false_boxes.sum()))


def _replicates(found: np.ndarray, of: np.ndarray, resamples: bootstrap.Resamples) -> np.ndarray:
    return bootstrap.ratio(bootstrap.sums(found, resamples), bootstrap.sums(of, resamples))
