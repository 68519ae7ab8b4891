"""One network on several data sets: what changes from the one it was tested on to another, with intervals."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sdfn_jax.core.errors import UserError
from sdfn_jax.metrics import bootstrap, calibration, people, published, subgroups
from sdfn_jax.metrics.evaluation import EVALUATION_FILE, Evaluation, read_evaluation
from sdfn_jax.metrics.people import People
from sdfn_jax.metrics.predictions import Predictions
from sdfn_jax.radiographs.labels import PRESENT, known
from sdfn_jax.reporting import estimates
from sdfn_jax.reporting.estimates import Estimate
from sdfn_jax.reporting.runs import Run

INDEPENDENT = (
    "The data sets are independent samples: the patients of each are resampled by themselves, and the interval of a "
    "difference is that of the differences between the replicates of the two, in the order they were drawn."
)
AUC, PREVALENCE = "AUC", "prevalence"
BRIER, EXCESS = "Brier score", "predicted less observed"
_SEED = 1  # other draws than those of the test split, which are of seed 0


@dataclasses.dataclass(frozen=True, eq=False)
class Elsewhere:
    """A network's evaluation on another data set than its test split.

    Attributes:
      run: of the network.
      name: of the data set and split.
      evaluation: of the run's checkpoint.
      people: on its images; None if unknown.
    """

    run: Run
    name: str
    evaluation: Evaluation
    people: People | None


@dataclasses.dataclass(frozen=True)
class Change:
    """A measure here and elsewhere.

    Attributes:
      measure: its name.
      finding: index of the finding; None for the mean over findings.
      here: on the test split.
      there: on the other data set.
      difference: there less here.
    """

    measure: str
    finding: int | None
    here: Estimate
    there: Estimate
    difference: Estimate


def read(folders: Sequence[Path], runs: Sequence[Run]) -> list[Elsewhere]:
    """Reads evaluations of the runs' checkpoints on other data sets.

    Args:
      folders: that `evaluate --output` wrote: of an evaluation, or of several, one for each stage.
      runs: whose checkpoints they must be of.

    Raises:
      UserError: for a folder without an evaluation, one that is damaged, of a checkpoint of none of the runs, given
        twice, or of a sample that is not independent of the test split.
    """
    found: list[Elsewhere] = []
    for folder in folders:
        places = [path.parent for path in sorted(folder.glob(f"*/{EVALUATION_FILE}"))]
        if (folder / EVALUATION_FILE).is_file():
            places.insert(0, folder)
        if not places:
            raise UserError(
                f"--external={folder}: no {EVALUATION_FILE} in it or in a folder of it; sdfn evaluate "
                f"--output={folder} writes them"
            )
        found += [_read(place, runs) for place in places]
    keys = [(each.name, each.run.stage) for each in found]
    for name, stage in keys:
        if keys.count((name, stage)) > 1:
            raise UserError(
                f"--external: {keys.count((name, stage))} evaluations of stage {stage!r} on {name}; give one"
            )
    return sorted(found, key=lambda each: (each.name, list(published.COLUMN_NAMES).index(each.run.stage)))


def _read(folder: Path, runs: Sequence[Run]) -> Elsewhere:
    try:
        evaluation = read_evaluation(folder)
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    origin = evaluation.origin
    run = next((each for each in runs if each.test.origin.checkpoint == origin.checkpoint), None)
    if run is None:
        raise UserError(
            f"--external={folder}: of checkpoint {origin.checkpoint[:12]} (stage {origin.stage}), which is that of "
            f"none of the runs ({', '.join(str(each.folder) for each in runs)})"
        )
    same = run.test.origin.data_version.partition("/")[0] == origin.data_version.partition("/")[0]
    here, there = (
        set(zip(each.images, each.patients.tolist(), strict=True))
        for each in (run.test.predictions, evaluation.predictions)
    )
    if same and (shared := sorted(image for image, _ in here & there)):  # another set may have equal names by chance
        raise UserError(
            f"--external={folder}: {len(shared)} of its images are in the test split too, such as "
            f"{', '.join(shared[:3])}; the samples must be independent"
        )
    return Elsewhere(
        run,
        f"{origin.data_version}, {origin.split}",
        evaluation,
        people.read(folder, evaluation.predictions.images),
    )


def changes(elsewhere: Elsewhere, resamples: bootstrap.Resamples) -> list[Change]:
    """Computes what changes for a network: for each measure the mean over findings, then each finding.

    AUC, prevalence; Brier score and excess of the probabilities, calibrated by the scaling of the validation
    split for the findings that have one; sensitivity and specificity at the threshold that was chosen on it. A mean is
    over the findings for which both data sets define the measure.

    Args:
      elsewhere: on one other data set.
      resamples: of the patients of the test split.
    """
    here, there = elsewhere.run.test.predictions, elsewhere.evaluation.predictions
    samples = bootstrap.with_itself(resamples), _drawn(there, resamples)
    record = elsewhere.run.calibration
    fitted = [None] * here.labels.shape[1] if record is None else list(record.findings.values())
    measured = [
        [_measures(each, sample, index, calibrated) for index, calibrated in enumerate(fitted)]
        for each, sample in zip((here, there), samples, strict=True)
    ]
    rare = estimates.few(here.labels) | estimates.few(there.labels)
    found = []
    for measure in measured[0][0]:
        mine, its = (np.stack([each[measure] for each in of_set]) for of_set in measured)  # (C, 1 + B)
        defined = ~np.isnan(mine[:, 0]) & ~np.isnan(its[:, 0])
        if defined.any():
            means = (bootstrap.mean_replicates(each[defined]) for each in (mine, its))
            found.append(_change(measure, None, *means, few=estimates.mean_is_few(rare[defined])))
        found += [_change(measure, index, mine[index], its[index], few=bool(rare[index])) for index in range(len(rare))]
    return found


def mix(here: People, there: People, elsewhere: Elsewhere, resamples: bootstrap.Resamples) -> list[Change]:
    """Computes how the shares of the sexes, ages and views change.

    Args:
      here: on the images of the test split.
      there: on those of the other data set.
      elsewhere: any network on it.
      resamples: of the patients of the test split.
    """
    samples = bootstrap.with_itself(resamples), _drawn(elsewhere.evaluation.predictions, resamples)
    mine, its = (subgroups.groups(each.sexes, each.ages, each.views) for each in (here, there))
    found = []
    for attribute, names in subgroups.NAMES.items():
        for name in (name for name in names if name in mine[attribute] or name in its[attribute]):
            shares = [
                bootstrap.ratio(
                    bootstrap.sums(groups[attribute].get(name, np.zeros(len(sample.patients))), sample), sample.images
                )
                for groups, sample in zip((mine, its), samples, strict=True)
            ]
            found.append(_change(f"share of {attribute} {name}", None, *shares, few=False))
    return found


def _drawn(predictions: Predictions, like: bootstrap.Resamples) -> bootstrap.Resamples:
    return bootstrap.with_itself(bootstrap.draw(predictions.patients, like.counts.shape[1], _SEED))


def _measures(
    predictions: Predictions, resamples: bootstrap.Resamples, index: int, calibrated: calibration.Calibrated | None
) -> dict[str, np.ndarray]:
    """Returns {measure: (B,)} of a finding on each resample; only images whose label is known count."""
    sure = known(predictions.labels[:, index])
    positive = predictions.labels[sure, index] == PRESENT
    scores = predictions.probabilities[sure, index]
    mine = bootstrap.Resamples(resamples.patients[sure], resamples.counts)
    scaling = None if calibrated is None else calibrated.scaling
    probabilities = scores if scaling is None else scaling(scores)
    excess = probabilities - positive
    found = {
        AUC: bootstrap.ratio(*bootstrap.auc_pairs(positive, scores, mine)),
        PREVALENCE: bootstrap.ratio(bootstrap.sums(positive, mine), mine.images),
        BRIER: bootstrap.ratio(bootstrap.sums(excess**2, mine), mine.images),
        EXCESS: bootstrap.ratio(bootstrap.sums(excess, mine), mine.images),
    }
    threshold = None if calibrated is None else calibrated.threshold
    called = scores >= (np.nan if threshold is None else threshold.probability)
    for measure, hits, of in (("sensitivity", called, positive), ("specificity", ~called, ~positive)):
        share = bootstrap.ratio(bootstrap.sums(hits & of, mine), bootstrap.sums(of, mine))
        found[measure] = np.full_like(share, np.nan) if threshold is None else share
    return found


def _change(measure: str, finding: int | None, here: np.ndarray, there: np.ndarray, *, few: bool) -> Change:
    """Returns a measure's change: (1 + B,) each, the value on the sample first, then those on its resamples."""
    mine, its, difference = (
        estimates.estimate(each[0], bootstrap.interval(each[1:]), few) for each in (here, there, there - here)
    )
    return Change(measure, finding, mine, its, dataclasses.replace(difference, signed=True))
