"""Data sets that tables describe, a row for each radiograph: what `own` and the public sets after ChestX-ray14 share.

A set's own file says where its tables are and what a row of them means (`_read_rows`). Everything else is here and in
`labelled_films`: which films are there, which views are kept, splits, features, counts.
"""

import abc
import contextlib
import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sdfn_jax.core import sealed, tables
from sdfn_jax.core.errors import UserError
from sdfn_jax.radiographs import find, labels
from tfds_builders import base, labelled_films, registry

_CODES = {
    "absent": labels.ABSENT,
    "present": labels.PRESENT,
    "uncertain": labels.UNCERTAIN,
    "unknown": labels.UNKNOWN,
}


@dataclasses.dataclass(eq=False, kw_only=True)
class TableConfig(tfds.core.BuilderConfig):
    """A configuration: height and width of the two images in pixels, and the set's own choices of labels."""

    size: int
    choices: dict[str, str] = dataclasses.field(default_factory=dict)


def config(size: int | None = None, **choices: str) -> TableConfig:
    """Returns the configuration for images of `size` x `size` pixels; of 224 x 224 if None.

    Args:
      size: in pixels.
      **choices: `CONFIG_SETTINGS` of the set's builder.
    """
    size = size or labelled_films.DEFAULT_SIZE
    name = "_".join([f"size{size}", *(f"{name}_{value}" for name, value in choices.items())])
    return TableConfig(name=name, description=f"Images of {size} x {size} pixels.", size=size, choices=choices)


@dataclasses.dataclass(frozen=True)
class Row:
    """What a table says of a radiograph.

    Attributes:
      name: its name in the prepared set and in the box table, unlike that of any other film.
      source: file and row, for messages.
      labels: (K,) uint8, codes of `labels`, in the order of the set's findings.
      patient: as the table calls them.
      split: as `labelled_films.LabelledFilm`'s.
      sex: `M` or `F`; empty if unknown.
      age: in years; NaN if unknown.
      view: `PA` or `AP`; empty if unknown.
      boxes: (finding, (left, top, right, bottom)), in pixels of the file.
      left_out: why the film is left out; empty if it is not.
    """

    name: str
    source: str
    labels: np.ndarray
    patient: str
    split: str | None = None
    sex: str = ""
    age: float = math.nan
    view: str = ""
    boxes: tuple[tuple[int, tuple[float, float, float, float]], ...] = ()
    left_out: str = ""


@dataclasses.dataclass(frozen=True)
class TableFilm(labelled_films.LabelledFilm):
    """An available radiograph and its row."""

    row: Row


