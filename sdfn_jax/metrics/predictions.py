"""The files of an evaluation: `probabilities.csv` and `evaluation.json`, and next to them `recipe.json`.

Writing them needs a checkpoint; every table, curve and test reads only the first two, without JAX.
"""

import dataclasses
import hashlib
import importlib.metadata
import math
import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sdfn_jax.core import csv_table, sealed
from sdfn_jax.core.files import file_digest
from sdfn_jax.metrics import published, scores
from sdfn_jax.radiographs import labels as radiographs_labels
from sdfn_jax.radiographs.findings import FINDINGS, display_name

PROBABILITIES_FILE = "probabilities.csv"
_OLD_FILE = "predictions.csv"  # its name in evaluations by version 0.1.0
EVALUATION_FILE = "evaluation.json"
RECIPE_FILE = "recipe.json"
STAGES = ("entire", "lung", "fusion", "finetuned")
_PAPERS_DATA = "chestxray14"  # what the configs train on unless a word says otherwise
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
# With 30 positives among many negatives the standard error of an AUC of 0.8 is 0.05 (Hanley & McNeil 1982): its 95 %
# interval is 0.2 wide, wider than all the differences in the paper's Table I.
SMALL_SAMPLE = 30
_RECORD = {
    "stage": sealed.Kind(f"one of {', '.join(STAGES)}", lambda value: value in STAGES),
    "checkpoint": sealed.TEXT,
    "data_version": sealed.TEXT,
    "label_version": sealed.Maybe(sealed.TEXT),
    "split": sealed.TEXT,
    "drawings": sealed.BOOLEAN,
    "seed": sealed.Maybe(sealed.WHOLE),
    "predictions_sha256": sealed.TEXT,
}
_PACKAGES = ("sdfn_jax", "jax", "jaxlib", "flax", "numpy")


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


@dataclasses.dataclass(frozen=True)
class Origin:
    """The origin of predictions; stored with every number that is computed from them.

    Attributes:
      stage: one of `STAGES`.
      checkpoint: digest of the checkpoint that predicted.
      data_version: full name of the prepared data set, as TFDS writes it (`chestxray14/size224_labels2017/1.0.0`).
      label_version: `2017` or `v2020`; None for a data set whose labels have one version.
      split: name of the split (`test`).
      drawings: whether the images are synthetic radiographs.
      seed: of the training run; None for a network that was imported from a weights file. Of an ensemble, the first's.
      data: digests of the data set's films and tables (`sources.of_data`); empty in evaluations of earlier versions.
      seeds: of an ensemble's members; empty for one network.
    """

    stage: str
    checkpoint: str
    data_version: str
    label_version: str | None
    split: str
    drawings: bool
    seed: int | None
    data: Mapping[str, str] = dataclasses.field(default_factory=dict)
    seeds: Sequence[int] = dataclasses.field(default_factory=list)

    @property
    def trained_elsewhere(self) -> bool:
        """Whether the network was imported from a weights file: its training data are unknown."""
        return self.seed is None


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Predictions and their origin.

    Attributes:
      origin: of the predictions.
      predictions: of an ensemble, the means of its members'.
      members: an ensemble's members' own evaluations, if they were read (`ensembles`); empty for one network.
    """

    origin: Origin
    predictions: Predictions
    members: tuple["Evaluation", ...] = ()


def write_evaluation(folder: str | Path, evaluation: Evaluation) -> None:
    """Writes `probabilities.csv`, then the `evaluation.json` that describes it, each complete or not at all.

    Probabilities are written with enough digits to restore the same float64 (and the float32 that it came from).

    Raises:
      ValueError: naming the image, for predictions that `read_evaluation` would refuse.
    """
    folder = Path(folder)
    predictions = evaluation.predictions
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
    with csv_table.writing(folder / PROBABILITIES_FILE) as table:
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
    sealed.write(
        folder / EVALUATION_FILE,
        summary(evaluation) | {"predictions_sha256": file_digest(folder / PROBABILITIES_FILE)},
    )
    (folder / _OLD_FILE).unlink(missing_ok=True)


def read_evaluation(folder: str | Path) -> Evaluation:
    """Reads what `write_evaluation` wrote.

    Raises:
      DamagedError: for a file that `read_predictions` refuses, an invalid `evaluation.json`, or two files that do not
        belong together.
      OSError: for a missing file.
    """
    folder = Path(folder)
    record = read_record(folder)
    table = table_of(folder)
    try:
        predictions = read_predictions(table)
    except ValueError as error:
        raise sealed.DamagedError(f"{error}; evaluate again") from error
    if file_digest(table) != record["predictions_sha256"]:
        raise sealed.DamagedError(
            f"{table}: not the file that {EVALUATION_FILE} next to it describes (its SHA-256 differs); evaluate again"
        )
    names = [field.name for field in dataclasses.fields(Origin)]
    return Evaluation(Origin(**{name: record[name] for name in names if name in record}), predictions)


def read_record(folder: str | Path) -> dict:
    """Reads the `evaluation.json` of an evaluation.

    Raises:
      DamagedError: for a file that is not one.
      OSError: for a missing file.
    """
    record = sealed.read(Path(folder) / EVALUATION_FILE, _RECORD, "the record of an evaluation", "evaluate again")
    data = record.get("data")
    return record | {"data": data if isinstance(data, dict) else {}}  # which earlier versions lack


def table_of(folder: str | Path) -> Path:
    """Returns the path of an evaluation's table, under its former name if only that exists."""
    table, old = Path(folder) / PROBABILITIES_FILE, Path(folder) / _OLD_FILE
    return old if old.is_file() and not table.is_file() else table


