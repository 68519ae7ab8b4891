"""Sections on the 14 probabilities: Table I, ROC, differences, calibration, operating points, subgroups, labels."""

import itertools
from collections.abc import Sequence

import numpy as np

from sdfn_jax.metrics import bootstrap, comparison, delong, operating_points, published, subgroups
from sdfn_jax.metrics import calibration as metrics_calibration
from sdfn_jax.metrics import scores as metrics_scores
from sdfn_jax.metrics.predictions import Evaluation
from sdfn_jax.radiographs.findings import FINDINGS, display_name
from sdfn_jax.reporting import charts, roc_curves
from sdfn_jax.reporting.inputs import Material, Run, few, mean_is_few
from sdfn_jax.reporting.page import Cell, Estimate, P, Picture, Section, Table

_NAMES = [display_name(name) for name in FINDINGS]


def table_one(material: Material) -> Section:
    """Table I: our AUCs with intervals, the paper's beside them."""
    labels, stages = material.labels, _stages(material)
    columns = [_auc_estimates(run.test, material.aucs[run.test.origin.stage]) for run in material.runs]
    theirs = [published.TABLE_ONE[stage] for stage in stages]
    rows = [
        [
            name,
            int(labels[:, index].sum()),
            *(column[index] for column in columns),
            *(column[index] for column in theirs),
        ]
        for index, name in enumerate(_NAMES)
    ]
    defined = np.array([not np.isnan(estimate.value) for estimate in columns[0][:-1]])
    papers_means = [float(np.array(column)[defined].mean()) if defined.any() else float("nan") for column in theirs]
    rows.append([f"Mean of {defined.sum()}", "", *(column[-1] for column in columns), *papers_means])
    heads = [published.COLUMN_NAMES[stage] for stage in stages]
    return Section(
        "table-one",
        "Table I: AUC",
        [
            "Area under the ROC curve with its 95 % interval from a bootstrap that resamples patients "
            f"({material.resamples.counts.shape[1]:,} replicates), beside the paper's figures, which were measured on "
            "the 25,596 images of the official test list under the 2017 labels. The mean is over the findings whose "
            "AUC is defined, of ours and of the paper's alike.",
        ],
        [
            Table(
                "table_1",
                "AUC on the test images",
                ["Finding", "positives", *heads, *(f"{head}, paper" for head in heads)],
                rows,
            ),
            _precision(material),
        ],
    )


def roc(material: Material) -> Section:
    """Figure 8."""
    evaluations = [run.test for run in material.runs]
    return Section(
        "roc",
        "ROC curves",
        [],
        [Picture("roc_curves", "ROC curves as in Figure 8", lambda path: roc_curves.roc_figure(path, evaluations))],
    )


def differences(material: Material) -> Section:
    """Every pair of networks, on the same resamples."""
    pairs = list(itertools.combinations(reversed(material.runs), 2))
    if not pairs:
        return Section("differences", "Differences", ["One network was given: there is nothing to compare it with."])
    parts, means = [], []
    for first, second in pairs:
        one, other = (run.test.origin.stage for run in (first, second))
        result = comparison.compare(
            material.labels,
            first.test.predictions.probabilities,
            second.test.predictions.probabilities,
            (material.aucs[one], material.aucs[other]),
        )
        name = f"{published.COLUMN_NAMES[one]} less {published.COLUMN_NAMES[other]}"
        estimates = [
            Estimate(each.value, *each.interval, bool(rare))
            for each, rare in zip(result.classes, material.few, strict=True)
        ]
        mean = Estimate(result.mean.value, *result.mean.interval, mean_is_few(material.few))
        rows = [
            [_NAMES[index], estimates[index], P(each.p), P(each.holm), each.delong.z, P(each.delong.p)]
            for index, each in enumerate(result.classes)
        ]
        rows.append(["Mean", mean, P(result.mean.p), "", "", ""])
        heads = ["Finding", "difference of AUC", "p", "p, Holm", "DeLong z", "DeLong p"]
        parts.append(Table(f"difference_{one}_{other}", name, heads, rows))
        parts.append(
            Picture(
                f"difference_{one}_{other}",
                f"{name}: difference of AUC, 95 % interval over patients",
                charts.forest([*_NAMES, "Mean"], {name: [*estimates, mean]}, "difference of AUC", 0.0),
            )
        )
        means.append([name, mean, P(result.mean.p), result.paper_t, P(result.paper_p)])
    summary = Table(
        "differences",
        "Differences of the mean AUC, and the paper's paired t-test",
        ["Networks", "difference of the mean AUC", "p", "t over the class AUCs", "p of the t-test"],
        means,
    )
    return Section(
        "differences",
        "Differences between the networks",
        [
            "Both networks are scored on the same resamples of patients. p is two-sided; Holm's correction is over the "
            f"14 findings. {delong.REMARK} The paper's own test is a paired two-tailed t-test; over the class AUCs of "
            "two networks there is one, and it takes the findings, not the patients, for the sample.",
        ],
        [summary, *parts],
    )


