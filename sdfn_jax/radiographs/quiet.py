"""Keeps what decoders warn of to themselves: a warning about a file may quote its header, patient data and all."""

import contextlib
import threading
import warnings
from collections.abc import Iterator

_lock = threading.Lock()
_users = 0
_restore = contextlib.ExitStack()


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """No Python warning is shown or raised inside, however many threads are in here at once.

    The filters belong to the whole process, and `warnings.catch_warnings` in two threads leaves them as either found
    them. So the first thread to enter sets them and the last one to leave puts them back.
    """
    global _users
    with _lock:
        if _users == 0:
            _restore.enter_context(warnings.catch_warnings(action="ignore"))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _restore.close()
