import csv

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from sdfn_jax.metrics import scores as metrics_scores
from sdfn_jax.radiographs.findings import FINDINGS, parse_labels


def pairwise_auc(labels, scores):
    """The definition itself: every pair of a positive and a negative, a tie one half."""
    pairs = [(p, n) for p in scores[labels == 1] for n in scores[labels == 0]]
    return sum((p > n) + 0.5 * (p == n) for p, n in pairs) / len(pairs)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("distinct", [3, 40, 10**9])
def test_auc_is_scikit_learns_with_and_without_ties(seed, distinct):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 500)
    scores = rng.integers(0, distinct, 500) / distinct
    assert metrics_scores.auc(labels, scores) == pytest.approx(sklearn_metrics.roc_auc_score(labels, scores), abs=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_auc_is_the_share_of_ordered_pairs(seed):
    rng = np.random.default_rng(seed)
    labels = rng.permutation([0, 1] + list(rng.integers(0, 2, 10)))
    scores = rng.integers(0, 5, 12).astype(np.float32)
    assert metrics_scores.auc(labels, scores) == pairwise_auc(labels, scores)


def test_auc_of_known_cases():
    labels = np.array([0, 0, 1, 1])
    assert metrics_scores.auc(labels, np.array([0.1, 0.2, 0.3, 0.4])) == 1.0
    assert metrics_scores.auc(labels, np.array([0.4, 0.3, 0.2, 0.1])) == 0.0
    assert metrics_scores.auc(labels, np.full(4, 0.3)) == 0.5
    assert metrics_scores.auc(labels.astype(bool), np.array([-np.inf, 0, 0, np.inf])) == 0.875


def test_auc_takes_whole_numbers_too_large_for_32_bits():
    # 70,000 x 70,000 pairs: a 32-bit count would wrap around.
    labels = np.repeat([0, 1], 70_000)
    assert metrics_scores.auc(labels, np.arange(140_000)) == 1.0


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1]])
def test_an_absent_class_makes_auc_undefined_and_not_zero(labels):
    assert np.isnan(metrics_scores.auc(np.array(labels), np.array([0.1, 0.2, 0.3])))


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 1], [0.1, 0.2, 0.3], "must both be"),
        ([[0, 1]], [[0.1, 0.2]], "must both be"),
        ([0, 2, 1], [0.1, 0.2, 0.3], "index 1 is neither 0 nor 1"),
        ([0, -1, 1], [0.1, 0.2, 0.3], "index 1 is neither 0 nor 1"),
        ([0, np.nan, 1], [0.1, 0.2, 0.3], "index 1 is neither 0 nor 1"),
        ([0, 1, 1], [0.1, 0.2, np.nan], "score at index 2 is NaN"),
    ],
)
def test_unsound_arrays_are_refused(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        metrics_scores.auc(np.array(labels), np.array(scores))


def test_each_class_has_its_own_auc_and_the_mean_skips_the_undefined():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (200, 4))
    labels[:, 2] = 0
    scores = rng.random((200, 4)) + 0.3 * labels
    aucs = metrics_scores.class_aucs(labels, scores)
    expected = [sklearn_metrics.roc_auc_score(labels[:, c], scores[:, c]) for c in (0, 1, 3)]
    np.testing.assert_allclose(aucs[[0, 1, 3]], expected, rtol=1e-12)
    assert np.isnan(aucs[2])
    assert metrics_scores.mean_auc(aucs) == (pytest.approx(np.mean(expected)), 3)
    with pytest.raises(ValueError, match="must both be"):
        metrics_scores.class_aucs(labels, scores[:, :3])


def test_a_mean_of_nothing_is_undefined():
    mean, defined = metrics_scores.mean_auc(np.full(14, np.nan))
    assert np.isnan(mean)
    assert defined == 0


@pytest.mark.parametrize("kind", ["ties", "float32", "bool", "uint8", "infinite"])
def test_roc_curve_is_scikit_learns_and_its_area_is_the_auc(kind):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 300)
    scores = {
        "ties": rng.integers(0, 6, 300) + labels,
        "float32": (rng.random(300) + 0.5 * labels).astype(np.float32),
        "bool": rng.random(300) < 0.3 + 0.4 * labels,
        "uint8": rng.integers(0, 200, 300, dtype=np.uint8),
        "infinite": np.where(rng.random(300) < 0.2, np.inf, np.where(rng.random(300) < 0.2, -np.inf, rng.random(300))),
    }[kind]
    x, y = metrics_scores.roc_curve(labels, scores)
    peer = np.nan_to_num(scores.astype(float), posinf=9, neginf=-9)
    peer_x, peer_y, _ = sklearn_metrics.roc_curve(labels, peer, drop_intermediate=False)
    np.testing.assert_allclose(x, peer_x, atol=1e-12)
    np.testing.assert_allclose(y, peer_y, atol=1e-12)
    assert np.trapezoid(y, x) == pytest.approx(metrics_scores.auc(labels, scores), abs=1e-12)


def test_roc_curve_of_one_class_is_refused():
    with pytest.raises(ValueError, match="0 positives and 3 negatives"):
        metrics_scores.roc_curve(np.zeros(3), np.array([0.1, 0.2, 0.3]))


def test_dice_and_iou_of_overlapping_squares():
    a, b = np.zeros((2, 10, 10), bool)
    a[:4, :4] = True  # 16 pixels
    b[2:6, 2:6] = True  # 16 pixels, 4 of them in both
    assert metrics_scores.dice(a, b) == 8 / 32
    assert metrics_scores.iou(a, b) == 4 / 28
    assert metrics_scores.dice(a, a) == metrics_scores.iou(a, a) == 1.0


