"""How long the steps of a job took, and on what hardware: `job.json` in the folder of the stage that was asked for.

It is for the reader of a report. Nothing else depends on it: a missing or damaged record is ignored.
"""

import contextlib
import dataclasses
from collections.abc import Iterable
from pathlib import Path

from sdfn_jax.core import sealed

_FILE = "job.json"
_STEP = {"name": sealed.TEXT, "seconds": sealed.NUMBER, "hardware": sealed.TEXT, "finished": sealed.BOOLEAN}


@dataclasses.dataclass(frozen=True)
class StepTime:
    """A step of a job.

    Attributes:
      name: as the plan calls it.
      seconds: that it took, those before an interruption included.
      hardware: what it last ran on.
      finished: whether it was done in the end.
    """

    name: str
    seconds: float
    hardware: str
    finished: bool


def read(run: str | Path) -> list[StepTime]:
    """Returns the steps in the order in which they were begun; empty without a record."""
    try:
        record = sealed.read(Path(run) / _FILE, {"steps": sealed.several(sealed.OBJECT)}, "the record of a job", "")
        for step in record["steps"]:
            sealed.check(step, _STEP)
        return [StepTime(**{name: step[name] for name in _STEP}) for step in record["steps"]]
    except (OSError, ValueError):
        return []


def add(run: str | Path, step: StepTime) -> None:
    """Adds a step; the time of an earlier attempt that was interrupted counts, that of one that had finished does not.

    A record that cannot be written is left as it was.
    """
    steps = {each.name: each for each in read(run)}
    before = steps.get(step.name)
    if before is not None and not before.finished:
        step = dataclasses.replace(step, seconds=step.seconds + before.seconds)
    steps[step.name] = step
    with contextlib.suppress(OSError):
        sealed.write(Path(run) / _FILE, {"steps": [dataclasses.asdict(each) for each in steps.values()]})


def together(runs: Iterable[str | Path]) -> list[StepTime]:
    """Returns the steps of several runs, each name once, the last record of it."""
    return list({step.name: step for run in runs for step in read(run)}.values())
