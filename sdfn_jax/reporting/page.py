"""Sections of tables and pictures -> one self-contained HTML page, CSV files, PNG and SVG files."""

import base64
import dataclasses
import html
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from sdfn_jax.core import csv_table
from sdfn_jax.core.files import appears_when_complete

_PIXELS_PER_POINT = 1.5  # of a picture on the page, where there is room
FEW_NOTE = "few positives or negatives: uncertain by 0.1 or more"


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval, NaN where none was computed; `few` marks one from too small a sample."""

    value: float
    low: float
    high: float
    few: bool = False


@dataclasses.dataclass(frozen=True)
class P:
    """A p-value."""

    value: float


Cell = str | int | float | Estimate | P


@dataclasses.dataclass(frozen=True)
class Table:
    """A table on the page and as CSV.

    Attributes:
      name: of the CSV file, without suffix.
      caption: what it shows.
      columns: heads; the first is that of the row names.
      rows: cells. A number is rounded on the page and whole in the CSV; NaN is `undefined` and an empty field.
      wide: whether it is long and stands folded up on the page.
    """

    name: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    wide: bool = False


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure on the page and as files.

    Attributes:
      name: of the files, without suffix.
      caption: what it shows.
      source: draws it into the path it is given (PNG and SVG), or an existing PNG, which is copied.
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
    """

    name: str
    title: str
    text: Sequence[str]
    parts: Sequence[Table | Picture] = ()


def write(folder: Path, title: str, sections: Sequence[Section]) -> Path:
    """Writes `index.html`, `tables/*.csv` and `figures/*.png`, `*.svg`, the page last.

    Returns:
      the page; it needs none of the other files.
    """
    body = []
    for section in sections:
        parts = [_table(folder, part) if isinstance(part, Table) else _picture(folder, part) for part in section.parts]
        body.append(
            f'<section id="{section.name}"><h2>{html.escape(section.title)}</h2>'
            + "".join(_paragraph(text) for text in section.text)
            + "".join(parts)
            + "</section>"
        )
    links = "".join(f'<a href="#{section.name}">{html.escape(section.title)}</a>' for section in sections)
    page = _PAGE.format(title=html.escape(title), style=_STYLE, links=links, body="\n".join(body))
    with appears_when_complete(folder / "index.html") as path:
        path.write_text(page, encoding="utf-8")
    return folder / "index.html"


def _paragraph(text: str) -> str:
    if text.startswith("NOTE: "):
        return f'<p class="note">{html.escape(text.removeprefix("NOTE: "))}</p>'
    return f"<p>{html.escape(text)}</p>"


def _table(folder: Path, table: Table) -> str:
    kinds = [{type(row[index]) for row in table.rows} for index in range(len(table.columns))]
    heads = []
    for column, found in zip(table.columns, kinds, strict=True):
        heads += [column, f"{column}_low", f"{column}_high", f"{column}_few"] if Estimate in found else [column]
    with csv_table.writing(folder / "tables" / f"{table.name}.csv") as file:
        file.row(heads)
        for row in table.rows:
            cells = [_raw(cell, Estimate in found) for cell, found in zip(row, kinds, strict=True)]
            file.row(value for cell in cells for value in cell)
    head = "".join(
        f'<th scope="col" class="{"text" if found == {str} else "number"}">{html.escape(column)}</th>'
        for column, found in zip(table.columns, kinds, strict=True)
    )
    rows = "".join(
        f'<tr><th scope="row">{html.escape(str(row[0]))}</th>' + "".join(map(_shown, row[1:])) + "</tr>"
        for row in table.rows
    )
    caption = html.escape(table.caption)
    content = (
        f'<div class="scroll" tabindex="0"><table id="table-{table.name}"><caption>{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
        f'<p class="file">tables/{table.name}.csv</p>'
    )
    if not table.wide:
        return content
    return f"<details><summary>{caption} ({len(table.rows)} rows)</summary>{content}</details>"


def _raw(cell: Cell, estimates: bool) -> list:
    if isinstance(cell, Estimate):
        return [*(_number(value) for value in (cell.value, cell.low, cell.high)), FEW_NOTE if cell.few else ""]
    value = _number(cell.value) if isinstance(cell, P) else _number(cell) if isinstance(cell, float) else cell
    return [value, "", "", ""] if estimates else [value]


def _number(value: float) -> float | str:
    return "" if math.isnan(value) else float(value)


