"""Another process, for what two of them must not do at once."""

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_HOLD = """
import sys
from sdfn_jax.core.files import locked

with locked(sys.argv[1], "what the other one writes"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def holding(lock: str | Path) -> Iterator[subprocess.Popen]:
    """Has another process hold a lock while the block runs."""
    command = [sys.executable, "-c", _HOLD, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        try:
            yield other
        finally:
            other.stdin.close()


@contextlib.contextmanager
def stopped_when(file: Path, command: list, **more) -> Iterator[subprocess.Popen]:
    """Starts a command and pauses it once a file exists; after the block it runs to its end."""
    with subprocess.Popen(command, **more) as process:
        deadline = time.monotonic() + 300
        while not file.exists():
            assert process.poll() is None, "it ended before"
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(0.05)  # a lock's file is there a moment before the lock is held
        process.send_signal(signal.SIGSTOP)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
