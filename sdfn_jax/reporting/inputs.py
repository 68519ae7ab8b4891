"""What a report is made of: the runs' evaluations, in one order of images, and their rows in the official tables."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sdfn_jax.core import run_identity, sealed
from sdfn_jax.core.errors import UserError
from sdfn_jax.heatmaps import detections
from sdfn_jax.heatmaps.localization import FindingBoxes
from sdfn_jax.metrics import bootstrap, published
from sdfn_jax.metrics.predictions import (
    RECIPE_FILE,
    Evaluation,
    evaluation_command,
    evaluation_folder,
    read_evaluation,
)
from sdfn_jax.radiographs.findings import FINDINGS, display_name
from sdfn_jax.reporting import estimates
from sdfn_jax.reporting.comparable import in_table_order
from sdfn_jax.reporting.table_one import TableOne

SEED = 0
FINDING_NAMES = tuple(display_name(name) for name in FINDINGS)


@dataclasses.dataclass(frozen=True)
class Localization:
    """The boxes a method drew.

    Attributes:
      name: of the method.
      cases: what it was asked for and what it drew.
      origin: the content of `localization.json`.
    """

    name: str
    cases: list[FindingBoxes]
    origin: dict


@dataclasses.dataclass(frozen=True)
class Run:
    """A network's part.

    Attributes:
      folder: of the run.
      test: its evaluation on the test split, images in the order that all runs share.
      validation: that on the validation split; None if it was not evaluated.
      recipe: the record of its training; None if the evaluation left no such file.
      localization: None if its heatmaps were not scored.
    """

    folder: Path
    test: Evaluation
    validation: Evaluation | None
    recipe: dict | None
    localization: Localization | None

    @property
    def stage(self) -> str:
        """`entire`, `lung` or `fusion`."""
        return self.test.origin.stage

    @property
    def name(self) -> str:
        """The network's, as Table I heads its column."""
        return published.COLUMN_NAMES[self.stage]

    @property
    def probabilities(self) -> np.ndarray:
        """(N, 14) float64, on the test split."""
        return self.test.predictions.probabilities


@dataclasses.dataclass(frozen=True)
class Official:
    """The evaluated images in the official tables, in their order.

    Attributes:
      labels: {label version: (N, 14) uint8}.
      changed: images whose labels differ between the versions, in the whole table; None with one version only.
      sexes: N of `M`, `F`.
      ages: N, in years.
      views: N of `PA`, `AP`.
      absent: images of the official test list that were not evaluated; None for another split.
    """

    labels: dict[str, np.ndarray]
    changed: list[str] | None
    sexes: list[str]
    ages: list[float]
    views: list[str]
    absent: list[str] | None


@dataclasses.dataclass(frozen=True)
class Material:
    """Everything the sections need.

    Attributes:
      runs: in the order of Table I.
      table: Table I of these runs.
      resamples: of the patients of the test images; one set for all comparisons.
      aucs: {stage: (14, B)}, each run's AUCs on these resamples.
      official: None without tables.
      generators: folders of lung region generators.
      localizations: of the runs, then of other methods; all of the same images and findings.
    """

    runs: list[Run]
    table: TableOne
    resamples: bootstrap.Resamples
    aucs: dict[str, np.ndarray]
    official: Official | None
    generators: list[Path]
    localizations: list[Localization]

    @property
    def labels(self) -> np.ndarray:
        """(N, 14) uint8, shared by all runs."""
        return self.runs[0].test.predictions.labels

    @property
    def names(self) -> list[str]:
        """The networks', in the order of the runs."""
        return [run.name for run in self.runs]

    @property
    def replicates(self) -> int:
        """Of the bootstrap."""
        return self.resamples.counts.shape[1]

    @property
    def few(self) -> np.ndarray:
        """(14,) bool: findings with so few positives or negatives that an AUC must not be believed."""
        return estimates.few(self.labels)


def gather(folders: Sequence[Path], tables: Path | None, others: Sequence[Path], replicates: int) -> Material:
    """Reads runs and tables.

    Args:
      folders: of runs: extractors, fusion networks, lung region generators.
      tables: folder of the official tables.
      others: folders of `localize` for other methods' heatmaps.
      replicates: of the bootstrap.

    Raises:
      UserError: naming the run, file, row or first few images for whatever does not fit.
    """
    if replicates < 1:
        raise UserError(f"--replicates={replicates}: at least one, 2000 for figures to publish")
    generators = [folder for folder in folders if _is_generator(folder)]
    runs = [_read_run(folder) for folder in folders if folder not in generators]
    if not runs:
        raise UserError("no run of a classifier (entire, lung or fusion) among the folders; there is no AUC to report")
    try:
        order = in_table_order([run.test for run in runs])
    except ValueError as error:
        raise UserError(str(error)) from error
    runs = sorted(runs, key=lambda run: [each.origin.stage for each in order].index(run.test.origin.stage))
    images = runs[0].test.predictions.images
    runs = [dataclasses.replace(run, test=_in_order(run.test, images)) for run in runs]
    official = None if tables is None else _read_tables(tables, runs[0].test)
    resamples = bootstrap.draw(runs[0].test.predictions.patients, replicates, SEED)
    aucs = {
        run.stage: bootstrap.auc_replicates(run.test.predictions.labels, run.probabilities, resamples) for run in runs
    }
    localizations = [run.localization for run in runs if run.localization is not None]
    localizations += [_read_localization(folder) for folder in others]
    _check_same_cases(localizations)
    return Material(runs, TableOne.of([run.test for run in runs]), resamples, aucs, official, generators, localizations)


