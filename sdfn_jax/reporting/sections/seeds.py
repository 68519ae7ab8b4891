"""The section on several seeds: each training, their mean and standard deviation, and their ensemble."""

from sdfn_jax.metrics import ensembles, published
from sdfn_jax.metrics import scores as metrics_scores
from sdfn_jax.reporting import estimates
from sdfn_jax.reporting.material import Material
from sdfn_jax.reporting.page import Cell, Section, Table
from sdfn_jax.reporting.runs import Run

_TITLE = "Seeds"


def seeds(material: Material) -> Section:
    """The AUC of each seed's network, of each finding, and of the ensemble."""
    several = [run for run in material.runs if run.test.members]
    if not several:
        text = "One training of each network: --config.seeds=5 trains and compares more, and makes their ensemble."
        return Section("seeds", _TITLE, [text])
    return Section(
        "seeds",
        _TITLE,
        [
            "Each seed is the whole recipe again: other initial weights, batches and augmentation, on the same lung "
            "boxes, films and splits. The paper has one training of each network: next to its figures are the means "
            "over the seeds. The ensemble is the mean of their probabilities; the sections on curves, differences, "
            "calibration, operating points and subgroups are of it. sd is the sample standard deviation over the "
            "seeds; brackets are intervals over patients.",
        ],
        # Of one finding, the first table has it all.
        [_means(material, several), *(_findings(material, run) for run in several if len(material.finding_names) > 1)],
    )


def _means(material: Material, several: list[Run]) -> Table:
    rows: list[list[Cell]] = []
    for run in several:
        means = material.table.of_seeds(run.stage)
        each = zip((f"seed {seed}" for seed in run.test.origin.seeds), means.tolist(), strict=True)
        own = estimates.with_mean(material.table.aucs[run.stage], material.aucs[run.stage], material.few)[-1]
        name = published.COLUMN_NAMES[run.stage]
        rows += [[name, seed, mean] for seed, mean in each]
        rows += [[name, "mean", material.mean_auc(run.stage)], [name, "sd", float(ensembles.spread(means))]]
        rows += [[name, "ensemble", own]]
        if material.table.in_paper(run.stage):
            rows.append([name, "paper", material.table.papers_mean(run.stage)])
    caption = f"{material.mean_word} of {material.mean_of}"
    return Table("seeds", caption[0].upper() + caption[1:], ["Network", "of", material.mean_word], rows)


def _findings(material: Material, run: Run) -> Table:
    each, own = material.table.members[run.stage], material.table.aucs[run.stage]
    columns = [
        [*values.tolist(), mean]
        for values, mean in (
            *((aucs, metrics_scores.mean_auc(aucs)[0]) for aucs in each),
            (ensembles.spread(each), float(ensembles.spread(material.table.of_seeds(run.stage)))),
            (own, metrics_scores.mean_auc(own)[0]),
        )
    ]
    heads = [*(f"seed {seed}" for seed in run.test.origin.seeds), "sd", "ensemble"]
    names = material.row_names()
    rows = list(zip(names, material.column(run.stage), *(each[: len(names)] for each in columns), strict=True))
    name = published.COLUMN_NAMES[run.stage]
    return Table(f"seeds_{run.stage}", f"{name}: AUC by seed", ["Finding", "mean over seeds", *heads], rows, long=True)
