"""How a command ends: a mistake its user can mend is a sentence on standard error and an exit status, no traceback."""

import errno
import sys
from collections.abc import Callable

from sdfn_jax.core import terminal

NOT_DONE = 2  # exit status; a misspelt flag has the same
AGAIN = "the same command starts again"

_ROOM = "make room there, or name another place"
_OPEN_FILES = "raise the limit of open files (ulimit -n 4096), or end other programs"
_PLACE = "change its permissions, or name another place"
# {error of the system: what to do}; for all others the system's own words are enough.
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
    errno.ENOMEM: "end other programs, or give this one less at a time",
}


class UserError(ValueError):
    """A mistake the user can mend; the message names the file, row, key or flag, and what to do."""


class MissingPackageError(ImportError):
    """A package that an extra installs is missing; the message names the extra.

    No ValueError: what is wrong with one file lets the others go on, and this would be wrong with all of them.
    """


def run_as_process(command: Callable[[], None], again: str = AGAIN) -> None:
    """Runs a command as this process: what a module does when it is run. The arguments are those of `run_command`."""

    def prepared() -> None:
        terminal.prepare()
        command()

    run_command(prepared, again)


def run_command(command: Callable[[], None], again: str = AGAIN) -> None:
    """Runs a command. Whatever ends it early is a sentence on standard error and an exit status.

    Status 2: a `UserError`; a missing package; a file or folder that the system does not let it use (permissions, a
    full disk, too many open files); too little memory. Status 130: Ctrl-C; 143: SIGTERM. Any other error is a bug and
    keeps its traceback.

    Args:
      command: may end the process itself with another status.
      again: what running the command again does, said after Ctrl-C and after an error of the system.
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
        mended = "" if isinstance(error, UserError | MissingPackageError) else f". When that is mended, {again}."
        terminal.say(f"error: {message}{mended}")
        sys.exit(NOT_DONE)


def describe(error: BaseException) -> str | None:
    """Returns the sentence for an error that the user can mend; None for a bug."""
    if isinstance(error, UserError | MissingPackageError):
        return str(error)
    if isinstance(error, OSError):
        return _describe_system_error(error)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):  # the second is XLA's, of any device
        reason = (str(error).splitlines() or ["none is left"])[0]
        return (
            f"not enough memory: {reason}. End other programs, or give this one less at a time: --batch_size, "
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
