"""The report: one page from what the runs left on disk."""

from collections.abc import Sequence
from pathlib import Path

from sdfn_jax.core import progress
from sdfn_jax.core.files import folder_locked
from sdfn_jax.reporting import material, page
from sdfn_jax.reporting.comparable import measured_on
from sdfn_jax.reporting.sections import (
    calibration,
    discrimination,
    experts,
    groups,
    heatmap_checks,
    localization,
    lungs,
    provenance,
    seeds,
    shift,
    summary,
    thresholds,
)

SECTIONS = (
    *(summary.reproduced, summary.training, provenance.measured),
    *(discrimination.table_one_section, seeds.seeds, discrimination.roc, discrimination.differences),
    calibration.calibration_section,
    thresholds.thresholds,
    *(groups.subgroups_section, groups.label_versions, experts.expert_labels, shift.other_data_sets),
    *(localization.localization_section, localization.heatmaps, heatmap_checks.heatmap_checks),
    *(lungs.lung_regions, lungs.segmentation),
    provenance.model_card,
)


def write_report(
    folders: Sequence[Path],
    output: Path | None,
    tables: Path | None,
    others: Sequence[Path],
    replicates: int,
    expert_labels: Path | None = None,
    external: Sequence[Path] = (),
) -> Path:
    """Writes the report.

    Args:
      folders: of runs, or of several runs.
      output: where it goes; None for `results` in the folder of the last network of Table I.
      tables: folder of the official tables; None for a report without them.
      others: folders of other methods' localization.
      replicates: of the bootstrap.
      expert_labels: table of Google's expert labels, or its folder; None for a report without them.
      external: folders of evaluations of the same networks on other data sets.

    Returns:
      the page.

    Raises:
      UserError: for runs, tables and files that do not fit, before anything is written; if another command is
        writing to `output`.
    """
    found = material.gather(folders, tables, others, replicates, expert_labels, external)
    output = found.runs[-1].results if output is None else output
    with folder_locked(output):
        sections = [make(found) for make in progress.bar(SECTIONS, what="report", unit="section", stays=False)]
        kind = "synthetic radiographs: a demo" if found.runs[0].test.origin.drawings else "chest radiographs"
        subtitle = "; ".join([", ".join(found.names), *measured_on([run.test for run in found.runs])[:-1]])
        return page.write(output, f"SDFN on {kind}", subtitle, sections)
