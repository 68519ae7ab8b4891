"""The elements of a film's DICOM header that its results carry on: patient, study, and what the film is.

Nothing else of the header is read, and messages quote none of it.
"""

import re
from pathlib import Path
from typing import BinaryIO

import pydicom
from pydicom.dataset import Dataset

from sdfn_jax.radiographs import picture_files
from sdfn_jax.radiographs.quiet import silenced

# Results need these as identifiers (PS3.5, 9.1).
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
# Patient and General Study modules: Type 2, present even if empty.
_MAY_BE_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
_OTHERS = (
    "SpecificCharacterSet",
    "IssuerOfPatientID",
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "Modality",
    "BodyPartExamined",
    "ViewPosition",
    "PatientOrientation",
    "BurnedInAnnotation",
    "Rows",
    "Columns",
)


class NoResults(Exception):
    """A film has no DICOM results; the message is a phrase that says why, and quotes no header."""


def read(film: Path | BinaryIO) -> Dataset:
    """Reads the header of a film that has been decoded.

    Raises:
      NoResults: for a file that is not DICOM, or whose identifiers cannot be used.
      OSError: for one that cannot be opened.
    """
    if isinstance(film, Path):
        with film.open("rb") as file:
            return read(file)
    beginning = film.read(picture_files.DICOM_PREFIX)
    film.seek(0)
    if not picture_files.is_dicom(beginning):
        raise NoResults("not DICOM")
    with silenced():
        try:
            header = pydicom.dcmread(film, stop_before_pixels=True, specific_tags=[*_UIDS, *_MAY_BE_EMPTY, *_OTHERS])
            header.decode()
            for name in _MAY_BE_EMPTY:
                if name not in header:
                    setattr(header, name, None)
            usable = all(_UID.fullmatch(str(header.get(name))) and len(header[name].value) <= 64 for name in _UIDS)
        except Exception as error:  # pydicom raises many kinds of errors for a damaged header, and may quote it
            raise NoResults(f"its identifiers cannot be read ({type(error).__name__})") from None
    if not usable:
        raise NoResults("its header lacks a study, series or SOP instance UID, or one is not valid")
    return header


def words(header: Dataset, *names: str) -> str:
    """Returns the text of some elements, joined by spaces; elements that are missing or unreadable count as empty."""
    found = []
    for name in names:
        try:
            found.append(str(header.get(name) or ""))
        except Exception:  # of any kind, for a value that does not fit its VR
            continue
    return " ".join(found).strip()
