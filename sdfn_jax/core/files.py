"""Files and folders that appear only when they are complete, locks, digests, and the cache folder.

A new file is on the disk before it takes its name: after a power cut there is either the former file or the new one.
"""

import contextlib
import errno
import functools
import hashlib
import itertools
import os
import platform
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import filelock

from sdfn_jax.core.errors import UserError

CACHE_VARIABLE = "SDFN_CACHE"

# Unfinished files carry the name of their machine and process, so that those of dead processes are recognised.
_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_UNFINISHED = re.compile(r"\.(?P<host>[0-9a-f]{8})-(?P<process>\d+)-\d+\.writing(\..*)?")
_numbers = itertools.count()
_one_cleans = threading.Lock()


class HeldError(UserError):
    """Another process holds a lock."""


@contextlib.contextmanager
def appears_when_complete(path: str | Path) -> Iterator[Path]:
    """Yields a temporary name to write to; the file is renamed to `path` when the block ends, removed if it raises.

    Until then an older file of that name stays. The suffix is kept, because some writers choose the format by it.
    Missing parent folders are created.

    Raises:
      OSError: naming `path`, if the disk is full or the file cannot be written for another reason.
    """
    path = Path(path)
    unfinished = _unfinished(path)
    try:
        with naming(path, unfinished):
            yield unfinished
            sync(unfinished)
            os.replace(unfinished, path)
            sync(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_appears_when_complete(path: str | Path) -> Iterator[Path]:
    """Yields a temporary name for a folder; it is renamed to `path` when the block ends, removed if it raises.

    Until then an older folder of that name stays; after a kill or a power cut during the exchange it is restored. Only
    one process at a time may do this to a `path` (`locked`).

    Raises:
      OSError: as `appears_when_complete`.
    """
    path = Path(path)
    unfinished = _unfinished(path)
    try:
        with naming(path, unfinished):
            yield unfinished
            put_in_place(unfinished, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def put_in_place(folder: Path, path: Path) -> None:
    """Renames a finished folder to `path`; an older one is kept until the new one is on the disk."""
    sync_tree(folder)
    make_folder(path.parent)
    bring_back(path)
    former = _former(path)
    if path.exists():
        os.replace(path, former)
    try:
        os.replace(folder, path)
        sync(path.parent)
    finally:
        bring_back(path)


def bring_back(path: str | Path) -> None:
    """Restores an older folder if `put_in_place` was interrupted before the exchange; otherwise removes it."""
    path = Path(path)
    former = _former(path)
    if former.exists():
        if path.exists():
            shutil.rmtree(former)
        else:
            os.replace(former, path)


def make_folder(path: str | Path) -> None:
    """Creates a folder and its missing parents, and syncs them to the disk."""
    path = Path(path)
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)


def remove_folder(path: Path) -> None:
    """Removes a folder at once: a reader finds all of it or nothing."""
    going = _unfinished(path)
    os.replace(path, going)
    shutil.rmtree(going, ignore_errors=True)


def sync(path: str | Path) -> None:
    """Writes a file's content, or a folder's list of names, to the disk, and returns when it is there."""
    path = Path(path)
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return  # Windows cannot open folders; NTFS keeps their changes in order
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(descriptor)
    except OSError as error:
        if not (is_folder and error.errno == errno.EINVAL):  # some network file systems cannot sync folders
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: str | Path) -> None:
    """Syncs a folder with all files and folders below it; its own name is in its parent folder."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(parent, name))
        sync(parent)


@contextlib.contextmanager
def locked(file: str | Path, what: str | Path, *, wait: bool = False) -> Iterator[None]:
    """Keeps other processes from writing something while the block runs.

    Everything that two commands might write is written under such a lock. A process may take its own lock again.
    A process that dies, in whatever way, releases it.

    Args:
      file: the lock file; its folder is created.
      what: name of what is written, for the message.
      wait: whether to wait for another process that holds the lock.

    Raises:
      HeldError: if another process holds the lock, and this one does not wait.
      OSError: naming `what`, if the lock file cannot be written.
    """
    file = Path(file)
    make_folder(file.parent)
    with naming(what, file):
        file.touch()  # filelock reports a folder that cannot be written as a lock that is held
    try:
        with filelock.FileLock(file.parent.resolve() / file.name, timeout=-1 if wait else 0, is_singleton=True) as held:
            try:
                yield
            finally:
                if held.lock_counter == 1:
                    with contextlib.suppress(OSError):  # Windows cannot remove an open file
                        file.unlink()
    except filelock.Timeout:
        raise HeldError(
            f"{what} is being written by another command; wait for it to finish, or choose another"
        ) from None


def folder_locked(folder: str | Path) -> contextlib.AbstractContextManager[None]:
    """Keeps other processes from writing to an output folder, which need not exist, while the block runs.

    Raises:
      UserError: if another process is writing there.
    """
    folder = Path(folder)
    whole = folder.absolute()
    return locked(whole.with_name(f".{whole.name}.lock"), folder)


@contextlib.contextmanager
def naming(path: str | Path, unfinished: str | Path | None = None) -> Iterator[None]:
    """Makes an `OSError` name a file: the system's own names none when a disk is full or fails during use.

    Args:
      path: the name.
      unfinished: the file's temporary name, which the user does not know.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(unfinished)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def file_digest(path: str | Path) -> str:
    """Returns the SHA-256 of a file's content, in hexadecimal."""
    with naming(path), Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_web_page(beginning: bytes) -> bool:
    """Returns whether a file begins like HTML, as a download of a sign-in page does."""
    text = beginning[:1000].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return text.startswith((b"<!doctype html", b"<html"))


def cache_folder() -> Path:
    """Returns the folder for downloads and compiled programs: $SDFN_CACHE, or `sdfn_jax` in the user's cache folder.

    Raises:
      UserError: for a user without a home folder, as in some containers.
    """
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named)
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(caches) / "sdfn_jax"
    try:
        return Path.home() / ".cache" / "sdfn_jax"
    except RuntimeError as error:
        raise UserError(
            "this user has no home folder (HOME is not set) for downloads and compiled programs: name a folder for "
            f"them in the environment variable {CACHE_VARIABLE}"
        ) from error


def _unfinished(path: Path) -> Path:
    make_folder(path.parent)
    with _one_cleans:
        _remove_what_dead_processes_left(path.parent.absolute())
    return path.with_name(f".{_HOST}-{os.getpid()}-{next(_numbers)}.writing{path.suffix}")


@functools.cache  # once per folder: a folder of many files is not listed for each of them
def _remove_what_dead_processes_left(folder: Path) -> None:
    for path in folder.iterdir():
        found = _UNFINISHED.fullmatch(path.name)
        if found is None or found["host"] != _HOST or _lives(int(found["process"])):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    """Returns whether another process has this number now."""
    if process == os.getpid():
        return False  # an earlier process had this number; this one has written nothing yet
    if os.name == "nt":
        return True  # it cannot be asked safely there
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _former(path: Path) -> Path:
    return path.with_name(f".{path.name}.former")