def _shown(cell: Cell) -> str:
    if isinstance(cell, str):
        return f'<td class="text">{html.escape(cell)}</td>'
    if isinstance(cell, int):
        return f"<td>{cell:,}</td>"
    value = cell if isinstance(cell, float) else cell.value
    if math.isnan(value):
        return '<td class="nothing">undefined</td>'
    if isinstance(cell, P):
        return f"<td>{'&lt; 0.001' if value < 0.001 else f'{value:.3f}'}</td>"
    if isinstance(cell, float):
        return f"<td>{value:.3f}</td>"
    few = f' <span class="few" title="{FEW_NOTE}">few</span>' if cell.few else ""
    around = "" if math.isnan(cell.low) else f" <small>[{cell.low:.3f}, {cell.high:.3f}]</small>"
    return f"<td>{value:.3f}{few}{around}</td>"


def _picture(folder: Path, picture: Picture) -> str:
    target = folder / "figures" / f"{picture.name}.png"
    if isinstance(picture.source, Path):
        with appears_when_complete(target) as path:
            shutil.copyfile(picture.source, path)
    else:
        for path in (target, target.with_suffix(".svg")):
            picture.source(path)
    with Image.open(target) as image:
        width = round(image.width / _PIXELS_PER_POINT)
    content = base64.b64encode(target.read_bytes()).decode()
    caption = html.escape(picture.caption)
    return (
        f'<figure id="figure-{picture.name}"><div class="scroll" tabindex="0">'
        f'<img alt="{caption}" style="width: {width}px" src="data:image/png;base64,{content}"></div>'
        f'<figcaption>{caption} <span class="file">figures/{picture.name}.png</span></figcaption></figure>'
    )


_STYLE = """
:root { color-scheme: light dark; --ink: #1b1d21; --paper: #fff; --soft: #5b6270; --line: #d9dce2; --band: #f4f5f8;
  --link: #0b57a4; --warn: #8a1c1c; --warn-band: #fdeeee; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ec; --paper: #15171b; --soft: #a2a9b6; --line: #343841;
  --band: #1d2026; --link: #7db8f5; --warn: #ffb4ab; --warn-band: #3a1d1d; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0 auto; max-width: 76rem; padding: 1rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; padding-top: .75rem; border-top: 1px solid var(--line); }
p { max-width: 48rem; margin: .6rem 0; }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: 1rem 0; }
a { color: var(--link); }
.note { border-left: 4px solid var(--warn); background: var(--warn-band); padding: .5rem .75rem; }
.scroll { overflow-x: auto; max-width: 100%; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; margin: .75rem 0 .25rem; }
caption { text-align: left; color: var(--soft); padding: .25rem 0; caption-side: top; }
th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
thead th { background: var(--band); vertical-align: bottom; }
th[scope=row], th.text, td.text { text-align: left; overflow-wrap: normal; }
th[scope=row] { font-weight: normal; }
tbody tr:hover { background: var(--band); }
td.text { white-space: normal; max-width: 40rem; }
tbody th, td { vertical-align: top; }
small, .nothing, .file { color: var(--soft); }
td small { display: block; }
.file { font-size: .8rem; margin-top: 0; }
.few { font-size: .75rem; color: var(--warn); border: 1px solid var(--warn); border-radius: .6rem; padding: 0 .35rem; }
figure { margin: 1rem 0; }
figure img { display: block; max-width: 100%; min-width: 36rem; height: auto; background: #fff; border-radius: .4rem; }
figcaption { color: var(--soft); font-size: .9rem; max-width: 48rem; margin-top: .4rem; }
summary { cursor: pointer; color: var(--link); padding: .3rem 0; }
@media (max-width: 40rem) { body { padding: .75rem .75rem 3rem; font-size: 15px; } table { font-size: .82rem; }
  th, td { padding: .25rem .4rem; } th[scope=row] { white-space: normal; min-width: 6rem; } }
@page { size: A4 landscape; margin: 12mm; }
@media print { :root { color-scheme: light; --ink: #000; --paper: #fff; --soft: #444; --line: #bbb; --band: #f2f2f2;
  --warn: #700; --warn-band: #fff; } nav { display: none; } body { max-width: none; font-size: 10pt; padding: 0; }
  .scroll { overflow: visible; } figure img { min-width: 0; } table { font-size: 7pt; } th, td { padding: 1pt 3pt; }
  figure, tr { break-inside: avoid; } h2, caption { break-after: avoid; } }
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><title>{title}</title><style>{style}</style></head>
<body><header><h1>{title}</h1></header><nav aria-label="Sections">{links}</nav><main>
{body}
</main></body></html>
"""
