"""What readings were made with, as tables of a page."""

from collections.abc import Iterable

from sdfn_jax.core import web_page
from sdfn_jax.inference.prediction import Provenance
from sdfn_jax.metrics import published
from sdfn_jax.radiographs.findings import display_name

_UNKNOWN = "unknown"


def html_of(provenance: Provenance) -> str:
    """Returns the tables of networks, data and settings, and of the operating points."""
    lrg = "none was used" if provenance.lrg_checkpoint is None else provenance.lrg_checkpoint
    classifier: list[tuple[str, object]] = [("Classifier", "none was given")]
    if provenance.classifies:
        classifier = [
            ("Network", f"{published.COLUMN_NAMES[provenance.stage]} (stage {provenance.stage})"),
            ("Its checkpoint", provenance.checkpoint),
            *((f"Ensemble, seed {each['seed']}", each["checkpoint"]) for each in provenance.members),
            ("Trained on", provenance.data_version or _UNKNOWN),
            ("Labels", provenance.label_version or _UNKNOWN),
            *((f"Weights, {branch} branch", each.describe()) for branch, each in provenance.imported.items()),
            *((f"Preprocessing: {name}", value) for name, value in provenance.preprocessing.items()),
        ]
    made = _table(
        "What the readings were made with",
        [*classifier, ("Lung region generator", lrg), *provenance.software.items()],
    )
    return made + _operating_points(provenance) if provenance.classifies else made


def _operating_points(provenance: Provenance) -> str:
    """The operating points, and why some findings have none."""
    undecided = _table(
        "No decision: called neither positive nor negative",
        [(display_name(name), why) for name, why in provenance.undecided.items()],
        ("Finding", "why"),
    )
    if not provenance.thresholds:
        return web_page.paragraph("There is no operating point: nothing is called positive or negative.") + undecided
    rows = [
        (
            display_name(name),
            f"{point.probability:.3f}",
            *(f"{share:.2f}" for share in (point.sensitivity, point.specificity)),
            *(f"{count:,}" for count in (point.positives, point.negatives)),
        )
        for name, point in provenance.thresholds.items()
    ]
    heads = ("Finding", "positive from", "sensitivity", "specificity", "films with it", "films without")
    points = _table("Operating points, chosen and measured on the validation split", rows, heads)
    return points + undecided if provenance.undecided else points


def _table(caption: str, rows: Iterable[tuple], heads: tuple[str, ...] = ()) -> str:
    cells = ((str(first), (web_page.cell(str(value)) for value in values)) for first, *values in rows)
    return web_page.table(caption, cells, [(head, None) for head in heads])
