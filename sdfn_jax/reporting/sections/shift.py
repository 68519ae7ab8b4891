"""The section on other data sets: what changes when the same network reads them."""

from collections.abc import Sequence

from sdfn_jax.reporting import charts, shift
from sdfn_jax.reporting.material import Material
from sdfn_jax.reporting.page import Cell, Picture, Section, Table
from sdfn_jax.reporting.shift import Change, Elsewhere

_MEAN = "A mean is over the findings for which both data sets define it. "


def other_data_sets(material: Material) -> Section:
    """AUC, calibration, operating points, prevalence and mix on other data sets, less those on the test split."""
    title = "Other data sets"
    if not material.elsewhere:
        return Section(
            "other-data-sets",
            title,
            [
                "NOTE: not computed: --external=FOLDER names evaluations of the same networks on other data sets, "
                "which sdfn evaluate --output=FOLDER writes."
            ],
        )
    names = list(dict.fromkeys(each.name for each in material.elsewhere))
    parts: list[Table | Picture] = []
    notes = []
    for number, name in enumerate(names, 1):
        mine = [each for each in material.elsewhere if each.name == name]
        parts += _of_data_set(material, mine, number)
        if mine[0].evaluation.origin.drawings:
            notes.append(f"NOTE: {name}: synthetic radiographs, not films of patients.")
        if material.people is None or mine[0].people is None:
            notes.append(
                f"NOTE: {name}: sex, age and view are unknown there or here, so their shares are not compared."
            )
    return Section(
        "other-data-sets",
        title,
        [
            "The same checkpoints on other data sets, with what was fitted on the validation split carried over: "
            "probabilities calibrated by its scaling (predicted less observed: above 0, more are expected to be ill "
            "than are; the Brier score moves with the prevalence too), sensitivity and specificity at its thresholds. "
            f"{_MEAN * (len(material.finding_names) > 1)}{shift.INDEPENDENT}",
            *notes,
        ],
        parts,
    )


def _of_data_set(material: Material, mine: Sequence[Elsewhere], number: int) -> list[Table | Picture]:
    changes = {each.run.name: shift.changes(each, material.resamples) for each in mine}
    first, name = mine[0].evaluation.predictions, mine[0].name
    here = material.runs[0].test.predictions
    rows: list[list[Cell]] = [
        ["images", "", len(here.images), len(first.images), ""],
        ["patients", "", len(set(here.patients.tolist())), len(set(first.patients.tolist())), ""],
    ]
    names = material.finding_names
    mean = ", mean" if len(names) > 1 else ""
    rows += [
        [f"{change.measure}{mean}", network, change.here, change.there, change.difference]
        for network, found in changes.items()
        for change in found
        if change.finding is None and not (change.measure == shift.PREVALENCE and network != mine[0].run.name)
    ]
    if material.people is not None and mine[0].people is not None:
        rows += [
            [change.measure, "", change.here, change.there, change.difference]
            for change in shift.mix(material.people, mine[0].people, mine[0], material.resamples)
        ]
    details: list[list[Cell]] = [
        [names[change.finding], network, change.measure, change.here, change.there, change.difference]
        for network, found in changes.items()
        for change in found
        if change.finding is not None
    ]
    heads = ["test split", "there", "difference"]
    last, found = list(changes.items())[-1]
    return [
        Table(f"shift_{number}", f"{name}, less the test split", ["Measure", "network", *heads], rows),
        Picture(
            f"shift_{number}", f"{last}: AUC on the test split and on {name}, 95 % intervals", _chart(names, found)
        ),
        Table(
            f"shift_{number}_findings",
            f"{name}: every measure of each finding",
            ["Finding", "network", "measure", *heads],
            details,
            long=True,
        ),
    ]


def _chart(findings: Sequence[str], changes: Sequence[Change]):
    aucs = [change for change in changes if change.measure == shift.AUC]
    mean, each = ([change for change in aucs if (change.finding is None) is wanted] for wanted in (True, False))
    if len(findings) == 1:
        mean = []
    rows = [*each, *mean]
    names = [findings[change.finding] for change in each] + ["Mean"] * len(mean)
    series = {"test split": [change.here for change in rows], "there": [change.there for change in rows]}
    return charts.forest(names, series, "AUC", mean_last=bool(mean))