class TableBuilder(labelled_films.LabelledFilmsBuilder, skip_registration=True):
    """A data set that tables describe.

    Attributes:
      HOMEPAGE: of the set.
      BOXES: whether it has boxes that show where a finding is.
      MISSING_IS_A_FAULT: whether a film that a table names and the folder lacks is a fault; otherwise it is listed, as
        of a download in part.
    """

    HOMEPAGE = ""
    BOXES = False
    MISSING_IS_A_FAULT = False
    METADATA = labelled_films.LabelledFilmsBuilder.METADATA | {
        "findings": sealed.several(sealed.TEXT),
        "test_share": sealed.SHARE,
    }
    BUILDER_CONFIGS = [config()]
    config = staticmethod(config)

    def __init__(self, *, test_share: float = registry.TABLE_SPLIT["test_share"], **kwargs: Any):
        """Makes a builder.

        Args:
          test_share: expected share of the patients in test, 0 to 1, where the tables name no test films.
          **kwargs: as `LabelledFilmsBuilder`'s.
        """
        self._by_name: dict[str, Path] = {}
        self._beside: list[find.LeftOut] = []
        super().__init__(**kwargs)
        self._draws["test_share"] = test_share

    @abc.abstractmethod
    def _read_rows(self, manual_dir: Path) -> tuple[tuple[str, ...], Iterable[Row]]:
        """Reads the tables; faults of single rows are reported to `self._faults`.

        Returns:
          (names of the findings, the rows).

        Raises:
          UserError: for a missing table or column, or a table that cannot be read.
        """

    def _file(self, manual_dir: Path, name: str) -> Path:
        """Returns where the film of a row is, if it is there."""
        return self._by_name.get(name, manual_dir / name)

    def _index_by_name(self, manual_dir: Path) -> None:
        """Finds the films by their file names, with or without suffix, in all folders below; for sets without paths."""
        below = find.below(manual_dir)
        films, different, copies = find.by_name(below.films)
        for first, second in different:
            self._faults.report(first.name, f"{second} is not the same file as {first}; keep one")
        self._by_name = {path.stem: path for path in films.values()} | films
        read = set(self.tables(manual_dir).values())
        self._beside = [each for each in (*below.left_out, *copies) if each.path not in read]

    def _records(
        self, path: Path, columns: Mapping[str, Sequence[str]], several_lines: bool = False
    ) -> Iterator[tuple[str, dict[str, str]]]:
        """Yields (file and row, {column: text}) of a table; a row that is too short is a fault.

        Raises:
          UserError: for a table that is missing or cannot be read, or lacks a column.
        """
        for number, record in tables.read_table(known_table(path), columns, several_lines=several_lines):
            source = f"{path}, row {number}"
            if too_short := [name for name, text in record.items() if text is None]:
                self._faults.report(source, f"{source}: too short: no {', '.join(too_short)}")
            else:
                yield source, record

    @contextlib.contextmanager
    def _fault(self, name: str, source: str) -> Iterator[None]:
        """Turns a ValueError into a fault of a film."""
        try:
            yield
        except ValueError as error:
            self._faults.report(name, f"{source}: {error}")

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.size
        square = {"shape": (size, size), "dtype": np.uint8, "encoding": "bytes"}
        features = tfds.features
        return self.dataset_info_from_configs(
            homepage=self.HOMEPAGE,
            metadata=tfds.core.MetadataDict(),
            features=features.FeaturesDict(
                {
                    "name": features.Text(doc="of the film, as the table names it"),
                    "entire": features.Tensor(doc="the whole radiograph, bones bright", **square),
                    "lung": features.Tensor(doc="its lung region, cut at full resolution", **square),
                    "labels": features.Tensor(
                        shape=(None,), dtype=np.uint8, doc="0 absent, 1 present, 2 uncertain, 3 unknown, by finding"
                    ),
                    "patient": features.Text(doc="as the table names them"),
                    "age": features.Scalar(np.float32, doc="years; NaN if unknown"),
                    "sex": features.Text(doc="M or F; empty if unknown"),
                    "view_position": features.Text(doc="PA or AP; empty if unknown"),
                    "image_size": features.Tensor(shape=(2,), dtype=np.int32, doc="height, width of the file"),
                    "lung_box": features.Tensor(
                        shape=(4,), dtype=np.int32, doc="left, top, right, bottom; pixels of the file, half-open"
                    ),
                    "lung_rule": features.Text(doc="the post-processing rules (B.2.2) that made the box"),
                    **({"reference_boxes": _reference_boxes()} if self.BOXES else {}),
                }
            ),
        )

    def summary(self, metadata: dict[str, Any]) -> list[str]:
        """Returns how often each finding has which label."""
        lines = []
        for finding, counts in metadata["labels"].items():
            others = ", ".join(f"{count:,} {code}" for code, count in counts.items() if code != "present" and count)
            lines.append(base.summary_line("present", f"{counts['present']:,}", f" films with {finding} ({others})"))
        return lines

    def _read_folder(self, manual_dir: Path) -> labelled_films.Folder:
        findings, rows = self._read_rows(manual_dir)
        films: dict[str, TableFilm] = {}
        seen: dict[str, None] = {}  # in order
        absent, left_out = [], []
        for row in rows:
            path = self._file(manual_dir, row.name)
            if row.name in seen:
                self._faults.report(row.name, f"{row.source}: a second row for {row.name}")
            elif row.left_out:
                left_out.append(find.LeftOut(path, row.left_out))
            elif path.is_file():
                films[row.name] = TableFilm(row.name, path, row.patient, row.split, row)
            else:
                absent.append(row)
            seen[row.name] = None
        if not films:
            raise base.NothingFoundError(
                f"none of the {len(seen):,} films that {self._source_of(manual_dir)} names was found in {manual_dir}"
                + (f", such as {next(iter(seen))}" if seen else "")
            )
        if self.MISSING_IS_A_FAULT:
            for row in absent:
                self._faults.report(row.name, f"{row.source}: no file {self._file(manual_dir, row.name)}")
        named = {self._file(manual_dir, name) for name in (*seen, *self._faults.reasons)}
        _check_patients(films.values())
        self._check_labels(manual_dir, findings, films)
        return labelled_films.Folder(
            films=films,
            missing=[] if self.MISSING_IS_A_FAULT else [(row.name, "radiograph") for row in absent],
            left_out=[*left_out, *self._others(named)],
            findings=findings,
            metadata={
                "label_version": self._label_version,
                "labels": _count_labels(findings, [film.row.labels for film in films.values()]),
            },
        )

    @property
    def _label_version(self) -> str:
        """What results call the labels."""
        return self.name

    def _source_of(self, manual_dir: Path) -> str:
        """Returns the tables' names, for messages."""
        return ", ".join(map(str, self.tables(manual_dir).values()))

    def _others(self, named: set[Path]) -> list[find.LeftOut]:
        """Returns what is left out of the user's folder besides the films that the tables name."""
        films = [path for path in self._by_name.values() if path not in named]
        return [*self._beside, *(find.LeftOut(path, "not in the table") for path in dict.fromkeys(films))]

    def _check_labels(self, manual_dir: Path, findings: Sequence[str], films: dict[str, TableFilm]) -> None:
        """Raises UserError for findings that cannot be learned."""

    def _describe(self, film: TableFilm, height: int, width: int) -> dict[str, Any]:
        row = film.row
        boxes = [
            {"finding": finding, "box": labelled_films.inside(box, width, height, row.source)}
            for finding, box in row.boxes
        ]
        return {
            "labels": row.labels,
            "patient": row.patient,
            "age": row.age,
            "sex": row.sex,
            "view_position": row.view,
            **({"reference_boxes": boxes} if self.BOXES else {}),
        }


