"""What a power cut leaves of a folder, at every moment of some work, in two views of a disk that keeps what is synced.

Both are hard on the work. What C++ code syncs by itself does not count, only `os.fsync` does.
"""

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock


class _Disk:
    """Follows `os.fsync`: the bytes of files and the names of folders that are on the disk."""

    def __init__(self, root: Path):
        self.root = root
        self._files: dict[int, bytes] = {}
        self._folders: dict[int, dict[str, int]] = {}
        self._open: list[int] = []  # so that no other file is given the number of one that was removed
        self._folders[root.stat().st_ino] = {}

    def sync(self, descriptor: int) -> None:
        self._open.append(os.dup(descriptor))
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            names = os.listdir(descriptor)
            self._folders[found.st_ino] = {name: os.stat(name, dir_fd=descriptor).st_ino for name in names}
        else:
            self._files[found.st_ino] = Path(f"/proc/self/fd/{descriptor}").read_bytes()

    def names_lost(self, to: Path) -> None:
        """Writes the disk on which no name is new, or gone, that was not synced."""
        self._write_folder(self.root.stat().st_ino, to)

    def contents_lost(self, to: Path) -> None:
        """Writes the disk on which every name is there, and files are empty that were not synced."""
        shutil.copytree(self.root, to)
        for path in self.root.rglob("*"):
            if path.is_file():
                content = self._files.get(path.stat().st_ino, b"")
                (to / path.relative_to(self.root)).write_bytes(content)

    def _write_folder(self, number: int, to: Path) -> None:
        to.mkdir()
        for name, child in self._folders.get(number, {}).items():
            if child in self._files:
                (to / name).write_bytes(self._files[child])
            elif child in self._folders:
                self._write_folder(child, to / name)
            else:
                (to / name).touch()

    def close(self) -> None:
        for descriptor in self._open:
            os.close(descriptor)


def _content(folder: Path) -> str:
    """Returns a digest of all but unfinished files and folders."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if ".writing" not in str(path):
            digest.update(f"{path.relative_to(folder)} {path.read_bytes() if path.is_file() else None}".encode())
    return digest.hexdigest()


@contextlib.contextmanager
def at_every_moment(
    root: Path, scratch: Path, check: Callable[[Path], None], expected: Any = None
) -> Iterator[list[str]]:
    """Checks, before and after each change of names and each sync within the block, what a power cut then would leave.

    Args:
      root: the folder that the work writes into, and that nothing has been written into yet.
      scratch: a folder for what would be left.
      check: takes a folder that stands for `root` after the power is back.
      expected: what `check` compares with; what is left is checked again when this, or what is left, has changed.

    Yields:
      the names of the moments that were checked, as they come.
    """
    disk, moments, checked = _Disk(root), [], set()

    def cut(name: str) -> None:
        for view in (disk.names_lost, disk.contents_lost):
            left = scratch / f"{len(moments)}_{view.__name__}"
            view(left)
            situation = (_content(left), repr(expected))
            try:
                if situation not in checked:
                    check(left)
                checked.add(situation)
            except BaseException as error:
                raise AssertionError(f"{view.__name__}, {name} after {moments[-5:]}") from error
            shutil.rmtree(left)
        moments.append(name)

    def watched(name: str) -> Callable:
        real = getattr(os, name)

        def call(*arguments, **named):
            place = os.readlink(f"/proc/self/fd/{arguments[0]}") if name == "fsync" else os.fsdecode(arguments[0])
            result = real(*arguments, **named)
            if name == "fsync":
                disk.sync(arguments[0])
            if not place.startswith(str(scratch)) and not busy:
                busy.append(True)
                cut(f"{name} {Path(place).name}")
                busy.pop()
            return result

        return call

    busy: list[bool] = []
    with contextlib.ExitStack() as patches:
        for name in ("fsync", "replace", "rename", "unlink", "rmdir"):
            patches.enter_context(mock.patch.object(os, name, watched(name)))
        yield moments
    disk.close()
