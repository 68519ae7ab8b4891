"""Scores: arrays in, numbers out. NumPy and SciPy only, so that a result can be read without JAX."""

import operator

import numpy as np

from sdfn_jax.radiographs import labels as radiographs_labels


def known_only(labels: np.ndarray, *values: np.ndarray) -> tuple[np.ndarray, ...]:
    """Returns the known labels of one class, 0 and 1, and the values of their images: the only ones that are scored.

    Args:
      labels: (N,) codes of `radiographs.labels`.
      *values: (N, ...) each.
    """
    known = radiographs_labels.known(np.asarray(labels))
    return (labels, *values) if known.all() else tuple(each[known] for each in (labels, *values))


def counts(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns how many images are known to have each class, and how many not to: (N, C) codes -> two (C,) of int."""
    labels = np.asarray(labels)
    return tuple(
        (labels == code).sum(axis=0, dtype=int) for code in (radiographs_labels.PRESENT, radiographs_labels.ABSENT)
    )


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Computes the area under the ROC curve (section C; Hanley & McNeil 1982, Radiology 143:29-36).

    It is the Mann-Whitney statistic: the share of all (positive, negative) pairs in which the positive has the higher
    score, a tie counting one half. Pairs are counted in whole numbers, so the result is exact to one division.

    Args:
      labels: (N,) 0 and 1, of any dtype.
      scores: (N,) higher for a likelier positive; probabilities or logits. Scores are compared as they are: float32
        probabilities near 1 tie where their logits differ.

    Returns:
      The area, 0 to 1; NaN without positives or without negatives, where it is undefined.

    Raises:
      ValueError: for other shapes, a label that is not 0 or 1, or a score that is NaN.
    """
    positive, scores = _checked(labels, scores)
    positives, negatives = scores[positive], np.sort(scores[~positive])
    if not positives.size or not negatives.size:
        return float("nan")
    lower = np.searchsorted(negatives, positives, side="left").sum(dtype=np.int64)
    lower_or_tied = np.searchsorted(negatives, positives, side="right").sum(dtype=np.int64)
    return float((lower + lower_or_tied) / (2 * positives.size * negatives.size))


def class_aucs(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Computes the AUC of every class over the images of which it is known.

    Args:
      labels: (N, C) codes of `radiographs.labels`.
      scores: (N, C).

    Returns:
      (C,) float64; NaN for a class without positives or without negatives.

    Raises:
      ValueError: for a score that is NaN, and for arrays that are not two-dimensional and of one shape.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.ndim != 2 or labels.shape != scores.shape:
        raise ValueError(f"labels {labels.shape} and scores {scores.shape} must both be (images, classes)")
    return np.array([auc(*known_only(*columns)) for columns in zip(labels.T, scores.T, strict=True)], np.float64)


def mean_auc(aucs: np.ndarray) -> tuple[float, int]:
    """Averages the AUCs that are defined.

    Args:
      aucs: (C,) with NaN where a class's AUC is undefined.

    Returns:
      The mean (NaN if none is defined) and the number of classes it averages: never print one without the other.
    """
    aucs = np.asarray(aucs, np.float64)
    defined = aucs[~np.isnan(aucs)]
    return (float(defined.mean()) if defined.size else float("nan")), int(defined.size)


def roc_curve(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes the points of an ROC curve (Figure 8), one per distinct score: the area below them is `auc`.

    Args:
      labels: (N,) 0 and 1.
      scores: (N,).

    Returns:
      False positive rates and true positive rates, (K,) float64 each, from (0, 0) to (1, 1).

    Raises:
      ValueError: as `auc`, and without positives or negatives, where no curve exists.
    """
    positive, scores = _checked(labels, scores)
    if positive.all() or not positive.any():
        raise ValueError(f"no ROC curve: {positive.sum()} positives and {(~positive).sum()} negatives")
    order = np.argsort(scores)[::-1]
    positive, scores = positive[order], scores[order]
    # Images of equal score pass the threshold together: one point, and a slanting line where classes tie.
    last_of_its_score = np.append(scores[1:] != scores[:-1], True)
    true_positives = np.cumsum(positive)[last_of_its_score]
    false_positives = np.cumsum(~positive)[last_of_its_score]
    return (
        np.concatenate([[0.0], false_positives / false_positives[-1]]),
        np.concatenate([[0.0], true_positives / true_positives[-1]]),
    )


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Computes the area under the precision-recall curve as average precision: the mean precision at each positive.

    Images of equal score pass the threshold together. A random model has the prevalence: never print one without the
    other.

    Arguments and errors as in `auc`.

    Returns:
      0 to 1; NaN without a positive.
    """
    positive, scores = _checked(labels, scores)
    if not positive.any():
        return float("nan")
    order = np.argsort(scores)[::-1]
    positive, scores = positive[order], scores[order]
    last_of_its_score = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    true_positives = np.cumsum(positive)[last_of_its_score]
    gained = np.diff(true_positives, prepend=0)
    return float(np.sum(gained * true_positives / (last_of_its_score + 1)) / true_positives[-1])


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Computes the Dice similarity coefficient of two masks, `2 |A n B| / (|A| + |B|)` (section C; Dice 1945).

    Args:
      a: bool, any shape.
      b: bool, the same shape.

    Returns:
      0 to 1; 1 for two empty masks, which agree, and 0 if just one is empty.

    Raises:
      ValueError: for masks that are not bool (where to cut a soft mask is the caller's choice) or differ in shape.
    """
    both, a_size, b_size = _overlap(a, b)
    return 2 * both / (a_size + b_size) if a_size + b_size else 1.0


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Computes the intersection over union of two masks, `|A n B| / |A u B|` (section C; Jaccard 1901).

    Arguments, errors and empty masks as in `dice`.
    """
    both, a_size, b_size = _overlap(a, b)
    union = a_size + b_size - both
    return both / union if union else 1.0


def surface_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Computes the average symmetric surface distance: from each outline to the nearest point of the other.

    An outline is made of the mask's pixels that have a neighbour (of four, or the image's edge) outside it; the mean is
    over the pixels of both outlines together (Heimann et al. 2009, IEEE Trans. Med. Imaging 28:1251-1265).

    Args:
      a: (H, W) bool.
      b: (H, W) bool.

    Returns:
      In pixels; NaN if a mask is empty.

    Raises:
      ValueError: as `dice`.
    """
    _, a_size, b_size = _overlap(a, b)
    if not a_size or not b_size:
        return float("nan")
    from scipy import ndimage  # imported here: slow to import, and few commands need it

    outlines = [mask & ~ndimage.binary_erosion(mask) for mask in (np.asarray(a), np.asarray(b))]
    to_a, to_b = (ndimage.distance_transform_edt(~outline) for outline in outlines)
    return float(np.concatenate([to_b[outlines[0]], to_a[outlines[1]]]).mean())


def lung_recall(mask: np.ndarray, box: tuple[int, int, int, int]) -> float:
    """Computes the share of the reference lung that a box keeps: what the crop of B.2.2 shows to the SDFN.

    Args:
      mask: (H, W) bool, the reference lungs.
      box: (left, top, right, bottom) in the mask's pixels, half-open.

    Returns:
      0 to 1; NaN for an empty mask, in which there is no lung to keep.

    Raises:
      ValueError: for a mask that is not a two-dimensional bool array, or a box that is empty or not inside it.
      TypeError: for a box that is not in whole pixels.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2 or mask.dtype != np.bool_:
        raise ValueError(f"a mask must be (H, W) bool, not {mask.shape} {mask.dtype}")
    left, top, right, bottom = (operator.index(edge) for edge in box)
    height, width = mask.shape
    if not (0 <= left < right <= width and 0 <= top < bottom <= height):
        raise ValueError(f"box {(left, top, right, bottom)} is empty or not inside a mask of {width} x {height} pixels")
    area = int(mask.sum())
    return int(mask[top:bottom, left:right].sum()) / area if area else float("nan")


def _checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Checks labels and scores; returns the labels as bool, and the scores."""
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(f"labels {labels.shape} and scores {scores.shape} must both be (images,)")
    wrong = ~((labels == 0) | (labels == 1))
    if wrong.any():
        raise ValueError(f"label {labels[wrong][0]!r} at index {np.flatnonzero(wrong)[0]} is neither 0 nor 1")
    if np.isnan(scores).any():
        raise ValueError(f"score at index {np.flatnonzero(np.isnan(scores))[0]} is NaN")
    return labels.astype(bool), scores


def _overlap(a: np.ndarray, b: np.ndarray) -> tuple[int, int, int]:
    """Returns the number of pixels in both masks, in the first, and in the second."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != np.bool_ or b.dtype != np.bool_ or a.shape != b.shape:
        raise ValueError(f"masks must be bool and of one shape, not {a.shape} {a.dtype} and {b.shape} {b.dtype}")
    return int((a & b).sum()), int(a.sum()), int(b.sum())
