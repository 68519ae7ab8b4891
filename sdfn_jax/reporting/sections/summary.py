"""The first screen: did the run reproduce the paper, and how did its training go?"""

from collections.abc import Sequence

from sdfn_jax.core import job_record, progress
from sdfn_jax.metrics import published
from sdfn_jax.reporting import charts, estimates, verdict
from sdfn_jax.reporting.material import FINDING_NAMES, Material
from sdfn_jax.reporting.page import Cell, Picture, Section, Table
from sdfn_jax.training.metrics_log import MetricsLog


def reproduced(material: Material) -> Section:
    """The verdict, the means, and the AUC of each finding next to the paper's."""
    found = verdict.judge(material)
    rows: list[list[Cell]] = []
    for run in material.runs:
        ours, paper = material.mean_auc(run.stage), material.table.papers_mean(run.stage)
        rows.append([run.name, ours, paper, verdict.less_paper(ours, paper)])
    run = material.runs[-1]
    each = estimates.with_mean(material.table.aucs[run.stage], material.aucs[run.stage], material.few)
    papers = [*published.TABLE_ONE[run.stage], material.table.papers_mean(run.stage)]
    defined = material.table.defined.sum()
    return Section(
        "reproduced",
        "Did it reproduce the paper?",
        found.reasons,
        [
            Table("means", f"Mean AUC of {defined} findings", ["Network", "ours", "paper", "ours less paper"], rows),
            Picture(
                "against_the_paper",
                f"{run.name}: AUC with its 95 % interval over patients, and the paper's",
                charts.forest(
                    [*FINDING_NAMES, f"Mean of {defined}"],
                    {"ours, 95 % interval": each},
                    "AUC",
                    paper=papers,
                    mean_last=True,
                ),
            ),
        ],
        answer=found.answer,
        folded=False,
    )


def training(material: Material) -> Section:
    """Learning curves, and how long each step took on what."""
    curves = {run.name: run.epochs for run in material.runs if run.epochs}
    for folder in material.generators:
        if lines := MetricsLog.read(folder):
            curves[f"Lungs ({folder.name})"] = lines
    parts: list[Table | Picture] = []
    text = []
    steps = job_record.together([*material.generators, *(run.folder for run in material.runs)])
    if steps:
        parts.append(_durations(steps))
    else:
        text.append("How long it took is not recorded: jobs record it since version 0.2.0.")
    if curves:
        caption = "Loss and score by epoch; the dot is the epoch that was kept"
        parts.append(Picture("learning_curves", caption, charts.learning_curves(curves)))
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
