"""The evaluated images in the official tables: labels of both versions, sex, age, view."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sdfn_jax.core.errors import UserError
from sdfn_jax.core.faults import Faults
from sdfn_jax.metrics.evaluation import Evaluation
from sdfn_jax.radiographs import nih_tables
from sdfn_jax.radiographs.findings import FINDINGS
from sdfn_jax.radiographs.labels import arrange


@dataclasses.dataclass(frozen=True)
class Official:
    """The evaluated images in the official tables, in their order.

    Attributes:
      labels: {label version: (N, K) uint8}, of the evaluation's findings.
      changed: images whose labels differ between the versions, in the whole table; None with one version only.
      sexes: N of `M`, `F`.
      ages: N, in years.
      views: N of `PA`, `AP`.
      absent: images of the official test list that were not evaluated; None for another split.
    """

    labels: dict[str, np.ndarray]
    changed: list[str] | None
    sexes: list[str]
    ages: list[float]
    views: list[str]
    absent: list[str] | None


def read(folder: Path, evaluation: Evaluation) -> Official:
    """Reads the official tables and checks that the evaluation fits them.

    Args:
      folder: of the tables.
      evaluation: on any split.

    Raises:
      UserError: for a table that is missing or not one; for images that the tables do not have, or have with other
        labels, of another patient or in another split, with the first few names.
    """
    named = evaluation.origin.label_version
    if named not in nih_tables.LABEL_TABLES:
        raise UserError(
            f"--tables: these are of ChestX-ray14 under labels {' or '.join(nih_tables.LABEL_TABLES)}; the evaluation "
            f"is of {evaluation.origin.data_version} under {named or 'its own'}"
        )
    faults = Faults(skip=False)
    entries = {}
    for version, name in nih_tables.LABEL_TABLES.items():
        if version == named or (folder / name).is_file():
            entries[version] = nih_tables.read_entries(folder / name, version, faults)
    mine, predictions = entries[named], evaluation.predictions
    _refuse([image for image in predictions.images if image not in mine], f"not in {nih_tables.LABEL_TABLES[named]}")
    rows = [mine[image] for image in predictions.images]

    def labels_of(row: nih_tables.Entry) -> np.ndarray:
        return arrange(row.labels, FINDINGS, predictions.findings)

    pairs = list(zip(predictions.images, rows, strict=True))
    _refuse(
        [
            image
            for (image, row), labels in zip(pairs, predictions.labels, strict=True)
            if (labels_of(row) != labels).any()
        ],
        f"labelled otherwise by version {named}, which evaluation.json names",
    )
    _refuse(
        [image for (image, row), patient in zip(pairs, predictions.patients, strict=True) if row.patient != patient],
        "of another patient in the table",
    )
    absent = None
    if evaluation.origin.split == "test":
        _, test = nih_tables.read_lists(folder, mine)
        _refuse([image for image in predictions.images if image not in test], f"not in {nih_tables.TEST_LIST}")
        absent = sorted(test - set(predictions.images))
    changed = None
    if len(entries) == len(nih_tables.LABEL_TABLES):
        one, other = entries.values()
        changed = [image for image in one if image in other and (one[image].labels != other[image].labels).any()]
    labels = {
        version: np.stack([labels_of(table[image]) for image in predictions.images])
        for version, table in entries.items()
        if all(image in table for image in predictions.images)
    }
    return Official(
        labels,
        changed,
        [row.sex for row in rows],
        [row.age for row in rows],
        [row.view_position for row in rows],
        absent,
    )


def _refuse(images: Sequence[str], what: str) -> None:
    if images:
        raise UserError(f"--tables: {len(images)} of the evaluated images are {what}, such as {', '.join(images[:3])}")
