"""The results of the main job: Table I, then whatever can be drawn (pages of lung boxes, heatmaps), then the report.

All of it is in `<workdir>/results`: `table_1.csv`, `index.html`, `tables/`, `figures/`. Pictures need the films
themselves, which may have been deleted since: what cannot be drawn is left out, with a line that gives the reason. A
record (`made_from.json`) lists what all of it was made from, and whether it is complete.
"""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from sdfn_jax.core import checkpoint, csv_table, networks, processes, sealed
from sdfn_jax.core.arguments import REPORT_REPLICATES
from sdfn_jax.heatmaps import figures, over_split
from sdfn_jax.metrics import ensembles
from sdfn_jax.metrics.evaluation import Evaluation, read_record
from sdfn_jax.radiographs import findings, labels, nih_tables, reader
from sdfn_jax.reporting import table_one
from sdfn_jax.reporting.report import write_report
from sdfn_jax.training import evaluate
from sdfn_jax.training.input_pipeline import Examples
from sdfn_jax.workflow import evaluations, lung_pages
from sdfn_jax.workflow.data_stages import FoundData, box_table_of
from tfds_builders import prepared

MADE_FROM_FILE = "made_from.json"
REPORT, _FIGURES = "index.html", "figures"
_HEATMAP_PAGE, _FIGURE_NINE = "heatmaps.png", "figure_9.png"
_OLD_ROC = "roc_curves.png"  # which earlier versions drew, and next to the table
_RECORD: dict[str, sealed.Shape] = {
    "stages": sealed.OBJECT,
    "lrg": sealed.Maybe(sealed.TEXT),
    "complete": sealed.BOOLEAN,
    "left_out": sealed.several(sealed.TEXT),
}
_HEATMAPS = 6  # radiographs on the page


def folder(config: ConfigDict) -> Path:
    """Returns where a run's results go."""
    return Path(config.workdir) / "results"


def is_made(config: ConfigDict, classifiers: list[ConfigDict]) -> bool:
    """Returns whether the folder of results is complete, and made from the evaluations on disk.

    Args:
      config: of the requested stage.
      classifiers: configs of the stages in the table, all of them evaluated on test.
    """
    where = folder(config)
    if not (where / table_one.TABLE_ONE_FILE).is_file():
        return False
    record, now = _read_record(where), _made_from(config, classifiers)
    if not (where / MADE_FROM_FILE).is_file():  # by an earlier version: its table came last, and names its checkpoints
        try:
            _, rows = csv_table.records(where / table_one.TABLE_ONE_FILE)
        except ValueError:
            return False
        row = rows[0][1] if rows else {}
        return all(row.get(f"checkpoint_{stage}") == each["checkpoint"] for stage, each in now["stages"].items())
    if record is None or not record["complete"] or record["stages"] != now["stages"]:
        return False
    return now["lrg"] in (None, record["lrg"])  # one that has been deleted since has drawn its pages


def _made_from(config: ConfigDict, classifiers: list[ConfigDict]) -> dict:
    stages_found = {}
    for stage in classifiers:
        record = read_record(evaluate.evaluation_folder(stage.workdir, "test"))
        stages_found[stage.stage] = {name: record[name] for name in ("checkpoint", "predictions_sha256")}
    generator = checkpoint.best_metadata(config.lrg.workdir)
    return {"stages": stages_found, "lrg": None if generator is None else generator["digest"]}


def _read_record(where: Path) -> dict | None:
    try:
        return sealed.read(
            where / MADE_FROM_FILE, _RECORD, "the record of what the results were made from", "make them again"
        )
    except (FileNotFoundError, sealed.DamagedError):
        return None


