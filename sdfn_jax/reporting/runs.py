"""The folder of a run as a report reads it: evaluations, recipe, localization, how the training went."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sdfn_jax.core import ensemble, run_folders, run_identity, sealed
from sdfn_jax.core.errors import UserError
from sdfn_jax.heatmaps import check_results, detections
from sdfn_jax.heatmaps.check_results import Checks
from sdfn_jax.heatmaps.localization import FindingBoxes
from sdfn_jax.metrics import calibration, ensembles
from sdfn_jax.metrics.evaluation import (
    EVALUATION_FILE,
    RECIPE_FILE,
    Evaluation,
    evaluation_command,
    evaluation_folder,
    read_evaluation,
    read_record,
)
from sdfn_jax.reporting.comparable import network_name
from sdfn_jax.training.metrics_log import MetricsLog


@dataclasses.dataclass(frozen=True)
class Localization:
    """The boxes a method drew.

    Attributes:
      name: of the method.
      cases: the reference boxes that it was asked for, and the boxes that it drew.
      origin: the content of `localization.json`.
    """

    name: str
    cases: list[FindingBoxes]
    origin: dict


@dataclasses.dataclass(frozen=True)
class Run:
    """An evaluated network.

    Attributes:
      folder: of the run.
      test: its evaluation on the test split, images in the order that all runs share.
      validation: that on the validation split; None if it was not evaluated.
      recipe: the record of its training; None if the evaluation left no such file.
      localization: None if its heatmaps were not scored.
      checks: of its heatmaps, and their record; None if they were not checked.
      logs: the lines of its training log, of an ensemble those of each member that has one.
    """

    folder: Path
    test: Evaluation
    validation: Evaluation | None
    recipe: dict | None
    localization: Localization | None
    checks: tuple[Checks, dict] | None
    logs: list[list[dict]]

    @property
    def stage(self) -> str:
        """`entire`, `lung` or `fusion`."""
        return self.test.origin.stage

    @property
    def name(self) -> str:
        """The network's, as Table I heads its column."""
        return network_name(self.test.origin)

    @property
    def jobs(self) -> list[Path]:
        """The folders that may hold the record of its training: its own, or those of an ensemble's members."""
        found = ensemble.read(self.folder)
        return [self.folder] if found is None else [member.run for member in found.members]

    @functools.cached_property
    def calibration(self) -> calibration.Record | None:
        """Scaling and operating points that its validation split gives; None if that was not evaluated."""
        return None if self.validation is None else calibration.make(self.validation)

    @property
    def results(self) -> Path:
        """Where the main job puts table, page and pictures."""
        return self.folder / "results"

    def pictures(self, pattern: str) -> list[Path]:
        """Returns the pictures that the main job drew, by name; earlier versions put them next to the table."""
        found = {path.name: path for place in (self.results, self.results / "figures") for path in place.glob(pattern)}
        return [found[name] for name in sorted(found)]

    @property
    def probabilities(self) -> np.ndarray:
        """(N, K) float64, on the test split."""
        return self.test.predictions.probabilities


