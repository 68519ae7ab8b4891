"""What speaks against a lung region: confidence and flags."""

import dataclasses

import numpy as np
import pytest

from sdfn_jax.lungs import doubt
from sdfn_jax.lungs.lung_boxes import LungRegion
from sdfn_jax.metrics import scores

SIZE = (100, 80)


def region(**changed) -> LungRegion:
    mask = np.zeros((64, 64), bool)
    mask[10:50, 8:56] = True
    ordinary = {"box": (5, 10, 75, 90), "rule": "none", "cleaned": mask, "kept": mask, "confidence": 0.95}
    return LungRegion(**{**ordinary, **changed})


def test_confidence_is_the_mean_dice_over_what_the_probabilities_allow():
    """Brute force: true masks drawn from the probabilities, each pixel by itself."""
    rng = np.random.default_rng(0)
    probabilities = np.clip(rng.normal(0.5, 0.4, (64, 64)), 0, 1)
    kept = probabilities > 0.5
    drawn = [scores.dice(kept, rng.random(kept.shape) < probabilities) for _ in range(400)]
    assert doubt.confidence(probabilities, kept) == pytest.approx(np.mean(drawn), abs=2e-3)


def test_confidence_is_1_for_a_certain_mask_and_0_without_one():
    kept = region().kept
    assert doubt.confidence(kept.astype(np.float32), kept) == 1
    assert doubt.confidence(np.full((64, 64), 0.4, np.float32), np.zeros((64, 64), bool)) == 0


def test_lung_that_was_dropped_lowers_confidence():
    kept = region().kept.copy()
    whole = doubt.confidence(kept.astype(np.float32), kept)
    left = kept.copy()
    left[:, 32:] = False
    assert doubt.confidence(kept.astype(np.float32), left) < 0.7 < whole


@pytest.mark.parametrize(
    ("changed", "bound", "flags"),
    [
        ({}, 0.9, ()),
        ({"confidence": 0.89}, 0.9, ("lung_region_doubtful",)),
        ({"rule": "mirror"}, 0.9, ("lung_region_doubtful",)),
        ({"confidence": 0.1, "rule": "mirror"}, None, ()),
        ({"rule": "whole_image"}, None, ("lung_region_fallback",)),
        ({"box": (30, 10, 50, 90)}, 0.9, ("lung_region_fallback",)),
        ({"cleaned": np.zeros((64, 64), bool)}, None, ("lung_region_fallback",)),
    ],
)
def test_what_is_flagged(changed, bound, flags):
    assert doubt.doubts(region(**changed), SIZE, bound) == flags


def test_a_bound_of_exactly_the_confidence_is_met():
    assert doubt.doubts(dataclasses.replace(region(), confidence=0.9), SIZE, 0.9) == ()
