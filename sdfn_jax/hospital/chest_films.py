"""Which images of an archive are frontal chest films, by what it lists and by their headers.

Archives list the body part of a series, its description and the study's, or only some of these. A body part decides;
where there is none, the descriptions do; where there is nothing, the film's own header.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping

from pydicom.dataset import Dataset

from sdfn_jax.core.errors import UserError
from sdfn_jax.hospital import film_header
from sdfn_jax.hospital.archive import Archive, value

MODALITIES = ("CR", "DX")
BODY_PARTS = ("CHEST", "THORAX")
_STUDY, _SERIES, _INSTANCE, _MODALITY = "0020000D", "0020000E", "00080018", "00080060"
_BODY_PART, _STUDY_TEXTS, _SERIES_TEXTS = "00180015", ("00081030",), ("0008103E", "00181030")
_DATES = re.compile(r"[0-9]{8}(-([0-9]{8})?)?|-[0-9]{8}")
_FRONTAL = ("", "AP", "PA")  # View Position (0018,5101)


@dataclasses.dataclass(frozen=True)
class Query:
    """What is asked for.

    Attributes:
      modalities: of the series.
      body_parts: any of these words, in capitals, in the body part or the descriptions.
      dates: of the studies, `20260101-20260131`, either end open; empty for all.
    """

    modalities: tuple[str, ...] = MODALITIES
    body_parts: tuple[str, ...] = BODY_PARTS
    dates: str = ""

    def __post_init__(self):
        if self.dates and not _DATES.fullmatch(self.dates):
            raise UserError(f"--dates={self.dates}: expected days, 20260101-20260131, 20260101- or 20260101")

    def wants(self, body_part: str, descriptions: str) -> bool | None:
        """Returns whether an image shows the chest; None if nothing says what it shows."""
        text = body_part or descriptions
        return any(word.upper() in text.upper() for word in self.body_parts) if text.strip() else None


@dataclasses.dataclass(frozen=True)
class ListedFilm:
    """An image that may be a chest film.

    Attributes:
      study: its Study Instance UID.
      series: its Series Instance UID.
      uid: its SOP Instance UID.
    """

    study: str
    series: str
    uid: str


@dataclasses.dataclass(frozen=True)
class Study:
    """A study that has series of the modalities.

    Attributes:
      series: identifiers of all its series.
      films: its images that may be chest films.
    """

    series: frozenset[str]
    films: tuple[ListedFilm, ...]


def studies(archive: Archive, query: Query) -> Iterator[tuple[str, str]]:
    """Yields (Study Instance UID, description) of the studies that match, each once."""
    seen = set()
    for modality in query.modalities:
        filters = {"ModalitiesInStudy": modality, "includefield": list(_STUDY_TEXTS)}
        if query.dates:
            filters["StudyDate"] = query.dates
        for each in archive.studies(filters):
            if (uid := value(each, _STUDY)) not in seen:
                seen.add(uid)
                yield uid, _texts(each, _STUDY_TEXTS)


def look_into(archive: Archive, query: Query, uid: str, description: str) -> Study:
    """Lists the films of a study, by its identifier and description."""
    listed = archive.series(uid, [_BODY_PART, *_SERIES_TEXTS])
    films = [
        ListedFilm(uid, value(series, _SERIES), value(instance, _INSTANCE))
        for series in listed
        if value(series, _MODALITY) in query.modalities
        and query.wants(value(series, _BODY_PART), f"{_texts(series, _SERIES_TEXTS)} {description}") is not False
        for instance in archive.instances(uid, value(series, _SERIES))
    ]
    return Study(frozenset(value(series, _SERIES) for series in listed), tuple(films))


def check(header: Dataset, query: Query) -> None:
    """Checks that a fetched film is a frontal chest film.

    Raises:
      NoResults: if it is not.
    """
    descriptions = film_header.words(header, "SeriesDescription", "ProtocolName", "StudyDescription")
    if not query.wants(film_header.words(header, "BodyPartExamined"), descriptions):
        raise film_header.NoResults("neither its body part nor its descriptions name the chest")
    if film_header.words(header, "ViewPosition").upper() not in _FRONTAL:
        raise film_header.NoResults("not a frontal view")


def series_of(archive: Archive, study: str) -> frozenset[str]:
    """Returns the identifiers of a study's series; none for a study that is not there."""
    return frozenset(value(each, _SERIES) for each in archive.series(study))


def _texts(result: Mapping, tags: tuple[str, ...]) -> str:
    return " ".join(value(result, tag) for tag in tags)
