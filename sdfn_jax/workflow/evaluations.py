"""Evaluating the trained classifiers, and their calibration: what is on disk and fresh, and making the rest.

The evaluation of an ensemble is made from its members', each in the member's own folder.
"""

from pathlib import Path

from ml_collections import ConfigDict

from sdfn_jax.core import ensemble, networks, processes, sealed
from sdfn_jax.metrics import calibration, ensembles, people
from sdfn_jax.metrics.evaluation import EVALUATION_FILE, Evaluation, read_evaluation
from sdfn_jax.training import evaluate
from sdfn_jax.workflow import stages
from tfds_builders import prepared


def is_fresh(config: ConfigDict, data: Path, split: str) -> bool:
    """Returns whether a stage's best checkpoint has been evaluated on a split of this data set, as it is now.

    For an ensemble, also whether its members' have.
    """
    metadata = networks.metadata(config.workdir)
    where = evaluate.evaluation_folder(config.workdir, split)
    if metadata is None or not (where / EVALUATION_FILE).is_file():
        return False
    if not all(is_fresh(member, data, split) for member in _members(config)):
        return False
    try:
        origin = read_evaluation(where).origin
    except (sealed.DamagedError, FileNotFoundError) as error:  # it is evaluated again
        sealed.say(str(error))
        return False
    if (origin.checkpoint, origin.data_version) != (metadata["digest"], prepared.data_version(data)):
        return False
    now = stages.data_inputs(data)
    if origin.data:
        return dict(origin.data) == now
    # Evaluations of earlier versions do not name their data: it is what the network was trained on.
    trained_on = metadata.get("inputs", {})
    return "data" in trained_on and all(trained_on[name] == now[name] for name in now.keys() & trained_on.keys())


def is_calibrated(config: ConfigDict, data: Path) -> bool:
    """Returns whether a stage's best checkpoint has its `calibration.json`, of this data set as it is now."""
    metadata = networks.metadata(config.workdir)
    try:
        found = calibration.read(config.workdir)
    except sealed.DamagedError as error:
        sealed.say(str(error))
        return False
    if metadata is None or found is None or found.checkpoint != metadata["digest"]:
        return False
    evaluated = (evaluate.evaluation_folder(config.workdir, "validation") / EVALUATION_FILE).is_file()
    return not evaluated or is_fresh(config, data, "validation")


def evaluate_split(
    config: ConfigDict, data: Path, split: str, output: Path | None = None, *, again: bool = True
) -> Evaluation:
    """Evaluates a classifier, or an ensemble, on a split, and calibrates it if that is the run's own `validation`.

    Every process takes part; process 0 writes.

    Args:
      config: of the trained stage.
      data: the prepared data set.
      split: `train`, `validation` or `test`.
      output: folder of the evaluation; None for the run's own of this split. An ensemble's members have folders in it.
      again: whether a fresh evaluation that is on disk is made again.
    """
    members = _members(config)
    if not again and not members and is_fresh(config, data, split):
        if split == "validation" and not is_calibrated(config, data):
            calibrate(config, data)
        return read_evaluation(evaluate.evaluation_folder(config.workdir, split))
    if members:
        evaluation = _evaluate_ensemble(config, members, data, split, output, again)
    else:
        evaluation = evaluate.evaluate_classifier(config, data, prepared.data_metadata(data), split, output)
    if split == "validation" and output is None:
        _calibrate(config, evaluation)
    return evaluation


def calibrate(config: ConfigDict, data: Path) -> None:
    """Makes the calibration of a stage that lacks it, if possible from the evaluation of validation on disk.

    Args:
      config: of an evaluated stage.
      data: the prepared data set.
    """
    if is_calibrated(config, data):
        return
    if is_fresh(config, data, "validation"):
        _calibrate(config, read_evaluation(evaluate.evaluation_folder(config.workdir, "validation")))
    else:
        evaluate_split(config, data, "validation")


def _evaluate_ensemble(
    config: ConfigDict, members: list[ConfigDict], data: Path, split: str, output: Path | None, again: bool
) -> Evaluation:
    metadata = networks.metadata(config.workdir)  # refuses members that do not fit
    where = output or evaluate.evaluation_folder(config.workdir, split)
    each, places = [], []
    for member, described in zip(members, metadata[networks.MEMBERS], strict=True):
        place = None if output is None else output / f"seed_{described['seed']}"
        each.append(evaluate_split(member, data, split, place, again=again))
        places.append(place or evaluate.evaluation_folder(member.workdir, split))
    evaluation = ensembles.combine(ensemble.read(config.workdir), each)
    shown = people.read(places[0], evaluation.predictions.images) if processes.is_first() else None
    with processes.writing_alone(config.workdir):
        evaluate.write(where, evaluation, metadata, shown)
    return evaluation


def _calibrate(config: ConfigDict, evaluation: Evaluation) -> None:
    if processes.is_first():
        with processes.writing_alone(config.workdir):
            calibration.calibrate(config.workdir, evaluation)


def _members(config: ConfigDict) -> list[ConfigDict]:
    """Returns the configs of an ensemble's members; empty for one network."""
    found = ensemble.read(config.workdir)
    members = [] if found is None else found.members
    configs = []
    for member in members:
        own = config.copy_and_resolve_references()
        with own.unlocked():
            own.workdir = str(member.run)
        configs.append(own)
    return configs
