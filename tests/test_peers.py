"""Processes that find each other, on loopback: who does not come, who comes twice, and who is gone."""

import contextlib
import socket
import threading
import time

import pytest

from sdfn_jax.core import peers
from sdfn_jax.core.errors import UserError


@pytest.fixture(autouse=True)
def little_patience(monkeypatch):
    monkeypatch.setattr(peers, "WAIT", 1.0)
    monkeypatch.setattr(peers, "_FREED", 0.3)


@pytest.fixture
def coordinator():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


def meet_all(coordinator, *count_and_index):
    """Has processes meet, each in a thread; returns {(count, index): its peers, or what it was refused with}."""
    found = {}

    def meet(count, index):
        try:
            found[count, index] = peers.meet(coordinator, count, index)
        except UserError as error:
            found[count, index] = str(error)

    threads = [threading.Thread(target=meet, args=each) for each in count_and_index]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    for thread in threads:
        thread.join(timeout=20)
    assert time.monotonic() - begun < 10
    return found


def close(process):
    for connection in process._connections.values():
        connection.close()


@pytest.fixture
def three(coordinator):
    found = meet_all(coordinator, (3, 0), (3, 1), (3, 2))
    yield [found[3, index] for index in range(3)]
    for process in found.values():
        close(process)


def watch(process):
    """Returns a list that takes the numbers of the processes that are lost."""
    lost = []
    process.watch(lost.append)
    return lost


def wait_until(condition):
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_a_process_that_ends_before_its_work_is_done_is_heard_of_by_process_0_at_once(three):
    lost = watch(three[0])
    close_abruptly(three[2])
    assert wait_until(lambda: lost == [2])


def test_the_end_of_process_0_is_heard_of_by_all_others(three):
    lost = [watch(process) for process in three[1:]]
    close_abruptly(three[0])
    assert wait_until(lambda: lost == [[0], [0]])


def close_abruptly(process):
    """Ends the connections as the system does for a process that is killed."""
    for connection in process._connections.values():
        connection.shutdown(socket.SHUT_RDWR)


def test_a_process_that_is_done_is_not_missed(three):
    lost = watch(three[0])
    three[1].done()
    close_abruptly(three[1])
    close_abruptly(three[2])
    assert wait_until(lambda: lost == [2])


def test_process_0_names_the_processes_that_do_not_come(coordinator):
    found = meet_all(coordinator, (4, 0), (4, 2))
    assert f"--coordinator={coordinator}: process 1, 3 did not arrive. Is process 0" in found[4, 2]
    assert f"--coordinator={coordinator}: process 1, 3 did not arrive within 1 seconds" in found[4, 0]
    assert "Start all 4 processes with the same --coordinator" in found[4, 0]


def test_a_process_without_process_0_says_so_within_its_patience(coordinator):
    found = meet_all(coordinator, (2, 1))
    assert f"--coordinator={coordinator}: Connection refused. Is process 0 running" in found[2, 1]


def test_a_port_that_another_program_has_is_said(coordinator):
    host, _, port = coordinator.partition(":")
    with socket.create_server((host, int(port))):
        found = meet_all(coordinator, (2, 0))
    assert f"--coordinator={coordinator}: port {port} is taken by another program" in found[2, 0]


def test_another_count_of_processes_is_said_by_both(coordinator):
    found = meet_all(coordinator, (2, 0), (3, 1))
    assert "process 1 did not arrive" in found[2, 0]
    assert "process 0 was started with --processes=2, process 1 with --processes=3" in found[3, 1]


def test_a_number_given_twice_is_said_to_the_second(coordinator):
    others = threading.Thread(target=meet_all, args=(coordinator, (3, 0), (3, 1)))
    others.start()
    time.sleep(0.5)
    with pytest.raises(UserError, match="process 1 has already arrived; give each its own --process"):
        peers.meet(coordinator, 3, 1)
    others.join()


def test_a_stranger_at_the_port_is_nobody_of_this_run(coordinator):
    host, _, port = coordinator.partition(":")
    found = {}
    first = threading.Thread(target=lambda: found.update(first=peers.meet(coordinator, 2, 0)))
    first.start()
    assert wait_until(lambda: not refuses(host, int(port)))
    with contextlib.closing(socket.create_connection((host, int(port)))) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        second = peers.meet(coordinator, 2, 1)
    first.join(timeout=10)
    lost = watch(found["first"])
    second.done()
    for process in (found["first"], second):
        close(process)
    assert lost == []


def refuses(host, port):
    try:
        socket.create_connection((host, port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False