def _is_generator(folder: Path) -> bool:
    return any(
        (folder / name).exists() for name in ("lung_boxes.csv", "cross_validation", "evaluation/test/segmentation.csv")
    )


def _read_run(folder: Path) -> Run:
    where = folder / "evaluation"
    if not (where / "test" / "evaluation.json").is_file():
        raise UserError(
            f"{folder}: no evaluation/test/evaluation.json in it; give the folder of an evaluated run (runs/fusion), "
            "or evaluate it: python -m sdfn_jax.main --config=... --mode=evaluate"
        )
    test = _read_evaluation(folder, "test")
    validation = _read_evaluation(folder, "validation") if (where / "validation").is_dir() else None
    found = (where / "test" / detections.DETECTIONS_FILE).is_file()
    localization = _read_localization(where / "test", published.COLUMN_NAMES.get(test.origin.stage)) if found else None
    if validation is not None:
        _check_validation(folder, test, validation)
    if localization is not None and localization.origin.get("checkpoint") != test.origin.checkpoint:
        raise UserError(
            f"{where / 'test' / detections.DETECTIONS_FILE} is of another checkpoint than the predictions next to it; "
            f"localize again: python -m sdfn_jax.localize --run={folder}"
        )
    return Run(folder, test, validation, _read_recipe(where / "test" / RECIPE_FILE), localization)


def _read_evaluation(folder: Path, split: str) -> Evaluation:
    where = evaluation_folder(folder, split)
    try:
        return read_evaluation(where)
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


def _read_localization(folder: Path, name: str | None = None) -> Localization:
    try:
        cases, origin = detections.read(folder)
    except OSError as error:
        raise UserError(str(error)) from error
    return Localization(name or origin["method"], cases, origin)


def _check_same_cases(localizations: Sequence[Localization]) -> None:
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


def _in_order(evaluation: Evaluation, images: Sequence[str]) -> Evaluation:
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
    )


def _read_tables(folder: Path, evaluation: Evaluation) -> Official:
    from sdfn_jax.core.faults import Faults
    from sdfn_jax.radiographs import nih_tables

    named = evaluation.origin.label_version
    if named not in nih_tables.LABEL_TABLES:
        raise UserError(
            f"--tables: the evaluation names label version {named!r}; there are {', '.join(nih_tables.LABEL_TABLES)}"
        )
    faults = Faults(skip=False)
    entries = {}
    for version, name in nih_tables.LABEL_TABLES.items():
        if version == named or (folder / name).is_file():
            entries[version] = nih_tables.read_entries(folder / name, version, faults)
    mine, predictions = entries[named], evaluation.predictions
    _refuse([image for image in predictions.images if image not in mine], f"not in {nih_tables.LABEL_TABLES[named]}")
    rows = [mine[image] for image in predictions.images]
    pairs = list(zip(predictions.images, rows, strict=True))
    _refuse(
        [image for (image, row), labels in zip(pairs, predictions.labels, strict=True) if (row.labels != labels).any()],
        f"labelled otherwise by version {named}, which evaluation.json names",
    )
    _refuse(
        [image for (image, row), patient in zip(pairs, predictions.patients, strict=True) if row.patient != patient],
        "of another patient in the table",
    )
    absent = None
    if evaluation.origin.split == "test":
        _, test = nih_tables.read_lists(folder, mine)
        _refuse([image for image in predictions.images if image not in test], f"not in {nih_tables.TEST_LIST}")
        absent = sorted(test - set(predictions.images))
    changed = None
    if len(entries) == len(nih_tables.LABEL_TABLES):
        one, other = entries.values()
        changed = [image for image in one if image in other and (one[image].labels != other[image].labels).any()]
    labels = {
        version: np.stack([table[image].labels for image in predictions.images])
        for version, table in entries.items()
        if all(image in table for image in predictions.images)
    }
    return Official(
        labels,
        changed,
        [row.sex for row in rows],
        [row.age for row in rows],
        [row.view_position for row in rows],
        absent,
    )


def _refuse(images: Sequence[str], what: str) -> None:
    if images:
        raise UserError(f"--tables: {len(images)} of the evaluated images are {what}, such as {', '.join(images[:3])}")
