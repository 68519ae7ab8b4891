"""Which files to read, and what to call them: files, folders, patterns and lists -> films with different names."""

import fnmatch
import glob
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sdfn_jax.core import tables
from sdfn_jax.core.errors import UserError
from sdfn_jax.radiographs import reader
from sdfn_jax.radiographs.find import LeftOut, below
from sdfn_jax.radiographs.opening import ImageFile


def find(
    places: Iterable[str], leave_out: Path | None = None
) -> tuple[list[ImageFile], list[tuple[str, str]], list[LeftOut]]:
    """Finds the films in the given places.

    A film's name is its path below the given folder or below the fixed part of the given pattern; a file given directly
    has its file name. Films with the same name get as many parent folders in front as distinguish them.

    Args:
      places: files, folders (searched by `find.below`) and patterns (`films/*.png`, `films/**/*.dcm`).
      leave_out: the output folder, whose files are not films.

    Returns:
      the films, each real file once, in the order given and by path within a place; (place, problem) of the places
      that do not exist, hold no film, or cannot be reached; and what else was left out.

    Raises:
      UserError: if no place has a film.
    """
    problems: list[tuple[str, str]] = []
    left_out: list[LeftOut] = []
    depths: dict[Path, int] = {}  # of each film, how many last parts of its path are its name
    known: dict[str, Path] = {}  # {real path: path} of the films
    output = None if leave_out is None else Path(os.path.realpath(leave_out))
    for place in places:
        if not _exists(place):
            problems.append((place, f"{place}: no such file or folder"))
            continue
        found = 0
        for path, depth in _expand(place, leave_out, left_out):
            path, real = Path(os.path.abspath(path)), os.path.realpath(path)
            if output is not None and Path(real).is_relative_to(output):
                continue
            found += 1
            first = known.setdefault(real, path)
            if first is path:
                depths[path] = depth
            elif first != path:
                left_out.append(LeftOut(path, "reached twice", f"the same file as {first}"))
        if not found:
            problems.append(
                (
                    place,
                    f"no radiograph in {place}: looked, in it and below it, for files ending in "
                    f"{', '.join(reader.SUFFIXES)} and for files that are DICOM by their content",
                )
            )
    problems += [(str(each.path), f"{each.path}: {each.reason}") for each in left_out if each.lost]
    if not depths:
        more = f"; and {len(problems) - 1:,} more places without one" if len(problems) > 1 else ""
        raise UserError(problems[0][1] + more)
    films = [ImageFile(name, path) for path, name in _names(depths).items()]
    return films, problems, [each for each in left_out if not each.lost]


def read_list(path: str | Path) -> list[str]:
    """Reads a file that names a place on each line; empty lines are skipped.

    Raises:
      UserError: for a file that cannot be read, or names nothing.
    """
    try:
        text = tables.read_text(Path(path))
    except UserError as error:
        raise UserError(f"--list={error}; expected a text file with a path on each line") from error
    places = [line.strip() for line in text.splitlines() if line.strip()]
    if not places:
        raise UserError(f"--list={path}: empty; expected a path on each line")
    return places


def _exists(place: str) -> bool:
    """Returns whether a place can hold films: a pattern always can."""
    return os.path.exists(place) or glob.has_magic(place)


def _expand(place: str, leave_out: Path | None, left_out: list[LeftOut]) -> Iterator[tuple[Path, int]]:
    """Yields (file, number of last parts of its path that name it); adds to what was left out."""
    path = Path(place)
    if os.path.isdir(place):
        yield from _films_below(path, leave_out, left_out)
    elif os.path.exists(place):
        yield path, 1
    else:
        fixed = 0
        while not glob.has_magic(path.parts[fixed]):
            fixed += 1
        if "**" in path.parts:
            yield from _matching(Path(*path.parts[:fixed]), path.parts[fixed:], leave_out, left_out)
            return
        for match in sorted(map(Path, glob.iglob(place))):
            own = len(match.parts) - fixed
            if match.is_dir():
                yield from ((file, depth + own) for file, depth in _films_below(match, leave_out, left_out))
            else:
                yield match, own


def _films_below(folder: Path, leave_out: Path | None, left_out: list[LeftOut]) -> Iterator[tuple[Path, int]]:
    found = below(folder, leave_out)
    left_out += found.left_out
    for path in found.films:
        yield path, len(path.relative_to(folder).parts)


def _matching(
    folder: Path, pattern: Sequence[str], leave_out: Path | None, left_out: list[LeftOut]
) -> Iterator[tuple[Path, int]]:
    """Yields the files below a folder whose path in it has the parts of a pattern, `**` being any number of folders.

    `glob` would not terminate if a link leads back.
    """
    found = below(folder, leave_out)
    left_out += found.left_out
    # A pattern that ends in ** does not restrict names: only films match it.
    for path in found.films if pattern[-1] == "**" else found.files:
        parts = path.relative_to(folder).parts
        if _fits(parts, pattern):
            yield path, len(parts)


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_fits(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatch(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])


def _names(depths: dict[Path, int]) -> dict[Path, str]:
    """Returns {path: name}, all different."""
    depths = dict(depths)
    while True:
        names = {path: "/".join(_parts(path)[-depth:]) for path, depth in depths.items()}
        same: dict[str, list[Path]] = defaultdict(list)
        for path, name in names.items():
            same[name].append(path)
        clashing = [path for paths in same.values() if len(paths) > 1 for path in paths]
        if not clashing:
            return names
        for path in clashing:
            depths[path] = min(depths[path] + 1, len(_parts(path)))


def _parts(path: Path) -> Sequence[str]:
    return path.parts[1:]  # without the root
