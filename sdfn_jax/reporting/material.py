"""What a report is made of: evaluated runs on the same images, and the resamples that all comparisons share."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from sdfn_jax.core.errors import UserError
from sdfn_jax.metrics import bootstrap, people, published
from sdfn_jax.metrics.evaluation import Evaluation, evaluation_folder
from sdfn_jax.metrics.people import People
from sdfn_jax.radiographs import expert_labels
from sdfn_jax.radiographs.findings import display_name
from sdfn_jax.reporting import estimates, official, runs, shift
from sdfn_jax.reporting import experts as reporting_experts
from sdfn_jax.reporting.comparable import in_table_order
from sdfn_jax.reporting.estimates import Estimate
from sdfn_jax.reporting.official import Official
from sdfn_jax.reporting.runs import Localization, Run
from sdfn_jax.reporting.shift import Elsewhere
from sdfn_jax.reporting.table_one import TableOne

SEED = 0


@dataclasses.dataclass(frozen=True)
class Material:
    """Everything the sections need.

    Attributes:
      runs: in the order of Table I.
      table: Table I of these runs.
      resamples: of the patients of the test images; one set for all comparisons.
      aucs: {stage: (K, B)}, each run's AUCs on these resamples.
      columns: {stage: (K, B)}, those of Table I's columns: of an ensemble the means over its members.
      official: None without tables.
      generators: folders of lung region generators.
      localizations: of the runs, then of other methods; all of the same images and findings.
      experts: the evaluated films that experts labelled; None without their table.
      elsewhere: the runs' networks on other data sets.
    """

    runs: list[Run]
    table: TableOne
    resamples: bootstrap.Resamples
    aucs: dict[str, np.ndarray]
    columns: dict[str, np.ndarray]
    official: Official | None
    generators: list[Path]
    localizations: list[Localization]
    experts: reporting_experts.Reference | None = None
    elsewhere: Sequence[Elsewhere] = ()

    @property
    def labels(self) -> np.ndarray:
        """(N, K) uint8 codes of `radiographs.labels`, shared by all runs."""
        return self.runs[0].test.predictions.labels

    @property
    def finding_names(self) -> list[str]:
        """The K findings' names for the reader."""
        return [display_name(name) for name in self.table.findings]

    def row_names(self, mean: str = "Mean") -> list[str]:
        """Returns the heads of rows of `estimates.with_mean`: the findings, and their mean if there are several."""
        names = self.finding_names
        return [*names, mean] if len(names) > 1 else names

    def count_column(self, counts: Iterable[int]) -> list[int | str]:
        """Returns counts by finding for the rows of `row_names`: their mean has none."""
        column = [*map(int, counts)]
        return [*column, ""] if len(column) > 1 else [*column]

    @property
    def mean_word(self) -> str:
        """What the mean over the findings is called: of one finding it is its AUC."""
        return "mean AUC" if len(self.table.findings) > 1 else "AUC"

    @property
    def mean_of(self) -> str:
        """What it is the mean of: `14 findings`, those with an AUC; or the only finding's name."""
        names, defined = self.finding_names, int(self.table.defined.sum())
        return names[0] if len(names) == 1 else f"{defined} finding{'s' * (defined != 1)}"

    @property
    def judged(self) -> Run:
        """The SDFN if it was evaluated, or else the last network of Table I."""
        return next((run for run in reversed(self.runs) if run.stage in published.TABLE_ONE), self.runs[-1])

    @property
    def reproduced(self) -> Run | None:
        """The same, if the paper has figures for it."""
        return self.judged if self.table.in_paper(self.judged.stage) else None

    @property
    def names(self) -> list[str]:
        """The networks', in the order of the runs."""
        return [run.name for run in self.runs]

    @property
    def replicates(self) -> int:
        """Of the bootstrap."""
        return self.resamples.counts.shape[1]

    @property
    def few(self) -> np.ndarray:
        """(K,) bool: findings with too few positives or negatives for a trustworthy AUC."""
        return estimates.few(self.labels)

    @functools.cached_property
    def people(self) -> People | None:
        """On the test images, in their order: from the official tables, or from the evaluation; None if unknown."""
        if self.official is not None:
            return People(self.official.sexes, self.official.ages, self.official.views)
        first = self.runs[0]
        return people.read(evaluation_folder(first.folder, "test"), first.test.predictions.images)

    def column(self, stage: str) -> list[Estimate]:
        """Returns a column of Table I: the AUC of each finding, and last their mean over the defined ones."""
        return estimates.with_mean(self.table.column(stage), self.columns[stage], self.few)

    def mean_auc(self, stage: str) -> Estimate:
        """Returns the mean AUC of a column of Table I."""
        return self.column(stage)[-1]


def gather(
    folders: Sequence[Path],
    tables: Path | None,
    others: Sequence[Path],
    replicates: int,
    experts: Path | None = None,
    external: Sequence[Path] = (),
) -> Material:
    """Reads runs and tables.

    Args:
      folders: of runs (extractors, fusion networks, lung region generators), or of several runs.
      tables: folder of the official tables; None for a report without them.
      others: folders of `localize` for other methods' heatmaps.
      replicates: of the bootstrap.
      experts: table of Google's expert labels, or its folder; None for a report without them.
      external: folders of evaluations of the same networks on other data sets.

    Raises:
      UserError: naming the run, file, row or first few images for whatever does not fit.
    """
    if replicates < 1:
        raise UserError(f"--replicates={replicates}: at least one, 2000 for figures to publish")
    networks, generators = runs.find(folders)
    found = [runs.read(folder) for folder in networks]
    if not found:
        raise UserError("no run of a classifier (entire, lung or fusion) among the folders; there is no AUC to report")
    try:
        order = in_table_order([run.test for run in found])
    except ValueError as error:
        raise UserError(str(error)) from error
    stages = [each.origin.stage for each in order]
    images = order[0].predictions.images
    found = [
        dataclasses.replace(run, test=runs.in_order(run.test, images))
        for run in sorted(found, key=lambda run: stages.index(run.stage))
    ]
    resamples = bootstrap.draw(found[0].test.predictions.patients, replicates, SEED)
    localizations = [run.localization for run in found if run.localization is not None]
    localizations += [runs.read_localization(folder) for folder in others]
    runs.check_same_cases(localizations)
    names = list(map(display_name, found[0].test.predictions.findings))
    aucs = {run.stage: _replicates(run.test, resamples) for run in found}
    return Material(
        runs=found,
        table=TableOne.of([run.test for run in found]),
        resamples=resamples,
        aucs=aucs,
        columns=aucs
        | {
            run.stage: np.mean([_replicates(member, resamples) for member in run.test.members], axis=0)
            for run in found
            if run.test.members
        },
        official=None if tables is None else official.read(tables, found[0].test),
        generators=generators,
        localizations=localizations,
        experts=None
        if experts is None
        else reporting_experts.match(expert_labels.read(experts, names), found[0].test, replicates),
        elsewhere=shift.read(external, found),
    )


def _replicates(evaluation: Evaluation, resamples: bootstrap.Resamples) -> np.ndarray:
    return bootstrap.auc_replicates(evaluation.predictions.labels, evaluation.predictions.probabilities, resamples)
