"""The log of a run: `metrics.jsonl`, one line per epoch, and TensorBoard events if requested."""

import json
import os
from pathlib import Path

from sdfn_jax.core import sealed
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.extras import install_command
from sdfn_jax.core.files import appears_when_complete, naming

_LINE = {"epoch": sealed.COUNT, "step": sealed.COUNT}


class MetricsLog:
    """Appends to `<workdir>/metrics.jsonl`; lines of epochs that a resumed run repeats are dropped first."""

    def __init__(self, workdir: str | Path, epochs_done: int, tensorboard: bool):
        """Opens the log of a run that has finished `epochs_done` epochs.

        Raises:
          UserError: if TensorBoard events are requested and tensorboardX is not installed.
        """
        self._path = Path(workdir) / "metrics.jsonl"
        kept = [line for line in self.read(workdir) if line["epoch"] <= epochs_done]
        with appears_when_complete(self._path) as path:
            path.write_text("".join(json.dumps(line) + "\n" for line in kept))
        self._events = _events_writer(workdir, epochs_done) if tensorboard else None

    def write(self, line: dict) -> None:
        """Adds an epoch's line, which is then on the disk; `epoch` and `step` are among its keys."""
        with naming(self._path), self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if self._events is not None:
            for name, value in line.items():
                self._events.add_scalar(name, value, line["step"])

    @staticmethod
    def read(workdir: str | Path) -> list[dict]:
        """Returns the lines of a run, oldest first; a line torn by a kill is ignored, and damaged ones are reported."""
        path = Path(workdir) / "metrics.jsonl"
        lines, damaged = [], 0
        content = path.read_bytes() if path.exists() else b""
        for text in content.splitlines(keepends=True):
            line = _parse(text)
            if line is not None:
                lines.append(line)
            elif text.endswith(b"\n"):
                damaged += 1
        if damaged:
            sealed.say(f"{path}: {damaged} of its lines are damaged and left out")
        return lines


def _parse(text: bytes) -> dict | None:
    """Returns an epoch's line; None for anything else."""
    try:
        line = json.loads(text.decode())  # NaN is a loss too, if a run diverged
        sealed.check(line, _LINE)
    except (ValueError, RecursionError):
        return None
    return line


def _events_writer(workdir: str | Path, epochs_done: int):
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError(
            "--config.tensorboard=True needs tensorboardX, which is not installed: " + install_command("tensorboard")
        ) from error
    # Its thread writes; `flush()` does not wait for that thread, and would leave an epoch unwritten for two minutes.
    return SummaryWriter(str(Path(workdir) / "tensorboard"), flush_secs=1, filename_suffix=f".{epochs_done}")
