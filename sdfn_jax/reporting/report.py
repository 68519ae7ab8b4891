"""The report: one page from what the runs left on disk."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sdfn_jax.core import progress
from sdfn_jax.metrics import published

if TYPE_CHECKING:
    pass


def write_report(
    folders: Sequence[Path], output: Path, tables: Path | None, others: Sequence[Path], replicates: int
) -> Path:
    """Writes the report.

    Args:
      folders: of runs.
      output: where it goes.
      tables: folder of the official tables.
      others: folders of other methods' localization.
      replicates: of the bootstrap.

    Returns:
      the page.

    Raises:
      UserError: for runs, tables and files that do not fit, before anything is written.
    """
    from sdfn_jax.reporting import card, classification, inputs, localization, lungs, page

    gathered = inputs.gather(folders, tables, others, replicates)
    makers = (
        *(card.measured, classification.table_one, classification.roc, classification.differences),
        *(classification.calibrated, classification.thresholds, classification.by_group, classification.versions),
        *(localization.localized, localization.heatmaps, lungs.lungs, lungs.segmentation, card.model_card),
    )
    sections = [make(gathered) for make in progress.bar(makers, what="report", unit="section")]
    title = f"SDFN on chest radiographs: {', '.join(published.COLUMN_NAMES[stage] for stage in gathered.aucs)}"
    return page.write(output, title, sections)