def calibrated(material: Material) -> Section:
    """Brier score, calibration error, reliability curves."""
    rows, curves = [[name] for name in _NAMES], {}
    columns = ["Finding"]
    for run in material.runs:
        name = published.COLUMN_NAMES[run.test.origin.stage]
        probabilities = run.test.predictions.probabilities
        curves[name] = [
            metrics_calibration.reliability(*each) for each in zip(material.labels.T, probabilities.T, strict=True)
        ]
        columns += [f"{name}: Brier", f"{name}: calibration error"]
        for index, row in enumerate(rows):
            labels, mine = material.labels[:, index], probabilities[:, index]
            replicates = bootstrap.ratio(
                bootstrap.sums((mine - labels) ** 2, material.resamples), material.resamples.images
            )
            spread = bootstrap.interval(replicates)
            brier = Estimate(metrics_calibration.brier(labels, mine), *spread, bool(material.few[index]))
            row += [brier, _without_interval(curves[name][index].error, material.few[index])]
    return Section(
        "calibration",
        "Calibration",
        [
            f"Brier score with its interval, and expected calibration error over {metrics_calibration.BINS} bins of "
            "equal "
            "width. For a rare finding both are small for any network that says little: read them beside the "
            "reliability curves, whose axes are logarithmic.",
        ],
        [
            Table("calibration", "Calibration of the probabilities", columns, rows),
            Picture("reliability", "Reliability curves", charts.reliability(curves)),
            *_platt(material),
        ],
    )


def thresholds(material: Material) -> Section:
    """Operating points, chosen on validation."""
    title = "Operating points"
    chosen = [run for run in material.runs if run.validation is not None]
    if not chosen:
        folder = material.runs[0].folder
        return Section(
            "operating-points",
            title,
            [
                f"NOTE: not computed. Thresholds are chosen on validation, never on test, and {folder} has no "
                "evaluation/validation: python -m sdfn_jax.main --config=... --mode=evaluate --split=validation"
            ],
        )
    rows = []
    for run in chosen:
        resamples = operating_points.resample(run.validation.predictions.patients)
        for index, name in enumerate(_NAMES):
            rows += _points(material, run, index, name, resamples)
    heads = [
        *("Finding", "network", "rule", "threshold", "validation positives", "positives", "called"),
        *("sensitivity", "specificity", "predictive value", "why no decision"),
    ]
    return Section(
        "operating-points",
        title,
        [
            "Each threshold was chosen on the validation split (Youden's index, or the highest one that finds "
            f"{operating_points.SENSITIVITY:.0%} of the positives) and is reported on test, where it never was tuned. "
            "The predictive value holds at this prevalence only. A finding has no threshold without "
            f"{operating_points.MINIMUM} positives and {operating_points.MINIMUM} negatives in validation, or where "
            "the 95 % interval of its AUC on validation, over patients, does not lie above 0.5: nothing is decided.",
        ],
        [Table("operating_points", "Thresholds of validation, on test", heads, rows)],
    )


