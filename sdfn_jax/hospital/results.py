"""The DICOM results of a film: a Structured Report, a Segmentation of the lungs and a Secondary Capture.

They belong to the film's study, each in a series of its own, and carry the patient's and the study's identifiers.
"""

import contextlib
import io
from collections.abc import Iterable
from pathlib import Path

from pydicom.dataset import Dataset

from sdfn_jax.core.files import appears_when_complete
from sdfn_jax.hospital import film_header, lung_segment, objects, picture, report
from sdfn_jax.hospital.film_header import NoResults
from sdfn_jax.inference.film_page import WITHHELD
from sdfn_jax.inference.prediction import Reading
from sdfn_jax.radiographs.flags import FLAGS
from sdfn_jax.radiographs.opening import ImageFile
from sdfn_jax.radiographs.quiet import silenced

_MAKERS = {"report": report.make, "lungs": lung_segment.make, "picture": picture.make}


def kinds(reading: Reading) -> list[str]:
    """Returns which objects a reading has, of `objects.KINDS`: no report without findings, no lungs without a mask."""
    has = {"report": bool(reading.probabilities), "lungs": reading.lung_probabilities is not None, "picture": True}
    return [kind for kind in objects.KINDS if has[kind]]


def make(reading: Reading, header: Dataset, kind: str) -> Dataset:
    """Returns one of the objects of a film.

    Args:
      reading: of the film.
      header: its own, from `film_header.read`.
      kind: of `kinds`.

    Raises:
      NoResults: if the film has none.
    """
    if withheld := [FLAGS[name] for name in reading.flags if name in WITHHELD]:
        raise NoResults(f"withheld: {withheld[0][0].lower()}{withheld[0][1:].rstrip('.')}")
    if not {"rotated_90", "rotated_180"}.isdisjoint(reading.fixes):
        raise NoResults("it was turned before it was read (--fix), so the results are not in its own grid of pixels")
    try:
        with silenced():
            return _MAKERS[kind](reading, header)
    except (ValueError, TypeError, KeyError) as error:  # of a value that does not fit its VR, or an unknown SOP class
        raise NoResults(f"its identifiers cannot be carried on ({type(error).__name__})") from None


def as_file(made: Dataset) -> bytes:
    """Returns an object as the bytes of a DICOM file."""
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()


class ResultsFolder:
    """A folder of DICOM results, `<the film's SOP Instance UID>/<kind>-<who made it>.dcm`.

    Attributes:
      folder: the folder.
    """

    def __init__(self, folder: Path, films: Iterable[ImageFile]):
        """Reads the headers of all films, so that the first one of an identifier is the same in whatever order.

        Args:
          folder: the folder.
          films: all that will be written.
        """
        self.folder = folder
        self._first: dict[str, str] = {}  # {film: the first film with its SOP Instance UID}
        names: dict[str, str] = {}
        for film in films:
            with contextlib.suppress(NoResults, OSError):  # which `write` reports
                self._first[film.name] = names.setdefault(film_header.read(film.path).SOPInstanceUID, film.name)

    def write(self, reading: Reading, film: Path) -> str:
        """Writes the results of a film; those that are there already, of the same networks, are kept.

        Returns:
          why there are none; empty if there are.
        """
        try:
            header = film_header.read(film)
            if (first := self._first[reading.name]) != reading.name:
                return f"has the SOP Instance UID of {first}"
            made_by = objects.identity(reading.provenance, reading.fixes)[:12]
            for kind in kinds(reading):
                path = self.folder / header.SOPInstanceUID / f"{kind}-{made_by}.dcm"
                if not path.exists():
                    data = as_file(make(reading, header, kind))
                    with appears_when_complete(path) as unfinished:
                        unfinished.write_bytes(data)
        except NoResults as why:
            return str(why)
        return ""
