"""A trained checkpoint over a split: predictions of the classifiers, Dice and IoU of the LRG."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from sdfn_jax.core import checkpoint, processes, run_metadata, sealed, sources
from sdfn_jax.core.errors import UserError
from sdfn_jax.metrics import people
from sdfn_jax.metrics.evaluation import RECIPE_FILE, Evaluation, Origin, evaluation_folder, write_evaluation
from sdfn_jax.metrics.predictions import Predictions, patient_array
from sdfn_jax.models.preprocessing import Preprocessing, check_same_preprocessing
from sdfn_jax.radiographs import findings
from sdfn_jax.training import labelling, tasks
from sdfn_jax.training.input_pipeline import Examples
from sdfn_jax.training.steps import check_batch_size, device_mesh, make_evaluation_step, run_over_split

_PEOPLE = ("sex", "age", "view_position")  # features of a data set that has them, in the order of `people.People`


def evaluate_classifier(
    config: ConfigDict, data: Path, data_metadata: dict, split: str, output: Path | None = None
) -> Evaluation:
    """Runs an extractor or the fusion network over a split; every process of a run of several takes part.

    Process 0 writes `probabilities.csv`, `evaluation.json`, `people.csv` (sex, age and view, if the data set has them)
    and `recipe.json`, the checkpoint's metadata.

    Args:
      config: of the trained stage; `config.workdir` holds its best checkpoint.
      data: the prepared data set.
      data_metadata: its `metadata.json`.
      split: `train`, `validation` or `test`.
      output: folder of the evaluation; None for the run's own of this split.

    Returns:
      the predictions and their origin, the same in every process.

    Raises:
      UserError: if there is no trained checkpoint or no such split, or the checkpoint reads other inputs than the
        data set has.
    """
    check_batch_size(config)
    trained = checkpoint.read_best(config.workdir)
    with processes.writing_alone(config.workdir):
        where = evaluation_folder(config.workdir, split) if output is None else output
        return _evaluate_classifier(config, *trained, data, data_metadata, split, where)


def _evaluate_classifier(
    config: ConfigDict, variables: dict, metadata: dict, data: Path, data_metadata: dict, split: str, where: Path
) -> Evaluation:
    processes.check_agreement(f"the checkpoint in {config.workdir}", metadata["digest"])
    if metadata["stage"] != config.stage:
        raise UserError(f"{config.workdir} holds a network of the stage {metadata['stage']}, not {config.stage}")
    check_same_preprocessing(Preprocessing.of(metadata["config"]), config, config.workdir, any_size=False)
    if metadata.get("drawings") and not data_metadata["drawings"]:
        print(
            f"NOTE: the network in {config.workdir} was trained on synthetic radiographs: on films of patients its "
            "results mean nothing"
        )
    examples = Examples(data, [split])
    of_run = labelling.of_evaluation(findings.named_in(metadata), data_metadata, str(data))
    task = tasks.classification(ConfigDict(metadata["config"]), of_run)  # in the precision that it was trained in
    mesh = device_mesh()
    values = run_over_split(
        make_evaluation_step(task, mesh),
        variables,
        examples,
        task,
        config.evaluation_batch_size,
        mesh,
        f"evaluate {config.stage} on {split}",
    )
    named = list(examples.fields("name", "patient"))
    evaluation = Evaluation(
        Origin(
            stage=config.stage,
            checkpoint=metadata["digest"],
            data_version="/".join(data.parts[-3:]),
            label_version=data_metadata.get("label_version"),
            split=split,
            drawings=bool(data_metadata["drawings"]),
            seed=None if run_metadata.is_imported(metadata) else metadata["config"]["seed"],
            data=sources.of_data(data_metadata),
        ),
        Predictions(
            images=tuple(example["name"] for example in named),
            patients=patient_array([example["patient"] for example in named]),
            probabilities=_sigmoid(values["logits"]),
            labels=values["labels"],
            findings=of_run.findings,
        ),
    )
    shown = None
    if examples.has(*_PEOPLE):
        found = list(examples.fields(*_PEOPLE))
        shown = people.People(*([example[name] for example in found] for name in _PEOPLE))
    write(where, evaluation, metadata, shown)
    return evaluation


def write(where: Path, evaluation: Evaluation, metadata: dict, shown: people.People | None) -> None:
    """Writes an evaluation, in process 0.

    Args:
      where: the folder.
      evaluation: of a network.
      metadata: of its checkpoint, or of an ensemble (`networks.metadata`).
      shown: who is on the images; None if unknown.
    """
    if processes.is_first():
        sealed.write(where / RECIPE_FILE, metadata)
        write_evaluation(where, evaluation)
        if shown is not None:
            people.write(where, evaluation.predictions.images, shown)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-logits.astype(np.float64)))