def by_group(material: Material) -> Section:
    """Sex, age band and view, and the AUC within a view."""
    title = "Subgroups"
    if material.official is None:
        return Section("subgroups", title, ["NOTE: not computed: sex, age and view come from --tables=FOLDER."])
    official = material.official
    groups = subgroups.groups(official.sexes, official.ages, official.views)
    summary, details, within = [], [], [[name] for name in (*_NAMES, "Mean")]
    series = {published.COLUMN_NAMES[run.test.origin.stage]: [] for run in material.runs}
    members = [(attribute, name, chosen) for attribute, each in groups.items() for name, chosen in each.items()]
    patients = material.runs[0].test.predictions.patients
    counts = [(int(chosen.sum()), len(np.unique(patients[chosen]))) for *_, chosen in members]
    found = {}
    for run in material.runs:
        stage, probabilities = run.test.origin.stage, run.test.predictions.probabilities
        pairs = {
            (attribute, name): [
                bootstrap.auc_pairs(labels[chosen], scores[chosen], subgroups.subset(material.resamples, chosen))
                for labels, scores in zip(material.labels.T, probabilities.T, strict=True)
            ]
            for attribute, name, chosen in members
        }
        for attribute, name, chosen in members:
            replicates = np.stack([bootstrap.ratio(*each) for each in pairs[attribute, name]])
            found[stage, attribute, name] = _estimates(material.labels[chosen], probabilities[chosen], replicates)
        _add_within(material, run, groups["view"], pairs, within)
    for (attribute, name, chosen), (images, people) in zip(members, counts, strict=True):
        mine = [found[run.test.origin.stage, attribute, name] for run in material.runs]
        summary.append([f"{attribute}: {name}", images, people, _defined(mine[0]), *(each[-1] for each in mine)])
        for run, each in zip(material.runs, mine, strict=True):
            series[published.COLUMN_NAMES[run.test.origin.stage]].append(each[-1])
        positives = material.labels[chosen].sum(axis=0, dtype=int)
        details += [
            [f"{attribute}: {name}", finding, images, people, int(positives[index]), *(each[index] for each in mine)]
            for index, finding in enumerate(_NAMES)
        ]
    heads = [published.COLUMN_NAMES[run.test.origin.stage] for run in material.runs]
    both = [f"{head}: {kind}" for head in heads for kind in ("pooled", "within view")]
    return Section(
        "subgroups",
        title,
        [
            "Mean AUC over the findings that are defined in a group: means of groups with other findings do not "
            "compare. Ages outside 0 to 120 years are unknown.",
            "The view is a shortcut: bedside films (AP) are of sicker patients. The AUC within view compares only "
            "images of one view, and stands beside the pooled one.",
        ],
        [
            Table("subgroups", "Mean AUC by group", ["Group", "images", "patients", "findings", *heads], summary),
            Picture(
                "subgroups",
                "Mean AUC by group, 95 % interval over patients",
                charts.forest([row[0] for row in summary], series, "mean AUC", None),
            ),
            Table("within_view", "AUC pooled and within view", ["Finding", *both], within),
            Table(
                "subgroups_by_finding",
                "AUC by group and finding",
                ["Group", "finding", "images", "patients", "positives", *heads],
                details,
                wide=True,
            ),
        ],
    )