def evaluation_folder(run: str | Path, split: str) -> Path:
    """Returns where the evaluation of a run on a split is."""
    return Path(run) / "evaluation" / split


def evaluation_command(run: str | Path, split: str, config: Mapping | None) -> str:
    """Returns the command that evaluates a run on a split.

    Args:
      run: folder of a classifier.
      split: `validation` or `test`.
      config: of its training, from its checkpoint; None if unknown.
    """
    config = config or {}
    stage, data = config.get("stage"), config.get("data", {})
    extractor = stage in ("entire", "lung")
    file = "STAGE" if stage not in STAGES else "classifier" if extractor else "fusion"
    words, settings = [stage] * (extractor or stage == "finetuned"), []
    if "synthetic" in config:
        words.append("demo")
    elif data.get("size", published.RECIPE["size"]) != published.RECIPE["size"]:
        settings.append(f"--config.data.size={data['size']}")
    if data.get("name", _PAPERS_DATA) != _PAPERS_DATA:
        words.append(data["name"])
        settings += [f"--config.data.{name}={data[name]}" for name in ("table", "data_dir") if data.get(name)]
    named = f"--config=configs/{file}.py{':' if words else ''}{','.join(words)}"
    flags = [named, *settings, f"--config.workdir={run}", "--mode=evaluate", f"--split={split}"]
    return " ".join(["python -m sdfn_jax.main", *map(shlex.quote, flags)])


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


def summary(evaluation: Evaluation) -> dict:
    """Returns what `evaluation.json` says: origin, counts, AUCs (None where undefined), software and caveats."""
    predictions = evaluation.predictions
    aucs = scores.class_aucs(predictions.labels, predictions.probabilities)
    mean, defined = scores.mean_auc(aucs)
    positives, negatives = scores.counts(predictions.labels)
    return dataclasses.asdict(evaluation.origin) | {
        "images": len(predictions.images),
        "patients": len(np.unique(predictions.patients)),
        "image_list_sha256": image_list_digest(predictions.images),
        "positives": dict(zip(predictions.findings, positives.tolist(), strict=True)),
        "negatives": dict(zip(predictions.findings, negatives.tolist(), strict=True)),
        "auc": {name: _or_none(value) for name, value in zip(predictions.findings, aucs.tolist(), strict=True)},
        "mean_auc": _or_none(mean),
        "mean_auc_findings": defined,
        "software": software(),
        "caveats": caveats(evaluation),
    }


def caveats(evaluation: Evaluation) -> list[str]:
    """Returns what a reader must know before believing the AUCs of an evaluation; one sentence each, perhaps none."""
    findings, labels = evaluation.predictions.findings, evaluation.predictions.labels
    sentences = []
    if evaluation.origin.drawings:
        sentences.append(
            "These images are SYNTHETIC radiographs, not films of patients: the numbers show that the pipeline runs "
            "and say nothing about AUC on patients."
        )
    if evaluation.origin.trained_elsewhere:
        sentences.append(
            f"The {evaluation.origin.stage} network was imported from a weights file ({RECIPE_FILE} names it). What it "
            "was trained on is unknown; if these images were among it, its AUCs are too high."
        )
    rarer = np.minimum(*scores.counts(labels))
    undefined = [display_name(name) for name, count in zip(findings, rarer, strict=True) if count == 0]
    if undefined:
        sentences.append(
            f"AUC is undefined (no positive or no negative image) and left out of the mean: {', '.join(undefined)}."
        )
    few = [display_name(name) for name, count in zip(findings, rarer, strict=True) if count < SMALL_SAMPLE]
    if few:
        which = f"all {len(few)} findings" if 1 < len(few) == len(findings) else ", ".join(few)
        sentences.append(
            f"SMALL SAMPLE: among {len(labels)} images there are fewer than {SMALL_SAMPLE} positives (or negatives) of "
            f"{which}; these AUCs are uncertain by about 0.1 or more: they prove that the pipeline runs and say "
            "nothing about AUC on patients."
        )
    return sentences


def software() -> dict[str, str | None]:
    """Returns {package: version} of what decides the numbers; None for one that is not installed."""
    return {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES}


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


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None  # not installed: run from a checkout, or a machine that only reads results
