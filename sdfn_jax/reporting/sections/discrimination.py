"""Sections on how well the networks tell images apart: Table I, ROC curves, differences between the networks."""

import itertools

from sdfn_jax.metrics import comparison, delong, published
from sdfn_jax.metrics import scores as metrics_scores
from sdfn_jax.reporting import charts, estimates, roc_curves, table_one
from sdfn_jax.reporting.estimates import Estimate, P
from sdfn_jax.reporting.material import FINDING_NAMES, Material
from sdfn_jax.reporting.page import Cell, Picture, Section, Table
from sdfn_jax.reporting.runs import Run


def table_one_section(material: Material) -> Section:
    """Table I: our AUCs with intervals, the paper's next to them."""
    return Section(
        "table-one",
        "Table I",
        [
            "Area under the ROC curve with its 95 % interval from a bootstrap that resamples patients "
            f"({material.replicates:,} replicates), next to the paper's figures, which were measured on "
            "the 25,596 images of the official test list under the 2017 labels, and to those it compares itself with "
            f"({', '.join(published.OTHERS)}). A mean is over the findings whose AUC is defined in ours.",
        ],
        [_table_one(material), _precision(material)],
    )


def roc(material: Material) -> Section:
    """Figure 8."""
    return Section(
        "roc",
        "ROC curves",
        [],
        [Picture("roc_curves", "ROC curves as in Figure 8", lambda path: roc_curves.draw(path, material.table))],
    )


def differences(material: Material) -> Section:
    """Every pair of networks, on the same resamples."""
    pairs = list(itertools.combinations(reversed(material.runs), 2))
    if not pairs:
        return Section("differences", "Differences", ["One network was given: there is nothing to compare it with."])
    parts, means = [], []
    for first, second in pairs:
        mean, *details = _difference(material, first, second)
        means.append(mean)
        parts += details
    summary = Table(
        "differences",
        "Differences of the mean AUC, and the paper's paired t-test",
        ["Networks", "difference of the mean AUC", "p", "t over the class AUCs", "p of the t-test"],
        means,
    )
    return Section(
        "differences",
        "Differences",
        [
            "Both networks are scored on the same resamples of patients. p is two-sided; Holm's correction is over the "
            f"14 findings. {delong.DELONG_REMARK} The paper's own test is a paired two-tailed t-test; over the class "
            "AUCs of two networks there is one, and it takes the findings, not the patients, for the sample.",
        ],
        [summary, *parts],
    )


def _table_one(material: Material) -> Table:
    table = material.table
    ours = [estimates.with_mean(table.aucs[stage], material.aucs[stage], material.few) for stage in table.stages]
    columns = [*(published.TABLE_ONE[stage] for stage in table.stages), *published.OTHERS.values()]
    papers = [[*column, table.published_mean(column)] for column in columns]
    names = [*FINDING_NAMES, f"Mean of {table.defined.sum()}"]
    positives: list[Cell] = [*map(int, table.positives), ""]
    heads = [published.COLUMN_NAMES[stage] for stage in table.stages]
    return Table(
        "table_1_intervals",
        "AUC on the test images",
        ["Finding", "positives", *heads, *(f"{head}, paper" for head in heads), *published.OTHERS],
        list(zip(names, positives, *ours, *papers, strict=True)),
        files={table_one.TABLE_ONE_FILE: lambda path: table_one.write(path, table)},
    )


def _precision(material: Material) -> Table:
    prevalence = material.labels.mean(axis=0)
    rows: list[list[Cell]] = []
    for index, name in enumerate(FINDING_NAMES):
        scores = [
            metrics_scores.average_precision(material.labels[:, index], run.probabilities[:, index])
            for run in material.runs
        ]
        cells = [estimates.without_interval(score, material.few[index]) for score in scores]
        rows.append([name, float(prevalence[index]), *cells])
    caption = "Area under the precision-recall curve (average precision); knowing nothing scores the prevalence"
    return Table("precision_recall", caption, ["Finding", "prevalence", *material.names], rows)


def _difference(material: Material, first: Run, second: Run) -> tuple[list[Cell], Table, Picture]:
    """Returns a pair's row of the summary, its table and its picture."""
    result = comparison.compare(
        material.labels,
        first.probabilities,
        second.probabilities,
        (material.aucs[first.stage], material.aucs[second.stage]),
    )
    name = f"{first.name} less {second.name}"
    file = f"difference_{first.stage}_{second.stage}"
    found = [
        Estimate(each.value, *each.interval, bool(rare), signed=True)
        for each, rare in zip(result.classes, material.few, strict=True)
    ]
    mean = Estimate(result.mean.value, *result.mean.interval, estimates.mean_is_few(material.few), signed=True)
    rows: list[list[Cell]] = [
        [FINDING_NAMES[index], found[index], P(each.p), P(each.holm), each.delong.z, P(each.delong.p)]
        for index, each in enumerate(result.classes)
    ]
    rows.append(["Mean", mean, P(result.mean.p), "", "", ""])
    heads = ["Finding", "difference of AUC", "p", "p, Holm", "DeLong z", "DeLong p"]
    picture = Picture(
        file,
        f"{name}: difference of AUC, 95 % interval over patients",
        charts.forest(
            [*FINDING_NAMES, "Mean"], {name: [*found, mean]}, "difference of AUC", reference=0.0, mean_last=True
        ),
    )
    return [name, mean, P(result.mean.p), result.paper_t, P(result.paper_p)], Table(file, name, heads, rows), picture
