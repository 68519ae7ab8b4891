"""Google's expert labels on films of ChestX-ray14: what a panel of radiologists decided, and what each reader said.

Nabulsi et al., Deep learning for distinguishing normal versus abnormal chest radiographs, Scientific Reports 2021. The
tables are handed out on request and may not be passed on: they are the user's own files.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sdfn_jax.core.errors import UserError
from sdfn_jax.core.tables import read_table, shown
from sdfn_jax.radiographs.labels import ABSENT, PRESENT, UNKNOWN

# With and without the prefix: both are in circulation.
_PREFIXES = ("", "all_findings_expert_labels_")
_LABELS, _READERS = "test_labels.csv", "test_individual_readers.csv"
_IMAGE, _READER = "Image ID", "Reader ID"
# What the caret in a few cells of the readers' table marks is not documented; the answer before it is taken.
_ANSWERS = {"YES": PRESENT, "NO": ABSENT, "YES^": PRESENT, "NO^": ABSENT}


@dataclasses.dataclass(frozen=True)
class Readings:
    """The answers of the single readers, counted.

    Attributes:
      images: M file names, each once.
      yes: (M, C) int, readers who see a finding on an image.
      of: (M, C) int, readers who answered.
      readers: number of different readers.
    """

    images: tuple[str, ...]
    yes: np.ndarray
    of: np.ndarray
    readers: int


@dataclasses.dataclass(frozen=True)
class ExpertLabels:
    """The experts' decisions.

    Attributes:
      path: of their table.
      images: N file names, each once.
      labels: (N, C) uint8, codes of `radiographs.labels`; unknown for a finding that the table does not have.
      readings: of the single readers; None if their table is not next to it.
    """

    path: Path
    images: tuple[str, ...]
    labels: np.ndarray
    readings: Readings | None


def read(path: Path, findings: Sequence[str]) -> ExpertLabels:
    """Reads the experts' table, and that of the single readers if it is next to it.

    Args:
      path: `test_labels.csv`, `all_findings_expert_labels_test_labels.csv`, or the folder of one of them.
      findings: the C findings that are wanted, in the order of the columns of the result.

    Raises:
      UserError: for a folder without such a table or with both, a table without images or without any of the findings,
        an image that is named twice, and an answer that is neither YES nor NO.
    """
    path = _table(path)
    rows: dict[str, list[int]] = {}
    for number, image, answers, _ in _rows(path, findings):
        if image in rows:
            raise UserError(f"{path}, row {number}: a second row for {image}; keep the right one")
        rows[image] = answers
    if not rows:
        raise UserError(f"{path}: no images, only the header")
    labels = np.array(list(rows.values()), np.uint8)
    if (labels == UNKNOWN).all():
        raise UserError(
            f"{path}: none of the findings {', '.join(findings)} has a column; give the table of all findings"
        )
    readers = path.with_name(path.name.replace(_LABELS, _READERS))
    return ExpertLabels(
        path, tuple(rows), labels, _readings(readers, findings) if readers != path and readers.is_file() else None
    )


def _table(path: Path) -> Path:
    if not path.is_dir():
        return path  # reading it says whether it is there
    found = [path / (prefix + _LABELS) for prefix in _PREFIXES if (path / (prefix + _LABELS)).is_file()]
    if not found:
        expected = " or ".join(prefix + _LABELS for prefix in _PREFIXES)
        raise UserError(f"{path}: no {expected} in it; Google gives them out on request")
    if len(found) > 1:
        raise UserError(f"{path}: both {found[0].name} and {found[1].name} are in it; name the one you mean")
    return found[0]


def _readings(path: Path, findings: Sequence[str]) -> Readings:
    yes: dict[str, np.ndarray] = {}
    of: dict[str, np.ndarray] = {}
    seen = set()
    for number, image, answers, reader in _rows(path, findings, _READER):
        if (image, reader) in seen:
            raise UserError(f"{path}, row {number}: a second row of reader {reader} for {image}; keep the right one")
        seen.add((image, reader))
        codes = np.array(answers)
        yes[image] = yes.get(image, 0) + (codes == PRESENT)
        of[image] = of.get(image, 0) + (codes != UNKNOWN)
    if not yes:
        raise UserError(f"{path}: no readings, only the header")
    return Readings(
        tuple(yes), np.array(list(yes.values())), np.array(list(of.values())), len({reader for _, reader in seen})
    )


def _rows(path: Path, findings: Sequence[str], *identifiers: str) -> Iterator[tuple[int, str, list[int], str]]:
    """Yields (number, image, code of each finding, text of the last identifier) of each row."""
    for number, row in read_table(path, dict.fromkeys((_IMAGE, *identifiers), ()), findings):
        named = {column: row[column] or "" for column in (_IMAGE, *identifiers)}
        if absent := [column for column, text in named.items() if not text]:
            raise UserError(f"{path}, row {number}: no {absent[0]}")
        answers = {finding: row[finding] or "" for finding in findings if finding in row}
        for finding, answer in answers.items():
            if answer.upper() not in _ANSWERS:
                raise UserError(f"{path}, row {number}: {finding} is {shown(answer)}; expected YES or NO")
        codes = [_ANSWERS[answers[finding].upper()] if finding in answers else UNKNOWN for finding in findings]
        yield number, named[_IMAGE], codes, named[identifiers[-1]] if identifiers else ""