def test_dice_and_iou_are_scikit_learns():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 64, 64)) < 0.4
    assert metrics_scores.dice(a, b) == pytest.approx(sklearn_metrics.f1_score(a.ravel(), b.ravel()))
    assert metrics_scores.iou(a, b) == pytest.approx(sklearn_metrics.jaccard_score(a.ravel(), b.ravel()))


def test_empty_masks():
    empty, full = np.zeros((3, 3), bool), np.ones((3, 3), bool)
    assert metrics_scores.dice(empty, empty) == metrics_scores.iou(empty, empty) == 1.0
    assert metrics_scores.dice(empty, full) == metrics_scores.iou(empty, full) == 0.0


@pytest.mark.parametrize("score", [metrics_scores.dice, metrics_scores.iou])
def test_soft_masks_and_other_shapes_are_refused(score):
    mask = np.ones((3, 3), bool)
    with pytest.raises(ValueError, match="must be bool"):
        score(mask, np.full((3, 3), 255, np.uint8))
    with pytest.raises(ValueError, match="one shape"):
        score(mask, mask[:2])


def test_lung_recall_is_the_share_inside_the_box():
    mask = np.zeros((8, 12), bool)
    mask[2:6, 2:10] = True  # 4 rows x 8 columns
    assert metrics_scores.lung_recall(mask, (2, 2, 10, 6)) == 1.0
    assert metrics_scores.lung_recall(mask, (0, 0, 12, 8)) == 1.0
    assert metrics_scores.lung_recall(mask, (2, 2, 9, 6)) == 28 / 32  # the last column is lost
    assert metrics_scores.lung_recall(mask, (2, 3, 10, 6)) == 24 / 32  # the first row is lost
    assert np.isnan(metrics_scores.lung_recall(np.zeros((8, 12), bool), (0, 0, 12, 8)))


def test_lung_recall_refuses_boxes_of_another_image():
    mask = np.ones((8, 12), bool)
    for box in [(0, 0, 13, 8), (0, 0, 12, 9), (-1, 0, 3, 3), (5, 2, 5, 4)]:
        with pytest.raises(ValueError, match="not inside a mask of 12 x 8"):
            metrics_scores.lung_recall(mask, box)
    with pytest.raises(TypeError):
        metrics_scores.lung_recall(mask, (0.5, 0, 12, 8))
    with pytest.raises(ValueError, match="bool"):
        metrics_scores.lung_recall(mask.astype(np.uint8), (0, 0, 12, 8))


@pytest.mark.real
def test_the_published_aucs_follow_from_the_published_probabilities(real_data):
    with (real_data / "predictions" / "aucs.csv").open(newline="") as file:
        published = {row["label"]: float(row["auc"]) for row in csv.DictReader(file)}
    with (real_data / "chestxray14" / "Data_Entry_2017_v2020.csv").open(newline="") as file:
        labels = {row["Image Index"]: row["Finding Labels"] for row in csv.DictReader(file)}
    with (real_data / "predictions" / "preds.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    scores = np.array([[float(row[f"prob_{name}"]) for name in FINDINGS] for row in rows])
    truth = np.array([parse_labels(labels[row["Image Index"]]) for row in rows])
    assert len(rows) == 22_433
    np.testing.assert_allclose(
        metrics_scores.class_aucs(truth, scores), [published[name] for name in FINDINGS], rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("distinct", [3, 40, 10**9])
def test_average_precision_is_scikit_learns_with_and_without_ties(distinct):
    rng = np.random.default_rng(distinct)
    labels = (rng.random(400) < 0.2).astype(int)
    scores = rng.integers(0, distinct, 400) / distinct + 0.1 * labels
    expected = sklearn_metrics.average_precision_score(labels, scores)
    assert metrics_scores.average_precision(labels, scores) == pytest.approx(expected, abs=1e-12)


def test_average_precision_of_known_cases():
    labels = np.array([0, 0, 0, 1])
    assert metrics_scores.average_precision(labels, np.array([0.1, 0.2, 0.3, 0.4])) == 1
    assert metrics_scores.average_precision(labels, np.full(4, 0.5)) == 0.25  # the prevalence
    assert np.isnan(metrics_scores.average_precision(np.zeros(4, int), np.arange(4)))


def brute_force_distance(a, b):
    def outline(mask):
        padded = np.pad(mask, 1)
        return [
            (y, x)
            for y, x in np.argwhere(mask)
            if not (padded[y, x + 1] and padded[y + 2, x + 1] and padded[y + 1, x] and padded[y + 1, x + 2])
        ]

    one, other = outline(a), outline(b)
    nearest = [min(np.hypot(*np.subtract(p, q)) for q in other) for p in one]
    nearest += [min(np.hypot(*np.subtract(p, q)) for q in one) for p in other]
    return np.mean(nearest)


@pytest.mark.parametrize("seed", range(3))
def test_surface_distance_is_the_mean_over_both_outlines(seed):
    a, b = np.random.default_rng(seed).random((2, 12, 15)) < 0.6
    assert metrics_scores.surface_distance(a, b) == pytest.approx(brute_force_distance(a, b))
    assert metrics_scores.surface_distance(a, b) == pytest.approx(metrics_scores.surface_distance(b, a))


def test_surface_distance_of_known_masks():
    square = np.zeros((40, 40), bool)
    square[10:20, 10:20] = True
    assert metrics_scores.surface_distance(square, square) == 0
    line = np.zeros((40, 40), bool)
    line[5, :] = True
    assert metrics_scores.surface_distance(line, np.roll(line, 7, axis=0)) == 7
    assert np.isnan(metrics_scores.surface_distance(square, np.zeros_like(square)))
