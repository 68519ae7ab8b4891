"""The answer to "did I reproduce the paper?", in words, computed from intervals."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

from sdfn_jax.core import run_metadata
from sdfn_jax.metrics import bootstrap, ensembles, published
from sdfn_jax.metrics import scores as metrics_scores
from sdfn_jax.reporting import estimates
from sdfn_jax.reporting.comparable import seed_texts
from sdfn_jax.reporting.estimates import Estimate
from sdfn_jax.reporting.material import Material
from sdfn_jax.reporting.runs import Run


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The answer.

    Attributes:
      answer: one sentence.
      reasons: what it rests on and what limits it, a sentence each.
    """

    answer: str
    reasons: tuple[str, ...]


def judge(material: Material) -> Verdict:
    """Judges the last network of Table I, the SDFN if it was evaluated; by the paper, if it has these findings."""
    run = material.judged
    origin, count = run.test.origin, len(material.labels)
    if origin.drawings:
        return Verdict(
            "Nothing can be concluded: these are synthetic radiographs.",
            (
                "The whole pipeline ran, from the films to this page: that is what a demo shows. Its AUCs say nothing "
                "about patients, and being above or below the paper's means nothing.",
            ),
        )
    ours, word = material.mean_auc(run.stage), material.mean_word
    if math.isnan(ours.value):
        return Verdict("Nothing can be concluded: the AUC of no finding is defined.", ())
    if not material.table.has_papers:
        patients = len(set(run.test.predictions.patients.tolist()))
        name = published.COLUMN_NAMES[run.stage]
        return Verdict(
            f"{name}: {word} of {material.mean_of} {with_interval(ours)}, on {count:,} films of {patients:,} patients.",
            tuple(_further(material, run)),
        )
    if not material.table.in_paper(run.stage):
        return Verdict(f"Not comparable with the paper, which has no {run.name}: report the SDFN as well.", ())
    paper = material.table.papers_mean(run.stage)
    compared = f"{published.COLUMN_NAMES[run.stage]}: {word} {with_interval(ours)}, the paper's is {paper:.3f}."
    if not is_papers_test(material):
        return Verdict(
            f"Not comparable with the paper: {count:,} images of split {origin.split} under labels "
            f"{origin.label_version}, not the {published.TEST_IMAGES:,} of the official test list under 2017.",
            (f"For orientation only, {compared}", *_further(material, run)),
        )
    if ours.low <= paper <= ours.high:
        answer = f"Yes: the paper's {word} of {paper:.3f} is within the 95 % interval of ours, {with_interval(ours)}."
    elif ours.value > paper:
        answer = f"Yes, and better: our {word} is {with_interval(ours)}, above the paper's {paper:.3f}."
    else:
        answer = f"No: our {word} is {with_interval(ours)}, below the paper's {paper:.3f}."
    return Verdict(answer, tuple(_further(material, run)))


def is_papers_test(material: Material) -> bool:
    """Returns whether the networks were evaluated on as many images, and under the labels, as the paper's."""
    origin = material.runs[0].test.origin
    return (origin.split, origin.label_version, len(material.labels)) == ("test", "2017", published.TEST_IMAGES)


def less_paper(ours: Estimate, paper: float) -> Estimate:
    """Returns how much higher ours is than the paper's figure, which has no interval of its own."""
    return Estimate(ours.value - paper, ours.low - paper, ours.high - paper, ours.few, signed=True)


def with_interval(estimate: Estimate, form: str = ".3f") -> str:
    """Returns a number with its interval, in a sentence."""
    if math.isnan(estimate.low):
        return f"{estimate.value:{form}}"
    return f"{estimate.value:{form}} ({estimate.low:{form}} to {estimate.high:{form}})"


