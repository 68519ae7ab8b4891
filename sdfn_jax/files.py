"""Files that appear only when they are complete, locks, digests, and the folder of what is kept between commands."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from sdfn_jax.errors import UserError

try:
    import fcntl
except ImportError:  # Windows, where nothing keeps a second command out
    fcntl = None

CACHE_VARIABLE = "SDFN_CACHE"


@contextlib.contextmanager
def appears_when_complete(path: str | Path) -> Iterator[Path]:
    """Gives a name to write under; the file takes the name `path` when the block ends, or vanishes if the block raises.

    Until then an older file of that name stays as it is. The suffix is kept, because some writers choose the format by
    it. Missing parent folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.stem}.writing{path.suffix}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: str | Path, busy: str) -> Iterator[None]:
    """Holds a lock file while the block runs; its folder is made. A process that dies holds it no longer.

    Raises:
      UserError: saying `busy`, where another process holds it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        lock(file, busy)
        yield


def lock(file: IO, busy: str) -> None:
    """Keeps other processes out of an open file until it is closed, or this process is gone in whatever way.

    Where the system or the file system has no locks it keeps nobody out.

    Raises:
      UserError: saying `busy`, where another process holds it.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(busy) from None
    except OSError:  # a file system without locks
        pass


def file_digest(path: str | Path) -> str:
    """Returns the SHA-256 of a file's content, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_web_page(beginning: bytes) -> bool:
    """Tells whether a file begins as HTML does: what a download leaves that asked to sign in."""
    text = beginning[:1000].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return text.startswith((b"<!doctype html", b"<html"))


def cache_folder() -> Path:
    """Returns the folder for downloads and compiled programs: $SDFN_CACHE, or `sdfn_jax` in the user's cache folder.

    Raises:
      UserError: for a user without a home, as in some containers.
    """
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(caches) / "sdfn_jax"
    try:
        return Path.home() / ".cache" / "sdfn_jax"
    except RuntimeError as error:
        raise UserError(
            "this user has no home folder (HOME is not set) to keep downloads and compiled programs in: name a folder "
            f"for them with the environment variable {CACHE_VARIABLE}"
        ) from error
