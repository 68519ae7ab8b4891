"""Reads other people's text files and tables, in any encoding and with any separator; errors name file and row."""

import codecs
import csv
import gzip
import io
import itertools
import math
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from sdfn_jax.core.errors import UserError
from sdfn_jax.core.files import is_web_page

# NIH's label table is 8 MB.
MAX_TABLE_BYTES = 2**28
_SEPARATORS = (",", ";", "\t")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like UTF-16's
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WHOLE = re.compile(r"([+-]?\d{1,18})(\.0*)?", re.ASCII)  # 18 digits always fit into 64 bits
_SHOWN = 60


def read_text(path: Path) -> str:
    """Reads text in UTF-8 or UTF-16, with or without a byte order mark; packed with gzip if its name ends in `.gz`.

    Raises:
      UserError: naming the file, for one that cannot be read, has another encoding, is damaged, or is a web page.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(MAX_TABLE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if len(data) > MAX_TABLE_BYTES:
        raise UserError(f"{path}: over {MAX_TABLE_BYTES:,} bytes, far more than a table of this kind has")
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None) or _unmarked(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, row {row}: not text in {encoding.removesuffix('-sig').upper()} (byte {data[error.start]:#04x}); "
            "save the file as UTF-8"
        ) from error
    if "\0" in text:
        row = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{path}, row {row}: zero bytes, as a broken copy contains; copy the file again")
    if is_web_page(text[:1000].encode()):
        raise UserError(f"{path}: a web page, not the file itself; download it again")
    return text


def read_table(
    path: Path,
    columns: Mapping[str, Sequence[str]],
    optional: Sequence[str] = (),
    exact: Sequence[str] = (),
    several_lines: bool = False,
) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Reads a table whose first row names its columns, separated by commas, semicolons or tabs.

    Column names are compared by letters and digits alone. An official name that contains commas
    (`OriginalImage[Width,Height]`) counts as several columns, quoted or not.

    Args:
      path: the file.
      columns: {name of a required column: its other names}.
      optional: columns that are returned if the table has them.
      exact: columns whose text may begin or end with blanks, as file names may; other columns are stripped.
      several_lines: whether a field may have several lines; otherwise that is taken for an unclosed quotation mark.

    Yields:
      (number of the row's first line, the header being 1; {column: text, None if the row is too short}).

    Raises:
      UserError: naming file and row, for a missing or repeated column, a row that cannot be read, and what `read_text`
        refuses.
    """
    text = read_text(path)
    if not text.strip():
        raise UserError(f"{path}: empty; {_expected(columns)}")
    separator, header = _first_row(text, columns)
    places = _places(header, {**columns, **dict.fromkeys(optional, ())})
    absent = [name for name in columns if name not in places]
    if absent:
        first = shown(separator.join(header))
        raise UserError(
            f"{path}: no column {', '.join(absent)} in its first row, which is {first}; {_expected(columns)}"
        )
    twice = [name for name, found in places.items() if len(found) > 1]
    if twice:
        raise UserError(f"{path}: more than one column {twice[0]} in its first row; keep only the right one")
    filled = ((number, row) for number, row in _rows(path, text, separator, several_lines) if any(row))
    for number, row in itertools.islice(filled, 1, None):
        texts = {name: row[at] if at < len(row) else None for name, (at,) in places.items()}
        yield number, {name: text if text is None or name in exact else text.strip() for name, text in texts.items()}


def column_names(path: Path, columns: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns the names in the first row of a table, as `read_table` would read it; raises as it does."""
    text = read_text(path)
    if not text.strip():
        raise UserError(f"{path}: empty; {_expected(columns)}")
    return [name.strip() for name in _first_row(text, columns)[1]]


def whole_number(text: str) -> int:
    """Returns a whole number, which may be written as `58`, `058` or, as spreadsheets do, `58.0`.

    Raises:
      ValueError: for anything else, and for one of over 18 digits.
    """
    if found := _WHOLE.fullmatch(text.strip()):
        return int(found[1])
    raise ValueError(f"{shown(text)}, not a whole number")


def number(text: str) -> float:
    """Returns a finite number.

    Raises:
      ValueError: for anything else.
    """
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{shown(text)}, not a number") from None
    if not math.isfinite(value):
        raise ValueError(f"{shown(text)}, not a finite number")
    return value


def shown(text: str) -> str:
    """Returns text as messages quote it: in quotation marks, on one line, shortened."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + " ...")


def _unmarked(data: bytes) -> str:
    """Detects UTF-16 without a mark, in which every other byte of plain text is zero; otherwise UTF-8."""
    start = data[:64]
    if len(start) > 3 and start.count(0) >= len(start) // 2 - 1 and any(start):
        if not any(start[1::2]):
            return "utf-16-le"
        if not any(start[::2]):
            return "utf-16-be"
    return "utf-8"


def _rows(path: Path, text: str, separator: str, several_lines: bool) -> Iterator[tuple[int, list[str]]]:
    """Yields (number of its first line, fields) of each row."""
    # strict: otherwise an unclosed quotation mark swallows all following rows.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    line = 1
    try:
        for row in reader:
            if reader.line_num > line and not several_lines:
                raise csv.Error("a field over several lines")
            yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{path}, row {line}: cannot be read as a row of a table ({error}); look for an unclosed quotation mark"
        ) from error


def _first_row(text: str, columns: Mapping[str, Sequence[str]]) -> tuple[str, list[str]]:
    """Returns (the separator, the names of the columns)."""
    first = text.lstrip("\r\n").splitlines()[0]
    separator = max(_SEPARATORS, key=lambda each: len(_places(_header(first, each), columns)))
    return separator, _header(first, separator)


def _header(line: str, separator: str) -> list[str]:
    """Returns the names of the columns; a quoted one with commas in brackets is several."""
    try:
        names = next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return []
    return [part for name in names for part in (name.split(",") if re.search(r"\[.*,.*\]", name) else [name])]


def _places(header: Sequence[str], columns: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    """Returns {column: its indices}, without missing columns."""
    keys = [column_key(name) for name in header]
    found = {}
    for name, others in columns.items():
        wanted = {column_key(each) for each in (name, *others)}
        if at := [place for place, key in enumerate(keys) if key in wanted]:
            found[name] = at
    return found


def column_key(name: str) -> str:
    """Returns what of a column's name is compared: its letters and digits."""
    return re.sub(r"[\W_]", "", name.lower())


def _expected(columns: Mapping[str, Sequence[str]]) -> str:
    return f"a table of this kind has {','.join(columns)}"
