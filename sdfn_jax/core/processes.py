"""Several processes as one run (`jax.distributed`): joining, waiting for each other, writing, and agreement.

Every process runs the same program on its own devices and its own rows of each batch (`input_pipeline`). All have the
same train state and read the same folders; only process 0 writes files and prints.
"""

import contextlib
import hashlib
import itertools
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sdfn_jax.core import peers, terminal
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.files import locked

AUTO = "auto"  # as the coordinator: the cluster knows the processes
_WEEK = 7 * 24 * 3600  # seconds; the longest wait, for a box table of all of ChestX-ray14 on one processor
_GOODBYE = 5  # seconds for the other processes to meet the same error, before one that leaves ends their work

_index, _count = 0, 1
_peers: peers.Peers | None = None
_waits = itertools.count()


def start(coordinator: str | None, processes: int | None, process: int | None) -> None:
    """Joins the run of several processes that the flags describe; without flags, a run is a single process.

    Call it before anything asks JAX for a device. Process 0 prints; the other processes print only errors, no standard
    output and no progress bars.

    Args:
      coordinator: `host:port` of process 0, or `auto`: JAX asks the cluster (Slurm, Open MPI, Kubernetes, Cloud
        TPU).
      processes: their number; not with `auto`.
      process: number of this one, from 0; not with `auto`.

    Raises:
      UserError: for inconsistent flags, or if the others cannot be reached.
    """
    global _index, _count, _peers
    _check(coordinator, processes, process)
    if coordinator is None:
        return
    import jax

    # Its SIGTERM handler would replace the trainer's and swallow the signal everywhere else.
    jax.config.update("jax_enable_preemption_service", False)
    named: dict[str, Any] = {}
    if coordinator != AUTO:
        print(f"process {process} of {processes}: waiting for the others at {coordinator}", file=sys.stderr, flush=True)
        _peers = peers.meet(coordinator, processes, process)
        named = {
            "coordinator_address": coordinator,
            "coordinator_bind_address": peers.bind_address(coordinator),  # jax's own default is every address
            "num_processes": processes,
            "process_id": process,
        }
    try:
        jax.distributed.initialize(**named)
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"--coordinator={coordinator}: the processes could not connect: {str(error).splitlines()[0]}. "
            "Are all of them running, with the same --coordinator (host:port of process 0, a free port that the "
            "others can reach)? auto is for Slurm, Open MPI, Kubernetes and Cloud TPU."
        ) from error
    _index, _count = jax.process_index(), jax.process_count()
    terminal.speaker = name()
    if _peers is not None:
        if is_first():
            _peers.outlive()
        _peers.watch(_end_with)
    if not is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends


def _end_with(process: int) -> None:
    """Ends this process because another one has died."""
    text = (
        f"\n{name()}process {process} ended before its work was done; its own message says why, unless it was killed. "
        "This process ends too. The same command resumes from the last checkpoint.\n"
    )
    os.write(2, text.encode())  # immediately, whatever the main thread is doing
    os._exit(1)


def _check(coordinator: str | None, processes: int | None, process: int | None) -> None:
    given = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    missing = [name for name, value in given.items() if value is None]
    if coordinator == AUTO:
        if len(missing) != 2:
            raise UserError(f"--coordinator={AUTO} asks the cluster: leave --processes and --process out")
    elif missing and len(missing) < 3:
        raise UserError(
            f"a run of several processes needs three flags; {' and '.join(missing)} missing. For two processes: "
            "--coordinator=HOST:PORT --processes=2 --process=0, and --process=1 in the other"
        )
    elif not missing:
        if not coordinator.rpartition(":")[2].isdigit() or coordinator.startswith(":"):
            raise UserError(f"--coordinator={coordinator}: expected HOST:PORT of process 0, or {AUTO}")
        if not 0 <= process < processes:
            raise UserError(f"--process={process}: expected 0 to {processes - 1}, as --processes={processes}")


def index() -> int:
    """Returns the number of this process, from 0."""
    return _index


def is_first() -> bool:
    """Returns whether this is process 0, which writes and prints."""
    return _index == 0


def several() -> bool:
    """Returns whether this run has more than one process."""
    return _count > 1


