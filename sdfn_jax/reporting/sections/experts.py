"""The section on expert labels: the same predictions under a second reference, and how far the readers agree."""

from sdfn_jax.metrics import agreement
from sdfn_jax.reporting import experts
from sdfn_jax.reporting.material import Material
from sdfn_jax.reporting.page import Cell, Section, Table

_NAN = float("nan")


def expert_labels(material: Material) -> Section:
    """AUC under the data set's labels and under the experts', on the same films."""
    title = "Expert labels"
    reference = material.experts
    if reference is None:
        return Section(
            "expert-labels",
            title,
            [
                "NOTE: not computed: --expert_labels=FOLDER names the tables that Google gives out on request "
                "(test_labels.csv, and test_individual_readers.csv for the readers' agreement)."
            ],
        )
    return Section(
        "expert-labels",
        title,
        [
            f"{reference.describe()} The data set's labels were mined from reports; the experts looked at the films. "
            "Both AUCs are of the same predictions on the same films and the same resamples of patients; a mean is "
            "over the findings that are defined under both references.",
            f"NOTE: {experts.CHOSEN}",
        ],
        [_aucs(material, reference), _labels(material, reference)],
    )


def _aucs(material: Material, reference: experts.Reference) -> Table:
    scores = [experts.score(reference, run.probabilities) for run in material.runs]
    version = material.runs[0].test.origin.label_version
    columns = [column for each in scores for column in (each.own, each.theirs, each.differences)]
    heads = [f"{name}: {kind}" for name in material.names for kind in (version, "experts", "difference")]
    names = material.row_names(f"Mean of {scores[0].findings}")
    return Table(
        "expert_labels",
        f"AUC under labels {version} and under the experts'",
        ["Finding", *heads],
        list(zip(names, *columns, strict=True)),
    )


def _labels(material: Material, reference: experts.Reference) -> Table:
    own, theirs = reference.positives
    hits = reference.hits
    rows: list[list[Cell]] = []
    for index, name in enumerate(material.finding_names):
        rows.append(
            [
                *(name, int(reference.both[:, index].sum()), int(own[index]), int(theirs[index])),
                float(hits[index] / own[index]) if own[index] else _NAN,
                float(hits[index] / theirs[index]) if theirs[index] else _NAN,
            ]
        )
    heads = ["Finding", "films", "positives", "positives, experts", "precision", "sensitivity"]
    caption = "The data set's labels, judged by the experts'"
    if (readings := reference.experts.readings) is not None:
        heads += ["readers' kappa", "readers unanimous"]
        caption += (
            f"; the agreement of {readings.readers} readers on {len(readings.images):,} films (Fleiss' kappa; 0 is "
            "chance)"
        )
        for index, row in enumerate(rows):
            columns = readings.yes[:, index], readings.of[:, index]
            row += [agreement.fleiss_kappa(*columns), agreement.unanimous(*columns)]
    return Table("expert_labels_agreement", caption, heads, rows)
