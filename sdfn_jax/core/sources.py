"""What something was made from: a record of its source files, and whether they are still the same.

A file counts by its name and content. Reading 42 GB of films to see that nothing has changed would take minutes, so a
file whose size and time of modification are as recorded counts as unchanged; one of another size as changed; and only
one of the same size and another time is read and compared by its digest. Films that were copied elsewhere are thus read
once: afterwards the record holds their new times (`renew`).
"""

import contextlib
import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdfn_jax.core import csv_table, parallel, progress
from sdfn_jax.core.files import file_digest

RECORD = "sources.csv"
_COLUMNS = ("name", "bytes", "modified_ns", "sha256")
_NAMED = 3  # files that a message names; the others are counted


@dataclasses.dataclass(frozen=True)
class Source:
    """A file as it was read.

    Attributes:
      size: in bytes.
      modified: time of its last modification, in nanoseconds.
      sha256: of its content, in hexadecimal.
    """

    size: int
    modified: int
    sha256: str

    def is_still(self, path: Path) -> bool:
        """Returns whether a file has this size and time of modification; False for one that is gone."""
        try:
            status = path.stat()
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (self.size, self.modified)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How the files that are there differ from the recorded ones.

    Attributes:
      added: names that are not recorded.
      gone: recorded names that are not there.
      changed: names of files with another content.
      now: the record as it would be written now, of all files that have not changed.
    """

    added: tuple[str, ...]
    gone: tuple[str, ...]
    changed: tuple[str, ...]
    now: Mapping[str, Source]

    def describe(self) -> list[str]:
        """Returns a phrase for each kind of difference, with a count and the first names; empty without any."""
        kinds = {"added": self.added, "gone": self.gone, "changed": self.changed}
        return [f"{_files(names)} {what} ({_first(names)})" for what, names in kinds.items() if names]


def look_at(path: Path) -> Source:
    """Reads a file for the record.

    Raises:
      OSError: for a file that cannot be read.
    """
    status = path.stat()  # before it is read: whatever changes it meanwhile changes its time
    return Source(status.st_size, status.st_mtime_ns, file_digest(path))


def content_digest(record: Mapping[str, Source]) -> str:
    """Returns the SHA-256 (hexadecimal) of the files' names and contents, wherever and whenever they were written."""
    lines = (f"{name}\n{record[name].sha256}\n" for name in sorted(record))
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def of_data(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Returns {what of a prepared data set decides whatever is made from it: digest}.

    Args:
      metadata: of the set. Those of earlier versions know no digest of the films' content.
    """
    known = {"data": metadata["inputs_digest"], "films": metadata.get("content_digest")}
    return {name: digest for name, digest in known.items() if digest is not None}


def write(path: Path, record: Mapping[str, Source]) -> None:
    """Writes a record as a CSV table, a row for each file."""
    with csv_table.writing(path) as table:
        table.row(_COLUMNS)
        table.rows((name, *dataclasses.astuple(record[name])) for name in sorted(record))


def read(path: Path) -> dict[str, Source] | None:
    """Returns a record; None where there is none that can be read, as beside whatever earlier versions made."""
    try:
        header, *rows = csv_table.read(path)
        if tuple(header) != _COLUMNS:
            return None
        return {name: Source(int(size), int(modified), sha256) for name, size, modified, sha256 in rows}
    except (FileNotFoundError, ValueError):
        return None


def compare(record: Mapping[str, Source], files: Mapping[str, Path], what: str) -> Comparison:
    """Compares the files that are there with a record; reads those whose time alone has changed.

    Args:
      record: what something was made from.
      files: {name: file} as they are now.
      what: for the progress bar of a long comparison.
    """
    changed, unsure, now = [], {}, {}
    for name in sorted(record.keys() & files.keys()):
        then, status = record[name], files[name].stat()
        if status.st_size != then.size:
            changed.append(name)
        elif status.st_mtime_ns != then.modified:
            unsure[name] = files[name]
        else:
            now[name] = then
    looked_at = parallel.map_in_order(look_at, unsure.values())
    for name, found in zip(unsure, progress.bar(looked_at, what=what, unit="file", total=len(unsure)), strict=True):
        if found.sha256 == record[name].sha256:
            now[name] = found
        else:
            changed.append(name)
    added, gone = sorted(files.keys() - record.keys()), sorted(record.keys() - files.keys())
    return Comparison(tuple(added), tuple(gone), tuple(sorted(changed)), now)


def renew(path: Path, record: Mapping[str, Source], comparison: Comparison) -> None:
    """Notes the new times of files whose content is as recorded, so that they are not read again the next time.

    Where the record cannot be written, it stays as it is, and they are.
    """
    renewed = {**record, **comparison.now}
    if renewed != record:
        with contextlib.suppress(OSError):
            write(path, renewed)


def _files(names: tuple[str, ...]) -> str:
    return "1 file" if len(names) == 1 else f"{len(names):,} files"


def _first(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
