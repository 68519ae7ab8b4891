"""The processes of one run meet before JAX's own service starts, and notice at once when one of them is gone.

JAX's service aborts a process, with a native stack trace, if its peers do not arrive within minutes or are lost; it may
take 100 seconds to notice a loss. A plain connection to process 0, open for this purpose alone, is closed by the system
the moment that either end dies.
"""

import contextlib
import errno
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Container

from sdfn_jax.core.errors import UserError

WAIT = 300.0  # seconds, for all processes to arrive
_HELLO, _GO, _DONE = "sdfn_jax process {} of {}\n", b"go\n", b"done\n"
_HELLO_READ = re.compile(rb"sdfn_jax process (\d{1,9}) of (\d{1,9})\n")
_OUTLIVES = 3  # seconds
_FREED = 3 * _OUTLIVES  # seconds, for the port of an earlier run to become free


class Peers:
    """Connections between processes: from process 0 to all others, from each of the others to process 0."""

    def __init__(self, connections: dict[int, socket.socket]):
        self._connections = connections
        self._holder: subprocess.Popen | None = None
        self._at_end = False

    def watch(self, lost: Callable[[int], None]) -> None:
        """Calls `lost`, in a thread, with the number of a process that ends without having sent `done`."""
        for number, connection in self._connections.items():
            threading.Thread(target=self._listen, args=(number, connection, lost), daemon=True).start()

    def outlive(self) -> None:
        """Keeps this process's JAX connections open for some seconds after its death, so that `lost` is called first.

        JAX aborts a process at once when its connection to JAX's service closes. On Linux only; elsewhere the message
        of that abort may come first, or instead.
        """
        if not sys.platform.startswith("linux"):
            return
        own = {connection.fileno() for connection in self._connections.values()}
        held = [
            number
            for number in map(int, os.listdir("/proc/self/fd"))
            if number > 2 and number not in own and _is_socket(number)
        ]
        command = ["sh", "-c", f"read line; sleep {_OUTLIVES}"]  # `read` ends with this process
        self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=held, start_new_session=True)

    def done(self) -> None:
        """Tells the others that this process has finished its work: its end is not a loss."""
        self._at_end = True
        for connection in self._connections.values():
            with contextlib.suppress(OSError):
                connection.sendall(_DONE)
        if self._holder is not None:
            self._holder.kill()
            self._holder.wait()

    def _listen(self, number: int, connection: socket.socket, lost: Callable[[int], None]) -> None:
        try:
            heard = connection.recv(len(_DONE))
        except OSError:
            heard = b""
        if heard != _DONE and not self._at_end:
            lost(number)


def meet(coordinator: str, count: int, index: int) -> Peers:
    """Waits until every process of a run has arrived.

    Args:
      coordinator: `host:port` of process 0.
      count: number of processes.
      index: number of this one.

    Raises:
      UserError: naming the missing processes, or the obstacle.
    """
    host, _, port = coordinator.rpartition(":")
    host = host.strip("[]")
    flag = f"--coordinator={coordinator}"
    if index == 0:
        return Peers(_gather(flag, host, int(port), count))
    return Peers({0: _join(flag, host, int(port), count, index)})


def bind_address(coordinator: str) -> str | None:
    """Returns the address on which process 0 listens: the given one, if this machine has it.

    None means all addresses: the others may know this machine by one that it does not know itself.
    """
    host, _, port = coordinator.rpartition(":")
    try:
        address = str(socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0][4][0])
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as trial:
            trial.bind((address, 0))
    except OSError:
        return None
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _gather(flag: str, host: str, port: int, count: int) -> dict[int, socket.socket]:
    there: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as unless_all_come, _listener(flag, host, port) as listener:
        deadline = time.monotonic() + WAIT
        while len(there) < count - 1:
            listener.settimeout(max(0.0, deadline - time.monotonic()))
            try:
                connection, _ = listener.accept()
            except (TimeoutError, BlockingIOError):
                missing = ", ".join(str(number) for number in range(1, count) if number not in there)
                for connection in there.values():
                    _tell(connection, f"process {missing} did not arrive")
                raise UserError(
                    f"{flag}: process {missing} did not arrive within {WAIT:.0f} seconds. Start all {count} processes "
                    "with the same --coordinator, on machines that reach this one at that address."
                ) from None
            unless_all_come.enter_context(connection)
            number, refusal = _recognise(connection, count, there)
            if refusal is None:
                there[number] = connection
            else:
                _tell(connection, refusal)
                connection.close()
        for connection in there.values():
            connection.sendall(_GO)
        unless_all_come.pop_all()
    return there


