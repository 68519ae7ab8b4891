"""Sections on how well the networks tell images apart: Table I, ROC curves, differences between the networks."""

import itertools

from sdfn_jax.metrics import comparison, delong, published
from sdfn_jax.metrics import scores as metrics_scores
from sdfn_jax.reporting import charts, estimates, roc_curves, table_one
from sdfn_jax.reporting.estimates import Estimate, P
from sdfn_jax.reporting.material import Material
from sdfn_jax.reporting.page import Cell, Picture, Section, Table
from sdfn_jax.reporting.runs import Run


def table_one_section(material: Material) -> Section:
    """Table I: our AUCs with intervals, the paper's next to them if it has any for these findings."""
    ours = (
        "Area under the ROC curve with its 95 % interval from a bootstrap that resamples patients "
        f"({material.replicates:,} replicates)"
    )
    papers = (
        ", next to the paper's figures, which were measured on "
        "the 25,596 images of the official test list under the 2017 labels, and to those it compares itself with "
        f"({', '.join(published.OTHERS)})"
    )
    mean = " A mean is over the findings whose AUC is defined in ours." if len(material.table.findings) > 1 else ""
    known = "" if material.table.all_known else " A finding is scored on the images of which it is known."
    with_papers = material.table.has_papers
    return Section(
        "table-one",
        "Table I" if with_papers else "AUC",
        [f"{ours}{papers if with_papers else ''}.{mean}{known}"],
        [_table_one(material), _precision(material)],
    )


def roc(material: Material) -> Section:
    """Figure 8."""
    return Section(
        "roc",
        "ROC curves",
        [],
        [
            Picture(
                "roc_curves",
                f"ROC curves{' as in Figure 8' * material.table.has_papers}",
                lambda path: roc_curves.draw(path, material.table),
            )
        ],
    )


def differences(material: Material) -> Section:
    """Every pair of networks, on the same resamples."""
    pairs = list(itertools.combinations(reversed(material.runs), 2))
    if not pairs:
        return Section("differences", "Differences", ["One network was given: there is nothing to compare it with."])
    parts: list[Table | Picture] = []
    means: list[list[Cell]] = []
    for first, second in pairs:
        mean, table, picture = _difference(material, first, second)
        means.append(mean)
        parts += [table, picture]
    findings = len(material.table.findings)
    resampled = "Both networks are scored on the same resamples of patients. p is two-sided"
    if findings == 1:  # the summary would repeat the only row of each table
        return Section("differences", "Differences", [f"{resampled}. {_delong_remark(material)}"], parts)
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
            f"{resampled}; Holm's correction is over the {findings} findings. {_delong_remark(material)} The "
            "paper's own test is a paired two-tailed t-test; over the class AUCs of two networks there is one, and it "
            "takes the findings, not the patients, for the sample.",
        ],
        [summary, *parts],
    )


def _delong_remark(material: Material) -> str:
    patients = material.runs[0].test.predictions.patients
    return delong.DELONG_REMARK if len(set(patients.tolist())) < len(patients) else ""


def _table_one(material: Material) -> Table:
    table = material.table
    ours = [material.column(stage) for stage in table.stages]
    names = material.row_names(f"Mean of {table.defined.sum()}")
    counted = {"positives": table.positives} | ({} if table.all_known else {"of images": table.known})
    counts = [material.count_column(count) for count in counted.values()]
    heads = [published.COLUMN_NAMES[stage] for stage in table.stages]
    papers = {}
    if table.has_papers:
        stages = filter(table.in_paper, table.stages)
        papers = {f"{published.COLUMN_NAMES[stage]}, paper": published.TABLE_ONE[stage] for stage in stages}
        papers |= published.OTHERS
    columns = [[*table.published(each), table.published_mean(each)][: len(names)] for each in papers.values()]
    return Table(
        "table_1_intervals",
        "AUC on the test images",
        ["Finding", *counted, *heads, *papers],
        list(zip(names, *counts, *ours, *columns, strict=True)),
        files={table_one.TABLE_ONE_FILE: lambda path: table_one.write(path, table)},
    )


def _precision(material: Material) -> Table:
    rows: list[list[Cell]] = []
    for index, name in enumerate(material.finding_names):
        known, *probabilities = metrics_scores.known_only(
            material.labels[:, index], *(run.probabilities[:, index] for run in material.runs)
        )
        scores = [metrics_scores.average_precision(known, each) for each in probabilities]
        cells = [estimates.without_interval(score, material.few[index]) for score in scores]
        rows.append([name, float(known.mean()) if known.size else float("nan"), *cells])
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
    names = material.row_names()
    several = len(names) > 1
    rows: list[list[Cell]] = [
        [row, found[index], P(each.p), *[P(each.holm)] * several, each.delong.z, P(each.delong.p)]
        for index, (row, each) in enumerate(zip(material.finding_names, result.classes, strict=True))
    ]
    rows += [["Mean", mean, P(result.mean.p), "", "", ""]] * several
    heads = ["Finding", "difference of AUC", "p", *["p, Holm"] * several, "DeLong z", "DeLong p"]
    picture = Picture(
        file,
        f"{name}: difference of AUC, 95 % interval over patients",
        charts.forest(
            names, {name: [*found, *[mean] * several]}, "difference of AUC", reference=0.0, mean_last=several
        ),
    )
    return [name, mean, P(result.mean.p), result.paper_t, P(result.paper_p)], Table(file, name, heads, rows), picture