def make(config: ConfigDict, classifiers: list[ConfigDict], data: Path) -> None:
    """Evaluates every stage on validation and test, writes the table, and draws what there is to look at.

    Every process takes part in the evaluation; process 0 draws and writes.

    Args:
      config: of the requested stage.
      classifiers: configs of the stages in the table.
      data: the prepared data set.
    """
    for stage in classifiers:  # where the report chooses operating points
        evaluations.evaluate_split(stage, data, "validation", again=False)
    evaluated = [evaluations.evaluate_split(stage, data, "test", again=False) for stage in classifiers]
    if not processes.is_first():
        return
    where = folder(config)
    made_from = _made_from(config, classifiers)
    sealed.write(where / MADE_FROM_FILE, made_from | {"complete": False, "left_out": []})
    pages = (lung_pages.BOX_PAGES.format("*"), lung_pages.REGION_PAGES.format("*"), _HEATMAP_PAGE, _FIGURE_NINE)
    for name in (REPORT, _OLD_ROC, *pages):  # of earlier evaluations
        for old in (*where.glob(name), *(where / _FIGURES).glob(name)):
            old.unlink()
    table = table_one.TableOne.of(evaluated)
    table_one.write(where / table_one.TABLE_ONE_FILE, table)
    left_out = _draw(config, classifiers, data, table, where / _FIGURES)
    left_out += report(config, classifiers)
    sealed.write(where / MADE_FROM_FILE, made_from | {"complete": True, "left_out": left_out})


def has_report(config: ConfigDict) -> bool:
    """Returns whether the results have their report, which those of earlier versions lack."""
    return (folder(config) / REPORT).is_file()


def report(config: ConfigDict, classifiers: list[ConfigDict]) -> list[str]:
    """Writes the report next to the table.

    Args:
      config: of the stage that was asked for.
      classifiers: configs of the stages in the table, all of them evaluated.

    Returns:
      a line if it could not be written.
    """
    runs = [Path(stage.workdir) for stage in (*classifiers, config.lrg)]
    films = Path(config.data.manual_dir)
    official = nih_tables.LABEL_TABLES.get(config.data.get("label_version"))
    tables = films if official and (films / official).is_file() else None
    try:
        write_report([run for run in runs if run.is_dir()], folder(config), tables, (), REPORT_REPLICATES)
    except (ValueError, OSError) as error:
        return [f"{REPORT}: {error}"]
    return []


def _draw(
    config: ConfigDict, classifiers: list[ConfigDict], data: Path, table: table_one.TableOne, where: Path
) -> list[str]:
    """Draws every page that can be drawn; returns a line for what is left out."""
    left_out: list[str] = []

    def attempt(name: str, draw: Callable[[], object]) -> None:
        try:
            draw()
        except (ValueError, OSError) as error:
            left_out.append(f"{name}: {error}")

    films: dict[str, Path] = {}
    attempt("pictures of films", lambda: films.update(FoundData(config.data, box_table_of(config)).films()))
    if not films:
        return left_out
    evaluated = table.evaluations[0].predictions.images
    if absent := [image for image in evaluated if image not in films]:
        left_out.append(f"{len(absent):,} of {len(evaluated):,} test films are not in {config.data.manual_dir}")
    if checkpoint.best_metadata(config.lrg.workdir) is not None:
        attempt(
            lung_pages.BOX_PAGES.format("..."),
            lambda: left_out.extend(lung_pages.draw(config, films, table.evaluations[0], where)),
        )
    if len(config.branches) == 2:
        attempt(
            f"{_HEATMAP_PAGE}, {_FIGURE_NINE}",
            lambda: left_out.extend(_draw_heatmaps(classifiers, films, data, table.evaluations[-1], where)),
        )
    return left_out


def show(config: ConfigDict, classifiers: list[ConfigDict]) -> None:
    """Prints Table I from the evaluations on disk, what was left out, and what to do next."""
    table = table_one.TableOne.of([ensembles.read(stage.workdir, "test") for stage in classifiers])
    print("\n" + table_one.text(table))
    record = _read_record(folder(config))
    for line in record["left_out"] if record is not None else ():
        print(f"left out: {line}")
    print("\n".join(_next(config, table.evaluations[0].predictions.images[0])))


