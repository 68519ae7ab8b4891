"""Bounds on the time and memory that a weights file may take, checked before anything is read or allocated.

A DenseNet-121 has 32 MB of weights, ConvNeXt-Base 354 MB; with an optimizer's state and a moving average, 1.4 GB.
"""

import zipfile
from pathlib import Path
from typing import IO

LARGEST_FILE = 2**31  # bytes of a file
LARGEST_CONTENT = 2**29  # bytes of all its tensors, unpacked
MOST_TENSORS = 10_000  # DenseNet-121 has 727
LARGEST_DIRECTORY = 4 * 2**20  # bytes of a zip archive's list of entries, some 60 an entry
LARGEST_PICKLE = 64 * 2**20  # bytes of a PyTorch file without its numbers
LARGEST_HEADER = 16 * 2**20  # bytes of the list of tensors of a .safetensors file


class TooLargeError(ValueError):
    """A file that would take more time or memory than any weights of this project need."""


def check(amount: int, most: int, what: str, unit: str = "bytes") -> None:
    """Raises TooLargeError if `what` takes more than it may."""
    if amount > most:
        raise TooLargeError(f"{what} takes {amount:,} {unit}; weights of a network here take less than {most:,}")


def open_zip(file: IO[bytes]) -> zipfile.ZipFile:
    """Opens a zip archive whose list of entries has a plausible length.

    Raises:
      TooLargeError: for a longer one.
      zipfile.BadZipFile: for a damaged archive or none.
    """
    sparing = _Sparing(file)
    archive = zipfile.ZipFile(sparing)
    sparing.most = LARGEST_FILE
    return archive


def read_entry(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """Reads an entry of an archive, if it is small enough unpacked.

    Raises:
      TooLargeError: for a larger one.
      KeyError: if there is none.
      zipfile.BadZipFile: for a damaged one.
    """
    check(archive.getinfo(name).file_size, most, name)
    return archive.read(name)  # zipfile unpacks no more than it says, and checks its CRC-32


def check_file(path: Path) -> None:
    """Raises TooLargeError for a file that is too large, OSError for one that is not accessible."""
    check(path.stat().st_size, LARGEST_FILE, "the file")


class _Sparing:
    """A file that is not read in pieces of more than `most` bytes.

    zipfile reads the list of entries in one piece, and makes an object of each.
    """

    def __init__(self, file: IO[bytes]):
        self._file = file
        self.most = LARGEST_DIRECTORY

    def __getattr__(self, name: str):
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        check(size, self.most, "the list of a zip archive's entries")
        return self._file.read(size)
