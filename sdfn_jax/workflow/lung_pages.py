"""Pages of test films as the lung region generator sees them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from sdfn_jax.lungs import box_table, contact_sheet, lung_boxes, region_page
from sdfn_jax.lungs import segmenter as lungs_segmenter
from sdfn_jax.lungs.box_table import BoxRow
from sdfn_jax.lungs.finder import LungFinder, Lungs
from sdfn_jax.metrics.evaluation import Evaluation
from sdfn_jax.radiographs import reader
from sdfn_jax.radiographs.opening import ImageFile, Unreadable
from sdfn_jax.workflow.data_stages import box_table_of

BOX_PAGES, REGION_PAGES = "lung_boxes_{}.png", "lung_regions_{}.png"
_FILMS = 27  # on a page of boxes
_ORDINARY, _OF_A_RULE = 8, 4  # on a page of regions


def draw(config: ConfigDict, films: Mapping[str, Path], evaluation: Evaluation, where: Path) -> list[str]:
    """Draws the smallest lungs, those of each rule, ordinary ones, and how their regions come about.

    Args:
      config: of the requested stage.
      films: {name: file} of the films that there are.
      evaluation: of the test split.
      where: folder of the pages.

    Returns:
      a line for each film that is left out because it cannot be read.
    """
    path = box_table_of(config)
    rows = list(box_table.read_box_table(path).values()) if path.is_file() else []
    evaluated = set(evaluation.predictions.images) & films.keys()
    examples = sorted((row for row in rows if row.image in evaluated), key=lambda row: row.lung_area)
    rules = sorted({row.rule for row in examples} - {lung_boxes.NO_RULE})
    of_rule = {rule: [row for row in examples if row.rule == rule] for rule in rules}
    segmenter = lungs_segmenter.Segmenter.load(config.lrg.workdir, config.lrg.evaluation_batch_size)
    finder = LungFinder(segmenter, lung_boxes.PostProcessing(**config.lrg.postprocessing))
    drawings = evaluation.origin.drawings
    left_out: list[str] = []

    def found(chosen: Sequence[BoxRow], page: str) -> list[Lungs]:
        lungs = list(finder.stream(ImageFile(row.image, films[row.image]) for row in chosen))
        left_out.extend(f"{page}: {film.reason}" for film in lungs if isinstance(film, Unreadable))
        return [film for film in lungs if isinstance(film, Lungs)]

    for name, chosen in ({"smallest": examples} | of_rule).items():
        page = BOX_PAGES.format(name)
        if readable := found(chosen[:_FILMS], page):
            contact_sheet.lung_box_page(readable, where / page, drawings=drawings)
    ordinary = _spread([row for row in examples if row.rule == lung_boxes.NO_RULE], _ORDINARY)
    for name, chosen in (
        ("ordinary", ordinary),
        ("rules", [row for mine in of_rule.values() for row in mine[:_OF_A_RULE]]),
    ):
        page = REGION_PAGES.format(name)
        if readable := found(chosen, page):
            pairs = [(film, reader.read_radiograph(films[film.name])) for film in readable]
            region_page.region_page(pairs, where / page, drawings=drawings)
    return left_out


def _spread(rows: Sequence[BoxRow], count: int) -> list[BoxRow]:
    """Returns as many rows at equal steps, the first and the last among them."""
    places = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))
    return [rows[place] for place in places]
