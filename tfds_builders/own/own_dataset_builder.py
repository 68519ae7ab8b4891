"""Anybody's radiographs, with findings of their own in a table."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sdfn_jax.core import csv_table, tables
from sdfn_jax.core.errors import UserError
from sdfn_jax.radiographs import find, labels
from tfds_builders import base, film_tables, labelled_films, table_values
from tfds_builders.film_tables import Row

TABLE = "films.csv"
_REQUIRED = {"image": ()}
_OPTIONAL = ("patient", "split", "sex", "age", "view")
_CODES = {
    "0": labels.ABSENT,
    "1": labels.PRESENT,
    "-1": labels.UNCERTAIN,
    "U": labels.UNCERTAIN,
    "": labels.UNKNOWN,
}
_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation", "test": "test"}


class Builder(film_tables.TableBuilder):
    """DatasetBuilder for `own`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    MISSING_IS_A_FAULT = True
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
manual_dir holds the radiographs, in any folders, and films.csv, unless --table names another table. It has a row for
each radiograph and the columns image (its path, relative to manual_dir) and one for each finding (1 present, 0 absent,
-1 or u uncertain, empty unknown); and optionally patient, split (train, validation, test), sex, age, view (PA, AP)."""

    def __init__(self, *, table: str | os.PathLike[str] | None = None, **kwargs: Any):
        """Makes a builder.

        Args:
          table: the table of films; `films.csv` in manual_dir if None.
          **kwargs: as `TableBuilder`'s.
        """
        self._table = table
        super().__init__(**kwargs)

    def tables(self, manual_dir: Path) -> dict[str, Path]:
        """Returns {file name: path} of the table."""
        path = Path(self._table) if self._table else manual_dir / TABLE
        return {path.name: path}

    @property
    def _label_version(self) -> str:
        return Path(self._table or TABLE).name

    def _read_rows(self, manual_dir: Path) -> tuple[tuple[str, ...], list[Row]]:
        (path,) = self.tables(manual_dir).values()
        if not path.is_file():
            raise base.NothingFoundError(
                f"no table {path}: write one with the columns image and one for each finding, or say where yours is "
                "(--config.data.table=FILE; tfds_builders/own/README.md describes it)"
            )
        header = tables.column_names(path, _REQUIRED)
        known = {*_REQUIRED, *_OPTIONAL}
        findings = tuple(name for name in header if name and tables.column_key(name) not in known)
        if not findings:
            raise UserError(
                f"{path}: no column of a finding: every column besides image, {', '.join(_OPTIONAL)} is one, and its "
                "name is the finding's"
            )
        self._patients_named = any(tables.column_key(name) == "patient" for name in header)
        return findings, list(self._rows(path, findings))

    def _read_folder(self, manual_dir: Path) -> labelled_films.Folder:
        folder = super()._read_folder(manual_dir)
        folder.metadata["patients_named"] = self._patients_named
        return folder

    def summary(self, metadata: dict[str, Any]) -> list[str]:
        """Returns also that there are no patients, if the table names none."""
        lines = super().summary(metadata)
        if not metadata["patients_named"]:
            lines.append(base.summary_line("NOTE", "", " no column patient: each film counts as a patient's only one"))
        return lines

    def _rows(self, path: Path, findings: Sequence[str]) -> Iterator[Row]:
        records = list(tables.read_table(path, _REQUIRED, optional=(*_OPTIONAL, *findings)))
        if not records:
            raise UserError(f"{path}: no films, only the header")
        # Without validation films of its own, the table leaves it to the draw which of train are for validation.
        divided = not any(_SPLITS.get((record.get("split") or "").lower()) == "validation" for _, record in records)
        for number, record in records:
            source = f"{path}, row {number}"
            name = csv_table.original(record["image"] or "")
            try:
                if too_short := [column for column, text in record.items() if text is None]:
                    raise ValueError(f"too short: no {', '.join(too_short)}")
                if not name:
                    raise ValueError("no image")
                yield Row(
                    name,
                    source,
                    labels=np.array([_code(record[finding], finding) for finding in findings], np.uint8),
                    patient=_patient(record, name),
                    split=_split(record["split"], divided) if "split" in record else None,
                    sex=table_values.sex_of(record.get("sex", "")),
                    age=table_values.age_of(record.get("age", "")),
                    **_view(record.get("view", "")),
                )
            except ValueError as error:
                self._faults.report(name or f"row {number}", f"{source}: {error}")

    def _others(self, named: set[Path]) -> list[find.LeftOut]:
        """Returns the radiographs next to those of the table that it does not name; its folder may hold anything."""
        folders = sorted({path.parent for path in named if path.is_file()})
        paths = (path for folder in folders for path in sorted(folder.iterdir()))
        return [
            find.LeftOut(path, "not in the table")
            for path in paths
            if path not in named and path.is_file() and find.is_radiograph(path)
        ]

    def _check_labels(self, manual_dir: Path, findings: Sequence[str], films: dict[str, film_tables.TableFilm]) -> None:
        (path,) = self.tables(manual_dir).values()
        trained = [film.row.labels for film in films.values() if self._split(film) == "train"]
        training = np.stack(trained or [np.zeros(0)])
        for index, finding in enumerate(findings):
            for code, what in ((labels.PRESENT, "1 (present)"), (labels.ABSENT, "0 (absent)")):
                if training.size and not (training[:, index] == code).any():
                    raise UserError(
                        f"{path}: no training film has {finding} = {what}, so that it cannot be learned; bring such "
                        "films, or take the column out"
                    )


def _view(text: str) -> dict[str, str]:
    view = text.upper()
    if view not in ("", "PA", "AP", *table_values.LATERAL_VIEWS):
        raise ValueError(f"view is {tables.shown(text)}; expected PA, AP, L (lateral, left out), or nothing")
    return table_values.frontal(view)


def _code(text: str, finding: str) -> int:
    plain = text.upper().removesuffix(".0")  # as spreadsheets and CheXpert write it
    if plain not in _CODES:
        raise ValueError(
            f"{finding} is {tables.shown(text)}; expected 1 (present), 0 (absent), -1 or u (uncertain), or nothing "
            f"(unknown). Every column besides image, {', '.join(_OPTIONAL)} is a finding"
        )
    return _CODES[plain]


def _patient(record: dict[str, str], name: str) -> str:
    """Returns the patient; without a column for it, each film is a patient's only one."""
    if "patient" not in record:
        return name
    if not record["patient"]:
        raise ValueError("no patient")
    return record["patient"]


def _split(text: str, divided: bool) -> str:
    try:
        split = _SPLITS[text.lower()]
    except KeyError:
        raise ValueError(f"split is {tables.shown(text)}; expected train, validation or test") from None
    return labelled_films.TRAIN_VAL if divided and split == "train" else split
