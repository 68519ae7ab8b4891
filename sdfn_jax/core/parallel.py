"""Work computed ahead, by threads or devices, and returned in order."""

import collections
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
# What computes many items: (function of several items, all items, size of a batch) -> the results, in any order.
Engine = Callable[[Callable[[Sequence[Item]], Iterable[Result]], Sequence[Item], int], Iterable[Result]]


def usable_cores() -> int:
    """Returns the number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def here(function: Callable[[Sequence[Item]], Iterable[Result]], items: Sequence[Item], size: int) -> Iterable[Result]:
    """The engine that is this process."""
    del size
    return function(items)


def map_in_order(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None
) -> Iterator[Result]:
    """Yields `function(item)` for every item, in order, computed ahead by threads.

    Decoding and resizing with Pillow release the interpreter lock, so threads use all cores. At most four results
    per worker wait at a time: memory stays constant however long `items` is.

    Args:
      function: called in a worker thread; its exceptions are raised here, in the item's turn.
      items: read only as far ahead as work is handed out.
      workers: number of threads; one per usable core if None.
    """
    workers = workers or usable_cores()
    waiting: collections.deque = collections.deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def in_batches(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """Yields the items in tuples of `size`; the last may be shorter."""
    iterator = iter(items)
    while batch := tuple(itertools.islice(iterator, size)):
        yield batch


def one_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yields the items with the next one already started, so that a device computes while the caller uses the last."""
    waiting: collections.deque = collections.deque()
    for item in items:
        waiting.append(item)
        if len(waiting) == 2:
            yield waiting.popleft()
    yield from waiting
