"""A second reference: the same predictions under the labels that experts gave to some of the films."""

import dataclasses
import textwrap
from collections.abc import Sequence

import numpy as np

from sdfn_jax.core.arguments import REPORT_REPLICATES
from sdfn_jax.core.errors import UserError
from sdfn_jax.metrics import bootstrap, published
from sdfn_jax.metrics import scores as metrics_scores
from sdfn_jax.metrics.evaluation import SMALL_SAMPLE, Evaluation
from sdfn_jax.radiographs.expert_labels import ExpertLabels
from sdfn_jax.radiographs.labels import PRESENT, known
from sdfn_jax.reporting import estimates
from sdfn_jax.reporting.estimates import Estimate

CHOSEN = (
    "These films were chosen by those who had them read; they are no random sample of the test list. Figures on them "
    "compare with each other, not with figures on all films."
)
_SEED = 0
_WIDTH = 100  # characters


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """The evaluated films that experts labelled, and their labels under both references.

    Attributes:
      experts: the tables.
      places: (N,) int, of the films in the evaluation.
      own: (N, C) uint8, the data set's labels, codes of `radiographs.labels`.
      theirs: (N, C) uint8, the experts'.
      patients: (N,).
      resamples: of these patients.
    """

    experts: ExpertLabels
    places: np.ndarray
    own: np.ndarray
    theirs: np.ndarray
    patients: np.ndarray
    resamples: bootstrap.Resamples

    @property
    def both(self) -> np.ndarray:
        """(N, C) bool: labels that are known to both references; only these count."""
        return known(self.own) & known(self.theirs)

    @property
    def positives(self) -> tuple[np.ndarray, np.ndarray]:
        """(C,) int each: positives of the data set's labels, and of the experts'."""
        own, theirs = (((labels == PRESENT) & self.both).sum(axis=0) for labels in (self.own, self.theirs))
        return own, theirs

    @property
    def hits(self) -> np.ndarray:
        """(C,) int: films that both references call positive."""
        return ((self.own == PRESENT) & (self.theirs == PRESENT)).sum(axis=0)

    def describe(self) -> str:
        """Returns how many films there are, in a sentence."""
        return (
            f"{len(self.places):,} of the {len(self.experts.images):,} films in {self.experts.path.name} were "
            f"evaluated, of {len(np.unique(self.patients)):,} patients."
        )


@dataclasses.dataclass(frozen=True)
class Scores:
    """A network under both references: for each finding and, if there are several, last for their mean.

    The mean is over the findings whose AUC is defined under both.

    Attributes:
      own: AUC under the data set's labels.
      theirs: AUC under the experts'.
      differences: the experts' less the data set's, on the same resamples.
      findings: number of findings in the mean.
    """

    own: list[Estimate]
    theirs: list[Estimate]
    differences: list[Estimate]
    findings: int


def match(experts: ExpertLabels, evaluation: Evaluation, replicates: int) -> Reference:
    """Finds the evaluated films that experts labelled.

    Args:
      experts: with the findings of the evaluation, in their order.
      evaluation: of any split.
      replicates: of the bootstrap.

    Raises:
      UserError: if none of them was evaluated.
    """
    predictions = evaluation.predictions
    rows = {image: row for row, image in enumerate(experts.images)}
    places = np.array([place for place, image in enumerate(predictions.images) if image in rows], int)
    if not places.size:
        raise UserError(
            f"{experts.path}: none of its {len(experts.images):,} films, such as {experts.images[0]}, is among the "
            f"{len(predictions.images):,} that were evaluated (split {evaluation.origin.split})"
        )
    patients = predictions.patients[places]
    return Reference(
        experts,
        places,
        predictions.labels[places],
        experts.labels[[rows[predictions.images[place]] for place in places]],
        patients,
        bootstrap.draw(patients, replicates, _SEED),
    )