def _reference_boxes() -> tfds.features.Sequence:
    features = tfds.features
    return features.Sequence(
        {
            "finding": features.Scalar(np.int32, doc="place in labels"),
            "box": features.Tensor(shape=(4,), dtype=np.float32, doc="left, top, right, bottom; pixels of the file"),
        }
    )


def known_table(path: Path) -> Path:
    """Returns a table's path; raises UserError if there is none."""
    if not path.is_file():
        raise UserError(f"{path} is missing; put the official table of that name there")
    return path


def first_there(paths: Iterable[Path]) -> Path:
    """Returns the first of these files that exists, or else the first."""
    paths = list(paths)
    return next((path for path in paths if path.is_file()), paths[0])


def _count_labels(findings: Sequence[str], codes: Sequence[np.ndarray]) -> dict[str, dict[str, int]]:
    """Returns {finding: {name of a code: films}}."""
    found = np.stack(codes)
    counts = {code: (found == value).sum(axis=0).tolist() for code, value in _CODES.items()}
    return {name: {code: counts[code][index] for code in _CODES} for index, name in enumerate(findings)}


def _check_patients(films: Iterable[TableFilm]) -> None:
    """Raises UserError for a patient in two splits."""
    first: dict[str, TableFilm] = {}
    for film in films:
        other = first.setdefault(film.patient, film)
        if other.split != film.split:
            here, there = (each.split.replace(labelled_films.TRAIN_VAL, "train") for each in (film, other))
            raise UserError(
                f"{film.row.source}: patient {film.patient} is in two splits: {film.name} in {here}, {other.name} "
                f"({other.row.source}) in {there}; put all films of a patient into one split"
            )
