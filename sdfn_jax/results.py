"""What the main job ends with: Table I, ROC curves, pages of lung boxes, heatmaps."""

from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from sdfn_jax import cam, checkpoint, contact_sheet, evaluate, heatmaps, images, lrg, lung_boxes, report, stages, tasks
from sdfn_jax.findings import FINDINGS
from sdfn_jax.input_pipeline import Examples
from sdfn_jax.predictions import Evaluation, read_evaluation

TABLE = "table_1.csv"
_HEATMAPS = 6  # radiographs on the page
_FILMS = 54  # on the page of lung boxes


def folder(config: ConfigDict) -> Path:
    """Returns where a run's results go."""
    return Path(config.workdir) / "results"


def is_fresh(config: ConfigDict, data_version: str, split: str) -> bool:
    """Returns whether a stage's best checkpoint has been evaluated on a split of this data set."""
    metadata = checkpoint.best_metadata(config.workdir)
    where = evaluate.evaluation_folder(config.workdir, split)
    if metadata is None or not (where / "evaluation.json").is_file():
        return False
    origin = read_evaluation(where).origin
    return (origin.checkpoint, origin.data_version) == (metadata["digest"], data_version)


def make(config: ConfigDict, classifiers: list[ConfigDict], data: Path) -> None:
    """Evaluates every stage on the test split, and draws what there is to look at; the table comes last.

    Args:
      config: of the stage that was asked for.
      classifiers: configs of the stages in the table.
      data: the prepared data set.
    """
    metadata = stages.data_metadata(data)
    evaluations = [evaluate.evaluate_classifier(stage, data, metadata, "test") for stage in classifiers]
    where = folder(config)
    report.roc_figure(where / "roc_curves.png", evaluations)
    films = {path.name: path for path in lrg.find_radiographs(config.data.manual_dir)}
    if checkpoint.best_metadata(config.lrg.workdir) is not None:
        _draw_lung_boxes(config, films, evaluations[0], where)
    if config.stage == "fusion":
        _draw_heatmaps(config, films, data, evaluations[-1], where / "heatmaps.png")
    report.write_table_one(where / TABLE, evaluations)


def show(config: ConfigDict, classifiers: list[ConfigDict]) -> None:
    """Prints Table I from the evaluations on disk, and the paths of what there is to look at."""
    where = [evaluate.evaluation_folder(stage.workdir, "test") for stage in classifiers]
    print("\n" + report.table_one([read_evaluation(path) for path in where]))
    for path in (*sorted(folder(config).iterdir()), *(path / "predictions.csv" for path in where)):
        print(path)


def _draw_lung_boxes(config: ConfigDict, films: dict[str, Path], evaluation: Evaluation, where: Path) -> None:
    """A page of test films as the LRG sees them (as Figures 6 and 7)."""
    segmenter = lrg.Segmenter.load(config.lrg.workdir, config.lrg.evaluation_batch_size)
    processing = lung_boxes.PostProcessing(**config.lrg.postprocessing)
    chosen = [films[name] for name in evaluation.predictions.images[:_FILMS] if name in films]
    found = lrg.segment_films(segmenter, chosen, processing)
    contact_sheet.lung_box_pages(found, where, drawings=evaluation.origin.drawings)


def _draw_heatmaps(config: ConfigDict, films: dict[str, Path], data: Path, evaluation: Evaluation, path: Path) -> None:
    """A page of heatmaps (eq. 5 and 6; Figure 9): of each finding with reference boxes, the surest true positive."""
    examples = Examples(data, ["test"])
    boxes = {index: _reference_boxes(examples.describe(index)) for index in range(len(examples))}
    chosen = []
    for finding in range(len(FINDINGS)):
        boxed = [index for index, found in boxes.items() if finding in found and _file(examples, index) in films]
        if boxed:
            probabilities = evaluation.predictions.probabilities[boxed, finding]
            chosen.append((boxed[int(np.argmax(probabilities))], finding))
    if not chosen:
        return
    chosen = chosen[:_HEATMAPS]
    maps = _activation_maps(config, examples.take(np.array([index for index, _ in chosen])))
    cases = []
    for row, (index, finding) in enumerate(chosen):
        example = examples.describe(index)
        cases.append(
            heatmaps.Case(
                image=example["name"],
                radiograph=images.read_radiograph(films[example["name"]]),
                finding=FINDINGS[finding],
                probability=float(evaluation.predictions.probabilities[index, finding]),
                label=int(evaluation.predictions.labels[index, finding]),
                lung_box=tuple(int(edge) for edge in example["lung_box"]),
                reference_boxes=boxes[index][finding],
                entire=maps["entire"][row, ..., finding],
                lung=maps["lung"][row, ..., finding],
            )
        )
    heatmaps.heatmap_page(path, cases, drawings=evaluation.origin.drawings)


def _file(examples: Examples, index: int) -> str:
    return examples.describe(index)["name"]


def _reference_boxes(example: dict) -> dict[int, list[tuple[float, ...]]]:
    """Returns {finding: its boxes} of an example."""
    found: dict[int, list] = {}
    reference = example["reference_boxes"]
    for finding, box in zip(reference["finding"], reference["box"], strict=True):
        found.setdefault(int(finding), []).append(tuple(float(edge) for edge in box))
    return found


def _activation_maps(config: ConfigDict, examples: Examples) -> dict[str, np.ndarray]:
    variables, _ = checkpoint.read_best(config.workdir)
    task = tasks.classification(config)
    rows = [task.select(examples[index]) for index in range(len(examples))]
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    features = jax.jit(lambda batch: task.model.apply(variables, task.prepare(batch, None)[0], train=False)[1])(batch)
    return cam.activation_maps(jax.device_get(features), variables["params"]["head"]["kernel"], task.model.branches)