def versions(material: Material) -> Section:
    """The same predictions under both versions of the labels."""
    title = "Label versions"
    official = material.official
    if official is None or official.changed is None:
        return Section(
            "label-versions", title, ["NOTE: not computed: both label tables have to lie in the folder of --tables."]
        )
    stages, (one, other) = _stages(material), official.labels
    seen = set(material.runs[0].test.predictions.images) & set(official.changed)
    positives = {version: labels.sum(axis=0, dtype=int) for version, labels in official.labels.items()}
    aucs = {
        version: [_bare(labels, run.test.predictions.probabilities) for run in material.runs]
        for version, labels in official.labels.items()
    }
    rows = []
    for index, name in enumerate((*_NAMES, "Mean")):
        counts = [int(positives[each][index]) if index < len(_NAMES) else "" for each in (one, other)]
        values = [column[index] for pair in zip(aucs[one], aucs[other], strict=True) for column in pair]
        rows.append([name, *counts, *values])
    heads = [f"{published.COLUMN_NAMES[stage]}, {version}" for stage in stages for version in (one, other)]
    return Section(
        "label-versions",
        title,
        [
            f"The tables {one} and {other} differ in the labels of {len(official.changed)} images, {len(seen)} of them "
            f"among the {len(material.labels):,} evaluated here. The paper predates v2020.",
        ],
        [
            Table(
                "label_versions",
                "AUC of the same predictions under either version",
                ["Finding", f"positives, {one}", f"positives, {other}", *heads],
                rows,
            )
        ],
    )


def _stages(material: Material) -> list[str]:
    return [run.test.origin.stage for run in material.runs]


def _auc_estimates(evaluation: Evaluation, replicates: np.ndarray) -> list[Estimate]:
    return _estimates(evaluation.predictions.labels, evaluation.predictions.probabilities, replicates)


def _estimates(labels: np.ndarray, scores: np.ndarray, replicates: np.ndarray) -> list[Estimate]:
    """Returns the AUC of each finding, and last their mean."""
    aucs, rare = metrics_scores.class_aucs(labels, scores), few(labels)
    spreads = [bootstrap.interval(row) for row in replicates]
    mean = bootstrap.interval(bootstrap.mean_replicates(replicates))
    return [
        *(_estimate(*each) for each in zip(aucs, spreads, rare, strict=True)),
        _estimate(metrics_scores.mean_auc(aucs)[0], mean, mean_is_few(rare)),
    ]


def _estimate(value: float, spread: tuple[float, float], rare: bool) -> Estimate:
    undefined = np.isnan(value)
    return Estimate(float(value), *((float("nan"),) * 2 if undefined else spread), bool(rare and not undefined))


def _without_interval(value: float, rare: bool) -> Estimate:
    return _estimate(value, (float("nan"), float("nan")), rare)


def _bare(labels: np.ndarray, scores: np.ndarray) -> list[Estimate]:
    """Returns the AUC of each finding, and last their mean, without intervals."""
    return _estimates(labels, scores, np.full((labels.shape[1], 1), np.nan))


def _defined(estimates: Sequence[Estimate]) -> int:
    return sum(not np.isnan(estimate.value) for estimate in estimates[:-1])


def _precision(material: Material) -> Table:
    prevalence = material.labels.mean(axis=0)
    columns = [
        [
            metrics_scores.average_precision(*each)
            for each in zip(material.labels.T, run.test.predictions.probabilities.T, strict=True)
        ]
        for run in material.runs
    ]
    rows = [
        [
            name,
            float(prevalence[index]),
            *(_without_interval(column[index], material.few[index]) for column in columns),
        ]
        for index, name in enumerate(_NAMES)
    ]
    heads = [published.COLUMN_NAMES[stage] for stage in _stages(material)]
    caption = "Area under the precision-recall curve (average precision); knowing nothing scores the prevalence"
    return Table("precision_recall", caption, ["Finding", "prevalence", *heads], rows)


