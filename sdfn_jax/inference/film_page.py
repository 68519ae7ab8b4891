"""Readings -> one self-contained HTML page: films with a heatmap per finding, from disk, without a network. No JAX.

The page holds each film as a JPEG and each activation map as the few numbers that it is; the browser enlarges them as
`cam` does. Only the film on show is decoded.
"""

import base64
import dataclasses
import html
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np
from PIL import Image

from sdfn_jax.core import palette, web_page
from sdfn_jax.core.files import appears_when_complete
from sdfn_jax.heatmaps import cam
from sdfn_jax.inference import provenance_tables
from sdfn_jax.inference.overlay import colours, screen_size
from sdfn_jax.inference.prediction import Provenance, Reading
from sdfn_jax.radiographs import pixels
from sdfn_jax.radiographs.findings import FINDINGS, display_name
from sdfn_jax.radiographs.flags import FIXES, FLAGS

_THUMBNAIL_SIDE = 128
# 1024 x 1024 films of ChestX-ray14 take 73 kB each, 1.6 grey levels (root mean square) from the original.
_QUALITY = 80
_RULES = {
    "none": "no rule was needed",
    "nearest_two": "of more than two regions, the two nearest the centre were kept",
    "drop_small": "the smaller of two regions was dropped",
    "mirror": "the one region was mirrored",
    "whole_image": "no lungs were found: the box is the whole film",
}
SYNTHETIC = (
    "The network was trained on synthetic radiographs, not on films of patients: its findings on a "
    "patient's film mean nothing."
)
ELSEWHERE = (
    "The network was trained elsewhere: on which data, under which labels, and whether on radiographs is unknown."
)


@dataclasses.dataclass(frozen=True)
class Pager:
    """The place of a page among those that share the films of one prediction.

    Attributes:
      files: names of all the pages, in one folder.
      number: of this one among them, from 0.
      first: number of its first film, from 1.
      films: on this page.
      all_films: on all of them.
    """

    files: tuple[str, ...]
    number: int
    first: int
    films: int
    all_films: int


def entry(reading: Reading) -> dict:
    """Returns what the page holds of a reading, as JSON can hold it; some 110 kB of text.

    Returns:
      `name`, `size` (width, height) of the radiograph, `lung_box`, `rule`, `flags`, `fixes`, `probabilities`,
      `calibrated` (None for a finding without), `thumbnail` (base64 of a JPEG) and `picture`: `screen` (width, height),
      `film` (base64 of a JPEG of at most 1024 pixels) and `maps`: {branch: `shape` (h, w) and `values`, base64 of 14
      maps of little-endian float32}.
    """
    height, width = reading.radiograph.shape
    screen = screen_size(reading.radiograph.shape)
    return {
        # A file's name may hold bytes that are no text, which Python keeps as lone surrogates.
        "name": reading.name.encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
        "size": [width, height],
        "lung_box": None if reading.lung_box is None else list(map(int, reading.lung_box)),
        "rule": reading.rule,
        "flags": list(reading.flags),
        "fixes": list(reading.fixes),
        "probabilities": list(reading.probabilities.values()),
        "calibrated": list(reading.calibrated.values()),
        "thumbnail": _jpeg(reading.radiograph, screen_size(reading.radiograph.shape, _THUMBNAIL_SIDE)),
        "picture": {
            "screen": [screen[1], screen[0]],
            "film": _jpeg(reading.radiograph, screen),
            "maps": {branch: _numbers(maps) for branch, maps in reading.maps.items()},
        },
    }


