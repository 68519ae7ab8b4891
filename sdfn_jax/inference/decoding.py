"""Decodes untrusted films in separate processes: one that takes too long, or crashes, affects nothing else.

A decoding thread cannot be killed, a process can. Requests and answers are plain bytes, so that even a decoder that a
film has taken over can return nothing but an image with known flags, or a sentence.
"""

import contextlib
import os
import queue
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import IO, TypeVar

import numpy as np

from sdfn_jax.core.errors import MissingPackageError
from sdfn_jax.radiographs import reader
from sdfn_jax.radiographs.flags import FLAGS
from sdfn_jax.radiographs.limits import MAX_PIXELS, Refused

# Seconds per film; on two cores, the largest one allowed takes some 5.
TIME_LIMIT = 30
# Seconds until a process accepts its first film; a busy machine or a cold disk is not the film's fault.
_START_LIMIT = 120
# Bytes of address space per process, where the system can limit them; DICOM of MAX_PIXELS takes some 2 GiB.
MEMORY_LIMIT = 6 * 2**30
# Number of processes: while one film is slow, others are still decoded.
PROCESSES = 3
_COMMAND = "from sdfn_jax.inference.decoding import work; work()"
_REQUEST = struct.Struct("<QQ")  # bytes of the film, and of the suffix
_ANSWER = struct.Struct("<cQQQ")  # kind; height, width and bytes of flags, or bytes of a sentence, 0 and 0
_IMAGE, _REFUSED, _MISSING_PACKAGE = b"I", b"R", b"M"
_READY = b"+"

T = TypeVar("T")


class Decoders:
    """Processes that decode, started when they are first needed; leaving the context ends them, busy or not.

    Thread-safe: `decode` may be called by any number of threads, which wait for a free process.
    """

    def __init__(self, time_limit: float = TIME_LIMIT):
        self._all = [_Decoder(time_limit) for _ in range(PROCESSES)]
        self._free: queue.LifoQueue[_Decoder] = queue.LifoQueue()
        for each in self._all:
            self._free.put(each)

    def __enter__(self) -> "Decoders":
        return self

    def __exit__(self, *_) -> None:
        for each in self._all:
            each.end()

    def decode(self, data: bytes, suffix: str = "") -> tuple[np.ndarray, tuple[str, ...]]:
        """Decodes a film as `reader.decode_with_flags` does.

        Raises:
          ValueError: for bytes that cannot be decoded, or not in `time_limit` seconds, or that crash the decoder.
          MissingPackageError: if DICOM needs packages that are not installed.
        """
        decoder = self._free.get()
        try:
            return decoder.decode(data, suffix)
        finally:
            self._free.put(decoder)


class _Decoder:
    """One process, replaced when it has ended; for one thread at a time."""

    def __init__(self, time_limit: float):
        self._time_limit = time_limit
        self._process: subprocess.Popen | None = None
        self._ready: subprocess.Popen | None = None  # the process, once it takes films
        self._ended = False
        self._starting = threading.Lock()

    def decode(self, data: bytes, suffix: str) -> tuple[np.ndarray, tuple[str, ...]]:
        process = self._started()
        if process is not self._ready:
            late = f"not read: the decoder did not start within {_START_LIMIT} s"
            _within(process, _START_LIMIT, late, lambda: _read(_streams(process)[1], len(_READY)))
            self._ready = process
        late = f"takes longer than {self._time_limit:g} s to decode, and was stopped"
        return _within(process, self._time_limit, late, lambda: _ask(process, data, suffix))

    def end(self) -> None:
        """Ends the process, even while another thread waits for its answer; no other is started."""
        with self._starting:
            self._ended = True
            if self._process is not None:
                self._process.kill()
                self._process.wait()
                _close(self._process)

    def _started(self) -> subprocess.Popen:
        with self._starting:
            if self._ended:
                raise Refused("the viewer is being stopped")
            if self._process is None or self._process.poll() is not None:
                if self._process is not None:
                    _close(self._process)
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _COMMAND],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,  # where decoders print what they think of a film
                    env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                )
            return self._process


def _within(process: subprocess.Popen, seconds: float, too_late: str, exchange: Callable[[], T]) -> T:
    """Returns the result of an exchange with a process; kills the process if that takes too long.

    Raises:
      Refused: with `too_late`, or with the status of a process that has ended by itself.
    """
    late = threading.Event()

    def stop() -> None:
        late.set()
        process.kill()

    timer = threading.Timer(seconds, stop)
    timer.start()
    try:
        return exchange()
    except (OSError, EOFError):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)  # it is ending: with which status?
        process.kill()
        process.wait()
        if late.is_set():
            raise Refused(too_late) from None
        raise Refused(f"cannot be decoded (the decoder ended with status {process.returncode})") from None
    finally:
        timer.cancel()
        timer.join()  # so that it kills no process that already decodes another film
        if late.is_set():
            process.wait()


def _close(process: subprocess.Popen) -> None:
    for stream in _streams(process):
        with contextlib.suppress(OSError):  # what a process that has ended did not read
            stream.close()


def _streams(process: subprocess.Popen) -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdin is not None and process.stdout is not None
    return process.stdin, process.stdout


def _ask(process: subprocess.Popen, data: bytes, suffix: str) -> tuple[np.ndarray, tuple[str, ...]]:
    name = suffix.encode("utf-8", "replace")
    requests, answers = _streams(process)
    requests.write(_REQUEST.pack(len(data), len(name)))
    requests.write(name)
    requests.write(data)
    requests.flush()
    kind, *size = _ANSWER.unpack(_read(answers, _ANSWER.size))
    if kind == _IMAGE and size[0] * size[1] <= MAX_PIXELS:
        radiograph = np.frombuffer(_read(answers, size[0] * size[1]), np.uint8).reshape(size[:2])
        told = _read(answers, min(size[2], 2**16)).decode("utf-8", "replace").split()
        return radiograph, tuple(name for name in FLAGS if name in told)
    if kind in (_REFUSED, _MISSING_PACKAGE):
        sentence = _read(answers, min(size[0], 2**16)).decode("utf-8", "replace")
        raise Refused(sentence) if kind == _REFUSED else MissingPackageError(sentence)
    raise EOFError("no answer")


def _read(stream: IO[bytes], size: int) -> bytes:
    """Reads so many bytes.

    Raises:
      EOFError: if there are fewer.
    """
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("the other process has ended")
    return data


def work() -> None:
    """Runs a decoding process: answers films until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches it too; the viewer ends it
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a decoder prints is not an answer
    answers.write(_READY)
    answers.flush()
    with contextlib.suppress(EOFError):
        while True:
            length, name_length = _REQUEST.unpack(_read(requests, _REQUEST.size))
            suffix = _read(requests, name_length).decode()
            kind, size, content = _answer(_read(requests, length), suffix)
            answers.write(_ANSWER.pack(kind, *size))
            answers.writelines(content)
            answers.flush()


def _answer(data: bytes, suffix: str) -> tuple[bytes, tuple[int, int, int], list[bytes | memoryview]]:
    try:
        radiograph, flags = reader.decode_with_flags(data, suffix)
    except (ValueError, MissingPackageError) as error:
        sentence = str(error).encode("utf-8", "replace")[: 2**16]
        return _REFUSED if isinstance(error, ValueError) else _MISSING_PACKAGE, (len(sentence), 0, 0), [sentence]
    names = " ".join(flags).encode()
    return _IMAGE, (*radiograph.shape, len(names)), [np.ascontiguousarray(radiograph).data, names]
