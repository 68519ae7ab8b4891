"""Ray as what computes (an extra): workers on this machine or a cluster, with the journal in this process.

A worker is an actor. It has the networks, which travel with the function that uses them, so that every worker has those
of this process; the threads that read films for them are in its process, on the CPUs that it reserves. A worker gets
chunks of whole batches, two at a time, so that one is read while the other is computed, and no more: memory stays the
same however many films there are. A chunk whose worker died goes to another, and a new worker is asked for.
"""

import collections
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from sdfn_jax.core import parallel, terminal
from sdfn_jax.core.errors import MissingPackageError, UserError
from sdfn_jax.core.extras import install_command

_CPUS = 4  # of a worker without a GPU: more of them read and compute no faster
_CHUNK = 64  # items at most
_AHEAD = 2  # chunks that a worker has
_LOSSES = 3  # of workers, over one chunk
_PATIENCE = 60.0  # seconds without any result


@contextlib.contextmanager
def engine(address: str | None, start: Callable[[], None], *, on_gpus: bool = True) -> Iterator[parallel.Engine]:
    """Yields what computes.

    Args:
      address: `ray` for the cluster that the environment variable RAY_ADDRESS names, or a new one on this machine;
        `ray://HOST:PORT` for a cluster elsewhere; None for this process.
      start: called once in each worker.
      on_gpus: whether a worker uses a GPU if there are any.

    Raises:
      MissingPackageError: without Ray.
      UserError: if the cluster cannot be reached.
    """
    if address is None:
        yield parallel.here
        return
    try:
        import ray
    except ImportError as error:
        raise MissingPackageError(f"--engine={address} needs the package ray: {install_command('ray')}") from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing leaves the machine
    on_term = signal.getsignal(signal.SIGTERM)  # Ray puts its own in its place
    try:
        where = {"include_dashboard": False} if address == "ray" else {"address": address}
        ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises just that if a node is slow to start
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        # To Ray's client, a cluster that asks for a token is one that does not answer.
        token = "" if address == "ray" else ". If it asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
        raise UserError(f"--engine={address}: no Ray cluster can be reached there: {reason}{token}") from error
    try:
        signal.signal(signal.SIGTERM, on_term)
        yield _Workers(ray, start, on_gpus)
    finally:
        ray.shutdown()


class _Workers:
    """The engine: a function of several items, at work on a cluster."""

    def __init__(self, ray: Any, start: Callable[[], None], on_gpus: bool):
        self._ray, self._start, self._on_gpus = ray, start, on_gpus

    def __call__(self, function: Callable[[Sequence], Iterable], items: Sequence, size: int) -> Iterator:
        """Yields the results of a function of several items, in any order; `size` items are one batch."""
        if items:
            shares = _shares(self._ray.nodes(), self._on_gpus)
            chunk = size * max(1, min(_CHUNK, len(items) // (4 * _AHEAD * len(shares))) // size)
            crew = _Crew(self._ray, self._ray.put(function), self._start, shares)
            try:
                yield from crew.work(parallel.in_batches(items, chunk))
            finally:
                crew.dismiss()


class _Crew:
    """The workers of one function."""

    def __init__(self, ray: Any, function: Any, start: Callable[[], None], shares: Sequence[dict]):
        self._ray, self._function, self._begin = ray, function, start
        self._share_of: dict[Any, dict] = {}  # {worker: what it reserves}, while it lives
        self._at_work: dict[Any, tuple[Any, tuple]] = {}  # {promise: (worker, chunk; empty while it starts)}
        self._free: collections.deque = collections.deque()  # workers, once for each chunk that they may get
        for share in shares:
            self._hire(share)

    def work(self, chunks: Iterable[tuple]) -> Iterator:
        """Yields the results of all chunks, in the order in which they come."""
        waiting = collections.deque(chunks)
        losses: collections.Counter[str] = collections.Counter()  # of workers, by the chunk's first item
        while waiting or self._is_busy():
            while waiting and self._free:
                worker, chunk = self._free.popleft(), waiting.popleft()
                self._at_work[worker.compute.remote(chunk)] = (worker, chunk)
            ready, _ = self._ray.wait(list(self._at_work), timeout=_PATIENCE)
            if not ready and not self._is_busy():
                terminal.say("no worker is ready: the cluster has no free CPUs or GPUs; waiting for some")
            for promise in ready:
                worker, chunk = self._at_work.pop(promise)
                try:
                    found = self._ray.get(promise)
                except self._ray.exceptions.RayActorError as error:
                    first = chunk[0].name if chunk else ""
                    losses[first] += 1
                    if losses[first] == _LOSSES:
                        raise _lost(chunk, error) from error
                    self._replace(worker)
                    waiting.extendleft([chunk] if chunk else [])
                except self._ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                else:
                    if not chunk:
                        losses.pop("", None)
                    self._free.extend([worker] * (1 if chunk else _AHEAD))
                    yield from found

    def _is_busy(self) -> bool:
        return any(chunk for _, chunk in self._at_work.values())

    def dismiss(self) -> None:
        """Ends all workers."""
        for worker in self._share_of:
            self._ray.kill(worker)

    def _hire(self, share: dict) -> None:
        options = {**share, "max_concurrency": _AHEAD, "max_restarts": 0, "max_task_retries": 0}
        worker = self._ray.remote(_Worker).options(**options).remote(self._function, self._begin, os.getcwd())
        self._share_of[worker] = share
        self._at_work[worker.compute.remote(())] = (worker, ())

    def _replace(self, worker: Any) -> None:
        """Replaces a worker that died, once however many chunks it had."""
        if share := self._share_of.pop(worker, None):
            terminal.say("a worker died; what it had goes to another")
            self._free = collections.deque(each for each in self._free if each is not worker)
            self._hire(share)


class _Worker:
    """What Ray runs in a process of its own."""

    def __init__(self, function: Callable[[Sequence], Iterable], start: Callable[[], None], folder: str):
        with contextlib.suppress(OSError):  # relative paths mean what they mean to the one who gave the command
            os.chdir(folder)
        start()
        self._function = function

    def compute(self, items: Sequence) -> list:
        """Returns the results of the function."""
        return list(self._function(items)) if items else []


def _shares(nodes: Sequence[dict], on_gpus: bool) -> list[dict]:
    """Returns what each worker reserves: with GPUs one of them, without any a few CPUs."""
    shares = []
    for node in nodes:
        cpus, gpus = (int(node["Resources"].get(name, 0)) for name in ("CPU", "GPU"))
        if not node["Alive"] or not cpus:
            continue
        count = min(gpus, cpus) if gpus and on_gpus else max(1, cpus // _CPUS)
        shares += count * [{"num_cpus": cpus // count, "num_gpus": 1 if gpus and on_gpus else 0}]
    if not shares:
        raise UserError("the Ray cluster has no CPUs to work on; start one with ray start --num-cpus=N")
    return shares


def _lost(chunk: tuple, error: Exception) -> UserError:
    reason = str(error).splitlines()[0]
    if not chunk:
        return UserError(f"workers die as they start ({reason}); is sdfn_jax installed on all machines of the cluster?")
    return UserError(
        f"{_LOSSES} workers died while they had the {len(chunk)} files from {chunk[0].name} on ({reason}). Have they "
        "too little memory, or does one of these files end its reader? Without --engine the same command resumes here."
    )