def _recognise(connection: socket.socket, count: int, there: Container[int]) -> tuple[int, str | None]:
    """Returns the number of an arriving process, and why it is refused; None if it is accepted."""
    hello = b""
    with contextlib.suppress(OSError):
        hello = _line(connection, 5.0)
    found = _HELLO_READ.fullmatch(hello)
    if found is None:
        return -1, "only processes of sdfn_jax are expected here"
    number, its_count = int(found[1]), int(found[2])
    if its_count != count:
        return number, f"process 0 was started with --processes={count}, process {number} with --processes={its_count}"
    if number in there or not 0 < number < count:
        return number, f"process {number} has already arrived; give each its own --process"
    return number, None


def _tell(connection: socket.socket, sentence: str) -> None:
    with contextlib.suppress(OSError):
        connection.sendall(f"{sentence}\n".encode())


def _join(flag: str, host: str, port: int, count: int, index: int) -> socket.socket:
    deadline = time.monotonic() + WAIT
    while True:
        answer = b""
        try:
            connection = socket.create_connection((host, port), timeout=max(1.0, deadline - time.monotonic()))
        except OSError as error:
            reason = error.strerror or str(error)
        else:
            with contextlib.ExitStack() as unless_taken:
                unless_taken.enter_context(connection)
                answer, reason = _introduce(connection, deadline, count, index)
                if answer == _GO:
                    unless_taken.pop_all()
                    return connection
        if answer or time.monotonic() > deadline:
            raise UserError(
                f"{flag}: {reason}. Is process 0 running, with the same --coordinator, on a machine that can be "
                f"reached at that address? (waited {WAIT:.0f} seconds at most)"
            )
        time.sleep(0.2)


def _introduce(connection: socket.socket, deadline: float, count: int, index: int) -> tuple[bytes, str]:
    """Returns the answer of process 0, if any, and the reason for not joining if it is not `_GO`."""
    try:
        connection.sendall(_HELLO.format(index, count).encode())
        answer = _line(connection, max(1.0, deadline - time.monotonic()))
    except TimeoutError:
        return b"", "process 0 is running, but not all the others arrived"
    except OSError as error:
        return b"", error.strerror or str(error)
    return answer, answer.decode(errors="replace").rstrip("\n") or "process 0 has ended"


def _listener(flag: str, host: str, port: int) -> socket.socket:
    address = bind_address(f"{host}:{port}")
    family = socket.AF_INET if address is not None and not address.startswith("[") else socket.AF_INET6
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # JAX's service uses the port afterwards
        if address is None:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        _bind(listener, "::" if address is None else address.rpartition(":")[0].strip("[]"), port)
        listener.listen()
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"{flag}: port {port} is taken by another program; give a free one, to all") from error
        raise UserError(f"{flag}: this process cannot listen there ({error.strerror})") from error
    return listener


def _bind(listener: socket.socket, host: str, port: int) -> None:
    deadline = time.monotonic() + _FREED
    while True:
        try:
            return listener.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def _line(connection: socket.socket, seconds: float) -> bytes:
    """Reads one line of at most 200 bytes; less if the other side closes.

    Raises:
      OSError: after a timeout, or if the connection breaks.
    """
    line = b""
    connection.settimeout(seconds)
    while not line.endswith(b"\n") and len(line) < 200 and (byte := connection.recv(1)):
        line += byte
    connection.settimeout(None)
    return line


def _is_socket(number: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{number}").startswith("socket:")
    except OSError:
        return False
