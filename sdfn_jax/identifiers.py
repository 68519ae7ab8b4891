"""The identifiers in a DICOM header, for those who ask for them (`--keep_identifiers`); nothing else reads them."""

from pathlib import Path

from sdfn_jax import images
from sdfn_jax.silence import silenced

KEPT = ("PatientID", "StudyInstanceUID", "SOPInstanceUID")


def read(path: str | Path) -> dict[str, str]:
    """Reads the identifiers of a file that `images.read_radiograph` takes.

    Returns:
      {identifier: value} of a DICOM file, `""` for one it lacks; empty for a file of another kind, and for one that
      lacks the beginning of a DICOM file.
    """
    with Path(path).open("rb") as file:
        if not images.is_dicom(file.read(images.DICOM_PREFIX)):
            return {}
    import pydicom  # here: one of the extra's packages, and nobody else needs it

    with silenced():
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(KEPT))
        return {name: str(header.get(name) or "") for name in KEPT}
