"""Evaluations of several networks on the same images."""

import math
from collections.abc import Sequence

import numpy as np

from sdfn_jax.metrics import published
from sdfn_jax.metrics.evaluation import Evaluation, Origin, caveats


def in_table_order(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Checks that evaluations are comparable, and returns them in the order of Table I's columns.

    Raises:
      ValueError: if there are none; for an unknown stage, a stage given twice, or evaluations that differ in images
        (the first few are named), labels, label version, split or kind of data.
    """
    if not evaluations:
        raise ValueError("no evaluation to report")
    stages = [evaluation.origin.stage for evaluation in evaluations]
    for stage in stages:
        if stage not in published.COLUMN_NAMES:
            raise ValueError(f"unknown stage {stage!r}; expected one of {', '.join(published.COLUMN_NAMES)}")
        if stages.count(stage) > 1:
            raise ValueError(f"{stages.count(stage)} evaluations of stage {stage!r}; Table I has one column for it")
    first, *others = sorted(
        evaluations, key=lambda evaluation: list(published.COLUMN_NAMES).index(evaluation.origin.stage)
    )
    for other in others:
        _check_comparable(first, other)
    return [first, *others]


def _check_comparable(first: Evaluation, other: Evaluation) -> None:
    stages = f"{first.origin.stage!r} and {other.origin.stage!r}"
    if first.predictions.findings != other.predictions.findings:
        ours, theirs = (", ".join(each.predictions.findings) for each in (first, other))
        raise ValueError(f"evaluations of {stages} are of different findings: {ours}, and {theirs}")
    for field in ("label_version", "split", "drawings"):
        mine, its = getattr(first.origin, field), getattr(other.origin, field)
        if mine != its:
            raise ValueError(f"evaluations of {stages} differ in {field}: {mine} and {its}; evaluate both alike")
    mine, its = (dict(zip(each.predictions.images, each.predictions.labels, strict=True)) for each in (first, other))
    if mine.keys() != its.keys():
        only = sorted(mine.keys() ^ its.keys())
        raise ValueError(
            f"evaluations of {stages} saw different images; {len(only)} are in one only, such as {', '.join(only[:3])}"
        )
    wrong = [image for image, labels in mine.items() if not np.array_equal(labels, its[image])]
    if wrong:
        raise ValueError(
            f"evaluations of {stages} have different labels for {len(wrong)} images, such as {', '.join(wrong[:3])}"
        )


def all_caveats(evaluations: Sequence[Evaluation]) -> list[str]:
    """Returns the caveats of evaluations, each once."""
    return list(dict.fromkeys(sentence for evaluation in evaluations for sentence in caveats(evaluation)))


def measured_on(evaluations: Sequence[Evaluation]) -> list[str]:
    """Returns what a table or figure of these evaluations was measured on, in a few short phrases."""
    origin, predictions = evaluations[0].origin, evaluations[0].predictions
    kind = "synthetic radiographs" if origin.drawings else "radiographs"
    return [
        f"{len(predictions.images)} {kind} of {len(np.unique(predictions.patients))} patients",
        f"split {origin.split}",
        f"data {origin.data_version}",
        *([] if origin.label_version is None else [f"labels {origin.label_version}"]),
        f"seed {seeds(evaluations)}",
        f"checkpoints {', '.join(evaluation.origin.checkpoint[:8] for evaluation in evaluations)}",
    ]


def seeds(evaluations: Sequence[Evaluation]) -> str:
    """Returns the training seeds, each once, joined by `/`."""
    return "/".join(dict.fromkeys(text for evaluation in evaluations for text in seed_texts(evaluation.origin)))


def seed_texts(origin: Origin) -> list[str]:
    """Returns the seed of a training, or those of an ensemble's, for the reader."""
    return list(map(str, origin.seeds)) or ["unknown" if origin.seed is None else str(origin.seed)]


def network_name(origin: Origin) -> str:
    """Returns what Table I calls a network's column; an ensemble says of how many it is."""
    return published.COLUMN_NAMES[origin.stage] + (f", ensemble of {len(origin.seeds)}" if origin.seeds else "")


def auc_text(value: float) -> str:
    """Returns an AUC as a table shows it: three decimals, or `undefined`."""
    return "undefined" if math.isnan(value) else f"{value:.3f}"
