"""The shards in which TFDS writes a data set: made in any process, each leaves a note of what became of its items."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sdfn_jax.core import files, sources


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of the items of a shard.

    Attributes:
      made: the items that were written, in order.
      bad: {name: what is wrong with it} of the others.
      looked_at: their files as they were read.
    """

    made: list[Any]
    bad: dict[str, str]
    looked_at: dict[Path, sources.Source]


@dataclasses.dataclass(frozen=True)
class RecordShard:
    """Makes the examples of a shard when it is called: here or, pickled, in another process (TFDS's `beam_runner`).

    Attributes:
      builder: the `base.RadiographBuilder` that decodes them.
      items: what is decoded, in order.
      note: the file for the outcome, on a disk that all processes see.
    """

    builder: Any
    items: Sequence[Any]
    note: Path

    def __call__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields (name, example) of the good items, then writes the outcome."""
        bad = {}
        for item, example, problem in self.builder.decode(self.items):
            if problem is None:
                yield item.name, example
            else:
                bad[item.name] = problem
        seen = {str(path): self.builder.looked_at.get(path) for item in self.items for path in item.files}
        known = {path: dataclasses.astuple(source) for path, source in seen.items() if source is not None}
        with files.appears_when_complete(self.note) as unfinished:
            unfinished.write_text(json.dumps({"bad": bad, "looked_at": known}), encoding="utf-8")

    def outcome(self) -> Outcome:
        """Returns what became of it, and deletes the note."""
        note = json.loads(self.note.read_text(encoding="utf-8"))
        self.note.unlink()
        looked_at = {Path(path): sources.Source(*values) for path, values in note["looked_at"].items()}
        return Outcome([item for item in self.items if item.name not in note["bad"]], note["bad"], looked_at)
