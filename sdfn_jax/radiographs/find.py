"""The one walker over folders: finds the radiographs below a folder, and lists what was left out and why.

A radiograph is a real file. However many links lead to it, it is found once: under its own path if that is below the
folder, otherwise under the link's.
"""

import collections
import dataclasses
import filecmp
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from sdfn_jax.core import csv_table
from sdfn_jax.core.terminal import printable
from sdfn_jax.radiographs import picture_files, reader

# Folders made by operating systems: macOS archives, Windows, Synology.
_SYSTEM_FOLDERS = ("__macosx", "$recycle.bin", "system volume information", "lost+found", "@eadir")
# The first bytes identify a DICOM file, and whether it is a directory of others (PS3.10: Media Storage Directory).
_HEAD = 1024
_DICOM_DIRECTORY = re.compile(rb"\x02\x00\x02\x00UI\x14\x001\.2\.840\.10008\.1\.3\.10")
# A file that neither name nor content marks as a radiograph.
OTHER = "not a radiograph by name or content"


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A file or folder that was not taken for a radiograph.

    Attributes:
      path: of a file or a folder.
      kind: why, as a short phrase shared with others.
      detail: more about this one.
      lost: whether it may be a radiograph that could not be reached.
    """

    path: Path
    kind: str
    detail: str = ""
    lost: bool = False

    @property
    def reason(self) -> str:
        """Kind and detail."""
        return f"{self.kind} ({self.detail})" if self.detail else self.kind


@dataclasses.dataclass(frozen=True)
class FoundFilms:
    """The content of a folder and the folders below it.

    Attributes:
      films: paths of radiographs, each real file once; a folder's files before those of the folders in it.
      left_out: all other files, and the folders that were not searched, in the same order.
    """

    films: list[Path]
    left_out: list[LeftOut]

    @property
    def files(self) -> list[Path]:
        """All files that were examined, radiographs or not."""
        others = [each.path for each in self.left_out if each.kind == OTHER]
        return sorted([*self.films, *others], key=_place)


def below(folder: str | Path, leave_out: Path | None = None) -> FoundFilms:
    """Finds the radiographs in a folder and all folders below it.

    Links are followed, to other disks too, but not back to a folder that contains them. Hidden files and folders
    (trash, notebook checkpoints, macOS leftovers), system folders and broken links are skipped.

    Args:
      folder: where to look; its own name may be hidden.
      leave_out: the output folder, whose files are not films.
    """
    search = _Search(Path(folder), leave_out)
    search.run()
    films, left_out = [], search.left_out
    for path in search.files.values():
        try:
            if is_radiograph(path):
                films.append(path)
            else:
                left_out.append(LeftOut(path, OTHER))
        except OSError as error:
            left_out.append(_unopened(path, error))
    return FoundFilms(sorted(films, key=_place), sorted(left_out, key=lambda each: _place(each.path)))


def is_radiograph(path: str | Path) -> bool:
    """Returns whether a file in a folder is a radiograph: by its suffix, or by its content if it is DICOM.

    DICOM files have any suffix (`.dcm`, `.ima`, `.DX`, `.dcm30`), or none, or are named by an identifier of dots
    and numbers. A DICOMDIR, the table of contents of a disc, is not a radiograph.

    Raises:
      OSError: for a file that only its content could identify and that cannot be opened.
    """
    path = Path(path)
    if path.suffix.lower() in reader.SUFFIXES:
        return True
    if path.name.upper() == "DICOMDIR" or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(_HEAD)
    return picture_files.is_dicom(head) and _DICOM_DIRECTORY.search(head) is None


def by_name(paths: Iterable[Path]) -> tuple[dict[str, Path], list[tuple[Path, Path]], list[LeftOut]]:
    """Distinguishes films by their file names alone, as a box table does.

    Returns:
      {file name: film}, sorted by name; (first, second) for each pair of different files with the same name; and the
      copies, files with the name and content of a film.
    """
    films: dict[str, Path] = {}
    different, copies = [], []
    for path in paths:
        first = films.setdefault(path.name, path)
        if first is path:
            continue
        if filecmp.cmp(first, path, shallow=False):
            copies.append(LeftOut(path, "a copy", f"of {first}"))
        else:
            different.append((first, path))
    return dict(sorted(films.items())), different, copies


def describe(left_out: Iterable[LeftOut]) -> str:
    """Returns a line of text for each kind of thing left out: how many, and the first; empty if there is none."""
    kinds: dict[str, list[LeftOut]] = {}
    for each in left_out:
        kinds.setdefault(each.kind, []).append(each)
    return "\n".join(
        f"left out, {kind}: {len(some):,}, first {printable(str(some[0].path))}" for kind, some in kinds.items()
    )


def report(left_out: Sequence[LeftOut], path: Path) -> None:
    """Prints a summary of what was left out, and writes the full list as a table."""
    write_list(path, left_out)
    if left_out:
        print(f"{describe(left_out)}\nfull list: {path}")


def write_list(path: Path, left_out: Iterable[LeftOut]) -> None:
    """Writes what was left out as a table, complete or not at all; removes an older one if there is nothing."""
    rows = [(str(each.path), printable(each.reason)) for each in left_out]
    if not rows:
        path.unlink(missing_ok=True)
        return
    with csv_table.writing(path) as table:
        table.rows([("path", "reason"), *rows])


class _Search:
    """A walk over a folder: its own content first, then the targets of its links.

    Attributes:
      files: {real path: path} of every visible file.
      left_out: what was skipped.
    """

    def __init__(self, folder: Path, leave_out: Path | None):
        self.files: dict[str, Path] = {}
        self.left_out: list[LeftOut] = []
        self._top = os.path.realpath(folder)
        self._output = None if leave_out is None else os.path.realpath(leave_out)
        self._folders: dict[str, Path] = {}
        self._waiting = collections.deque([(folder, self._top)])
        self._links: collections.deque[tuple[Path, str]] = collections.deque()

    def run(self) -> None:
        while self._waiting or self._links:
            if self._waiting:
                self._look_into(*self._waiting.popleft())
            else:
                self._follow(*self._links.popleft())

    def _look_into(self, folder: Path, real: str) -> None:
        if real == self._output:
            return
        if real in self._folders:
            self.left_out.append(LeftOut(folder, "reached twice", f"the same folder as {self._folders[real]}"))
            return
        self._folders[real] = folder
        try:
            with os.scandir(real) as entries:
                for entry in sorted(entries, key=lambda each: each.name):
                    self._look_at(folder / entry.name, entry, real)
        except OSError as error:
            self.left_out.append(_unopened(folder, error))

    def _look_at(self, path: Path, entry: os.DirEntry, parent: str) -> None:
        if reason := _reason_to_skip(entry):
            if entry.is_dir(follow_symlinks=False) or path.suffix.lower() in reader.SUFFIXES:
                self.left_out.append(LeftOut(path, reason))
        elif entry.is_symlink():
            self._links.append((path, parent))
        elif entry.is_dir(follow_symlinks=False):
            self._waiting.append((path, entry.path))
        else:
            self._take(path, entry.path)

    def _follow(self, link: Path, parent: str) -> None:
        target = os.path.realpath(link)
        if os.path.isdir(target):
            if _holds(target, self._top) or _holds(target, parent):
                self.left_out.append(LeftOut(link, "a link back to a folder above it"))
            elif self._output is None or not _holds(self._output, target):
                self._waiting.append((link, target))
        elif os.path.exists(target):
            self._take(link, target)
        elif link.suffix.lower() in reader.SUFFIXES or not link.suffix:
            self.left_out.append(LeftOut(link, "a broken link", os.readlink(link), lost=True))

    def _take(self, path: Path, real: str) -> None:
        is_film = path.suffix.lower() in reader.SUFFIXES
        if self._output is not None and _holds(self._output, real):
            return
        if not os.path.isfile(real):
            if is_film:
                self.left_out.append(LeftOut(path, "not a file"))
        elif (first := self.files.setdefault(real, path)) is not path and is_film:
            self.left_out.append(LeftOut(path, "reached twice", f"the same file as {first}"))


def _reason_to_skip(entry: os.DirEntry) -> str | None:
    """Returns why a file or folder is skipped because of its name; None if it is not."""
    if entry.name.startswith("._"):
        return "written by macOS next to a file"
    if entry.name.startswith("."):
        return "hidden"
    if entry.name.lower() in _SYSTEM_FOLDERS and entry.is_dir(follow_symlinks=False):
        return "a system folder"
    return None


def _holds(folder: str, path: str) -> bool:
    """Returns whether a real path is a real folder or below it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _unopened(path: Path, error: OSError) -> LeftOut:
    return LeftOut(path, "cannot be opened", error.strerror or str(error), lost=True)


def _place(path: Path) -> tuple:
    """Orders paths: a folder's files before those of the folders in it."""
    *folders, name = path.parts
    return (*((1, part) for part in folders), (0, name))