def name() -> str:
    """Returns the prefix of this process's messages: `process 1: `, or nothing if it is the only one."""
    return f"process {_index}: " if several() else ""


def wait_for_all() -> None:
    """Returns when every process has reached this call; uses no device, so that it may wait for days."""
    if several():
        from orbax.checkpoint import multihost

        everyone = set(range(_count))
        multihost.sync_global_processes(f"sdfn_jax_{next(_waits)}", timeout=_WEEK, processes=everyone)


def by_first(make: Callable[[], object]) -> None:
    """Makes something in process 0, while the others wait.

    Raises:
      UserError: in the others, if process 0 was stopped by an error.
    """
    error = None
    if is_first():
        try:
            make()
        except BaseException as caught:
            error = caught
    wait_for_all()
    stopped = _of_all(np.array(error is not None))[0] if several() else False
    if error is not None:
        raise error
    if stopped:
        raise UserError("process 0 was stopped by an error; its own message says which")


@contextlib.contextmanager
def writing_alone(folder: str | Path) -> Iterator[None]:
    """Keeps every other command from writing into a folder; process 0 holds the lock for all.

    Raises:
      UserError: if another command is writing there.
    """
    if not is_first():
        yield
        return
    with locked(Path(folder) / ".lock", folder):
        yield


def check_agreement(what: str, value: str) -> None:
    """Checks that every process reaches this call with the same value.

    Raises:
      UserError: in all of them, if one has a different value.
    """
    if not several():
        return
    found = _of_all(np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint8))
    other = np.flatnonzero((found != found[0]).any(axis=1))
    if other.size:
        raise UserError(
            f"{what}: process {other[0]} has a different one than process 0. Start all processes with the same "
            "command, in folders that all of them share."
        )


def _of_all(array: np.ndarray) -> np.ndarray:
    """Returns the arrays of all processes, stacked."""
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(array)


class StopVote:
    """Whether any process wants to stop: the same answer in all of them, at the same call.

    A single process gets its own wish back. With several, the result is that of the previous call: a tiny reduction
    runs after each training step and is read during the next, so that no device waits for it.
    """

    def __init__(self, mesh):
        """Prepares the vote for the devices of a `jax.sharding.Mesh` with the single axis `batch`."""
        self._before = None
        if several():
            import jax
            from jax.sharding import NamedSharding, PartitionSpec

            self._places = NamedSharding(mesh, PartitionSpec("batch"))
            self._any = jax.jit(lambda ballots: ballots.any(), out_shardings=NamedSharding(mesh, PartitionSpec()))

    def ask(self, wish: bool) -> bool:
        """Casts this process's vote, as every process must at the same step; returns whether all stop."""
        if not several():
            return wish
        import jax

        before, ballots = self._before, np.full(len(self._places.addressable_devices), wish)
        self._before = self._any(jax.make_array_from_process_local_data(self._places, ballots))
        return before is not None and bool(before)

    def settle(self, wish: bool) -> bool:
        """Returns at once whether any process wants to stop; every process must call it at the same place."""
        return bool(_of_all(np.array(wish)).any()) if several() else wish


@contextlib.contextmanager
def ends_alone() -> Iterator[None]:
    """Ends one of several processes at once when an error stops it, so that the others notice instead of waiting.

    At a normal exit JAX waits minutes for all processes, while they wait for this one's part of a sum.
    """
    try:
        yield
        if _peers is not None:
            _peers.done()
    except BaseException as error:
        if not several():
            raise
        status = 1
        if isinstance(error, SystemExit):
            status = error.code if isinstance(error.code, int) else 1
            _say_goodbye()
        else:
            if _peers is not None:
                time.sleep(1)  # if this error is due to the loss of another process, `_end_with` reports that
            traceback.print_exc()
            print(
                f"{name()}ended by the error above. The same command resumes from the last checkpoint.",
                file=sys.stderr,
            )
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _say_goodbye() -> None:
    from orbax.checkpoint import multihost

    with contextlib.suppress(Exception):  # the others do not arrive: they are still working, or have ended
        multihost.sync_global_processes("sdfn_jax_goodbye", timeout=_GOODBYE, processes=set(range(_count)))
        if _peers is not None:
            _peers.done()
        if is_first():
            time.sleep(1)  # the others leave first: JAX aborts a process whose coordinator is gone