def _further(material: Material, run: Run) -> Iterator[str]:
    if estimates.mean_is_few(material.few):
        few = "few positives or negatives"
        yield (
            f"SMALL SAMPLE: {few}; the AUC is uncertain."
            if len(material.finding_names) == 1
            else f"SMALL SAMPLE: most findings have {few}; no mean of them is worth much."
        )
    yield from _gains(material, run)
    if material.table.has_papers:
        yield from _findings(material, run)
    if run.stage != "fusion":
        yield f"The fusion network was not evaluated: this is about {run.name} alone."
    if material.table.has_papers and (others := _other_recipe(run.recipe)):
        yield f"Trained by another recipe than the paper's: {others}."
    yield _trainings(material, run)
    for other in material.runs:
        if other.stage not in published.TABLE_ONE and other is not run:
            gain = with_interval(_gain(material, other, run), "+.3f")
            own = with_interval(material.mean_auc(other.stage))
            yield f"{other.name}, which the paper has not: {material.mean_word} {own}, {gain} over {run.name}."


def _trainings(material: Material, run: Run) -> str:
    """Returns how many trainings the figure is of, and what is known of their variation."""
    origin, word = run.test.origin, material.mean_word
    if run.stage in material.table.members:
        each = material.table.of_seeds(run.stage)
        own = metrics_scores.mean_auc(material.table.aucs[run.stage])[0]
        return (
            f"{len(each)} trainings (seeds {', '.join(seed_texts(origin))}): our figure is the mean of their {word}s, "
            f"{each.min():.3f} to {each.max():.3f}, standard deviation {ensembles.spread(each):.4f}; the interval is "
            f"over patients. Their ensemble has {own:.3f}."
        )
    if origin.seed is None:
        return "Its weights were trained elsewhere."
    return (
        f"One training (seed {origin.seed}): the interval is over patients; another seed would move the "
        f"{'mean' if len(material.finding_names) > 1 else 'AUC'} too."
    )


def _gains(material: Material, run: Run) -> Iterator[str]:
    """The paper's claim: the fusion is better than either of its extractors."""
    if run.stage != "fusion":
        return
    for other in (each for each in material.runs if each.stage in ("entire", "lung")):
        gain = _gain(material, run, other)
        if gain.low > 0:
            said = "holds"
        elif gain.high < 0:
            said = "does not hold"
        else:
            said = "is not shown: the interval includes 0"
        yield f"That fusion beats {published.COLUMN_NAMES[other.stage]} {said}: {with_interval(gain, '+.3f')}."


def _gain(material: Material, run: Run, other: Run) -> Estimate:
    """Returns by how much a network's mean AUC is higher than another's, on the same resamples."""
    replicates = [bootstrap.mean_replicates(material.columns[each.stage]) for each in (run, other)]
    values = [material.table.mean(each.stage) for each in (run, other)]
    return estimates.estimate(values[0] - values[1], bootstrap.interval(replicates[0] - replicates[1]), False)


def _findings(material: Material, run: Run) -> Iterator[str]:
    names = material.finding_names
    ours = material.column(run.stage)[: len(names)]
    papers = material.table.published(published.TABLE_ONE[run.stage])
    known = [
        (name, each, paper) for name, each, paper in zip(names, ours, papers, strict=True) if not math.isnan(each.low)
    ]
    outside = [(name, each, paper) for name, each, paper in known if not each.low <= paper <= each.high]
    said = ", ".join(f"{name} ({each.value:.3f}, paper {paper:.3f})" for name, each, paper in outside)
    inside = f"The paper's AUC is within our interval for {len(known) - len(outside)} of {len(known)} findings"
    yield f"{inside}; not for {said}." if outside else f"{inside}."


def _other_recipe(recipe: Mapping[str, Any] | None) -> str:
    """Returns the numbers of a network's recipe that differ from the paper's; empty if none does, or if unknown."""
    if recipe is None or run_metadata.is_imported(recipe):
        return ""
    config = recipe["config"]
    found = {name: config.get(name) for name in published.RECIPE} | {"size": config.get("data", {}).get("size")}
    return ", ".join(
        f"{name} {found[name]:g} (the paper's: {value:g})"
        for name, value in published.RECIPE.items()
        if isinstance(found[name], int | float) and found[name] != value
    )
