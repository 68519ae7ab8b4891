"""The tables that we write and read as CSV: UTF-8, and nothing in them that a spreadsheet would run.

Names of files, identifiers of headers and texts of others go into these tables, and spreadsheets take a text that
begins with `=`, `+`, `-` or `@` for a formula, which can reach other files and the network. Such a text is written with
`'` before it (OWASP, "CSV Injection"), as is one that begins with `'` and then such a character; numbers are written as
they are. Bytes of a file's name that are no text are written as JSON does, `\\udce9`. Reading gives the original back.
"""

import contextlib
import csv
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from sdfn_jax.core.files import appears_when_complete

# What a spreadsheet takes for the beginning of a formula: also the wide forms, and behind white space that some drop.
_FORMULA = re.compile(r"'*\s*[=+\-@\uff1d\uff0b\uff0d\uff20]|'*\t")
# Bytes of a name that are no text; and the ends of a line, so that a row is always one.
_NO_TEXT = re.compile("[\udc80-\udcff\r\n]")
_WRITTEN_BYTE = re.compile(r"\\udc([0-9a-f]{2})")


class Writer:
    """Writes rows into an open file."""

    def __init__(self, file: TextIO):
        self._writer = csv.writer(file, lineterminator="\n")

    def row(self, values: Iterable[Any]) -> None:
        """Writes a row; what is a text in it is made harmless."""
        self._writer.writerow([harmless(value) if isinstance(value, str) else value for value in values])

    def rows(self, rows: Iterable[Iterable[Any]]) -> None:
        """Writes rows."""
        for values in rows:
            self.row(values)


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[Writer]:
    """Gives a writer of a table that appears, complete, when the block ends."""
    with appears_when_complete(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        yield Writer(file)


def read(path: str | Path) -> list[list[str]]:
    """Reads the rows of a table, as they were given to `Writer`; of other tables, as they are.

    Raises:
      ValueError: naming the file, for one that is not CSV in UTF-8.
      OSError: for one that cannot be opened.
    """
    path = Path(path)
    try:
        # utf-8-sig: a table that went through a spreadsheet comes back with a byte order mark.
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [[original(text) for text in row] for row in csv.reader(file)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a table of UTF-8 text ({error})") from error


def records(path: str | Path) -> tuple[list[str], list[tuple[int, dict[str, str | None]]]]:
    """Reads a table by its header.

    Returns:
      the columns; and of each row that is not empty its number (the header is row 1) and {column: text}, None for a
      text that the row lacks.

    Raises:
      ValueError, OSError: as `read`.
    """
    columns, *rows = read(path) or [[]]
    found = ((number, dict(zip(columns, row, strict=False))) for number, row in enumerate(rows, start=2) if row)
    return columns, [(number, dict.fromkeys(columns) | record) for number, record in found]


def harmless(text: str) -> str:
    """Returns how a text is written: no formula, and no byte that is no text."""
    # A backslash that would be read as such a byte is written as one itself.
    text = _WRITTEN_BYTE.sub(lambda found: rf"\udc5cudc{found[1]}", text)
    text = _NO_TEXT.sub(lambda found: rf"\udc{ord(found[0]) & 0xFF:02x}", text)
    return f"'{text}" if _FORMULA.match(text) else text


def original(text: str) -> str:
    """Returns the text that `harmless` wrote."""
    text = text[1:] if text.startswith("'") and _FORMULA.match(text) else text
    return _WRITTEN_BYTE.sub(lambda found: _character(int(found[1], 16)), text)


def _character(byte: int) -> str:
    return chr(byte if byte < 0x80 else 0xDC00 + byte)
