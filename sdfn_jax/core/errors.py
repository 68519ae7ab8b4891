"""How a command ends: what its user can mend is a sentence on standard error and an exit status, not a traceback."""

import errno
import sys
from collections.abc import Callable
from types import TracebackType

from sdfn_jax.core import terminal

NOT_DONE = 2  # exit status; a misspelt flag has the same

_ROOM = "make room there, or name another place"
_OPEN_FILES = "raise the limit of open files (ulimit -n 4096), or end other programs"
_PLACE = "change its permissions, or name another place"
# {what the system says: what mends it}; of other errors the system's own words are enough.
_ADVICE = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "raise the limit of a file's size (ulimit -f unlimited)",
    errno.EMFILE: _OPEN_FILES,
    errno.ENFILE: _OPEN_FILES,
    errno.EACCES: _PLACE,
    errno.EPERM: _PLACE,
    errno.EROFS: "name another place",
    errno.EIO: "the disk or the connection to it failed; try again, and if it stays so name another place",
    errno.ENOMEM: "end other programs, or let this one take less at a time",
}


class UserError(Exception):
    """A mistake the user can mend; the message names the file, row, key or flag, and what to do."""


def begin_command() -> None:
    """Prepares the process for a command: the first thing that a module does when it is run, before slow imports."""
    terminal.prepare()
    sys.excepthook = _end_before_it_began


def run_command(command: Callable[[], None], again: str = "the same command starts again") -> None:
    """Runs a command. What ends it early is a sentence on standard error, and an exit status.

    Status 2: a `UserError`; a file or folder that the system does not let it use (permissions, a full disk, too many
    open files); too little memory. Status 130: Ctrl-C; 143: SIGTERM. Other errors are mistakes of ours and keep their
    traceback.

    Args:
      command: may end the process itself with another status.
      again: what its user can do after Ctrl-C, and when what the system does not allow is mended.
    """
    try:
        with terminal.stops_say(f"stopped; {again}"):
            try:
                command()
            finally:
                terminal.flush()
    except KeyboardInterrupt as stop:
        terminal.stop(str(stop) or f"stopped; {again}")
    except Exception as error:
        message = describe(error)
        if message is None:
            raise
        mended = "" if isinstance(error, UserError) else f". When that is mended, {again}."
        terminal.say(f"error: {message}{mended}")
        sys.exit(NOT_DONE)


def describe(error: BaseException) -> str | None:
    """Returns the sentence for an error that is no mistake of ours; None for one that is."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return _describe_system_error(error)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):  # the second is XLA's, of any device
        reason = (str(error).splitlines() or ["no more can be had"])[0]
        return (
            f"not enough memory: {reason}. End other programs, or let this one take less at a time: --batch_size, "
            "--config.batch_size, --config.evaluation_batch_size, smaller images"
        )
    return None


def _describe_system_error(error: OSError) -> str:
    if error.errno is None:
        return str(error)
    place = error.filename if error.filename2 is None else error.filename2
    named = "" if place is None else f"{place}: "
    advice = f"; {_ADVICE[error.errno]}" if error.errno in _ADVICE else ""
    return f"{named}{error.strerror}{advice}"


def _end_before_it_began(kind: type[BaseException], error: BaseException, place: TracebackType | None) -> None:
    """Says what ends the process where no command runs yet: Ctrl-C or the system, while modules are imported."""
    if isinstance(error, KeyboardInterrupt):
        terminal.stop("stopped before anything was done")
    message = describe(error)
    if message is None:
        sys.__excepthook__(kind, error, place)
    else:
        terminal.say(f"error: {message}")
