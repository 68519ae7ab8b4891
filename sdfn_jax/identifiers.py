"""The identifiers in a DICOM header, for those who ask for them (`--keep_identifiers`); nothing else reads them."""

from pathlib import Path

KEPT = ("PatientID", "StudyInstanceUID", "SOPInstanceUID")


def read(path: str | Path) -> dict[str, str]:
    """Returns {identifier: value} of a DICOM file; empty for a file of another kind, and `""` for one it lacks."""
    import pydicom  # here: one of the extra's packages, and nobody else needs it
    from pydicom.errors import InvalidDicomError

    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(KEPT))
    except InvalidDicomError:
        return {}
    return {name: str(header.get(name) or "") for name in KEPT}
