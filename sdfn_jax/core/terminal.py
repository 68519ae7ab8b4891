"""The process around a command: output that takes any text and outlives its reader, Ctrl-C that always works.

`errors.run_as_process` calls `prepare` before the command's slow imports.
"""

import _thread
import atexit
import contextlib
import io
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

STOPPED = 130  # exit status after Ctrl-C: 128 and the signal's number, as shells count; 143 after SIGTERM
_STOPS = (signal.SIGINT, signal.SIGTERM)
# Seconds. A second Ctrl-C within _SAME of the first counts as the same: a terminal and a parent process may both pass
# it on. A command that has not ended _PATIENCE after Ctrl-C is ended.
_SAME, _PATIENCE = 0.5, 5.0

speaker = ""  # prefix of every message, if several processes share a terminal
_ended = threading.Event()  # an interrupt has reached the place where it ends the command
_said = "stopped before anything was done"
_status = STOPPED
_decided = False  # a signal has set the status


def prepare() -> None:
    """Prepares the process for a command, before the command's slow imports.

    * Standard output and error take any text: characters outside their encoding (file names may hold anything) are
      written as `\\xe9`, `\\u2192`, or `\\udce9` for a byte that is not text.
    * A reader that leaves (`| head`) does not end the work: later output is dropped, and `flush` says so.
    * Ctrl-C and SIGTERM end the process within seconds, whatever is being imported, compiled or computed.
    """
    sys.stdout, sys.stderr = _Output.around(sys.stdout, 1), _Output.around(sys.stderr, 2)
    sys.unraisablehook = _raise_again
    signal.signal(signal.SIGTERM, _terminate)
    _listen()
    # The first function to be registered is the last to run. A computation interrupted by Ctrl-C still runs in XLA's
    # threads, which end in a segmentation fault if the interpreter is torn down under them.
    atexit.register(_leave)


@contextlib.contextmanager
def stops_say(sentence: str) -> Iterator[None]:
    """Sets the message of a Ctrl-C within the block."""
    global _said
    before, _said = _said, sentence
    try:
        yield
    finally:
        _said = before


def stop(sentence: str) -> NoReturn:
    """Ends the process after Ctrl-C or SIGTERM."""
    _ended.set()
    say(sentence)
    sys.exit(_status)


def say(text: str) -> None:
    """Prints a message on standard error, on a new line in case a progress bar is there."""
    print("\n" + speaker + printable(text, keep="\n"), file=sys.stderr, flush=True)


def printable(text: str, keep: str = "") -> str:
    """Returns a text without control characters: file names may hold anything.

    Args:
      text: any characters.
      keep: unprintable characters that stay.
    """
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape").decode() for each in text
    )


def flush() -> None:
    """Flushes standard output, and says so if its reader left before the end.

    Raises:
      OSError: if it cannot be written.
    """
    if sys.stdout is not None:
        sys.stdout.flush()
    if isinstance(sys.stdout, _Output) and sys.stdout.reader_left:
        sys.stdout.reader_left = False  # once
        say("the reader of standard output left before its end (| head?); the work itself was not cut short")


class _Output(io.TextIOWrapper):
    """Standard output or error that takes any text; once its reader has left, output is dropped."""

    reader_left = False

    @classmethod
    def around(cls, stream: Any, descriptor: int) -> "_Output":
        """Returns the replacement of a stream; if the descriptor is closed (`>&-`), one that drops everything."""
        if stream is None:
            # The next file opened would get this descriptor, and output of native code would end up in it.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            if nowhere != descriptor:
                os.dup2(nowhere, descriptor)
                os.close(nowhere)
            return cls(open(descriptor, "wb"), "utf-8", "backslashreplace")
        return cls(
            stream.buffer,
            stream.encoding,
            "backslashreplace",
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )

    def write(self, text: str) -> int:
        with self._until_the_reader_leaves():
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with self._until_the_reader_leaves():
            super().flush()

    @contextlib.contextmanager
    def _until_the_reader_leaves(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())  # also for buffered output
            os.close(nowhere)
            self.reader_left = self.reader_left or isinstance(error, BrokenPipeError)
            if not self.reader_left:
                raise OSError(error.errno, error.strerror, "standard output") from error


def _listen() -> None:
    """Reports every signal to a thread at once, even while native code keeps Python's own handlers from running."""
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(receiver, sender), daemon=True).start()


def _watch(receiver: socket.socket, _sender: socket.socket) -> None:
    """Ends the process if an interrupt does not.

    Python raises KeyboardInterrupt in the main thread only when that thread is back in Python code, not while a network
    is compiled, and code that swallows every exception swallows this one. Code with its own handler (the trainer, which
    saves its state) handles the first Ctrl-C itself.
    """
    last: float | None = None
    while signals := receiver.recv(64):
        for number in signals:  # several at a time, if this thread had to wait for its turn
            if number not in _STOPS:
                continue
            if last is None:
                _set_status(number)  # `_raise_again` repeats a SIGTERM as SIGINT
            if last is not None and time.monotonic() - last < _SAME:
                continue
            first, last = last is None, time.monotonic()
            if not first or signal.getsignal(number) in (signal.default_int_handler, _terminate):
                threading.Thread(target=_end, daemon=True).start()


def _terminate(*_) -> NoReturn:
    """Treats SIGTERM, sent at shutdown or by a batch queue that ends a job, like Ctrl-C."""
    _set_status(signal.SIGTERM)  # the thread of `_watch` may not have had its turn yet
    raise KeyboardInterrupt


def _set_status(number: int) -> None:
    """Sets the exit status after a signal; the first signal decides."""
    global _status, _decided
    if not _decided:
        _status, _decided = 128 + number, True


def _raise_again(ignored: "sys.UnraisableHookArgs") -> None:
    """Re-raises an interrupt from a callback, which cannot raise itself: JAX has one for garbage collection."""
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        threading.Timer(0.05, _thread.interrupt_main).start()  # in a moment, when the callback is over
    else:
        sys.__unraisablehook__(ignored)


def _end() -> None:
    if _ended.wait(_PATIENCE):
        time.sleep(2 * _PATIENCE)  # in which the processes of one run disconnect
    else:
        say(_said)
    _leave_at_once()


def _leave() -> None:
    if _ended.is_set():
        _leave_at_once()


def _leave_at_once() -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(_status)
