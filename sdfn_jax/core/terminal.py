"""The process around a command: output that takes any text and outlives its reader, Ctrl-C that is always heard.

A command calls `prepare` before the imports that take seconds. `errors.run_command` does the rest.
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
from typing import NoReturn, TextIO

STOPPED = 130  # exit status after Ctrl-C: 128 and the signal's number, as shells count; 143 after SIGTERM
_STOPS = (signal.SIGINT, signal.SIGTERM)
# Seconds: what came sooner after a Ctrl-C is the same one (a terminal and a parent process may both pass it on); what a
# command has to end after it, before it is ended.
_SAME, _PATIENCE = 0.5, 5.0

speaker = ""  # what messages begin with, where several processes share a terminal
_ended = threading.Event()  # an interrupt has come through to where it ends the command
_said = "stopped before anything was done"
_status = STOPPED


def prepare() -> None:
    """Prepares the process for a command; the first thing that a module run as one does.

    * Standard output and error take any text: what their encoding lacks (file names may hold anything) is written as
      `\\xe9`, `\\u2192` or, of a byte that is no text, `\\udce9`.
    * A reader who leaves (`| head`) does not end the work: what is written afterwards is dropped, which `flush` says.
    * Ctrl-C and SIGTERM end the process within seconds, whatever is being imported, compiled or computed.
    """
    sys.stdout, sys.stderr = _Output.around(sys.stdout, 1), _Output.around(sys.stderr, 2)
    sys.unraisablehook = _raise_again
    signal.signal(signal.SIGTERM, _terminate)
    _listen()
    # The first to be registered is the last to run. A computation that Ctrl-C broke off still runs in XLA's threads,
    # which end in a segmentation fault when the interpreter is taken down under them.
    atexit.register(_leave)


@contextlib.contextmanager
def stops_say(sentence: str) -> Iterator[None]:
    """Names what is said after a Ctrl-C within the block."""
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
    """Prints a message on standard error, set off from a progress bar that may stand there."""
    print("\n" + speaker + printable(text, keep="\n"), file=sys.stderr, flush=True)


def printable(text: str, keep: str = "") -> str:
    """Returns a text that does nothing to a terminal: file names may hold anything.

    Args:
      text: of whatever characters.
      keep: those of them that stay though they are not printable.
    """
    return "".join(
        each if each.isprintable() or each in keep else each.encode("unicode_escape").decode() for each in text
    )


def flush() -> None:
    """Writes out what standard output holds back, and says where its reader has left before the end.

    Raises:
      OSError: where it cannot be written.
    """
    if sys.stdout is not None:
        sys.stdout.flush()
    if getattr(sys.stdout, "reader_left", False):
        sys.stdout.reader_left = False  # once
        say("the reader of standard output left before its end (| head?); the work itself was not cut short")


class _Output(io.TextIOWrapper):
    """Standard output or error that takes any text; after its reader has left, what is written is dropped."""

    reader_left = False

    @classmethod
    def around(cls, stream: TextIO | None, descriptor: int) -> "_Output":
        """Returns the output in a stream's place; where the descriptor is closed (`>&-`), one that drops everything."""
        if stream is None:
            # Files that are opened would get this descriptor, and what native code prints be written into them.
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
            os.dup2(nowhere, self.fileno())  # for what is still held back, too
            os.close(nowhere)
            self.reader_left = self.reader_left or isinstance(error, BrokenPipeError)
            if not self.reader_left:
                raise OSError(error.errno, error.strerror, "standard output") from error


def _listen() -> None:
    """Has a thread told of every signal at once, even while native code keeps Python's own handlers from running."""
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(receiver, sender), daemon=True).start()


def _watch(receiver: socket.socket, _sender: socket.socket) -> None:
    """Ends the process where an interrupt does not.

    Python raises it in the main thread when that is back in Python code, not while a network is compiled; and whoever
    passes over every exception passes over this one. Whoever has a handler of their own (the trainer, which saves its
    state) decides about the first Ctrl-C.
    """
    global _status
    last = None
    while signals := receiver.recv(64):
        heard = [number for number in _STOPS if number in signals]
        if not heard:
            continue
        _status = 128 + heard[0]
        first = last is None
        if not first and time.monotonic() - last < _SAME:
            continue
        last = time.monotonic()
        if not first or signal.getsignal(heard[0]) in (signal.default_int_handler, _terminate):
            threading.Thread(target=_end, daemon=True).start()


def _terminate(*_) -> NoReturn:
    """SIGTERM, as the system sends it when it shuts down or a batch queue ends a job, is heard as Ctrl-C is."""
    raise KeyboardInterrupt


def _raise_again(ignored: "sys.UnraisableHookArgs") -> None:
    """Raises an interrupt again that came in a callback, where nothing can be raised: jax has one for garbage."""
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        threading.Timer(0.05, _thread.interrupt_main).start()  # in a moment, when the callback is over
    else:
        sys.__unraisablehook__(ignored)


def _end() -> None:
    if _ended.wait(_PATIENCE):
        time.sleep(2 * _PATIENCE)  # in which processes of one run take leave of each other
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
