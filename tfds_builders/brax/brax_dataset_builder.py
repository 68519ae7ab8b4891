"""BRAX, Hospital Israelita Albert Einstein: frontal radiographs with labels that were mined from Portuguese reports."""

from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from sdfn_jax.core import tables
from tfds_builders import chexpert_labels, film_tables, table_values
from tfds_builders.film_tables import Row

_TABLE = "master_spreadsheet_update.csv"
_COLUMNS: dict[str, tuple[str, ...]] = {
    name: () for name in ("PngPath", "PatientID", "PatientSex", "PatientAge", "ViewPosition", "Rows", "Columns")
}
_STRIP = 10  # times as long as wide: 12 of the official films are strips of this kind


class Builder(film_tables.TableBuilder):
    """DatasetBuilder for `brax`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    HOMEPAGE = "https://physionet.org/content/brax/1.1.0/"
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
manual_dir is the folder of the download: master_spreadsheet_update.csv, and the PNG files under the paths that it names
(images/id_.../Study_.../Series_.../*.png); all films or some."""

    def tables(self, manual_dir: Path) -> dict[str, Path]:
        """Returns {file name: path} of the official table."""
        return {_TABLE: manual_dir / _TABLE}

    def _read_rows(self, manual_dir: Path) -> tuple[tuple[str, ...], Iterator[Row]]:
        return chexpert_labels.CHEXPERT_FINDINGS, self._rows(manual_dir / _TABLE)

    def _rows(self, table: Path) -> Iterator[Row]:
        for source, record in self._records(table, _COLUMNS | chexpert_labels.COLUMNS):
            name = record["PngPath"]
            with self._fault(name, source):
                view = table_values.frontal(record["ViewPosition"], unknown_is_frontal=False)
                sides = sorted(tables.whole_number(record[side]) for side in ("Rows", "Columns"))
                if sides[1] > _STRIP * sides[0]:
                    view["left_out"] = "a strip, no radiograph"
                yield Row(
                    name,
                    source,
                    labels=chexpert_labels.codes(record),
                    patient=record["PatientID"],
                    sex=table_values.sex_of(record["PatientSex"]),
                    age=table_values.age_of(record["PatientAge"].removesuffix(" or more")),  # of 85 years
                    **view,
                )
