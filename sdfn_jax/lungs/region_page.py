"""Pages of lung regions as the paper shows them (Figures 3, 4, 6, 7): original, lungs and boxes, the region itself."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sdfn_jax.core import palette
from sdfn_jax.core.files import appears_when_complete
from sdfn_jax.lungs import contact_sheet, lung_boxes
from sdfn_jax.lungs.contact_sheet import GAP, LINE, SIDE
from sdfn_jax.lungs.finder import Lungs
from sdfn_jax.lungs.lung_boxes import LungRegion, PostProcessing

_BARE = PostProcessing(margin_top=0, margin_left=0, margin_right=0, margin_bottom=0)
_PARTS = ("original", "lungs and boxes", "lung region")
_FILMS_A_ROW = 2
_WIDTH = len(_PARTS) * (SIDE + GAP) + 3 * GAP  # of a film


def region_page(films: Sequence[tuple[Lungs, np.ndarray]], path: str | Path, *, drawings: bool) -> None:
    """Draws films on one PNG page, two in a row, each three times.

    The radiograph; the radiograph with the outlines of `contact_sheet.film_picture`, the box before it is widened
    (thin) and the lung box; and the lung region, cut from the radiograph at full resolution.

    Args:
      films: at least one: its lungs, and the radiograph, (H, W) uint8.
      path: the page.
      drawings: whether the films are synthetic; the page then says so.
    """
    columns = min(_FILMS_A_ROW, len(films))
    height = SIDE + 2 * LINE + GAP
    page = Image.new(
        "RGB", (columns * _WIDTH + GAP, -(-len(films) // columns) * height + 2 * LINE + 3 * GAP), palette.SHEET_PAPER
    )
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=13)
    legend = (*contact_sheet.LEGEND, ("box before widening", palette.SHEET_TEXT))
    contact_sheet.write_legend(draw, font, legend, drawings=drawings)
    for column in range(columns):
        for place, part in enumerate(_PARTS):
            at = (GAP + column * _WIDTH + place * (SIDE + GAP), LINE + 2 * GAP)
            draw.text(at, part, palette.SHEET_TITLE, font)
    for index, (film, radiograph) in enumerate(films):
        x, y = GAP + index % columns * _WIDTH, 2 * LINE + 3 * GAP + index // columns * height
        for place, picture in enumerate(_pictures(film, radiograph)):
            left = x + place * (SIDE + GAP) + (SIDE - picture.width) // 2
            page.paste(picture, (left, y + (SIDE - picture.height) // 2))
        rule = "no rule" if film.rule == lung_boxes.NO_RULE else film.rule
        draw.text((x, y + SIDE), contact_sheet.shortened(film.name, draw, font), palette.SHEET_TEXT, font)
        draw.text((x, y + SIDE + LINE), rule, palette.SHEET_TEXT, font)
    with appears_when_complete(path) as unfinished:
        page.save(unfinished)


def before_widening(region: LungRegion, size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """Returns the bounding box of the lungs, after all rules and before the margins (B.2.2, step 4).

    Args:
      region: of a radiograph.
      size: (height, width) of its file.

    Returns:
      (left, top, right, bottom) in pixels of the file; None if the whole image was taken.
    """
    rules = region.rule.split("+")
    lungs = lung_boxes.mirror(region.kept) if "mirror" in rules else region.kept
    box = None if "whole_image" in rules else lung_boxes.bounding_box(lungs)
    return None if box is None else lung_boxes.widen_and_scale(box, lungs.shape, size, _BARE)


def _pictures(film: Lungs, radiograph: np.ndarray) -> list[Image.Image]:
    left, top, right, bottom = film.box
    found = contact_sheet.film_picture(film)
    tight = before_widening(film.region, film.size)
    if tight is not None:
        scale = SIDE / max(film.size)
        edges = [round(edge * scale) for edge in tight]
        box = (edges[0], edges[1], edges[2] - 1, edges[3] - 1)
        ImageDraw.Draw(found).rectangle(box, outline=palette.SHEET_TEXT, width=1)
    return [_small(radiograph), found, _small(radiograph[top:bottom, left:right])]


def _small(radiograph: np.ndarray) -> Image.Image:
    height, width = radiograph.shape
    scale = SIDE / max(height, width)
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    return Image.fromarray(radiograph).resize(shape, Image.Resampling.BOX).convert("RGB")
