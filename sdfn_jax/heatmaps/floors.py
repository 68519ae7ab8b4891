"""Baselines that never see the image: a score that is no higher means nothing."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from sdfn_jax.heatmaps.localization import FindingBoxes, findings_of, overlaps

_RANDOM_DRAWS = 200


def median_box(cases: Sequence[FindingBoxes], finding: str, patient: int | str) -> np.ndarray:
    """Returns the median box of a finding over the other patients, (4,); it never sees the image.

    The medians are those of left, top, width and height, as the official list has them.

    Args:
      cases: of the whole box list.
      finding: its name.
      patient: whose boxes are left out; all are used if no other patient has the finding.
    """
    mine = [case for case in cases if case.finding == finding]
    others = [case for case in mine if case.patient != patient] or mine
    boxes = np.concatenate([case.references for case in others])
    left, top, width, height = np.median(np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1), axis=0)
    return np.array([left, top, left + width, top + height])


def median_floor(cases: Sequence[FindingBoxes]) -> list[FindingBoxes]:
    """Returns the cases with the `median_box` of each as its one detection, pointing at its centre."""
    return [_with_box(case, median_box(cases, case.finding, case.patient)) for case in cases]


def random_floor(cases: Sequence[FindingBoxes], criterion: str, level: float, seed: int) -> dict[str, float]:
    """Scores random boxes: the size of a random reference box of the finding, anywhere in the image.

    Args:
      cases: of the whole box list.
      criterion: `IoBB` or `IoU`.
      level: of overlap.
      seed: of the 200 boxes drawn for each image.

    Returns:
      {finding: expected accuracy, `mean`: over the findings}.
    """
    rng = np.random.default_rng(seed)
    accuracy = {}
    for finding in findings_of(cases):
        mine = [case for case in cases if case.finding == finding]
        pool = np.concatenate([case.references for case in mine])
        found, of = 0.0, 0
        for case in mine:
            room = case.size[::-1]
            drawn = pool[rng.integers(0, len(pool), _RANDOM_DRAWS)]
            side = np.minimum(drawn[:, 2:] - drawn[:, :2], room)
            corner = rng.random(side.shape) * (room - side)
            thrown = np.concatenate([corner, corner + side], axis=1)
            hits = overlaps(criterion, case.references, thrown) > level
            found, of = found + float(hits.mean(axis=1).sum()), of + len(hits)
        accuracy[finding] = found / of
    return accuracy | {"mean": float(np.mean(list(accuracy.values())))}


def _with_box(case: FindingBoxes, box: np.ndarray) -> FindingBoxes:
    x, y = (box[:2] + box[2:]) / 2
    left, top, right, bottom = case.references.T
    inside = ((left <= x) & (x < right) & (top <= y) & (y < bottom)).any()
    detections = {threshold: box[None] for threshold in case.detections}
    return dataclasses.replace(case, detections=detections, pointing=float(inside))