def score(reference: Reference, probabilities: np.ndarray) -> Scores:
    """Scores a network under both references.

    Args:
      reference: N films.
      probabilities: (M, C) of all evaluated films.
    """
    mine = probabilities[reference.places]
    (own, own_replicates), (theirs, their_replicates) = (
        _aucs(labels, mine, reference) for labels in (reference.own, reference.theirs)
    )
    defined = ~np.isnan(own) & ~np.isnan(theirs)
    rare = _rare(reference)
    differences = theirs - own, their_replicates - own_replicates

    def with_mean(values: np.ndarray, replicates: np.ndarray, *, signed: bool = False) -> list[Estimate]:
        # The mean's replicates are over the same findings as its value.
        each = estimates.with_mean(values, replicates, rare)[: len(values)]
        if len(each) == 1:
            return [dataclasses.replace(each[0], signed=signed)]
        if defined.any():
            mean = estimates.with_mean(values[defined], replicates[defined], rare[defined])[-1]
        else:
            mean = estimates.without_interval(float("nan"), rare=False)
        return [dataclasses.replace(one, signed=signed) for one in (*each, mean)]

    return Scores(
        with_mean(own, own_replicates),
        with_mean(theirs, their_replicates),
        with_mean(*differences, signed=True),
        int(defined.sum()),
    )


def text(labelled: ExpertLabels, evaluations: Sequence[Evaluation], names: Sequence[str]) -> str:
    """Lays out the networks' AUCs under both references for a terminal.

    Args:
      labelled: the experts' table.
      evaluations: of networks, on the same split.
      names: of the findings, as people write them.

    Raises:
      UserError: as `match`.
    """
    references = [match(labelled, each, REPORT_REPLICATES) for each in evaluations]
    lines = textwrap.wrap(f"{references[0].describe()} {CHOSEN}", _WIDTH)
    left = max(map(len, (*names, "Mean of 14")))
    for reference, evaluation in zip(references, evaluations, strict=True):
        origin = evaluation.origin
        name, version = published.COLUMN_NAMES[origin.stage], f"AUC, {origin.label_version}"
        head = f"{name:<{left}}  {'positives':>9}  {'experts':>7}  {version:>10}  {'experts':>9}  difference"
        lines += ["", head, "-" * (len(head) + 14)]
        scores = score(reference, evaluation.predictions.probabilities)
        rows = [*names, f"Mean of {scores.findings}"][: len(scores.own)]
        counts = [*zip(*reference.positives, strict=True), ("", "")][: len(rows)]
        columns = (counts, scores.own, scores.theirs, scores.differences)
        for finding, (own, theirs), *aucs in zip(rows, *columns, strict=True):
            shown = "  ".join(f"{estimates.number(each):>{width}}" for each, width in zip(aucs, (10, 9), strict=False))
            difference = estimates.number(aucs[-1], interval=True)
            lines.append(f"{finding:<{left}}  {own:>9}  {theirs:>7}  {shown}  {difference}")
    return "\n".join([*lines, ""])


def _aucs(labels: np.ndarray, scores: np.ndarray, reference: Reference) -> tuple[np.ndarray, np.ndarray]:
    """Returns the AUC of each finding over the films that both references know, (C,), and on the resamples, (C, B)."""
    values, replicates = [], []
    for finding, chosen in enumerate(reference.both.T):
        columns = labels[chosen, finding], scores[chosen, finding]
        values.append(metrics_scores.auc(*columns))
        resamples = bootstrap.Resamples(reference.resamples.patients[chosen], reference.resamples.counts)
        replicates.append(bootstrap.ratio(*bootstrap.auc_pairs(*columns, resamples)))
    return np.array(values), np.stack(replicates)


def _rare(reference: Reference) -> np.ndarray:
    """Returns (C,) bool: too few positives or negatives under either reference."""
    films = reference.both.sum(axis=0)
    counts = np.stack([each for positives in reference.positives for each in (positives, films - positives)])
    return counts.min(axis=0) < SMALL_SAMPLE
