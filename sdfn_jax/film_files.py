"""Which files to read, and what to call them: files, folders, patterns and lists -> films with different names."""

import glob
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sdfn_jax import images
from sdfn_jax.errors import UserError
from sdfn_jax.predictor import Film


def find(places: Iterable[str], leave_out: Path | None = None) -> tuple[list[Film], list[tuple[str, str]]]:
    """Finds the films that are meant.

    A file is called by its path below the folder or the unvaried part of the pattern that was given, a file given by
    itself by its name. Where two have the same name, the folders above come before it, as many as tell them apart.

    Args:
      places: files, folders (searched with all below them for what `images` reads; hidden files and folders are passed
        over) and patterns (`films/*.png`, `films/**/*.dcm`).
      leave_out: a folder whose files are not films: where output goes.

    Returns:
      the films, each file once, in the order given and by path within a place; and (place, what is wrong) of the places
      that are not there or without a film in them.

    Raises:
      UserError: where no place has a film.
    """
    problems = []
    depths: dict[Path, int] = {}  # of each file, how many last parts of its path are its name
    for place in places:
        if not _exists(place):
            problems.append((place, f"{place}: no such file or folder"))
            continue
        found = 0
        for path, depth in _expand(place):
            path = Path(os.path.abspath(path))
            if leave_out is None or not path.is_relative_to(leave_out.absolute()):
                found += 1
                depths.setdefault(path, depth)
        if not found:
            problems.append(
                (
                    place,
                    f"no radiograph in {place}: looked, in it and below it, for files ending in "
                    f"{', '.join(images.SUFFIXES)} and for DICOM files without a suffix",
                )
            )
    if not depths:
        more = f"; and {len(problems) - 1:,} more places without one" if len(problems) > 1 else ""
        raise UserError(problems[0][1] + more)
    return [Film(name, path) for path, name in _names(depths).items()], problems


def read_list(path: str | Path) -> list[str]:
    """Reads a file that names a place in each line; empty lines are passed over.

    Raises:
      UserError: for a file that cannot be read, or names nothing.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--list={path}: {error}; expected a text file with a path in each line") from error
    places = [line.strip() for line in lines if line.strip()]
    if not places:
        raise UserError(f"--list={path}: empty; expected a path in each line")
    return places


def _exists(place: str) -> bool:
    """Tells whether a place can hold films: a pattern always can."""
    return os.path.exists(place) or glob.has_magic(place)


def _expand(place: str) -> Iterator[tuple[Path, int]]:
    """Yields (file, number of last parts of its path that name it)."""
    path = Path(place)
    if os.path.isdir(place):
        yield from _below(path)
    elif os.path.exists(place):
        yield path, 1
    else:
        fixed = 0
        while not glob.has_magic(path.parts[fixed]):
            fixed += 1
        for match in sorted(map(Path, glob.iglob(place, recursive=True))):
            own = len(match.parts) - fixed
            if match.is_dir():
                if "**" not in place:  # whose files match by themselves
                    yield from ((file, depth + own) for file, depth in _below(match))
            else:
                yield match, own


def _below(folder: Path) -> Iterator[tuple[Path, int]]:
    # followlinks: the archives of a data set are often gathered in one folder of links.
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and not _leads_back(parent, name))
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(".") and _is_meant(path):
                yield path, len(path.relative_to(folder).parts)


def _leads_back(parent: str, name: str) -> bool:
    """Tells whether a folder is a link to one that it is in, where every file would be met again and again."""
    path = os.path.join(parent, name)
    return os.path.islink(path) and Path(os.path.realpath(parent)).is_relative_to(os.path.realpath(path))


def _is_meant(path: Path) -> bool:
    try:
        return images.is_radiograph(path)
    except OSError:
        return True  # cannot be opened: reading it will say so


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
