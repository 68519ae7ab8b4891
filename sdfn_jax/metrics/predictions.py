"""Predictions of many images, and their table `probabilities.csv`."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sdfn_jax.core import csv_table
from sdfn_jax.radiographs import labels as radiographs_labels
from sdfn_jax.radiographs.findings import FINDINGS

_OF_IMAGE = ("image", "patient")
_PROBABILITY, _LABEL = "probability_", "label_"
# As the table has them: {code: text}
_LABEL_TEXTS = {
    radiographs_labels.ABSENT: "0",
    radiographs_labels.PRESENT: "1",
    radiographs_labels.UNCERTAIN: "uncertain",
    radiographs_labels.UNKNOWN: "",
}
_LABEL_CODES = {text: code for code, text in _LABEL_TEXTS.items()}


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The probabilities and labels of N images.

    Attributes:
      images: N file names, each once.
      patients: (N,) int64 or text, the patient of each image.
      probabilities: (N, K) float64, 0 to 1, in the order of the findings.
      labels: (N, K) uint8, codes of `radiographs.labels`.
      findings: K names.
    """

    images: tuple[str, ...]
    patients: np.ndarray
    probabilities: np.ndarray
    labels: np.ndarray
    findings: tuple[str, ...] = FINDINGS


def write_predictions(path: str | Path, predictions: Predictions) -> None:
    """Writes a `probabilities.csv`, complete or not at all.

    Probabilities are written with enough digits to restore the same float64 (and the float32 that it came from).

    Raises:
      ValueError: naming the image, for predictions that `read_predictions` would refuse.
    """
    count = len(predictions.images)
    shapes = [values.shape for values in (predictions.patients, predictions.probabilities, predictions.labels)]
    of_findings = (count, len(predictions.findings))
    if shapes != [(count,), of_findings, of_findings]:
        raise ValueError(
            f"patients, probabilities and labels of shapes {shapes} do not fit {count} images and {of_findings[1]} "
            "findings"
        )
    if wrong := _first_problem(predictions):
        index, problem = wrong
        raise ValueError(f"image {predictions.images[index]}: {problem}")
    with csv_table.writing(Path(path)) as table:
        table.row(_columns(predictions.findings))
        for image, patient, probabilities, labels in zip(
            predictions.images,
            predictions.patients.tolist(),
            predictions.probabilities,
            predictions.labels,
            strict=True,
        ):
            labelled = (_LABEL_TEXTS[code] for code in labels.tolist())
            table.row([image, patient, *map(float, probabilities), *labelled])


def read_predictions(path: str | Path) -> Predictions:
    """Reads a `probabilities.csv`.

    Raises:
      ValueError: naming the file, and the row (the header is row 1), for a missing, additional or misplaced column, no
        rows at all, an image that is named twice, a probability that is not a number from 0 to 1, or a label other than
        0, 1, `uncertain` or nothing (unknown).
      OSError: for a file that cannot be opened.
    """
    path = Path(path)
    header, *rows = csv_table.read(path) or [[]]
    named = (name.removeprefix(kind) for kind in (_PROBABILITY, _LABEL) for name in header if name.startswith(kind))
    findings = tuple(dict.fromkeys(named))
    if problem := _header_problem(header, findings):
        raise ValueError(f"{path}: {problem}")
    if not rows:
        raise ValueError(f"{path}: no images, only the header")
    records = []
    for number, row in enumerate(rows, start=2):
        try:
            records.append(_parse_row(row, header))
        except ValueError as error:
            raise ValueError(f"{path}, row {number}: {error}") from error
    images, patients, probabilities, labels = zip(*records, strict=True)
    predictions = Predictions(
        images, patient_array(patients), np.array(probabilities), np.array(labels, np.uint8), findings
    )
    if wrong := _first_problem(predictions):
        index, problem = wrong
        raise ValueError(f"{path}, row {index + 2}: {problem}")
    return predictions


def patient_array(patients: Sequence[str | int]) -> np.ndarray:
    """Returns the patients of N images: (N,) int64 if all are whole numbers as Python writes them, else text."""
    texts = list(map(str, patients))
    try:
        numbers = np.array(list(map(int, texts)), np.int64)
    except (ValueError, OverflowError):
        return np.array(texts)
    return numbers if list(map(str, numbers.tolist())) == texts else np.array(texts)


def image_list_digest(images: Sequence[str]) -> str:
    """Returns the SHA-256 (hexadecimal) of the sorted names, joined by newlines: equal for the same images."""
    return hashlib.sha256("\n".join(sorted(images)).encode()).hexdigest()


def _columns(findings: Sequence[str]) -> list[str]:
    return [*_OF_IMAGE, *(f"{kind}{name}" for kind in (_PROBABILITY, _LABEL) for name in findings)]


def _header_problem(header: Sequence[str], findings: Sequence[str]) -> str | None:
    columns = _columns(findings)
    missing = [name for name in columns if name not in header]
    if missing or not findings:
        said = ", ".join(missing) or f"{_PROBABILITY}..."
        return f"no column {said}; predictions have image, patient, the findings' probabilities, and their labels"
    for number, (found, expected) in enumerate(zip(header, columns, strict=False), start=1):
        if found != expected:
            return f"column {number} is {found!r}, expected {expected!r}; the order of the columns is fixed"
    if len(header) > len(columns):
        return f"unexpected column {header[len(columns)]!r} after the last one"
    return None


def _parse_row(row: Sequence[str], header: Sequence[str]) -> tuple[str, str, list[float], list[int]]:
    if len(row) != len(header):
        raise ValueError(f"{len(row)} values, but the header has {len(header)}")
    image, patient, *cells = row
    if not image:
        raise ValueError("no image name")
    if not patient:
        raise ValueError(f"no patient of {image}")
    named = list(zip(cells, header[len(_OF_IMAGE) :], strict=True))
    probabilities, labels = named[: len(named) // 2], named[len(named) // 2 :]
    return (
        image,
        patient,
        [_number(text, column, image) for text, column in probabilities],
        [_code(text, column, image) for text, column in labels],
    )


def _number(text: str, column: str, image: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{column} of {image} is {text!r}, not a number") from None


def _code(text: str, column: str, image: str) -> int:
    if text not in _LABEL_CODES:
        raise ValueError(f"{column} of {image} is {text!r}, not 0, 1, uncertain, or nothing for unknown")
    return _LABEL_CODES[text]


def _first_problem(predictions: Predictions) -> tuple[int, str] | None:
    """Returns the first image with a value that no evaluation can hold, by index, and what is wrong with it."""
    # `not (inside)` catches NaN as well.
    outside = ~((predictions.probabilities >= 0) & (predictions.probabilities <= 1))
    if outside.any():
        index, finding = np.argwhere(outside)[0]
        value = predictions.probabilities[index, finding]
        return index, (
            f"{_PROBABILITY}{predictions.findings[finding]} of {predictions.images[index]} is {value}, "
            "not a number from 0 to 1"
        )
    wrong = ~np.isin(predictions.labels, list(_LABEL_TEXTS))
    if wrong.any():
        index, finding = np.argwhere(wrong)[0]
        value = predictions.labels[index, finding]
        return index, (
            f"{_LABEL}{predictions.findings[finding]} of {predictions.images[index]} is {value}, "
            f"none of the codes {', '.join(map(str, _LABEL_TEXTS))}"
        )
    seen = set()
    for index, image in enumerate(predictions.images):
        if image in seen:
            return index, f"image {image} appears twice"
        seen.add(image)
    return None
