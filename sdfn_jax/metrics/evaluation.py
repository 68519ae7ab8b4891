"""The files of an evaluation: `probabilities.csv` and `evaluation.json`, and next to them `recipe.json`.

Writing them needs a checkpoint; every table, curve and test reads only the first two, without JAX.
"""

import dataclasses
import importlib.metadata
import math
import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sdfn_jax.core import sealed
from sdfn_jax.core.files import file_digest
from sdfn_jax.metrics import published, scores
from sdfn_jax.metrics.predictions import Predictions, image_list_digest, read_predictions, write_predictions
from sdfn_jax.radiographs.findings import display_name

PROBABILITIES_FILE = "probabilities.csv"
_OLD_FILE = "predictions.csv"  # its name in evaluations by version 0.1.0
EVALUATION_FILE = "evaluation.json"
RECIPE_FILE = "recipe.json"
STAGES = ("entire", "lung", "fusion", "finetuned")
_PAPERS_DATA = "chestxray14"  # what the configs train on unless a word says otherwise
# With 30 positives among many negatives the standard error of an AUC of 0.8 is 0.05 (Hanley & McNeil 1982): its 95 %
# interval is 0.2 wide, wider than all the differences in the paper's Table I.
SMALL_SAMPLE = 30
_RECORD: dict[str, sealed.Shape] = {
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

    Raises:
      ValueError: as `write_predictions`.
    """
    folder = Path(folder)
    write_predictions(folder / PROBABILITIES_FILE, evaluation.predictions)
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


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None  # not installed: run from a checkout, or a machine that only reads results
