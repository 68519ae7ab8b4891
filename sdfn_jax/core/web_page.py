"""Self-contained HTML pages: frame, policy, style, tables. Whatever comes in as text is escaped here."""

import base64
import hashlib
import html
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources

from sdfn_jax.core import palette


def style(*sheets: str) -> str:
    """Returns the style of a page: the palette's colours, light and dark, the shared sheet, and the page's own."""
    shared = resources.files("sdfn_jax.core").joinpath("page.css").read_text(encoding="utf-8")
    boxes = {"lung-box": palette.LUNG_BOX, "lung-outline": palette.SHEET_LUNG}
    colours = (
        f":root {{ color-scheme: light dark; {_variables(palette.LIGHT | boxes)} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {_variables(palette.DARK)} }} }}\n"
        f"@media print {{ :root {{ color-scheme: light; {_variables(palette.PRINT)} }} }}\n"
    )
    return "".join((colours, shared, *sheets))


def policy(style: str, script: str = "", *, connect: bool = False) -> str:
    """Returns a page's Content-Security-Policy: it runs its own script and asks no one for anything.

    Args:
      style: the one style element's text.
      script: the one script element's text; empty for a page without.
      connect: whether the page may ask the server that it came from.
    """
    scripts = f"script-src {_digest(script)}; " if script else ""
    source = "'self'" if connect else "'none'"
    return (
        f"default-src 'none'; {scripts}style-src {_digest(style)}; img-src data:; "
        f"connect-src {source}; base-uri 'none'; form-action 'none'"
    )


def frame(title: str, policy: str, style: str, body: Iterable[str]) -> Iterator[str]:
    """Yields a document in pieces.

    Args:
      title: text.
      policy: from `policy`, of this `style` and of the script in `body`.
      style: from `style`.
      body: pieces of HTML.
    """
    yield (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">\n'
        f'<link rel="icon" href="data:,"><title>{html.escape(title)}</title><style>{style}</style></head>\n<body>\n'
    )
    yield from body
    yield "</body></html>\n"


def paragraph(text: str) -> str:
    """Returns a paragraph."""
    return f"<p>{html.escape(text)}</p>"


def note(text: str) -> str:
    """Returns a warning."""
    return f'<p class="note">{html.escape(text)}</p>'


def cell(text: str, kind: str | None = None) -> str:
    """Returns a cell of a table, of the class `kind`."""
    return f"<td{_class(kind)}>{html.escape(text)}</td>"


def table(
    caption: str,
    rows: Iterable[tuple[str, Iterable[str]]],
    heads: Sequence[tuple[str, str | None]] = (),
    name: str | None = None,
) -> str:
    """Returns a table that scrolls sideways if it is wider than the page.

    Args:
      caption: text.
      rows: the text of each row's head, and its cells, from `cell`.
      heads: the text of each column's head and its class.
      name: of the element.
    """
    head = "".join(f'<th scope="col"{_class(kind)}>{html.escape(text)}</th>' for text, kind in heads)
    body = "".join(f'<tr><th scope="row">{html.escape(first)}</th>{"".join(cells)}</tr>' for first, cells in rows)
    anchor = f' id="{name}"' if name else ""
    return (
        f'<div class="scroll" tabindex="0"><table{anchor}>'
        f"<caption>{html.escape(caption)}</caption>{f'<thead><tr>{head}</tr></thead>' if heads else ''}"
        f"<tbody>{body}</tbody></table></div>"
    )


def _variables(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _class(kind: str | None) -> str:
    return f' class="{kind}"' if kind else ""
