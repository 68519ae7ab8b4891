"""Which runs an ensemble is made of: `ensemble.json`, in a folder of its own. No JAX.

The members are networks of one recipe that were trained with different seeds. The ensemble's probability of a finding
is the mean of theirs (Lakshminarayanan et al., NeurIPS 2017): cross-entropy and Brier score are convex in the
probability, so that the mean's score is never worse than the mean of the members' scores. In a mean of logits, one
member that is very sure would outweigh the others.
"""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from sdfn_jax.core import sealed

RECORD_FILE = "ensemble.json"
_MEMBER = {"run": sealed.TEXT, "checkpoint": sealed.TEXT, "seed": sealed.COUNT}
_RECORD = {"stage": sealed.TEXT, "members": sealed.several(sealed.OBJECT)}
_MEND = "the main job makes it again (--config.seeds=N)"


@dataclasses.dataclass(frozen=True)
class Member:
    """A network of an ensemble.

    Attributes:
      run: its folder.
      checkpoint: digest of its best checkpoint.
      seed: of its training.
    """

    run: Path
    checkpoint: str
    seed: int


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """What `ensemble.json` holds.

    Attributes:
      stage: of all members.
      members: two or more, in the order of their seeds.
    """

    stage: str
    members: tuple[Member, ...]

    @property
    def digest(self) -> str:
        """The SHA-256 of the members' digests, in order: what stands for a checkpoint's."""
        return hashlib.sha256("\n".join(member.checkpoint for member in self.members).encode()).hexdigest()

    @property
    def seeds(self) -> tuple[int, ...]:
        """The members' seeds."""
        return tuple(member.seed for member in self.members)


def write(folder: str | Path, stage: str, members: Sequence[Member]) -> None:
    """Writes the record, complete or not at all; runs are named relative to the folder, so that both can be moved."""
    described = [
        {"run": Path(os.path.relpath(member.run, folder)).as_posix()}
        | {"checkpoint": member.checkpoint, "seed": member.seed}
        for member in members
    ]
    sealed.write(Path(folder) / RECORD_FILE, {"stage": stage, "members": described})


def read(folder: str | Path) -> Ensemble | None:
    """Reads what `write` wrote; None if the folder holds no ensemble.

    Raises:
      DamagedError: naming a damaged file.
    """
    path = Path(folder) / RECORD_FILE
    if not path.is_file():
        return None
    record = sealed.read(path, _RECORD, "the record of an ensemble", _MEND, older=False)
    try:
        for each in record["members"]:
            sealed.check(each, _MEMBER, "members")
    except ValueError as error:
        raise sealed.DamagedError(f"{path}: not the record of an ensemble ({error}); {_MEND}") from error
    members = [
        Member(Path(os.path.normpath(Path(folder) / each["run"])), each["checkpoint"], each["seed"])
        for each in record["members"]
    ]
    return Ensemble(record["stage"], tuple(members))