def _next(config: ConfigDict, image: str) -> list[str]:
    """Returns what to do with a trained classifier, a line each, with commands to copy.

    Args:
      config: of the classifier.
      image: name of a film to read, for example.
    """
    there = [Path(config.data.manual_dir, folder, image) for folder in ("images", ".")]
    films = next((shlex.quote(str(film)) for film in there if film.is_file()), "FILES")
    network = f"--checkpoint={shlex.quote(config.workdir)}"
    if checkpoint.best_metadata(config.lrg.workdir) is None:
        network += " --lrg=FOLDER_OF_THE_LUNG_REGION_GENERATOR"
    page = folder(config) / REPORT
    return [
        f"all results:     {folder(config)}",
        f"open this page:  {page}"
        if page.is_file()
        else f"make the report: python -m sdfn_jax.report {config.workdir}",
        f"read films:      python -m sdfn_jax.predict {films} {network} --output=findings",
        f"in a browser:    python -m sdfn_jax.viewer {network}",
    ]


def _draw_heatmaps(
    classifiers: list[ConfigDict], films: dict[str, Path], data: Path, evaluation: Evaluation, where: Path
) -> list[str]:
    """Heatmaps (eq. 5, and their sum; Figure 9): of each finding, the surest positive film, with its reference boxes.

    Of a data set with reference boxes, films that have one are shown. Without, a page of few findings has several films
    of each.

    Returns:
      a line for each film that is left out, or for the pages.
    """
    examples, predictions = Examples(data, ["test"]), evaluation.predictions
    has_boxes = examples.has("reference_boxes")
    described = list(examples.fields("name", "lung_box", *["reference_boxes"] * has_boxes))
    names = findings.named_in(prepared.data_metadata(data))
    boxes = [_reference_boxes(example, names) if has_boxes else {} for example in described]
    there = np.array([example["name"] in films for example in described])
    films_each = 1 if has_boxes else max(1, _HEATMAPS // len(predictions.findings))
    chosen = []
    for column, finding in enumerate(predictions.findings):
        fits = [finding in found for found in boxes] if has_boxes else predictions.labels[:, column] == labels.PRESENT
        fitting = np.flatnonzero(there & fits)
        surest = np.argsort(-predictions.probabilities[fitting, column], kind="stable")[:films_each]
        chosen += [(int(index), column) for index in fitting[surest]]
    if not chosen:
        lacks = "has a reference box" if has_boxes else "is positive"
        return [f"{_HEATMAP_PAGE}, {_FIGURE_NINE}: no available test film {lacks}"]
    chosen = chosen[:_HEATMAPS]
    shown = examples.take(np.array([index for index, _ in chosen]))
    maps, traditional = (
        list(over_split.stream_mean(stage, networks.read(stage.workdir)[0], shown))
        for stage in (classifiers[-1], classifiers[0])  # in the table's order: the fusion is last, entire first
    )
    cases, own, left_out = [], [], []
    for row, (index, column) in enumerate(chosen):
        example = described[index]
        try:
            radiograph = reader.read_radiograph(films[example["name"]])
        except (ValueError, OSError) as error:
            left_out.append(f"{_HEATMAP_PAGE}, {_FIGURE_NINE}: {error}")
            continue
        own.append(traditional[row]["entire"][..., column])
        finding = predictions.findings[column]
        cases.append(
            figures.FindingMaps(
                image=example["name"],
                radiograph=radiograph,
                finding=finding,
                probability=float(predictions.probabilities[index, column]),
                label=int(predictions.labels[index, column]),
                lung_box=tuple(int(edge) for edge in example["lung_box"]),
                reference_boxes=boxes[index].get(finding, ()),
                entire=maps[row]["entire"][..., column],
                lung=maps[row]["lung"][..., column],
            )
        )
    if cases:
        drawings = evaluation.origin.drawings
        figures.heatmap_page(where / _HEATMAP_PAGE, cases, drawings=drawings)
        figures.figure_nine(where / _FIGURE_NINE, cases, own, drawings=drawings)
    return left_out


def _reference_boxes(example: dict, names: Sequence[str]) -> dict[str, list[tuple[float, ...]]]:
    """Returns {finding: its boxes} of an example of a data set with these findings."""
    found: dict[str, list] = {}
    reference = example["reference_boxes"]
    for finding, box in zip(reference["finding"], reference["box"], strict=True):
        found.setdefault(names[finding], []).append(tuple(float(edge) for edge in box))
    return found
