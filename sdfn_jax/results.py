"""What the main job ends with: Table I, ROC curves, pages of lung boxes, heatmaps."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from sdfn_jax import (
    activation,
    calibration_file,
    checkpoint,
    contact_sheet,
    evaluate,
    heatmaps,
    images,
    lrg,
    lung_boxes,
    processes,
    report,
    sealed,
    stages,
)
from sdfn_jax.findings import FINDINGS
from sdfn_jax.input_pipeline import Examples
from sdfn_jax.predictions import Evaluation, read_evaluation

TABLE = "table_1.csv"
_HEATMAPS = 6  # radiographs on the page
_FILMS = 27  # on a page of lung boxes


def folder(config: ConfigDict) -> Path:
    """Returns where a run's results go."""
    return Path(config.workdir) / "results"


def is_fresh(config: ConfigDict, data_version: str, split: str) -> bool:
    """Returns whether a stage's best checkpoint has been evaluated on a split of this data set."""
    metadata = checkpoint.best_metadata(config.workdir)
    where = evaluate.evaluation_folder(config.workdir, split)
    if metadata is None or not (where / "evaluation.json").is_file():
        return False
    try:
        origin = read_evaluation(where).origin
    except (sealed.DamagedError, FileNotFoundError) as error:  # it is evaluated again
        sealed.say(str(error))
        return False
    return (origin.checkpoint, origin.data_version) == (metadata["digest"], data_version)


def is_calibrated(config: ConfigDict) -> bool:
    """Returns whether a stage's best checkpoint has its `calibration.json`."""
    metadata = checkpoint.best_metadata(config.workdir)
    try:
        found = calibration_file.read(config.workdir)
    except sealed.DamagedError as error:
        sealed.say(str(error))
        return False
    return metadata is not None and found is not None and found.checkpoint == metadata["digest"]


def calibrate(classifiers: list[ConfigDict], data: Path) -> None:
    """Makes the calibration of the stages that lack it, where it can from the evaluation of validation on disk.

    Args:
      classifiers: configs of evaluated stages.
      data: the prepared data set.
    """
    for stage in classifiers:
        if is_calibrated(stage):
            continue
        if not is_fresh(stage, stages.data_version(data), "validation"):
            evaluate.evaluate_classifier(stage, data, stages.data_metadata(data), "validation")
        elif processes.is_first():
            evaluation = read_evaluation(evaluate.evaluation_folder(stage.workdir, "validation"))
            calibration_file.write(stage.workdir, calibration_file.make(evaluation))


def make(config: ConfigDict, classifiers: list[ConfigDict], data: Path) -> None:
    """Evaluates every stage on validation and test, and draws what there is to look at; the table comes last.

    Every process takes part in the evaluation; the first draws and writes.

    Args:
      config: of the stage that was asked for.
      classifiers: configs of the stages in the table.
      data: the prepared data set.
    """
    metadata = stages.data_metadata(data)
    for stage in classifiers:  # where the report chooses operating points
        evaluate.evaluate_classifier(stage, data, metadata, "validation")
    evaluations = [evaluate.evaluate_classifier(stage, data, metadata, "test") for stage in classifiers]
    if not processes.is_first():
        return
    where = folder(config)
    report.roc_figure(where / "roc_curves.png", evaluations)
    films = {path.name: path for path in lrg.find_radiographs(config.data.manual_dir)}
    if checkpoint.best_metadata(config.lrg.workdir) is not None:
        _draw_lung_boxes(config, films, evaluations[0], where)
    if config.stage == "fusion":
        _draw_heatmaps(classifiers, films, data, evaluations[-1], where)
    report.write_table_one(where / TABLE, evaluations)


def show(config: ConfigDict, classifiers: list[ConfigDict]) -> None:
    """Prints Table I from the evaluations on disk, and the paths of what there is to look at."""
    where = [evaluate.evaluation_folder(stage.workdir, "test") for stage in classifiers]
    print("\n" + report.table_one([read_evaluation(path) for path in where]))
    for path in (*sorted(folder(config).iterdir()), *(path / "predictions.csv" for path in where)):
        print(path)