def _platt(material: Material) -> list[Table]:
    """What `calibration.json` does to the probabilities: on validation, cross-fitted, and on test."""
    rows = []
    for run in material.runs:
        if run.validation is None:
            continue
        found = metrics_calibration.make(run.validation).findings.values()
        for index, (name, each) in enumerate(zip(_NAMES, found, strict=True)):
            head = [name, published.COLUMN_NAMES[run.test.origin.stage], each.positives]
            if each.scaling is None:
                rows.append([*head, *[float("nan")] * 10, each.reason])
                continue
            labels, before = material.labels[:, index], run.test.predictions.probabilities[:, index]
            scores = [
                (metrics_calibration.brier(labels, values), metrics_calibration.reliability(labels, values).error)
                for values in (before, each.scaling(before))
            ]
            on_test = [
                _without_interval(value, material.few[index]) for pair in zip(*scores, strict=True) for value in pair
            ]
            rows.append(
                [
                    *head,
                    each.scaling.slope,
                    each.scaling.intercept,
                    *each.effect.brier,
                    *each.effect.error,
                    *on_test,
                    "",
                ]
            )
    heads = [
        f"{score}, {split}, {when}"
        for split in ("validation", "test")
        for score in ("Brier", "error")
        for when in ("before", "after")
    ]
    caption = (
        "Platt scaling, fitted on validation alone: slope and intercept on the logit, and what it does; on validation "
        "each image is calibrated by a fit that saw nothing of its patient. undefined: not calibrated"
    )
    columns = ["Finding", "network", "validation positives", "slope", "intercept", *heads, "why not"]
    return [Table("platt_scaling", caption, columns, rows, wide=True)] if rows else []


def _points(material: Material, run: Run, index: int, name: str, resamples: bootstrap.Resamples) -> list[list[Cell]]:
    """Returns a row for each rule, or one that says why there is no threshold.

    Args:
      material: all of it.
      run: one with an evaluation of validation.
      index: of the finding.
      name: of the finding.
      resamples: of the patients of the validation split.
    """
    labels, scores = (getattr(run.validation.predictions, each)[:, index] for each in ("labels", "probabilities"))
    network, positives = published.COLUMN_NAMES[run.test.origin.stage], int(labels.sum())
    if why := operating_points.undecided(labels, scores, resamples):
        nothing = float("nan")
        return [
            [name, network, "none", nothing, positives, int(material.labels[:, index].sum()), "", *[nothing] * 3, why]
        ]
    rows = []
    for rule, choose in (
        ("Youden", operating_points.youden),
        (f"sensitivity {operating_points.SENSITIVITY:.0%}", operating_points.at_sensitivity),
    ):
        threshold = choose(labels, scores)
        mine = run.test.predictions.probabilities[:, index]
        point = operating_points.apply(material.labels[:, index], mine, threshold, material.resamples)
        rare = bool(material.few[index])
        rows.append(
            [
                *(name, network, rule, threshold, positives, point.positives, point.called),
                Estimate(point.sensitivity, *point.sensitivity_interval, rare),
                Estimate(point.specificity, *point.specificity_interval, rare),
                Estimate(point.predictive_value, *point.predictive_value_interval, rare),
                "",
            ]
        )
    return rows


def _add_within(material: Material, run: Run, views: dict, pairs: dict, rows: list[list]) -> None:
    """Adds a network's two columns: pooled, and within view."""
    predictions = run.test.predictions
    pooled = _auc_estimates(run.test, material.aucs[run.test.origin.stage])
    # The sample itself is the resample in which everyone is drawn once.
    itself = bootstrap.Resamples(material.resamples.patients, np.ones((len(material.resamples.counts), 1), np.float32))
    values, spreads = [], []
    for index, (labels, scores) in enumerate(zip(material.labels.T, predictions.probabilities.T, strict=True)):
        once = {
            view: bootstrap.auc_pairs(labels[chosen], scores[chosen], subgroups.subset(itself, chosen))
            for view, chosen in views.items()
        }
        values.append(subgroups.within(once)[0])
        spreads.append(subgroups.within({view: pairs["view", view][index] for view in views}))
    replicates = np.stack(spreads)
    mean = bootstrap.interval(bootstrap.mean_replicates(replicates))
    within = [
        *(
            _estimate(value, bootstrap.interval(row), rare)
            for value, row, rare in zip(values, replicates, material.few, strict=True)
        ),
        _estimate(metrics_scores.mean_auc(np.array(values))[0], mean, mean_is_few(material.few)),
    ]
    for row, *both in zip(rows, pooled, within, strict=True):
        row += both
