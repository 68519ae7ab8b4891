"""Readings without a network behind them."""

import dataclasses

import numpy as np

from sdfn_jax.inference.prediction import Provenance, Reading
from sdfn_jax.metrics.calibration import Auc, Validation
from sdfn_jax.metrics.operating_points import Threshold
from sdfn_jax.radiographs.findings import FINDINGS

PROVENANCE = Provenance(
    stage="fusion",
    checkpoint="c1a551f1e2",
    lrg_checkpoint="1un95e93a7",
    findings=FINDINGS,
    data_version="chestxray14/size224_labels2017/1.0.0",
    label_version="2017",
    drawings=False,
    imported={},
    preprocessing={"low": 0.0, "high": 1.0, "mean": [0.449], "std": [0.226], "size": 224},
    thresholds={name: Threshold(0.3, 0.9, 0.625, 31, 1209) for name in FINDINGS[:13]},
    undecided={"Hernia": "3 positives and 1237 negatives in validation; it takes 20 of each"},
    calibrated=("Mass", "Nodule"),
    validation={name: Validation(31, 1209, Auc(0.81, 0.74, 0.87)) for name in FINDINGS[:13]}
    | {"Hernia": Validation(3, 1237, Auc(0.7, 0.4, 0.95))},
    no_better_than_chance="",
    software={"sdfn_jax": "0.1.0", "jax": "0.10.2"},
)


def reading(
    name="films/a.png", size=(96, 120), seed=0, branches=("entire", "lung"), cells=(7, 5), **changes
) -> Reading:
    """A film of noise with random maps.

    Args:
      name: of the film.
      size: (height, width) of the film.
      seed: of its pixels and numbers.
      branches: of the maps.
      cells: (h, w) of the maps.
      changes: other attributes of the reading.
    """
    random = np.random.default_rng(seed)
    height, width = size
    made = Reading(
        name=name,
        radiograph=random.integers(0, 256, size, dtype=np.uint8),
        lung_box=(width // 8, height // 10, width - width // 5, height - height // 7),
        rule="nearest_two+mirror",
        lung_area=0.25,
        confidence=0.9375,
        lung_outline=(np.array([(width // 4, height // 4), (width // 2, height // 4), (width // 3, height // 2)]),),
        flags=(),
        fixes=(),
        probabilities=dict(zip(FINDINGS, random.random(14).tolist(), strict=True)),
        calibrated=dict.fromkeys(FINDINGS) | {"Mass": 0.125, "Nodule": 0.25},
        maps={branch: random.normal(size=(*cells, 14)).astype(np.float32) for branch in branches},
        provenance=PROVENANCE,
    )
    return dataclasses.replace(made, **changes)
