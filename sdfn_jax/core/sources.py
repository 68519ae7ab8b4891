"""Records the source files of something that was made, and detects changes to them.

Files are compared by name and content. Reading 42 GB of images to see that nothing has changed would take minutes. So a
file with the recorded size and modification time counts as unchanged, one of another size as changed, and only a file
of the same size and another time is read and compared by digest. Images that were copied elsewhere are thus read once:
then the record has their new times (`renew`).
"""

import contextlib
import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdfn_jax.core import csv_table, parallel, progress
from sdfn_jax.core.files import file_digest

SOURCES_FILE = "sources.csv"
_COLUMNS = ("name", "bytes", "modified_ns", "sha256")
_NAMED = 3  # files that a message names; the rest are counted


@dataclasses.dataclass(frozen=True)
class Source:
    """A file as it was when it was read.

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
class SourceChanges:
    """Differences between the files now and the recorded ones.

    Attributes:
      added: names of unrecorded files.
      gone: recorded names of missing files.
      changed: names of files whose content differs.
      now: an up-to-date record of the unchanged files.
    """

    added: tuple[str, ...]
    gone: tuple[str, ...]
    changed: tuple[str, ...]
    now: Mapping[str, Source]

    def describe(self) -> list[str]:
        """Returns a phrase for each kind of difference, with a count and the first names."""
        kinds = {"added": self.added, "gone": self.gone, "changed": self.changed}
        return [f"{_files(names)} {what} ({_first(names)})" for what, names in kinds.items() if names]


def look_at(path: Path) -> Source:
    """Reads a file for the record.

    Raises:
      OSError: for a file that cannot be read.
    """
    status = path.stat()  # before reading: a change during reading changes the time
    return Source(status.st_size, status.st_mtime_ns, file_digest(path))


def content_digest(record: Mapping[str, Source]) -> str:
    """Returns the SHA-256 (hexadecimal) of the files' names and contents, regardless of folder and time."""
    lines = (f"{name}\n{record[name].sha256}\n" for name in sorted(record))
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def of_data(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Returns the digests of a prepared data set that decide what is made from it, {name: digest}.

    Args:
      metadata: of the set; in earlier versions without a digest of the images' content.
    """
    known = {"data": metadata["inputs_digest"], "films": metadata.get("content_digest")}
    return {name: digest for name, digest in known.items() if digest is not None}


def write(path: Path, record: Mapping[str, Source]) -> None:
    """Writes a record as a CSV table, a row for each file."""
    with csv_table.writing(path) as table:
        table.row(_COLUMNS)
        table.rows((name, *dataclasses.astuple(record[name])) for name in sorted(record))


def read(path: Path) -> dict[str, Source] | None:
    """Reads a record; None if there is none that can be read: earlier versions wrote none."""
    try:
        header, *rows = csv_table.read(path)
        if tuple(header) != _COLUMNS:
            return None
        return {name: Source(int(size), int(modified), sha256) for name, size, modified, sha256 in rows}
    except (FileNotFoundError, ValueError):
        return None


def compare(record: Mapping[str, Source], files: Mapping[str, Path], what: str) -> SourceChanges:
    """Compares files with a record; reads only those whose time but not size has changed.

    Args:
      record: of the files that something was made from.
      files: {name: file} as they are now.
      what: name of the work, for the progress bar.
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
    return SourceChanges(tuple(added), tuple(gone), tuple(sorted(changed)), now)


def renew(path: Path, record: Mapping[str, Source], comparison: SourceChanges) -> None:
    """Records the new times of files with unchanged content, so that they are not read again next time.

    If the record cannot be written, it stays as it is and they are read again.
    """
    renewed = {**record, **comparison.now}
    if renewed != record:
        with contextlib.suppress(OSError):
            write(path, renewed)


def _files(names: tuple[str, ...]) -> str:
    return "1 file" if len(names) == 1 else f"{len(names):,} files"


def _first(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
