"""One exception for what a user can mend, shown as a message instead of a traceback."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake the user can mend; the message names the file, row, key or flag, and what to do."""


def exit_on_user_error(command: Callable[[], None]) -> None:
    """Runs a command; a `UserError` ends the process with its message on standard error and status 2."""
    try:
        command()
    except UserError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        sys.exit(2)
