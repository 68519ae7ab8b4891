"""Suppresses the decoders' warnings: a warning about a file may quote its header, including patient data."""

import contextlib
import threading
import warnings
from collections.abc import Iterator

_lock = threading.Lock()
_users = 0
_restore = contextlib.ExitStack()


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Suppresses Python warnings in the block, with any number of threads in it at a time.

    The filters belong to the process, and `warnings.catch_warnings` in two threads may restore the wrong ones. So the
    first thread that enters sets them and the last one that leaves restores them.
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
