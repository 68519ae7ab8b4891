"""CSV tables, written and read here: UTF-8, and nothing in them that a spreadsheet would execute.

File names, header identifiers and other people's text go into these tables, and spreadsheets take text that begins
with `=`, `+`, `-` or `@` for a formula, which can reach other files and the network. Such text is written with `'`
before it (OWASP, "CSV Injection"), as is text that begins with `'` and then such a character; numbers are written
unchanged. Bytes of a file name that are not text are written as in JSON, `\\udce9`. Reading restores the original.
"""

import contextlib
import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from sdfn_jax.core.files import appears_when_complete

# What a spreadsheet takes for the start of a formula: also full-width forms, and after white space that some drop.
_FORMULA = re.compile(r"'*\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|'*\t")
# Bytes of a name that are not text; and line ends, so that a row is always one line.
_NO_TEXT = re.compile("[\udc80-\udcff\r\n]")
_WRITTEN_BYTE = re.compile(r"\\udc([0-9a-f]{2})")


class Writer:
    """Writes rows into an open file."""

    def __init__(self, file: TextIO):
        self._writer = csv.writer(file, lineterminator="\n")

    def row(self, values: Iterable[Any]) -> None:
        """Writes a row; its text is made harmless."""
        self._writer.writerow([harmless(value) if isinstance(value, str) else value for value in values])

    def rows(self, rows: Iterable[Iterable[Any]]) -> None:
        """Writes rows."""
        for values in rows:
            self.row(values)


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[Writer]:
    """Yields a writer; the table appears, complete, when the block ends."""
    with appears_when_complete(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        yield Writer(file)


def read(path: str | Path) -> list[list[str]]:
    """Reads the rows of a table as `Writer` was given them, and rows of other tables unchanged.

    Raises:
      ValueError: naming the file, for one that is not CSV in UTF-8.
      OSError: for one that cannot be opened.
    """
    path = Path(path)
    try:
        # utf-8-sig: spreadsheets add a byte order mark.
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [[original(text) for text in row] for row in csv.reader(file)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a table of UTF-8 text ({error})") from error


def records(path: str | Path) -> tuple[list[str], list[tuple[int, dict[str, str | None]]]]:
    """Reads a table by its header.

    Returns:
      the columns; and for each non-empty row its number (the header is row 1) and {column: text}, None for a column
      that the row lacks.

    Raises:
      ValueError, OSError: as `read`.
    """
    columns, *rows = read(path) or [[]]
    found = ((number, dict(zip(columns, row, strict=False))) for number, row in enumerate(rows, start=2) if row)
    return columns, [(number, dict.fromkeys(columns) | record) for number, record in found]


def harmless(text: str) -> str:
    """Returns text as it is written: never a formula, and valid UTF-8."""
    # A backslash that would be read as an escaped byte is escaped itself.
    text = _WRITTEN_BYTE.sub(lambda found: rf"\udc5cudc{found[1]}", text)
    text = _NO_TEXT.sub(lambda found: rf"\udc{ord(found[0]) & 0xFF:02x}", text)
    return f"'{text}" if _FORMULA.match(text) else text


def original(text: str) -> str:
    """Reverses `harmless`."""
    text = text[1:] if text.startswith("'") and _FORMULA.match(text) else text
    return _WRITTEN_BYTE.sub(lambda found: _character(int(found[1], 16)), text)


def _character(byte: int) -> str:
    return chr(byte if byte < 0x80 else 0xDC00 + byte)
