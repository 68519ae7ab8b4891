"""RSNA Pneumonia Detection Challenge: radiographs of ChestX-ray14 with boxes of opacities suspicious for pneumonia."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from sdfn_jax.core import tables
from sdfn_jax.radiographs import labels
from tfds_builders import film_tables
from tfds_builders.film_tables import Row

_TABLE = "stage_2_train_labels.csv"
_COLUMNS = {name: () for name in ("patientId", "x", "y", "width", "height", "Target")}
_CODES = {"0": labels.ABSENT, "1": labels.PRESENT}


class Builder(film_tables.TableBuilder):
    """DatasetBuilder for `rsna_pneumonia`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    HOMEPAGE = "https://www.kaggle.com/competitions/rsna-pneumonia-detection-challenge"
    BOXES = True
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
manual_dir is the folder of the download: stage_2_train_labels.csv, and the films in stage_2_train_images/ (or any
folder below); all films or some."""

    def tables(self, manual_dir: Path) -> dict[str, Path]:
        """Returns {file name: path} of the official table."""
        return {_TABLE: manual_dir / _TABLE}

    def _read_rows(self, manual_dir: Path) -> tuple[tuple[str, ...], Iterator[Row]]:
        self._index_by_name(manual_dir)
        return ("Pneumonia",), self._rows(manual_dir / _TABLE)

    def _rows(self, table: Path) -> Iterator[Row]:
        found: dict[str, tuple[str, int, list]] = {}
        for source, record in self._records(table, _COLUMNS):
            with self._fault(record["patientId"], source):
                if (target := record["Target"]) not in _CODES:
                    raise ValueError(f"Target is {tables.shown(target)}; expected 0 or 1")
                _, _, boxes = found.setdefault(record["patientId"], (source, _CODES[target], []))
                if target == "1":
                    left, top, width, height = (tables.number(record[name]) for name in ("x", "y", "width", "height"))
                    boxes.append((0, (left, top, left + width, top + height)))
        for name, (source, code, boxes) in found.items():
            # `patientId` names a film: which of them are of one patient is not told.
            yield Row(name, source, np.array([code], np.uint8), patient=name, boxes=tuple(boxes))
