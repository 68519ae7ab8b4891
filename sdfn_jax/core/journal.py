"""A journal of long work, one sealed JSON line for each finished piece: interrupted at any moment, the work resumes."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from sdfn_jax.core import files, sealed
from sdfn_jax.core.errors import UserError

_FINISHED = ""  # key of the last line of a finished journal; no piece has it
_END = 4096  # bytes; more than that line has


class OtherWorkError(UserError):
    """A journal is of other work.

    Attributes:
      begun: what determines the pieces of that work; None if the journal's first line cannot be read.
    """

    def __init__(self, message: str, begun: dict | None):
        super().__init__(message)
        self.begun = begun


class Journal(Mapping[str, dict]):
    """The finished pieces, on disk; only their positions are in memory."""

    def __init__(self, path: str | Path, made_by: Mapping):
        """Opens or begins a journal; a last line left unfinished by a kill is cut off.

        A damaged line is skipped, with a note: its piece is computed again.

        Args:
          path: of the file.
          made_by: what determines the pieces; work resumes only if it is the same.

        Raises:
          OtherWorkError: for a journal of other work, or one whose first line is damaged or of an older version.
          UserError: for one that another command writes into.
        """
        self._path = Path(path)
        self._places: dict[str, int] = {}
        with contextlib.ExitStack() as held:
            held.enter_context(files.locked(self._path.with_name(f".{self._path.name}.lock"), self._path))
            self._file = held.enter_context(self._path.open("a+b"))
            self._begin_or_take_up(made_by)
            self._held = held.pop_all()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file and releases its lock."""
        self._held.close()

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, key: str) -> dict:
        """Reads a piece from disk."""
        self._file.seek(self._places[key])
        return sealed.read_line(self._file.readline())["value"]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def write(self, key: str, value: Mapping) -> None:
        """Adds a piece; a later one of the same key replaces it."""
        line = sealed.line({"key": key, "value": value}).encode()
        self._places[key] = self._file.seek(0, os.SEEK_END)
        self._append(line)

    def finish(self) -> None:
        """Adds a last line, which `look` finds; the journal may still be added to, and finished again."""
        self._file.seek(0, os.SEEK_END)
        self._append(sealed.line({"key": _FINISHED, "value": {"pieces": len(self)}}).encode())

    def delete(self) -> None:
        """Removes the file, when all work is finished."""
        self._file.close()
        self._path.unlink(missing_ok=True)
        self.close()

    def _append(self, line: bytes) -> None:
        """Adds a line and syncs it to the disk."""
        with files.naming(self._path):
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())

    def _begin_or_take_up(self, made_by: Mapping) -> None:
        first = sealed.line(made_by).encode()
        self._file.seek(0)
        found = self._file.readline()
        if not found.endswith(b"\n"):
            self._file.truncate(0)
            self._append(first)
            files.sync(self._path.parent)
        elif found != first:
            raise _not_begun_by(self._path, found, made_by)
        else:
            self._take_up()

    def _take_up(self) -> None:
        place, damaged = self._file.tell(), 0
        for line in iter(self._file.readline, b""):
            if not line.endswith(b"\n"):
                self._file.truncate(place)
                break
            try:
                self._places[sealed.read_line(line)["key"]] = place
            except (ValueError, KeyError, TypeError):
                damaged += 1
            place += len(line)
        self._places.pop(_FINISHED, None)
        if damaged:
            sealed.say(f"{self._path}: {damaged} of its lines are damaged; their work is repeated")


@dataclasses.dataclass(frozen=True)
class JournalLook:
    """What a glance at a journal shows, which may be another process's.

    Attributes:
      made_by: what determines its pieces; None if its first line is unfinished or damaged.
      finished: whether nothing was added since `Journal.finish`.
    """

    made_by: dict | None
    finished: bool


def look(path: Path) -> JournalLook:
    """Looks at the first and the last line of a journal; needs no lock."""
    with path.open("rb") as file:
        made_by = _read(file.readline())
        file.seek(max(0, file.seek(0, os.SEEK_END) - _END))
        last = _read(file.read().split(b"\n")[-2:][0])
    return JournalLook(made_by, last is not None and last.get("key") == _FINISHED)


def other_work(path: Path, begun: dict, made_by: Mapping) -> OtherWorkError:
    """Returns the error for a journal that was begun by something else than `made_by`."""
    return OtherWorkError(
        f"{path} was started with other networks or settings: {json.dumps(begun)}; now they are "
        f"{json.dumps(made_by)}. Continue with the former, or delete the file to start over.",
        begun,
    )


def _not_begun_by(path: Path, first: bytes, made_by: Mapping) -> OtherWorkError:
    try:
        begun = sealed.read_line(first)
    except ValueError as error:
        return OtherWorkError(
            f"{path}: its first line is damaged, or was written by an older version without digests ({error}); delete "
            "the file to start over",
            None,
        )
    return other_work(path, begun, made_by)


def _read(line: bytes) -> dict | None:
    try:
        return sealed.read_line(line)
    except ValueError:
        return None
