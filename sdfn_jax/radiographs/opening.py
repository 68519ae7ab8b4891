"""Radiographs as a caller passes them in: files, arrays, or many of either; each has a name and can be loaded."""

import dataclasses
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from sdfn_jax.radiographs import grey_levels, reader


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """A file that holds a radiograph.

    Attributes:
      name: its name in results, unlike that of any other.
      path: the file.
    """

    name: str
    path: Path

    def load(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """Reads the file (`reader.read_with_flags`)."""
        return reader.read_with_flags(self.path)


@dataclasses.dataclass(frozen=True, eq=False)
class ImageArray:
    """A radiograph in memory.

    Attributes:
      name: its name in results; may be empty.
      pixels: in any form that `grey_levels.as_radiograph` takes.
      flags: names from `flags.FLAGS` that are known already.
    """

    name: str
    pixels: ArrayLike
    flags: tuple[str, ...] = ()

    def load(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """Takes the array as a radiograph.

        Raises:
          ValueError: if it cannot be one, in a sentence that begins with `name`.
        """
        try:
            return grey_levels.as_radiograph(self.pixels), self.flags
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}" if self.name else str(error)) from error


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """A file or array that could not be read, in its place among the others.

    Attributes:
      name: of the file or array.
      reason: what is wrong with it, as a sentence.
    """

    name: str
    reason: str


def is_one(given: object) -> bool:
    """Returns whether this is one radiograph (a path, an array, a picture), not many."""
    return isinstance(given, str | os.PathLike) or hasattr(given, "__array__") or hasattr(given, "__array_interface__")


def as_image(given: str | os.PathLike | ArrayLike, name: str = "") -> ImageFile | ImageArray:
    """Returns one radiograph; a file is named by its path as given.

    Args:
      given: a path; or an array or picture.
      name: of an array.

    Raises:
      TypeError: for anything else.
    """
    if isinstance(given, str | os.PathLike):
        return ImageFile(os.fspath(given), Path(given))
    if is_one(given):
        return ImageArray(name, given)
    raise TypeError(f"{type(given).__name__}; expected a radiograph: a path or an (H, W) array")


def as_images(given: Iterable[str | os.PathLike | ArrayLike]) -> Iterator[ImageFile | ImageArray]:
    """Returns many radiographs one by one; an array is named by its position, from `0`.

    Raises:
      TypeError: if they are not iterable, or, when its turn comes, for one that is neither a path nor an array.
    """
    if not isinstance(given, Iterable):
        raise TypeError(
            f"{type(given).__name__}; expected radiographs: a path, an (H, W) array, or an iterable of these"
        )
    return (as_image(each, str(number)) for number, each in enumerate(given))


def load(image: ImageFile | ImageArray) -> tuple[np.ndarray, tuple[str, ...]] | Unreadable:
    """Loads one of many radiographs: an error in it does not stop the others.

    Returns:
      (H, W) uint8 and names from `flags.FLAGS`; or why it cannot be read.

    Raises:
      ImportError: if a decoder is not installed.
    """
    try:
        return image.load()
    except OSError as error:
        return Unreadable(image.name, f"{error.filename or image.name}: {error.strerror or error}")
    except ValueError as error:
        return Unreadable(image.name, str(error))