def _draw_lung_boxes(config: ConfigDict, films: dict[str, Path], evaluation: Evaluation, where: Path) -> None:
    """Pages of test films as the LRG sees them (as Figures 6 and 7): the smallest lungs, and those of each rule."""
    evaluated = set(evaluation.predictions.images) & films.keys()
    examples = [row for row in _box_rows(config) if row.image in evaluated]
    examples.sort(key=lambda row: row.lung_area)
    rules = sorted({row.rule for row in examples} - {lung_boxes.NO_RULE})
    chosen = {"smallest": examples} | {rule: [row for row in examples if row.rule == rule] for rule in rules}
    segmenter = lrg.Segmenter.load(config.lrg.workdir, config.lrg.evaluation_batch_size)
    processing = lung_boxes.PostProcessing(**config.lrg.postprocessing)
    for old in where.glob("lung_boxes_*.png"):
        old.unlink()
    for name, rows in chosen.items():
        paths = [films[row.image] for row in rows[:_FILMS]]
        found = [film for film in lrg.segment_films(segmenter, paths, processing) if film.problem is None]
        if found:
            page = where / f"lung_boxes_{name}.png"
            contact_sheet.lung_box_page(found, page, drawings=evaluation.origin.drawings)


def _box_rows(config: ConfigDict) -> list[lung_boxes.BoxRow]:
    path = Path(config.data.boxes or Path(config.lrg.workdir) / "lung_boxes.csv")
    return list(lung_boxes.read_box_table(path).values()) if path.is_file() else []


def _draw_heatmaps(
    classifiers: list[ConfigDict], films: dict[str, Path], data: Path, evaluation: Evaluation, where: Path
) -> None:
    """Heatmaps (eq. 5 and 6; Figure 9): of each finding with reference boxes, the surest true positive."""
    examples = Examples(data, ["test"])
    told = list(examples.told("name", "lung_box", "reference_boxes"))
    boxes = [_reference_boxes(example) for example in told]
    chosen = []
    for finding in range(len(FINDINGS)):
        boxed = [index for index, found in enumerate(boxes) if finding in found and told[index]["name"] in films]
        if boxed:
            probabilities = evaluation.predictions.probabilities[boxed, finding]
            chosen.append((boxed[int(np.argmax(probabilities))], finding))
    if not chosen:
        return
    chosen = chosen[:_HEATMAPS]
    shown = examples.take(np.array([index for index, _ in chosen]))
    maps, traditional = (
        list(activation.stream(stage, checkpoint.read_best(stage.workdir)[0], shown))
        for stage in (classifiers[-1], classifiers[0])  # in the table's order: the fusion is last, entire first
    )
    cases = []
    for row, (index, finding) in enumerate(chosen):
        example = told[index]
        cases.append(
            heatmaps.Case(
                image=example["name"],
                radiograph=images.read_radiograph(films[example["name"]]),
                finding=FINDINGS[finding],
                probability=float(evaluation.predictions.probabilities[index, finding]),
                label=int(evaluation.predictions.labels[index, finding]),
                lung_box=tuple(int(edge) for edge in example["lung_box"]),
                reference_boxes=boxes[index][finding],
                entire=maps[row]["entire"][..., finding],
                lung=maps[row]["lung"][..., finding],
            )
        )
    drawings = evaluation.origin.drawings
    heatmaps.heatmap_page(where / "heatmaps.png", cases, drawings=drawings)
    own = [each["entire"][..., finding] for each, (_, finding) in zip(traditional, chosen, strict=True)]
    heatmaps.figure_nine(where / "figure_9.png", cases, own, drawings=drawings)


def _reference_boxes(example: dict) -> dict[int, list[tuple[float, ...]]]:
    """Returns {finding: its boxes} of an example."""
    found: dict[int, list] = {}
    reference = example["reference_boxes"]
    for finding, box in zip(reference["finding"], reference["box"], strict=True):
        found.setdefault(int(finding), []).append(tuple(float(edge) for edge in box))
    return found
