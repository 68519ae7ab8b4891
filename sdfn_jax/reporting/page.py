"""Sections of tables and pictures -> one self-contained HTML page, CSV files, PNG and SVG files."""

import base64
import dataclasses
import html
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from PIL import Image

from sdfn_jax.core import csv_table, web_page
from sdfn_jax.core.files import appears_when_complete
from sdfn_jax.metrics.evaluation import SMALL_SAMPLE
from sdfn_jax.reporting.estimates import Estimate, P

_PIXELS_PER_POINT = 1.5  # of a picture on the page, if there is room
_DENSE = 10  # columns; a table of more has smaller letters
_FEW_NOTE = "few positives or negatives: uncertain by 0.1 or more"
_LEGEND = (
    "For research, not for diagnosis. Numbers in grey italics rest on few positives or negatives (fewer than "
    f"{SMALL_SAMPLE}) and are uncertain by 0.1 or more; brackets are 95 % intervals."
)

Cell = str | int | float | Estimate | P


@dataclasses.dataclass(frozen=True)
class Table:
    """A table on the page and as CSV.

    Attributes:
      name: of the CSV file, without suffix.
      caption: what it shows.
      columns: headers; the first is that of the row names.
      rows: cells. A number is rounded on the page and exact in the CSV; NaN is `undefined` and an empty field.
      long: whether it is folded on the page.
      files: {name: writer} of further CSV files of the same numbers, next to the page.
    """

    name: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    long: bool = False
    files: Mapping[str, Callable[[Path], None]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure on the page and as files.

    Attributes:
      name: of the files, without suffix.
      caption: what it shows.
      source: draws it as the PNG of the given path and as an SVG next to it; or an existing PNG, which is copied.
    """

    name: str
    caption: str
    source: Callable[[Path], None] | Path


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
      name: the anchor in the page.
      title: its heading.
      text: paragraphs; one that starts with `NOTE: ` is a warning.
      parts: tables and pictures.
      answer: one sentence in large letters above them; empty for none.
      folded: whether it opens with a click; if not, its pictures are next to its text.
    """

    name: str
    title: str
    text: Sequence[str]
    parts: Sequence[Table | Picture] = ()
    answer: str = ""
    folded: bool = True


def write(folder: Path, title: str, subtitle: str, sections: Sequence[Section]) -> Path:
    """Writes `index.html`, `tables/*.csv` and `figures/*.png`, `*.svg`, the page last.

    Args:
      folder: of all of it.
      title: of the page.
      subtitle: a line below it.
      sections: in the order of the page.

    Returns:
      the page; it needs none of the other files.
    """
    body = [*_body(folder, title, subtitle, sections)]
    style = web_page.style(resources.files("sdfn_jax.reporting").joinpath("report.css").read_text(encoding="utf-8"))
    with appears_when_complete(folder / "index.html") as path, path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(web_page.frame(title, web_page.policy(style), style, body))
    return folder / "index.html"


def _body(folder: Path, title: str, subtitle: str, sections: Sequence[Section]) -> Iterator[str]:
    links = "".join(f'<a href="#{section.name}">{html.escape(section.title)}</a>' for section in sections)
    yield f'<nav aria-label="Sections">{links}</nav><header><h1>{html.escape(title)}</h1>'
    yield f'<p class="soft">{html.escape(subtitle)}</p><p class="soft">{html.escape(_LEGEND)}</p></header><main>\n'
    for section in sections:
        yield from _folded(folder, section) if section.folded else _unfolded(folder, section)
    yield "</main>"


def _folded(folder: Path, section: Section) -> Iterator[str]:
    # The anchor is inside: a browser that follows a link to it opens what is around it.
    yield f'<details class="part"><summary><h2>{html.escape(section.title)}</h2></summary><section id="{section.name}">'
    yield from map(_paragraph, section.text)
    yield from (_part(folder, part) for part in section.parts)
    yield "</section></details>\n"


def _unfolded(folder: Path, section: Section) -> Iterator[str]:
    yield f'<section id="{section.name}" class="first"><div><h2>{html.escape(section.title)}</h2>'
    if section.answer:
        yield f'<p class="answer">{html.escape(section.answer)}</p>'
    yield from (_part(folder, part) for part in section.parts if isinstance(part, Table))
    yield from map(_paragraph, section.text)
    yield "</div>"
    yield from (_part(folder, part) for part in section.parts if isinstance(part, Picture))
    yield "</section>\n"


def _part(folder: Path, part: Table | Picture) -> str:
    return _table(folder, part) if isinstance(part, Table) else _picture(folder, part)


def _link(name: str) -> str:
    return f'<a class="file" href="{quote(name)}">{html.escape(name)}</a>'


def _paragraph(text: str) -> str:
    note = text.removeprefix("NOTE: ")
    return web_page.paragraph(text) if note == text else web_page.note(note)


def _table(folder: Path, table: Table) -> str:
    """Writes a table's files; returns it for the page."""
    kinds = [{type(row[index]) for row in table.rows} for index in range(len(table.columns))]
    writers = {f"tables/{table.name}.csv": lambda path: _write_csv(path, table, kinds)} | dict(table.files)
    for name, write_file in writers.items():
        write_file(folder / name)
    heads = [(column, "text" if kind == {str} else "number") for column, kind in zip(table.columns, kinds, strict=True)]
    rows = ((str(first), map(_shown, cells)) for first, *cells in table.rows)
    content = web_page.table(table.caption, rows, heads, f"table-{table.name}")
    if len(table.columns) > _DENSE:
        content = f'<div class="dense">{content}</div>'
    files = f"<p>{', '.join(map(_link, writers))}</p>"
    if not table.long:
        return content + files
    summary = html.escape(f"{table.caption} ({len(table.rows)} rows)")
    return f"<details><summary>{summary}</summary>{content}</details>{files}"


def _write_csv(path: Path, table: Table, kinds: Sequence[set[type]]) -> None:
    heads = []
    for column, kind in zip(table.columns, kinds, strict=True):
        heads += [column, f"{column}_low", f"{column}_high", f"{column}_few"] if Estimate in kind else [column]
    with csv_table.writing(path) as file:
        file.row(heads)
        for row in table.rows:
            cells = [_raw(cell, Estimate in kind) for cell, kind in zip(row, kinds, strict=True)]
            file.row(value for cell in cells for value in cell)


def _raw(cell: Cell, estimates: bool) -> list:
    if isinstance(cell, Estimate):
        return [*(_number(value) for value in (cell.value, cell.low, cell.high)), _FEW_NOTE if cell.few else ""]
    value = _number(cell.value) if isinstance(cell, P) else _number(cell) if isinstance(cell, float) else cell
    return [value, "", "", ""] if estimates else [value]


def _number(value: float) -> float | str:
    return "" if math.isnan(value) else float(value)


def _shown(cell: Cell) -> str:
    if isinstance(cell, str):
        return web_page.cell(cell, "text")
    if isinstance(cell, int):
        return web_page.cell(f"{cell:,}")
    value = cell if isinstance(cell, float) else cell.value
    if math.isnan(value):
        return web_page.cell("undefined", "nothing")
    if isinstance(cell, P) and value < 0.001:
        return web_page.cell("< 0.001")
    if not isinstance(cell, Estimate):
        return web_page.cell(f"{value:.3f}")
    few = f' class="few" title="{_FEW_NOTE}"' if cell.few else ""
    form = "+.3f" if cell.signed else ".3f"
    around = "" if math.isnan(cell.low) else f" <small>[{cell.low:{form}}, {cell.high:{form}}]</small>"
    return f"<td{few}>{value:{form}}{around}</td>"


def _picture(folder: Path, picture: Picture) -> str:
    """Draws or copies a picture; returns it for the page."""
    name = f"figures/{picture.name}.png"
    target = folder / name
    if isinstance(picture.source, Path):
        if picture.source.absolute() != target.absolute():
            with appears_when_complete(target) as path:
                shutil.copyfile(picture.source, path)
        kind, files = "film", _link(name)
    else:
        picture.source(target)
        vector = f"figures/{picture.name}.svg"
        kind, files = "chart", f"{_link(name)}, {_link(vector)}"
    with Image.open(target) as image:
        width = round(image.width / _PIXELS_PER_POINT)
    content = base64.b64encode(target.read_bytes()).decode()
    caption = html.escape(picture.caption)
    return (
        f'<figure id="figure-{picture.name}" class="{kind}"><div class="scroll" tabindex="0">'
        f'<img alt="{caption}" width="{width}" src="data:image/png;base64,{content}"></div>'
        f"<figcaption>{caption} {files}</figcaption></figure>"
    )
