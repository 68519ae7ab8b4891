"""Work by threads comes back in order, and no further ahead than it must."""

import itertools
import os
import threading
import time

import pytest

from sdfn_jax.core.parallel import map_in_order, usable_cores


@pytest.mark.parametrize("workers", [None, 1, 3, 50])
def test_results_come_in_order(workers):
    waits = [0.02 * (7 * index % 5) / 5 for index in range(30)]  # later ones are done earlier

    def work(index):
        time.sleep(waits[index])
        return index**2

    assert list(map_in_order(work, range(30), workers)) == [index**2 for index in range(30)]


def test_nothing_to_do():
    assert list(map_in_order(abs, [], 2)) == []


def test_workers_work_at_the_same_time():
    meeting = threading.Barrier(3, timeout=10)  # breaks unless three wait at once
    assert sorted(map_in_order(lambda _: meeting.wait(), range(3), workers=3)) == [0, 1, 2]


def test_an_error_comes_at_its_place():
    results = map_in_order(lambda number: 6 // number, [3, 2, 0, 1], workers=2)
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_endless_items_are_read_a_little_ahead():
    read = itertools.count()
    last = [0]

    def items():
        for last[0] in read:
            yield last[0]

    results = map_in_order(abs, items(), workers=2)
    for expected in range(20):
        assert next(results) == expected
        assert last[0] - expected <= 8  # four a worker
    results.close()


def test_who_stops_early_leaves_no_threads_and_starts_no_more_work():
    before = set(threading.enumerate())
    stopped, started = threading.Event(), []

    def work(number):
        started.append(number)
        if number > 0:
            stopped.wait(10)

    results = map_in_order(work, range(1000), workers=2)
    next(results)
    timer = threading.Timer(0.1, stopped.set)
    timer.start()
    results.close()
    timer.join()
    assert set(threading.enumerate()) == before
    assert len(started) <= 3  # the first, and what each worker had begun


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_cores_are_those_this_process_may_use():
    allowed = os.sched_getaffinity(0)
    assert usable_cores() == len(allowed)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
