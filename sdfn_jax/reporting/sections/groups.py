"""Sections that need the official tables: subgroups by sex, age and view, and the two versions of the labels."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from sdfn_jax.metrics import bootstrap, subgroups
from sdfn_jax.metrics import scores as metrics_scores
from sdfn_jax.reporting import charts, estimates
from sdfn_jax.reporting.estimates import Estimate
from sdfn_jax.reporting.material import Material
from sdfn_jax.reporting.page import Cell, Picture, Section, Table
from sdfn_jax.reporting.runs import Run

_MEANS = "Mean AUC over the findings that are defined in a group: means over different findings are not comparable. "
_SHORTCUT = (
    "The view is a shortcut: bedside films (AP) are of sicker patients. The AUC within view compares only images of "
    "one view, and is next to the pooled one."
)
_Pairs = list[tuple[np.ndarray, np.ndarray]]  # of each finding, what `bootstrap.auc_pairs` counted


@dataclasses.dataclass(frozen=True, eq=False)
class _Group:
    """Some of the images: `attribute: name`, and which they are, (N,) bool."""

    attribute: str
    name: str
    chosen: np.ndarray

    @property
    def title(self) -> str:
        return f"{self.attribute}: {self.name}"


def subgroups_section(material: Material) -> Section:
    """Sex, age band and view, and the AUC within a view."""
    title = "Subgroups"
    people = material.people
    found = {} if people is None else subgroups.groups(people.sexes, people.ages, people.views)
    found = {attribute: each for attribute, each in found.items() if set(each) != {subgroups.UNKNOWN_GROUP}}
    if not found:
        return Section(
            "subgroups",
            title,
            ["NOTE: not computed: sex, age and view are unknown; of ChestX-ray14 they are in --tables=FOLDER."],
        )
    groups = [_Group(attribute, name, chosen) for attribute, each in found.items() for name, chosen in each.items()]
    pairs = {run.name: [_pairs(material, run, group, material.resamples) for group in groups] for run in material.runs}
    aucs = {
        run.name: [
            estimates.aucs(
                material.labels[group.chosen],
                run.probabilities[group.chosen],
                np.stack([bootstrap.ratio(*pair) for pair in of_group]),
            )
            for group, of_group in zip(groups, pairs[run.name], strict=True)
        ]
        for run in material.runs
    }
    return Section(
        "subgroups",
        title,
        [
            f"{_MEANS * (len(material.finding_names) > 1)}Ages outside 0 to 120 years are unknown.",
            *([_SHORTCUT] if "view" in found else []),
        ],
        [
            _summary(material, groups, aucs),
            Picture(
                "subgroups",
                f"{_title(material)} by group, 95 % interval over patients",
                charts.forest(
                    [group.title for group in groups],
                    {name: [each[-1] for each in mine] for name, mine in aucs.items()},
                    material.mean_word,
                ),
            ),
            *([_within_view(material, groups, pairs)] if "view" in found else []),
            _details(material, groups, aucs),
        ],
    )


def _title(material: Material) -> str:
    return material.mean_word[:1].upper() + material.mean_word[1:]


def label_versions(material: Material) -> Section:
    """The same predictions under both versions of the labels."""
    title = "Label versions"
    official = material.official
    if official is None or official.changed is None:
        return Section(
            "label-versions", title, ["NOTE: not computed: --tables=FOLDER needs both versions of the label table."]
        )
    one, other = official.labels
    seen = set(material.runs[0].test.predictions.images) & set(official.changed)
    names = material.row_names()
    columns: list[Sequence[Cell]] = [
        material.count_column(metrics_scores.counts(labels)[0]) for labels in official.labels.values()
    ]
    columns += [
        estimates.aucs(labels, run.probabilities) for run in material.runs for labels in official.labels.values()
    ]
    heads = [f"{name}, {version}" for name in material.names for version in (one, other)]
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
                list(zip(names, *columns, strict=True)),
            )
        ],
    )


def _pairs(material: Material, run: Run, group: _Group, resamples: bootstrap.Resamples) -> _Pairs:
    mine = bootstrap.subset(resamples, group.chosen)
    return [
        bootstrap.auc_pairs(labels[group.chosen], scores[group.chosen], mine)
        for labels, scores in zip(material.labels.T, run.probabilities.T, strict=True)
    ]


def _sizes(material: Material, group: _Group) -> tuple[int, int]:
    """Images and patients."""
    patients = material.runs[0].test.predictions.patients
    return int(group.chosen.sum()), len(np.unique(patients[group.chosen]))


def _summary(material: Material, groups: list[_Group], aucs: dict[str, list[list[Estimate]]]) -> Table:
    rows: list[list[Cell]] = []
    for place, group in enumerate(groups):
        mine = [each[place] for each in aucs.values()]
        defined = sum(not np.isnan(each.value) for each in mine[0][: len(material.finding_names)])
        rows.append([group.title, *_sizes(material, group), defined, *(each[-1] for each in mine)])
    heads = ["Group", "images", "patients", "findings", *material.names]
    return Table("subgroups", f"{_title(material)} by group", heads, rows)


def _details(material: Material, groups: list[_Group], aucs: dict[str, list[list[Estimate]]]) -> Table:
    rows: list[list[Cell]] = []
    for place, group in enumerate(groups):
        positives, _ = metrics_scores.counts(material.labels[group.chosen])
        sizes = _sizes(material, group)
        rows += [
            [group.title, finding, *sizes, int(positives[index]), *(each[place][index] for each in aucs.values())]
            for index, finding in enumerate(material.finding_names)
        ]
    heads = ["Group", "finding", "images", "patients", "positives", *material.names]
    return Table("subgroups_by_finding", "AUC by group and finding", heads, rows, long=True)


def _within_view(material: Material, groups: list[_Group], pairs: dict[str, list[_Pairs]]) -> Table:
    views = [place for place, group in enumerate(groups) if group.attribute == "view"]
    columns = []
    for run in material.runs:
        columns.append(estimates.with_mean(material.table.aucs[run.stage], material.aucs[run.stage], material.few))
        columns.append(_within(material, run, [(groups[place], pairs[run.name][place]) for place in views]))
    heads = [f"{name}: {kind}" for name in material.names for kind in ("pooled", "within view")]
    rows = list(zip(material.row_names(), *columns, strict=True))
    return Table("within_view", "AUC pooled and within view", ["Finding", *heads], rows)


def _within(material: Material, run: Run, views: list[tuple[_Group, _Pairs]]) -> list[Estimate]:
    """Returns the AUC within a view of each finding, and last their mean."""
    # The sample itself is the resample in which everyone is drawn once.
    itself = bootstrap.Resamples(material.resamples.patients, np.ones((len(material.resamples.counts), 1), np.float32))
    once = {group.name: _pairs(material, run, group, itself) for group, _ in views}
    resampled = {group.name: pairs for group, pairs in views}
    values, replicates = (
        [
            subgroups.within({view: pairs[index] for view, pairs in each.items()})
            for index in range(len(material.finding_names))
        ]
        for each in (once, resampled)
    )
    return estimates.with_mean(np.concatenate(values), np.stack(replicates), material.few)
