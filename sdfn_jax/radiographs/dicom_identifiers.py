"""The identifiers in a DICOM header, read only on request (`--keep_identifiers`)."""

from collections.abc import Callable
from pathlib import Path

from sdfn_jax.radiographs import picture_files
from sdfn_jax.radiographs.quiet import silenced

KEPT = ("PatientID", "StudyInstanceUID", "SOPInstanceUID")
UNREADABLE = "dicom_identifiers"


def read(path: str | Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Reads the identifiers of a file that `reader.read_radiograph` reads.

    Returns:
      {identifier: value} of a DICOM file, `""` for one that is missing or cannot be read; empty for a file that does
      not begin like DICOM. And names from `flags.FLAGS`: `UNREADABLE` if one cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            if not picture_files.is_dicom(file.read(picture_files.DICOM_PREFIX)):
                return {}, ()
        import pydicom  # imported here: an optional dependency

        with silenced():
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(KEPT))
            found = {name: _text(header.get, name) for name in KEPT}
    except Exception:  # pydicom raises many kinds of errors for a damaged header, and may quote it
        found = dict.fromkeys(KEPT)
    flags = (UNREADABLE,) if None in found.values() else ()
    return {name: value or "" for name, value in found.items()}, flags


def _text(get: Callable[[str], object], name: str) -> str | None:
    """Returns the value of an element, None if it does not fit its VR."""
    try:
        return str(get(name) or "")
    except Exception:
        return None
