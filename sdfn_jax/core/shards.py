"""Work divided into shards, for machines that share nothing but a folder: the last shard to finish makes the whole.

A piece of work is in a shard by a hash of its name, so that more pieces change no piece's shard. Each shard keeps its
own journal next to the others', `<journal>.2_of_8`. A process whose shard is finished looks at all journals: the one
that finds every shard finished has all pieces, and does with them what a single process does. No shard waits for
another and none is special; one that is killed, even in the midst of the last step, resumes with its own command.
"""

import contextlib
import dataclasses
import glob
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from sdfn_jax.core import files, journal
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.journal import Journal

_NUMBERS = re.compile(r".*\.(\d+)_of_(\d+)")
_NAMED = 3  # pieces that a message names


@dataclasses.dataclass(frozen=True)
class Shard:
    """One part of a work.

    Attributes:
      number: which, from 1.
      count: of all parts.
    """

    number: int = 1
    count: int = 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def holds(self, name: str) -> bool:
        """Returns whether a piece is in this shard."""
        return _number(name, self.count) == self.number

    def journal(self, path: Path) -> Path:
        """Returns this shard's journal, if `path` is that of the whole work."""
        return path if self.count == 1 else path.with_name(f"{path.name}.{self.number}_of_{self.count}")


UNDIVIDED = Shard()


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Piece = TypeVar("Piece", bound=_Named)


class ShardedWork:
    """The work of one process: its shard's journal, and in the end the pieces of all shards.

    Attributes:
      journal: of this shard.
    """

    def __init__(self, path: Path, made_by: Mapping, shard: Shard):
        """Opens or begins the journal of a shard.

        Args:
          path: the journal of the whole work; the shards' are next to it.
          made_by: what determines the pieces, the same in all shards.
          shard: this process's; `UNDIVIDED` for all the work.

        Raises:
          OtherWorkError: if this shard or another was begun with other networks or settings.
          UserError: if the work was begun with another number of shards, or another process works at this shard.
        """
        self._path, self._made_by, self._shard = path, dict(made_by), shard
        _check_others(path, made_by, shard)
        with contextlib.ExitStack() as held:
            self.journal = held.enter_context(Journal(shard.journal(path), made_by))
            self._journals = [self.journal]
            self._held = held.pop_all()

    def __enter__(self) -> "ShardedWork":
        return self

    def __exit__(self, *_) -> None:
        self._held.close()

    def mine(self, items: Iterable[Piece]) -> list[Piece]:
        """Returns those of the items whose names are in this shard, in order."""
        return [item for item in items if self._shard.holds(item.name)]

    def all_pieces(self, names: Iterable[str], is_current: Callable[[str, dict], bool]) -> Mapping[str, dict] | None:
        """Declares this shard finished, and returns the pieces of all shards if the others are finished, too.

        If they are not, or another process is faster, a line says so.

        Args:
          names: of all pieces of the work.
          is_current: whether the piece of a name is still what would be made now.

        Returns:
          {name: piece}, in no order; None if there is nothing left to do for this process.
        """
        if self._shard == UNDIVIDED:
            return self.journal
        self.journal.finish()
        self._held.close()  # whoever holds the next lock may open it
        lock = self._path.with_name(f".{self._path.name}.merging")
        self._held.enter_context(files.locked(lock, self._path, wait=True))
        if not self._shard.journal(self._path).exists():
            print(f"shard {self._shard} is finished; the result was written by another shard")
            return None
        pieces, unfinished = self._open_all()
        if not unfinished:
            unfinished = self._without(pieces, names, is_current)
        if unfinished:
            print(
                f"shard {self._shard} is finished. Not finished: {'; '.join(unfinished)}. The shard that finishes last "
                "writes the result; one that was stopped resumes with its own command."
            )
            return None
        print(f"all {self._shard.count} shards are finished", flush=True)
        return pieces

    def delete(self) -> None:
        """Removes the journals, when the result is written."""
        for each in self._journals:
            each.delete()

    def _open_all(self) -> tuple["_AllShards", list[str]]:
        """Opens the journals of all shards; returns them and a phrase for each shard that is not finished."""
        self._journals, unfinished = [], []
        for number in range(1, self._shard.count + 1):
            each = Shard(number, self._shard.count)
            path = each.journal(self._path)
            if not path.exists():
                unfinished.append(f"{each} (not begun)")
            elif not journal.look(path).finished:
                unfinished.append(str(each))
            elif not unfinished:
                try:
                    self._journals.append(self._held.enter_context(Journal(path, self._made_by)))
                except files.HeldError:
                    unfinished.append(f"{each} (at work)")
        return _AllShards(self._journals), unfinished

    def _without(
        self, pieces: Mapping[str, dict], names: Iterable[str], is_current: Callable[[str, dict], bool]
    ) -> list[str]:
        """Returns a phrase for each shard that lacks pieces: its process found other names, or files changed since."""
        lacking: dict[int, list[str]] = {}
        for name in names:
            if name not in pieces or not is_current(name, pieces[name]):
                lacking.setdefault(_number(name, self._shard.count), []).append(name)
        return [
            f"{number}/{self._shard.count} (lacks {len(found):,}, as new or changed since: "
            f"{', '.join(found[:_NAMED])}{', ...' * (len(found) > _NAMED)})"
            for number, found in sorted(lacking.items())
        ]


class _AllShards(Mapping[str, dict]):
    """The journals of all shards as one mapping."""

    def __init__(self, journals: Sequence[Journal]):
        self._journals = journals

    def __getitem__(self, name: str) -> dict:
        return self._journals[_number(name, len(self._journals)) - 1][name]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._journals[_number(name, len(self._journals)) - 1]

    def __iter__(self) -> Iterator[str]:
        return itertools.chain(*self._journals)

    def __len__(self) -> int:
        return sum(map(len, self._journals))


def _number(name: str, count: int) -> int:
    """Returns the number, from 1, of the shard that holds a name."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % count + 1


def _check_others(path: Path, made_by: Mapping, shard: Shard) -> None:
    """Checks what other processes have begun in the same folder.

    Raises:
      UserError: for another number of shards, other networks or settings.
    """
    others = {path: 1} if path.exists() else {}
    for found in sorted(path.parent.glob(f"{glob.escape(path.name)}.*")):
        if numbers := _NUMBERS.fullmatch(found.name):
            others[found] = int(numbers[2])
    for other, count in others.items():
        if count != shard.count:
            begun = f"in {count} shards (--shard=I/{count})" if count > 1 else "in one piece (without --shard)"
            raise UserError(f"{other}: this work was begun {begun}; continue so, or delete the file to start over")
        begun_by = journal.look(other).made_by
        if begun_by is not None and json.dumps(begun_by) != json.dumps(made_by):
            raise journal.other_work(other, begun_by, made_by)
