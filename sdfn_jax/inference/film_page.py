"""Readings -> one self-contained HTML page: films with a heatmap per finding, from disk, without a network. No JAX.

The page holds each film as a JPEG and each activation map as the few numbers that it is; the browser enlarges them as
`cam` does. Only the film on show is decoded. Its script is the files of `_SCRIPTS`, one after the other.
"""

import base64
import dataclasses
import html
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np
from PIL import Image

from sdfn_jax.core import palette, web_page
from sdfn_jax.core.files import appears_when_complete
from sdfn_jax.heatmaps import cam
from sdfn_jax.inference import provenance_tables
from sdfn_jax.inference.columns import columns
from sdfn_jax.inference.overlay import colours, screen_size
from sdfn_jax.inference.prediction import Provenance, Reading
from sdfn_jax.radiographs import pixels
from sdfn_jax.radiographs.findings import display_name
from sdfn_jax.radiographs.flags import FIXES, FLAGS

_SCRIPTS = ("heatmap.js", "view.js", "film.js", "table.js")
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
SYNTHETIC_LUNGS = (
    "The lung region generator was trained on synthetic radiographs, not on films of patients: what it finds on a "
    "patient's film means nothing."
)
ELSEWHERE = (
    "The network was trained elsewhere: on which data, under which labels, and whether on radiographs is unknown."
)
NO_CLASSIFIER = (
    "There are no findings, only the lungs and what looks wrong with a film, because no classifier was given: train "
    "one (sdfn train --config=configs/fusion.py) or convert one (sdfn convert FILE --classes=FILE "
    "--config=configs/classifier.py:entire), and name its folder with --checkpoint=FOLDER."
)
# What a network says about a film with one of these flags is shown only to whoever asks for it.
WITHHELD = ("inverted", "not_frontal_chest", "almost_empty")
_OFFERS = {
    "inverted": "Read it inverted",
    "rotated_90": "Read it turned upright",
    "rotated_180": "Read it turned upright",
}


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
      `name`, `size` (width, height) of the radiograph, `lung_box`, `rule`, `confidence`, `flags`, `fixes`; `cells` and
      `findings`: the values of its columns (`columns.Columns`); `thumbnail` (base64 of a JPEG) and `picture`: `screen`
      (width, height), `film` (base64 of a JPEG of at most 1024 pixels), `outline` of the lungs (an SVG path in pixels
      of the radiograph), `boxes` as `Reading.marked`, and `maps`, 0 outside the lung box: {branch: `shape` (h, w) and
      `values`, base64 of K maps of little-endian float32}.
    """
    height, width = reading.radiograph.shape
    screen = screen_size(reading.radiograph.shape)
    name = _text(reading.name)
    row = reading.to_dict() | {"image": name}
    table = columns(reading.provenance)
    return {
        "name": name,
        "size": [width, height],
        "lung_box": row["lung_box"],
        "rule": reading.rule,
        "confidence": reading.confidence,
        "flags": list(reading.flags),
        "fixes": list(reading.fixes),
        "cells": table.cells(row),
        "findings": table.by_finding(row),
        "thumbnail": _jpeg(reading.radiograph, screen_size(reading.radiograph.shape, _THUMBNAIL_SIDE)),
        "picture": {
            "screen": [screen[1], screen[0]],
            "film": _jpeg(reading.radiograph, screen),
            "outline": "".join(f"M{' '.join(map(str, line.ravel().tolist()))}Z" for line in reading.lung_outline),
            "boxes": reading.marked,
            "maps": {branch: _numbers(maps) for branch, maps in cam.relative_to_outside(reading.maps).items()},
        },
    }


def write(
    path: str | Path,
    provenance: Provenance,
    entries: Iterable[dict],
    pager: Pager | None = None,
    problems: Sequence[tuple[str, str]] = (),
) -> None:
    """Writes the page, an entry at a time; it appears when it is complete.

    Args:
      path: of the page (`.html`).
      provenance: of all the readings.
      entries: from `entry`, in the order in which the page lists them.
      pager: the pages that it links to; None for one by itself.
      problems: (file or place, problem) of what was not read; the first page lists them.
    """
    with appears_when_complete(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(document(provenance, entries, pager, problems))


def document(
    provenance: Provenance,
    entries: Iterable[dict],
    pager: Pager | None = None,
    problems: Sequence[tuple[str, str]] = (),
    *,
    largest_upload: int | None = None,
) -> Iterator[str]:
    """Yields the page in pieces, an entry at a time.

    Args:
      provenance: of all the readings.
      entries: from `entry`.
      pager: the pages that it links to; None for one by itself.
      problems: as in `write`.
      largest_upload: makes it a page that takes films, of at most so many bytes, and sends them to the server that it
        came from, which answers with entries (`viewer`); None for a page by itself.
    """
    uploads = largest_upload is not None
    title = f"{_subject(provenance)} on radiographs"
    head, tail = _file("film.html").split("<!-- films -->")
    beginning = Template(head).substitute(
        title=title,
        notes="".join(map(web_page.note, notes(provenance))),
        problems=_problems(problems) if pager is None or pager.number == 0 else "",
        upload=_upload(largest_upload) if uploads else "",
        pages="" if pager is None or len(pager.files) == 1 else _pages(pager),
    )
    body = _body(beginning, provenance, entries, tail, uploads)
    yield from web_page.frame(title, policy(uploads), _style(), body)


def _body(beginning: str, provenance: Provenance, entries: Iterable[dict], tail: str, uploads: bool) -> Iterator[str]:
    yield beginning
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
    if not provenance.classifies:
        return [NO_CLASSIFIER] + [SYNTHETIC_LUNGS] * bool(provenance.drawings)
    origin = {None: [ELSEWHERE], True: [SYNTHETIC], False: []}[provenance.drawings]
    return origin + [provenance.no_better_than_chance] * bool(provenance.no_better_than_chance)


def policy(uploads: bool) -> str:
    """Returns the page's Content-Security-Policy: it runs its own script and asks no one for anything.

    Args:
      uploads: whether it takes films; it may then ask the server that it came from.
    """
    return web_page.policy(_style(), _script(uploads), connect=uploads)


def _subject(provenance: Provenance) -> str:
    return "Findings" if provenance.classifies else "Lungs"


def _text(name: str) -> str:
    """A file's name as UTF-8: it may hold bytes that are no text, which Python keeps as lone surrogates."""
    return name.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _problems(problems: Sequence[tuple[str, str]]) -> str:
    """The list of what was not read."""
    if not problems:
        return ""
    count = "1 file was not read" if len(problems) == 1 else f"{len(problems):,} files were not read"
    lines = (f"<li><bdi>{html.escape(_text(name))}</bdi>: {html.escape(_text(why))}</li>" for name, why in problems)
    return f'<details id="unread" class="note"><summary>{count}</summary><ul>{"".join(lines)}</ul></details>'


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
    findings = provenance.findings
    table = columns(provenance)
    points, validation = (
        [None if each.get(name) is None else dataclasses.asdict(each[name]) for name in findings]
        for each in (provenance.thresholds, provenance.validation)
    )
    return {
        "subject": _subject(provenance),
        "names": findings,
        "findings": [display_name(name) for name in findings],
        "columns": list(table.of_images),
        "finding_columns": list(table.of_findings),
        "points": points,
        "validation": validation,
        "undecided": [provenance.undecided.get(name) for name in findings],
        "made_with": {
            name: getattr(provenance, name)
            for name in (
                "stage",
                "checkpoint",
                "members",
                "lrg_checkpoint",
                "data_version",
                "label_version",
                "drawings",
            )
        },
        "rules": _RULES,
        "flags": FLAGS,
        "fixes": FIXES,
        "offers": _OFFERS,
        "withheld": WITHHELD,
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
    return "".join(map(_file, (*_SCRIPTS, "upload.js") if uploads else _SCRIPTS))


def _style() -> str:
    return web_page.style(_file("film.css"))


def _file(name: str) -> str:
    return (resources.files("sdfn_jax.inference") / "pages" / name).read_text(encoding="utf-8")
