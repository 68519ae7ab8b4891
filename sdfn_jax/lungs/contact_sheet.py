"""Pages of small radiographs with lung masks, regions and boxes (as the paper's Figures 6 and 7)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sdfn_jax.core import palette
from sdfn_jax.core.files import appears_when_complete
from sdfn_jax.lungs.finder import Lungs
from sdfn_jax.lungs.lung_boxes import NO_RULE

FILMS_A_ROW = 9
SHEET_FILMS = 10 * FILMS_A_ROW  # as many as people look through
SIDE = 256  # pixels of the longer side of a film
GAP = 6
LINE = 17  # height of a line of text
LEGEND = (
    ("lung", palette.SHEET_LUNG),
    ("dropped region", palette.SHEET_DROPPED),
    ("mirror image", palette.SHEET_MIRRORED),
    ("lung box", palette.SHEET_BOX),
)
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_SYNTHETIC = ("SYNTHETIC radiographs, not films of patients", palette.SHEET_TITLE)


def lung_box_page(films: Sequence[Lungs], path: str | Path, *, drawings: bool) -> None:
    """Draws films on one PNG page, nine in a row, each with its outlines, its box, its name, rules and confidence.

    Args:
      films: at least one, with their lung regions.
      path: the page.
      drawings: whether the films are synthetic; the page then says so.
    """
    columns = min(FILMS_A_ROW, len(films))
    rows = -(-len(films) // columns)
    width, height = SIDE + GAP, SIDE + 2 * LINE + GAP
    page = Image.new("RGB", (columns * width + GAP, rows * height + LINE + 2 * GAP), palette.SHEET_PAPER)
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(size=13)
    write_legend(draw, font, LEGEND, drawings=drawings)
    for index, film in enumerate(films):
        x, y = GAP + index % columns * width, LINE + 2 * GAP + index // columns * height
        picture = film_picture(film)
        page.paste(picture, (x + (SIDE - picture.width) // 2, y + (SIDE - picture.height) // 2))
        rule, sure = film.region.rule, film.region.confidence
        said = rule if sure is None else f"{rule}, confidence {sure:.2f}"
        draw.text((x, y + SIDE), shortened(film.name, draw, font), palette.SHEET_TEXT, font)
        colour = palette.SHEET_MIRRORED if film.flags or rule != NO_RULE else palette.SHEET_TEXT
        draw.text((x, y + SIDE + LINE), said, colour, font)
    with appears_when_complete(path) as unfinished:
        page.save(unfinished)


def write_legend(draw: ImageDraw.ImageDraw, font: Font, legend: Sequence[tuple[str, str]], *, drawings: bool) -> None:
    """Writes what the colours mean, and whether the films are synthetic, along the top of a page: (text, colour)."""
    x: float = GAP
    for text, colour in (*legend, *([_SYNTHETIC] if drawings else [])):
        draw.text((x, GAP), text, colour, font)
        x += draw.textlength(text, font) + 3 * GAP


def film_picture(film: Lungs) -> Image.Image:
    """Draws one film in its true proportions, the longer side 256 pixels.

    Outlines: green what was kept of the lung mask, red a region that a rule dropped, yellow the mirror image of the one
    lung that was left; blue the lung box.

    Returns:
      an RGB image.
    """
    height, width = film.size
    scale = SIDE / max(height, width)
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    pixels = np.repeat(
        np.asarray(Image.fromarray(film.resized).resize(shape, Image.Resampling.BILINEAR))[..., None], 3, axis=2
    )
    cleaned, kept = film.region.cleaned, film.region.kept
    if "mirror" in film.region.rule:
        pixels[_outline(kept[:, ::-1], shape)] = palette.rgb(palette.SHEET_MIRRORED)
    pixels[_outline(kept, shape)] = palette.rgb(palette.SHEET_LUNG)
    pixels[_outline(cleaned & ~kept, shape)] = palette.rgb(palette.SHEET_DROPPED)
    picture = Image.fromarray(pixels)
    left, top, right, bottom = (value * scale for value in film.region.box)
    ImageDraw.Draw(picture).rectangle(
        (left, top, min(right, shape[0]) - 1, min(bottom, shape[1]) - 1), outline=palette.SHEET_BOX, width=2
    )
    return picture


def _outline(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Returns the outermost pixels of an (h, w) bool mask drawn at `shape` = (width, height), as a bool array."""
    mask = np.asarray(Image.fromarray(mask).resize(shape))
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside


def shortened(name: str, draw: ImageDraw.ImageDraw, font: Font) -> str:
    """Cuts the middle out of a name that is wider than a film."""
    keep = len(name)
    text = name
    while draw.textlength(text, font) > SIDE:
        keep -= 2
        text = f"{name[: keep // 2]}…{name[-(keep // 2) :]}"
    return text
