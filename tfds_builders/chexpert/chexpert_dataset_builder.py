"""CheXpert, Stanford: frontal radiographs with labels that were mined from reports, some uncertain."""

import re
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds

from tfds_builders import chexpert_labels, film_tables, labelled_films, table_values
from tfds_builders.film_tables import Row

# {table: where its films go}
_TABLES = {"train.csv": labelled_films.TRAIN_VAL, "valid.csv": "test"}
_COLUMNS: dict[str, tuple[str, ...]] = {"Path": (), "Sex": (), "Age": (), "Frontal/Lateral": (), "AP/PA": ()}


class Builder(film_tables.TableBuilder):
    """DatasetBuilder for `chexpert`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    HOMEPAGE = "https://stanfordmlgroup.github.io/competitions/chexpert/"
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
manual_dir is the folder CheXpert-v1.0 or CheXpert-v1.0-small of the download, with train.csv, valid.csv, train/ and
valid/; all films or some."""

    def tables(self, manual_dir: Path) -> dict[str, Path]:
        """Returns {file name: path} of the official tables."""
        return {name: manual_dir / name for name in _TABLES}

    def _read_rows(self, manual_dir: Path) -> tuple[tuple[str, ...], Iterator[Row]]:
        return chexpert_labels.CHEXPERT_FINDINGS, self._rows(manual_dir)

    def _rows(self, manual_dir: Path) -> Iterator[Row]:
        for name, path in self.tables(manual_dir).items():
            for source, record in self._records(path, _COLUMNS | chexpert_labels.COLUMNS):
                # The tables name the download's own folder first: CheXpert-v1.0-small/train/patient00001/...
                film = re.sub(r"^CheXpert-v[^/]*/", "", record["Path"])
                with self._fault(film, source):
                    yield Row(
                        film,
                        source,
                        labels=chexpert_labels.codes(record),
                        patient=_patient(film),
                        split=_TABLES[name],
                        sex=table_values.sex_of(record["Sex"]),
                        age=table_values.age_of("" if record["Age"] == "0" else record["Age"]),  # 0 is unknown
                        **table_values.frontal(
                            record["AP/PA"] if record["Frontal/Lateral"] == "Frontal" else table_values.LATERAL
                        ),
                    )


def _patient(film: str) -> str:
    if found := re.search(r"(?:^|/)(patient\d+)/", film):
        return found[1]
    raise ValueError(f"Path is {film}, without a patient's folder (patient00001)")
