"""Outlines of lung masks."""

import numpy as np
from PIL import Image, ImageDraw

from sdfn_jax.lungs.outline import outline


def filled(lines, size):
    """The area inside closed lines, holes left out: (H, W) bool."""
    area = np.zeros(size, bool)
    for line in lines:
        picture = Image.new("1", size[::-1])
        ImageDraw.Draw(picture).polygon([tuple(point) for point in line.tolist()], fill=1, outline=0)
        area ^= np.asarray(picture)
    return area


def soft_lungs():
    """Probabilities of two ellipses, of which one has a hole, in 256 x 256 pixels."""
    y, x = np.mgrid[:256, :256]
    ellipse = lambda cx, cy, a, b: 1 - np.hypot((x - cx) / a, (y - cy) / b)  # noqa: E731
    lungs = np.maximum(ellipse(80, 120, 40, 80), ellipse(175, 120, 45, 85))
    lungs = np.minimum(lungs, -ellipse(175, 120, 10, 20))
    return (1 / (1 + np.exp(-20 * lungs))).astype(np.float32)


def test_it_follows_the_mask_at_the_radiographs_size():
    probabilities = soft_lungs()
    lines = outline(probabilities, probabilities > 0.5, (1024, 2048))
    assert len(lines) == 3  # two lungs and a hole
    expected = np.kron(probabilities > 0.5, np.ones((4, 8), bool))
    found = filled(lines, (1024, 2048))
    assert 2 * (found & expected).sum() / (found.sum() + expected.sum()) > 0.99
    assert sum(map(len, lines)) < 300


def test_what_the_rules_dropped_is_not_outlined_and_what_they_filled_is():
    probabilities = soft_lungs()
    kept = probabilities > 0.5
    kept[:, :128] = False
    kept[90:150, 160:190] = True
    (line,) = outline(probabilities, kept, (256, 256))
    assert line[:, 0].min() >= 128


def test_it_ends_at_the_border_and_nothing_gives_no_line():
    everywhere = np.ones((256, 256), np.float32)
    (line,) = outline(everywhere, everywhere > 0.5, (300, 400))
    assert (line.min(axis=0) == 0).all() and line.max(axis=0).tolist() == [400, 300]
    assert outline(everywhere, np.zeros((256, 256), bool), (300, 400)) == ()
