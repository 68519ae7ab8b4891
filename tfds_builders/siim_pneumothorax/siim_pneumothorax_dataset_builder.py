"""SIIM-ACR Pneumothorax Segmentation: radiographs of ChestX-ray14 with masks of pneumothoraces."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

from sdfn_jax.core import tables
from sdfn_jax.radiographs import labels
from tfds_builders import film_tables
from tfds_builders.film_tables import Row

_TABLES = tuple(f"{stage}train-rle.csv{packed}" for stage in ("", "stage_2_") for packed in ("", ".gz"))
_SIDE = 1024  # pixels of a film and of its mask
_NONE = "-1"


class Builder(film_tables.TableBuilder):
    """DatasetBuilder for `siim_pneumothorax`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    HOMEPAGE = "https://www.kaggle.com/competitions/siim-acr-pneumothorax-segmentation"
    BOXES = True
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
manual_dir is the folder of the download: train-rle.csv, and the films in dicom-images-train/ (or any folder below); all
films or some."""

    def tables(self, manual_dir: Path) -> dict[str, Path]:
        """Returns {file name: path} of the official table."""
        path = film_tables.first_there(manual_dir / name for name in _TABLES)
        return {path.name: path}

    def _read_rows(self, manual_dir: Path) -> tuple[tuple[str, ...], Iterator[Row]]:
        self._index_by_name(manual_dir)
        (table,) = self.tables(manual_dir).values()
        return ("Pneumothorax",), self._rows(table)

    def _rows(self, table: Path) -> Iterator[Row]:
        found: dict[str, tuple[str, list]] = {}
        for source, record in self._records(table, {"ImageId": (), "EncodedPixels": ()}):
            _, boxes = found.setdefault(record["ImageId"], (source, []))
            if record["EncodedPixels"] != _NONE:
                with self._fault(record["ImageId"], source):
                    boxes.append((0, mask_box(record["EncodedPixels"])))
        for name, (source, boxes) in found.items():
            code = labels.PRESENT if boxes else labels.ABSENT
            yield Row(name, source, np.array([code], np.uint8), patient=name, boxes=tuple(boxes))


def mask_box(encoded: str) -> tuple[float, float, float, float]:
    """Returns (left, top, right, bottom), half-open, of a mask of 1024 x 1024 pixels.

    Args:
      encoded: pairs of numbers; the first skips so many pixels from the end of the run before, the second is the length
        of a run in the mask. Pixels count down the columns, from the left.

    Raises:
      ValueError: for anything else.
    """
    try:
        numbers = np.array(encoded.split(), np.int64).reshape(-1, 2)
    except ValueError:
        raise ValueError(f"EncodedPixels is {tables.shown(encoded)}; expected -1 or pairs of numbers") from None
    ends = numbers.ravel().cumsum()[1::2]
    starts = ends - numbers[:, 1]
    if not len(numbers) or (numbers < (0, 1)).any() or ends[-1] > _SIDE**2:
        raise ValueError(f"EncodedPixels is {tables.shown(encoded)}, no mask of {_SIDE} x {_SIDE} pixels")
    (left, top), (right, bottom) = divmod(starts, _SIDE), divmod(ends - 1, _SIDE)
    if (left != right).any():  # a run from one column into the next spans the height
        return float(left[0]), 0.0, float(right[-1] + 1), float(_SIDE)
    return float(left[0]), float(top.min()), float(right[-1] + 1), float(bottom.max() + 1)