def write(path: str | Path, provenance: Provenance, entries: Iterable[dict], pager: Pager | None = None) -> None:
    """Writes the page, an entry at a time; it appears when it is complete.

    Args:
      path: of the page (`.html`).
      provenance: of all the readings.
      entries: from `entry`, in the order in which the page lists them.
      pager: the pages that it links to; None for one by itself.
    """
    with appears_when_complete(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(document(provenance, entries, pager))


def document(
    provenance: Provenance, entries: Iterable[dict], pager: Pager | None = None, *, largest_upload: int | None = None
) -> Iterator[str]:
    """Yields the page in pieces, an entry at a time.

    Args:
      provenance: of all the readings.
      entries: from `entry`.
      pager: the pages that it links to; None for one by itself.
      largest_upload: makes it a page that takes films, of at most so many bytes, and sends them to the server that it
        came from, which answers with entries (`viewer`); None for a page by itself.
    """
    body = _body(provenance, entries, pager, largest_upload)
    yield from web_page.frame("Findings on radiographs", policy(largest_upload is not None), _style(), body)


def _body(
    provenance: Provenance, entries: Iterable[dict], pager: Pager | None, largest_upload: int | None
) -> Iterator[str]:
    uploads = largest_upload is not None
    head, tail = _file("film.html").split("<!-- films -->")
    yield Template(head).substitute(
        notes="".join(map(web_page.note, notes(provenance))),
        upload=_upload(largest_upload) if uploads else "",
        pages="" if pager is None or len(pager.files) == 1 else _pages(pager),
    )
    for each in entries:
        card = {key: value for key, value in each.items() if key != "picture"}
        yield _data("card", card)
        yield _data("picture", each["picture"])
    yield Template(tail).substitute(
        provenance=provenance_tables.html_of(provenance),
        about=_data("about", _about(provenance)),
        script=_script(uploads),
    )


def notes(provenance: Provenance) -> list[str]:
    """Returns what a reader must know of the network before any finding."""
    if provenance.drawings is None:
        return [ELSEWHERE]
    return [SYNTHETIC] if provenance.drawings else []


def policy(uploads: bool) -> str:
    """Returns the page's Content-Security-Policy: it runs its own script and asks no one for anything.

    Args:
      uploads: whether it takes films; it may then ask the server that it came from.
    """
    return web_page.policy(_style(), _script(uploads), connect=uploads)


def _pages(pager: Pager) -> str:
    """Links to the previous and the next page."""
    around = {"Previous page": pager.number - 1, "Next page": pager.number + 1}
    links = [
        f'<a href="{html.escape(pager.files[number])}">{text}</a>' if 0 <= number < len(pager.files) else ""
        for text, number in around.items()
    ]
    here = (
        f"Page {pager.number + 1:,} of {len(pager.files):,}: films {pager.first:,} to "
        f"{pager.first + pager.films - 1:,} of {pager.all_films:,}"
    )
    return f'<nav aria-label="Pages">{" ".join(links)} <span>{here}</span></nav>'


def _upload(largest: int) -> str:
    return Template(_file("upload.html")).substitute(limit=largest, megabytes=f"{largest / 1e6:g}")


def _about(provenance: Provenance) -> dict:
    """What the script needs to know besides the films."""
    points = [provenance.thresholds.get(name) for name in FINDINGS]
    return {
        "findings": [display_name(name) for name in FINDINGS],
        "points": [
            None if point is None else [point.probability, point.sensitivity, point.specificity] for point in points
        ],
        "undecided": [provenance.undecided.get(name) for name in FINDINGS],
        "rules": _RULES,
        "flags": FLAGS,
        "fixes": FIXES,
        "colours": base64.b64encode(colours().tobytes()).decode(),
        "strength": palette.HEATMAP_STRENGTH,
        "cropped": cam.CROPPED,
    }


def _data(kind: str, value: Mapping) -> str:
    """JSON inside HTML: `<` is the one character with which a name could leave its element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" class="{kind}">{text}</script>\n'


def _jpeg(radiograph: np.ndarray, size: tuple[int, int]) -> str:
    data = io.BytesIO()
    Image.fromarray(pixels.resize(radiograph, size)).save(data, "JPEG", quality=_QUALITY, optimize=True)
    return base64.b64encode(data.getvalue()).decode()


def _numbers(maps: np.ndarray) -> dict:
    values = np.ascontiguousarray(np.moveaxis(maps, -1, 0), "<f4")
    return {"shape": list(maps.shape[:2]), "values": base64.b64encode(values.tobytes()).decode()}


def _script(uploads: bool) -> str:
    return _file("film.js") + (_file("upload.js") if uploads else "")


def _style() -> str:
    return web_page.style(_file("film.css"))


def _file(name: str) -> str:
    return (resources.files("sdfn_jax.inference") / "pages" / name).read_text(encoding="utf-8")
