"""A film with one finding's heatmap, or with its lungs alone, as one PNG. No JAX."""

import functools
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sdfn_jax.core import palette
from sdfn_jax.core.files import appears_when_complete
from sdfn_jax.heatmaps import cam
from sdfn_jax.inference.prediction import Box, Reading
from sdfn_jax.radiographs import pixels
from sdfn_jax.radiographs.findings import display_name

SCREEN_SIDE = 1024  # pixels of the long side that a screen shows well
_DASH, _GAP = 12, 8  # pixels
_LEAST_WIDTH = 512  # pixels, for the caption


def screen_size(shape: tuple[int, int], side: int = SCREEN_SIDE) -> tuple[int, int]:
    """Returns the (height, width) in which a film of `shape` (height, width) fits `side` pixels; never enlarged."""
    share = min(1.0, side / max(shape))
    return max(1, round(shape[0] * share)), max(1, round(shape[1] * share))


@functools.cache
def colours() -> np.ndarray:
    """Returns the heatmaps' colours: (256, 3) uint8, cold to hot."""
    from matplotlib import colormaps  # here, because importing it takes longer than drawing

    return np.rint(255 * colormaps[palette.HEATMAP](np.arange(256))[:, :3]).astype(np.uint8)


def write(path: str | Path, reading: Reading, finding: str | None, *, drawings: bool) -> None:
    """Writes the picture of `draw` as PNG, complete or not at all; the file holds pixels and nothing else."""
    picture = draw(reading, finding, drawings=drawings)
    with appears_when_complete(path) as unfinished:
        picture.save(unfinished, "PNG", compress_level=2)


def draw(reading: Reading, finding: str | None, *, drawings: bool) -> Image.Image:
    """Draws a film with the heatmap of one finding, the lung box and a caption, at screen size, in RGB.

    The heatmap is rescaled on its own, its smallest value to 0 and its largest to 255 however small the probability.

    Args:
      reading: of the film.
      finding: one of the network's; None draws the outline of the lungs instead.
      drawings: whether the network was trained on synthetic radiographs; the caption then says so.
    """
    size = screen_size(reading.radiograph.shape)
    film = pixels.resize(reading.radiograph, size)
    box = None if reading.lung_box is None else _scaled(reading.lung_box, reading.radiograph.shape, size)
    if finding is None:
        picture = Image.fromarray(film).convert("RGB")
        _draw_outline(ImageDraw.Draw(picture), reading, size)
        lines = [
            f"Lungs, confidence {reading.confidence:.3f}. No findings: no classifier was given. For research, not for "
            "diagnosis.",
            "Line: outline of the lungs. Dashed: lung box.",
        ]
    else:
        heatmap = cam.rescale(cam.on_radiograph(reading.maps_of(finding), box, size))
        picture = Image.fromarray(_blend(film, heatmap))
        lines = [
            f"{display_name(finding)}: probability {reading.probabilities[finding]:.3f}. For research, not for "
            "diagnosis.",
            "Colours: this map rescaled on its own, whatever the probability."
            + (" Dashed: lung box." if box is not None else ""),
        ]
    if box is not None:
        _draw_box(ImageDraw.Draw(picture), box)
    if drawings:
        lines.append("The network was trained on SYNTHETIC radiographs: this means nothing for patients.")
    return _captioned(picture, lines)


def _blend(film: np.ndarray, heatmap: np.ndarray) -> np.ndarray:
    """(H, W) uint8 and (H, W) float32 of 0 to 255 -> (H, W, 3) uint8."""
    share = (palette.HEATMAP_STRENGTH / 255 * heatmap)[..., None]
    coloured = colours()[np.minimum(heatmap * (256 / 255), 255).astype(np.uint8)]
    return np.rint(film[..., None] * (1 - share) + coloured * share).astype(np.uint8)


def _scaled(box: Box, old: tuple[int, int], new: tuple[int, int]) -> Box:
    """A box of a film of (height, width) `old` in the pixels of its copy of size `new`; never empty."""
    left, right = (round(side * new[1] / old[1]) for side in box[::2])
    top, bottom = (round(side * new[0] / old[0]) for side in box[1::2])
    left, top = min(left, new[1] - 1), min(top, new[0] - 1)
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _draw_box(draw: ImageDraw.ImageDraw, box: Box) -> None:
    left, top, right, bottom = box
    for start in range(left, right, _DASH + _GAP):
        for row in (top, bottom - 2):
            draw.rectangle((start, row, min(start + _DASH, right) - 1, row + 1), fill=palette.LUNG_BOX)
    for start in range(top, bottom, _DASH + _GAP):
        for column in (left, right - 2):
            draw.rectangle((column, start, column + 1, min(start + _DASH, bottom) - 1), fill=palette.LUNG_BOX)


def _draw_outline(draw: ImageDraw.ImageDraw, reading: Reading, size: tuple[int, int]) -> None:
    scale = np.divide(size, reading.radiograph.shape)[::-1]
    for line in reading.lung_outline:
        draw.line([tuple(point) for point in (line * scale).tolist()], fill=palette.SHEET_LUNG, width=2)


def _captioned(picture: Image.Image, lines: list[str]) -> Image.Image:
    """Adds lines of text below a picture, centred on a page wide enough to read them."""
    width = max(picture.width, _LEAST_WIDTH)
    size = 18 * width / SCREEN_SIDE
    font, step = ImageFont.load_default(size), round(1.4 * size)
    page = Image.new("RGB", (width, picture.height + step * len(lines) + step // 2), "white")
    page.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        place = (step // 2, picture.height + step // 4 + step * number)
        draw.text(place, line, fill=palette.LIGHT["ink"] if number < 2 else palette.WARNING, font=font)
    return page
