"""The identifiers in a DICOM header, for those who ask for them (`--keep_identifiers`); nothing else reads them."""

from collections.abc import Callable
from pathlib import Path

from sdfn_jax.radiographs import picture_files
from sdfn_jax.radiographs.quiet import silenced

KEPT = ("PatientID", "StudyInstanceUID", "SOPInstanceUID")
UNREADABLE = "dicom_identifiers"


def read(path: str | Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Reads the identifiers of a file that `images.read_radiograph` takes.

    Returns:
      {identifier: value} of a DICOM file, `""` for one it lacks or that cannot be read; empty for a file of another
      kind, and for one that lacks the beginning of a DICOM file. And names from `flags.FLAGS`: that one could not be
      read.
    """
    try:
        with Path(path).open("rb") as file:
            if not picture_files.is_dicom(file.read(picture_files.DICOM_PREFIX)):
                return {}, ()
        import pydicom  # here: one of the extra's packages, and nobody else needs it

        with silenced():
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(KEPT))
            found = {name: _text(header.get, name) for name in KEPT}
    except Exception:  # pydicom raises many kinds for a damaged header, and may quote it
        found = dict.fromkeys(KEPT)
    flags = (UNREADABLE,) if None in found.values() else ()
    return {name: value or "" for name, value in found.items()}, flags


def _text(get: Callable[[str], object], name: str) -> str | None:
    """Returns the value of an element, None where it does not fit the kind that the file says it is of."""
    try:
        return str(get(name) or "")
    except Exception:
        return None
