"""Pools the test films of cross-validation: networks of several runs, each tested on another part of one data set.

python -m tools.folds runs/fold_0 runs/fold_1 ...

Each folder is one run of configs/fusion.py, with its networks in entire, lung and fusion. AUCs are of pairs of films
that one and the same network read: scores of different networks are not on one scale. Intervals and p resample
patients within each fold, 2,000 times, the same for all networks. Calibration is of all films together.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sdfn_jax.core import errors, sealed
from sdfn_jax.metrics import bootstrap, reliability, scores, subgroups
from sdfn_jax.metrics.evaluation import evaluation_folder, read_evaluation
from sdfn_jax.metrics.predictions import Predictions

NETWORKS = ("entire", "lung", "fusion")
REPLICATES, SEED = 2000, 0


def read(runs: Sequence[Path]) -> list[dict[str, Predictions]]:
    """Returns the predictions of each fold: {network: of its test films}.

    Raises:
      errors.UserError: if an evaluation is missing or damaged, networks of one fold were tested on different films or
        labels, or a film was tested twice.
    """
    folds, seen = [], {}
    for run in runs:
        try:
            fold = {name: read_evaluation(evaluation_folder(run / name, "test")).predictions for name in NETWORKS}
        except FileNotFoundError as error:
            raise errors.UserError(f"{error.filename} is missing; train and evaluate all networks of {run}") from error
        except sealed.DamagedError as error:
            raise errors.UserError(str(error)) from error
        first = fold[NETWORKS[0]]
        for name, other in fold.items():
            same = (first.images, first.findings) == (other.images, other.findings)
            if not same or not np.array_equal(first.labels, other.labels):
                raise errors.UserError(f"{run}: {NETWORKS[0]} and {name} were tested on different films or labels")
        if folds and first.findings != folds[0][NETWORKS[0]].findings:
            raise errors.UserError(f"{run}: findings {', '.join(first.findings)}, not those of {runs[0]}")
        for image in first.images:
            if image in seen:
                raise errors.UserError(f"{image} is a test film of {seen[image]} and of {run}: folds share no films")
            seen[image] = run
        folds.append(fold)
    return folds


def auc_replicates(folds: Sequence[dict[str, Predictions]], network: str, finding: int) -> np.ndarray:
    """Returns the AUC within folds, (1 + `REPLICATES`,): on the films themselves, then on resamples of patients."""
    pairs = {}
    for number, fold in enumerate(folds):
        found = fold[network]
        draws = bootstrap.with_itself(bootstrap.draw(found.patients, REPLICATES, SEED + number))
        pairs[str(number)] = bootstrap.auc_pairs(found.labels[:, finding], found.probabilities[:, finding], draws)
    return subgroups.within(pairs)


def lines(folds: Sequence[dict[str, Predictions]]) -> list[str]:
    """Returns the tables of all findings, as Markdown."""
    return [
        line
        for finding, name in enumerate(folds[0][NETWORKS[0]].findings)
        for line in _of_finding(folds, finding, name)
    ]


def _of_finding(folds, finding, name):
    aucs = {network: auc_replicates(folds, network, finding) for network in NETWORKS}
    labels = np.concatenate([fold[NETWORKS[0]].labels[:, finding] for fold in folds])
    present, absent = scores.counts(labels)
    yield f"{name}: {present} present, {absent} absent; folds: {len(folds)}\n"
    yield "| network | AUC (95 % interval) | of each fold | calibration error | Brier score |\n|---|---|---|---|---|"
    for network in NETWORKS:
        of_folds = [fold[network].probabilities[:, finding] for fold in folds]
        each = [
            scores.auc(*scores.known_only(fold[network].labels[:, finding], values))
            for fold, values in zip(folds, of_folds, strict=True)
        ]
        probabilities = np.concatenate(of_folds)
        known, probabilities = scores.known_only(labels, probabilities)
        error = reliability.curve(known, probabilities).error
        brier = reliability.brier(known, probabilities)
        yield f"| {network} | {_said(aucs[network])} | {', '.join(f'{auc:.3f}' for auc in each)} | " + (
            f"{error:.3f} | {brier:.3f} |"
        )
    yield "\n| difference | AUC (95 % interval) | p |\n|---|---|---|"
    for second, first in itertools.combinations(NETWORKS, 2):
        differences = aucs[first] - aucs[second]
        p = bootstrap.p_value(differences[1:])
        yield f"| {first} less {second} | {_said(differences, '+')} | {p:.3f} |"
    yield ""


def _said(replicates, sign=""):
    low, high = bootstrap.interval(replicates[1:])
    return f"{replicates[0]:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    options = parser.parse_args()
    print("\n".join(lines(read(options.runs))))


if __name__ == "__main__":
    errors.run_as_process(main)
