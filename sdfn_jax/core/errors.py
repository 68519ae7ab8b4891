"""How a command ends: a mistake that its user can fix is one sentence on standard error and an exit status."""

import errno
import sys
from collections.abc import Callable

from sdfn_jax.core import terminal

NOT_DONE = 2  # exit status; a misspelt flag has the same
STARTS_AGAIN = "the same command starts again"

_ROOM = "free some space there, or choose another folder"
_OPEN_FILES = "raise the limit on open files (ulimit -n 4096), or close other programs"
_PLACE = "change its permissions, or choose another folder"
# {system error: what to do}; for all others the system's own words are enough.
_ADVICE = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "raise the limit on file size (ulimit -f unlimited)",
    errno.EMFILE: _OPEN_FILES,
    errno.ENFILE: _OPEN_FILES,
    errno.EACCES: _PLACE,
    errno.EPERM: _PLACE,
    errno.EROFS: "choose another folder",
    errno.EIO: "the disk or the connection to it failed; try again, and if that does not help, choose another folder",
    errno.ENOMEM: "close other programs, or process less at a time",
}


class UserError(ValueError):
    """A mistake that the user can fix; the message names the file, row, key or flag, and what to do."""


class MissingPackageError(ImportError):
    """A package that an extra installs is missing; the message names the extra.

    Not a ValueError: an error in one file lets the others continue, and this one would affect them all.
    """


def run_as_process(command: Callable[[], None], again: str = STARTS_AGAIN) -> None:
    """Runs a command as this process, for a module that is executed. The arguments are those of `run_command`."""

    def prepared() -> None:
        terminal.prepare()
        command()

    run_command(prepared, again)


def run_command(command: Callable[[], None], again: str = STARTS_AGAIN) -> None:
    """Runs a command; whatever ends it early is reported as one sentence on standard error and an exit status.

    Status 2: a `UserError`; a missing package; a file or folder that cannot be used (permissions, a full disk, too
    many open files); too little memory. Status 130: Ctrl-C; 143: SIGTERM. Any other error is a bug and
    keeps its traceback.

    Args:
      command: may end the process itself with another status.
      again: what running the command again does; reported after Ctrl-C and after a system error.
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
        advice = "" if isinstance(error, UserError | MissingPackageError) else f". Once that is fixed, {again}."
        terminal.say(f"error: {message}{advice}")
        sys.exit(NOT_DONE)


def describe(error: BaseException) -> str | None:
    """Returns the sentence for an error that the user can fix; None for a bug."""
    if isinstance(error, UserError | MissingPackageError):
        return str(error)
    if isinstance(error, OSError):
        return _describe_system_error(error)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):  # the second is XLA's, of any device
        reason = (str(error).splitlines() or ["none is left"])[0]
        return (
            f"not enough memory: {reason}. Close other programs, or process less at a time: --batch_size, "
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
