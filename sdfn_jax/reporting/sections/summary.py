"""The first screen: the result, next to the paper's if it has one, and how the training went."""

from collections.abc import Sequence

from sdfn_jax.core import job_record, progress
from sdfn_jax.metrics import published
from sdfn_jax.reporting import charts, verdict
from sdfn_jax.reporting.material import Material
from sdfn_jax.reporting.page import Cell, Picture, Section, Table
from sdfn_jax.reporting.runs import Run
from sdfn_jax.training.metrics_log import MetricsLog


def reproduced(material: Material) -> Section:
    """The verdict, and the AUCs: next to the paper's if it has any for these findings."""
    found = verdict.judge(material)
    run = material.reproduced
    return Section(
        "reproduced",
        "Did it reproduce the paper?" if material.table.has_papers else "Result",
        found.reasons,
        [_means(material), _aucs(material) if run is None else _against_paper(material, run)],
        answer=found.answer,
        folded=False,
    )


def _means(material: Material) -> Table:
    rows: list[list[Cell]] = []
    for run in material.runs:
        ours = material.mean_auc(run.stage)
        row: list[Cell] = [published.COLUMN_NAMES[run.stage], ours]
        if material.table.in_paper(run.stage):
            paper = material.table.papers_mean(run.stage)
            row += [paper, verdict.less_paper(ours, paper)]
        elif material.table.has_papers:
            row += ["", ""]
        rows.append(row)
    caption = f"{material.mean_word} of {material.mean_of}"
    heads = ["ours", "paper", "ours less paper"] if material.table.has_papers else [material.mean_word]
    return Table("means", caption[0].upper() + caption[1:], ["Network", *heads], rows)


def _against_paper(material: Material, run: Run) -> Picture:
    names = material.row_names(f"Mean of {material.table.defined.sum()}")
    column = published.TABLE_ONE[run.stage]
    papers = [*material.table.published(column), material.table.published_mean(column)]
    return Picture(
        "against_the_paper",
        f"{published.COLUMN_NAMES[run.stage]}: AUC with its 95 % interval over patients, and the paper's",
        charts.forest(
            names,
            {"ours, 95 % interval": material.column(run.stage)},
            "AUC",
            paper=papers[: len(names)],
            mean_last=len(names) > 1,
        ),
    )


def _aucs(material: Material) -> Picture:
    """The AUC of each finding by the networks; of one finding, a row for each network."""
    names = material.row_names(f"Mean of {material.table.defined.sum()}")
    each = {published.COLUMN_NAMES[run.stage]: material.column(run.stage) for run in material.runs}
    caption = "AUC with its 95 % interval over patients"
    if len(names) > 1:
        return Picture("aucs", caption, charts.forest(names, each, "AUC", mean_last=True))
    rows = [one for (one,) in each.values()]
    return Picture("aucs", f"{names[0]}: {caption}", charts.forest(list(each), {names[0]: rows}, "AUC"))


def training(material: Material) -> Section:
    """Learning curves, and how long each step took on what."""
    curves = {run.name: run.logs for run in material.runs if run.logs}
    for folder in material.generators:
        if lines := MetricsLog.read(folder):
            curves[f"Lungs ({folder.name})"] = [lines]
    parts: list[Table | Picture] = []
    text = []
    steps = job_record.together([*material.generators, *(folder for run in material.runs for folder in run.jobs)])
    if steps:
        parts.append(_durations(steps))
    else:
        text.append("How long it took is not recorded: jobs record it since version 0.2.0.")
    if curves:
        of_seeds = "; a line for each seed" if any(len(logs) > 1 for logs in curves.values()) else ""
        caption = f"Loss and score by epoch; the dot is the epoch that was kept{of_seeds}"
        parts.append(Picture("learning_curves", caption, charts.learning_curves(curves, material.mean_word)))
    else:
        text.append("No run has a training log (metrics.jsonl): these networks were trained elsewhere.")
    return Section("training", "Training", text, parts, folded=False)


def _durations(steps: Sequence[job_record.StepTime]) -> Table:
    rows: list[list[Cell]] = [
        [step.name if step.finished else f"{step.name} (interrupted)", progress.clock(step.seconds), step.hardware]
        for step in steps
    ]
    rows.append(["all", progress.clock(sum(step.seconds for step in steps)), ""])
    return Table("durations", "Steps of the job", ["Step", "time", "on"], rows)