def find(folders: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Returns the folders of evaluated networks and of lung region generators.

    Args:
      folders: of runs, or of several runs (`runs/demo`). One that is neither counts as a network, for `read` to refuse.

    Raises:
      UserError: if a folder holds two networks of one stage.
    """
    networks: list[Path] = []
    generators: list[Path] = []
    for folder in folders:
        if _is_generator(folder):
            generators.append(folder)
            continue
        inside = [] if _is_evaluated(folder) else list(run_folders.by_stage(folder, _stage_of).values())
        networks += inside or [folder]
        if inside:
            generators += [each for each in sorted(folder.iterdir()) if _is_generator(each)]
    return networks, generators


def _is_evaluated(folder: Path) -> bool:
    return (evaluation_folder(folder, "test") / EVALUATION_FILE).is_file()


def _stage_of(folder: Path) -> str | None:
    return read_record(evaluation_folder(folder, "test"))["stage"] if _is_evaluated(folder) else None


def _is_generator(folder: Path) -> bool:
    return any(
        (folder / name).exists() for name in ("lung_boxes.csv", "cross_validation", "evaluation/test/segmentation.csv")
    )


def read(folder: Path) -> Run:
    """Reads the run of an evaluated network.

    Raises:
      UserError: naming the file, for one that is missing, damaged or of another checkpoint or split.
    """
    if not _is_evaluated(folder):
        raise UserError(
            f"{folder}: no evaluation/test/{EVALUATION_FILE} in it; give the folder of an evaluated run (runs/fusion) "
            "or of several (runs), or evaluate it: python -m sdfn_jax.main --config=... --mode=evaluate"
        )
    where = evaluation_folder(folder, "test")
    test = _read_evaluation(folder, "test")
    validation = _read_evaluation(folder, "validation") if evaluation_folder(folder, "validation").is_dir() else None
    if validation is not None:
        _check_validation(folder, test, validation)
    localization = checks = None
    command = f"python -m sdfn_jax.localize --run={folder}"
    if (where / detections.DETECTIONS_FILE).is_file():
        localization = read_localization(where, network_name(test.origin))
        _check_checkpoint(where / detections.DETECTIONS_FILE, localization.origin, test, f"localize again: {command}")
    if (where / check_results.CHECKS_FILE).is_file():
        checks = check_results.read(where)
        _check_checkpoint(where / check_results.CHECKS_FILE, checks[1], test, f"check again: {command} --checks")
    found = Run(folder, test, validation, _read_recipe(where / RECIPE_FILE), localization, checks, [])
    return dataclasses.replace(found, logs=[lines for job in found.jobs if (lines := MetricsLog.read(job))])


def _check_checkpoint(path: Path, origin: dict, test: Evaluation, mend: str) -> None:
    if origin.get("checkpoint") != test.origin.checkpoint:
        raise UserError(f"{path} is of another checkpoint than the predictions next to it; {mend}")


def _read_evaluation(folder: Path, split: str) -> Evaluation:
    where = evaluation_folder(folder, split)
    try:  # the members of an ensemble are compared on test alone
        return ensembles.read(folder, split) if split == "test" else read_evaluation(where)
    except (ValueError, OSError) as error:
        try:
            recipe = _read_recipe(where / RECIPE_FILE)
        except sealed.DamagedError:
            recipe = None
        config = None if recipe is None else recipe["config"]
        what = str(error) if isinstance(error, sealed.DamagedError) else f"{error}; evaluate again"
        raise UserError(f"{what}: {evaluation_command(folder, split, config)}") from error


def _read_recipe(path: Path) -> dict | None:
    if not path.is_file():
        return None
    record = sealed.read(path, {"config": sealed.OBJECT}, "the record of a training run", "evaluate again")
    return run_identity.under_present_names(record)


def read_localization(folder: Path, name: str | None = None) -> Localization:
    """Reads the boxes that a method drew.

    Args:
      folder: that `localize` wrote.
      name: of the method; None for the one that is recorded there.

    Raises:
      UserError: for a missing or damaged file.
    """
    try:
        cases, origin = detections.read(folder)
    except OSError as error:
        raise UserError(str(error)) from error
    return Localization(name or origin["method"], cases, origin)


def check_same_cases(localizations: Sequence[Localization]) -> None:
    """Raises UserError unless all localizations are of the same images and findings, each under a name of its own."""
    for one in localizations[1:]:
        first, other = ({(case.image, case.finding) for case in each.cases} for each in (localizations[0], one))
        if first != other:
            images = sorted({image for image, _ in first ^ other})
            raise UserError(
                f"the localizations of {localizations[0].name!r} and {one.name!r} are of different boxes; "
                f"{len(images)} images differ, such as {', '.join(images[:3])}"
            )
    names = [each.name for each in localizations]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{names.count(name)} localizations named {name!r}; give each method a folder of its own")


def _check_validation(folder: Path, test: Evaluation, validation: Evaluation) -> None:
    """Thresholds chosen on validation are worth nothing if validation is another network's, or is test."""
    for field in ("stage", "checkpoint", "data_version", "label_version"):
        mine, its = getattr(test.origin, field), getattr(validation.origin, field)
        if mine != its:
            raise UserError(
                f"{folder}: its evaluations on test and on validation differ in {field}: {mine} and {its}; evaluate "
                "both"
            )
    shared = sorted(set(test.predictions.patients.tolist()) & set(validation.predictions.patients.tolist()))
    if shared:
        raise UserError(
            f"{folder}: {len(shared)} patients are in validation and in test, such as {shared[:3]}: thresholds would "
            "be chosen on test"
        )


def in_order(evaluation: Evaluation, images: Sequence[str]) -> Evaluation:
    """Returns an evaluation with its images in another order."""
    predictions = evaluation.predictions
    place = {image: index for index, image in enumerate(predictions.images)}
    order = [place[image] for image in images]
    return dataclasses.replace(
        evaluation,
        predictions=dataclasses.replace(
            predictions,
            images=tuple(images),
            patients=predictions.patients[order],
            probabilities=predictions.probabilities[order],
            labels=predictions.labels[order],
        ),
        members=tuple(in_order(member, images) for member in evaluation.members),
    )
