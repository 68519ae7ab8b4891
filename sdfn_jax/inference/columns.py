"""The columns of `predictions.csv`, which are also those of the table that the page of findings hands out. No JAX."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from sdfn_jax.inference.prediction import Provenance
from sdfn_jax.radiographs.dicom_identifiers import KEPT

_FINDING = "_X"  # at the end of a column's name: one for each finding
_NO_FINDINGS = "findings"
_SPREAD = "spread_X"


def _lung(row: Mapping, edge: int) -> int | str:
    return row["lung_box"][edge] if row["lung_box"] else ""


def _number(value: float | None) -> float | str:
    return "" if value is None else value


def _decision(row: Mapping, finding: str) -> str:
    point = row["decisions"].get(finding)
    return "undecided" if point is None else "positive" if point["positive"] else "negative"


def _identifier(name: str) -> Callable[[Mapping], str]:
    return lambda row: row.get(name, "")


# In order: name, meaning, value from a line of predictions.jsonl (`outputs.row`). `_X` stands for each finding, in
# their order; its value is also given the finding. Identifiers are columns only with --keep_identifiers; `findings` is
# one only without a classifier, when no finding has any; `spread_X` are columns only of an ensemble.
PREDICTION_COLUMNS: tuple[tuple[str, str, Callable[..., object]], ...] = (
    ("image", "its path below the folder that was given, or its file's name", lambda row: row["image"]),
    ("width", "of the image, in pixels", lambda row: row["width"]),
    ("height", "of the image, in pixels", lambda row: row["height"]),
    ("flags", "what looks wrong with it, joined by +; empty for an ordinary one", lambda row: "+".join(row["flags"])),
    ("fixes", "corrections asked for and applied, joined by +", lambda row: "+".join(row["fixes"])),
    ("lung_left", "first column of the lung box; empty without a lung region generator", lambda row: _lung(row, 0)),
    ("lung_top", "first row of the lung box", lambda row: _lung(row, 1)),
    ("lung_right", "the column after its last one", lambda row: _lung(row, 2)),
    ("lung_bottom", "the row after its last one", lambda row: _lung(row, 3)),
    ("rule", "rules of B.2.2 that fired, joined by +", lambda row: row["rule"]),
    ("lung_area", "share of the image that is lung, 0 to 1", lambda row: _number(row["lung_area"])),
    (
        "confidence",
        "of the lung mask: the Dice coefficient that it is expected to have, 0 to 1",
        lambda row: _number(row["confidence"]),
    ),
    *((name, "of the DICOM header, empty if it has none", _identifier(name)) for name in KEPT),
    ("probability_X", "0 to 1", lambda row, finding: row["probabilities"][finding]),
    (
        _SPREAD,
        "standard deviation of the probability over an ensemble's members",
        lambda row, finding: row["spread"][finding],
    ),
    ("calibrated_X", "0 to 1; empty if not calibrated", lambda row, finding: _number(row["calibrated"][finding])),
    (
        "decision_X",
        "positive or negative at the operating point (`thresholds`), or undecided (`undecided` says why)",
        _decision,
    ),
    (_NO_FINDINGS, "that there are none", lambda row: "none: no classifier was given"),
)


@dataclasses.dataclass(frozen=True)
class Columns:
    """The columns of one table.

    Attributes:
      findings: of the network; empty without a classifier.
      meanings: {name: meaning}, `_X` standing for each finding.
      of_images: {name: function from a line of predictions.jsonl to its value}.
      of_findings: {name without `_X`: function from such a line and a finding to its value}.
    """

    findings: tuple[str, ...]
    meanings: Mapping[str, str]
    of_images: Mapping[str, Callable[[Mapping], object]]
    of_findings: Mapping[str, Callable[[Mapping, str], object]]

    @property
    def header(self) -> list[str]:
        """The names, those of one finding next to each other."""
        return [*self.of_images, *(f"{name}_{finding}" for finding in self.findings for name in self.of_findings)]

    def cells(self, row: Mapping) -> list[object]:
        """Returns the values of the columns that are not of a finding."""
        return [value(row) for value in self.of_images.values()]

    def by_finding(self, row: Mapping) -> dict[str, list[object]]:
        """Returns {name without `_X`: value for each finding}."""
        return {name: [value(row, finding) for finding in self.findings] for name, value in self.of_findings.items()}

    def values(self, row: Mapping) -> list[object]:
        """Returns the values of all columns, in the order of `header`."""
        of_findings = self.by_finding(row)
        return self.cells(row) + [each[index] for index in range(len(self.findings)) for each in of_findings.values()]


def columns(provenance: Provenance, identifiers: Sequence[str] = ()) -> Columns:
    """Returns the columns of a table.

    Args:
      provenance: of its rows; decides which findings they have, and whether those have a spread.
      identifiers: the names, of `KEPT`, that its rows hold.
    """

    def belongs(name: str) -> bool:
        if name in KEPT:
            return name in identifiers
        if name == _SPREAD:
            return bool(provenance.members)
        return name != _NO_FINDINGS if provenance.findings else _FINDING not in name

    chosen = [column for column in PREDICTION_COLUMNS if belongs(column[0])]
    return Columns(
        findings=tuple(provenance.findings),
        meanings={name: meaning for name, meaning, _ in chosen},
        of_images={name: value for name, _, value in chosen if not name.endswith(_FINDING)},
        of_findings={name.removesuffix(_FINDING): value for name, _, value in chosen if name.endswith(_FINDING)},
    )
