"""Reads the chest films of an archive and stores the results, each film once.

What is done is in a journal, by the film's SOP Instance UID; what is stored, in the archive itself. Results have
identifiers that are functions of the film, so the archive can be asked for them before anything is sent: after a kill
at any moment, or an archive that went away while it was storing, only what is missing is sent.
"""

import collections
import dataclasses
import io
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from sdfn_jax.core.errors import UserError
from sdfn_jax.core.journal import Journal
from sdfn_jax.core.terminal import printable
from sdfn_jax.hospital import chest_films, credentials, film_header, objects, results
from sdfn_jax.hospital.archive import Archive, Declined, NotNow, Patience
from sdfn_jax.hospital.chest_films import ListedFilm, Query, Study
from sdfn_jax.hospital.film_header import NoResults
from sdfn_jax.inference import film_page
from sdfn_jax.inference.batch import RESEARCH
from sdfn_jax.inference.decoding import Decoders
from sdfn_jax.inference.predictor import Predictor

JOURNAL = "pacs.jsonl"
# What a round counts, next to the reasons for which films were left out.
STUDIES, EMPTY = "studies", "studies without a chest film"
READ, DONE, STORED = "films read, results stored", "films done before", "films whose results were there"
SAME, FAILED = "films left out, with the identifier of another", "films to be tried again"
_FORMAT = 1  # of the journal's pieces
_MOST_FAILURES = 3  # films in a row; then the archive is taken to be away


@dataclasses.dataclass(frozen=True, eq=False)
class Reader:
    """What reads films and stores their results.

    Attributes:
      predictor: the networks.
      decode: as `decoding.Decoders.decode`.
      source: where films are.
      target: where results go; may be the same.
      query: which films.
      patience: how long the target is waited for.
    """

    predictor: Predictor
    decode: Callable[[bytes, str], tuple[np.ndarray, tuple[str, ...]]]
    source: Archive
    target: Archive
    query: Query
    patience: Patience

    def journal(self, folder: Path) -> Journal:
        """Opens the journal of films that are done, in a folder."""
        networks = objects.checkpoints(self.predictor.provenance)
        made_by = {"format": _FORMAT, "from": self.source.url, "to": self.target.url, "networks": networks}
        made_by["body_parts"] = list(self.query.body_parts)
        return Journal(folder / JOURNAL, made_by)

    def round(self, journal: Journal) -> collections.Counter:
        """Reads every film that is not done.

        Returns:
          how many studies and films had which outcome, in words; `FAILED` counts those to be tried again.

        Raises:
          NotNow: if the source does not list its studies, or several films in a row fail.
          Declined: if it refuses to list them.
        """
        counts: collections.Counter = collections.Counter()
        in_a_row = 0
        for film, study in self._unread(journal, counts):
            try:
                outcome = self._read(film, study)
            except (NotNow, Declined) as failure:
                counts[FAILED] += 1
                _say(f"film {film.uid}: the archive {failure}; it is tried again next time")
                in_a_row += 1
                if in_a_row == _MOST_FAILURES:
                    raise NotNow(f"failed {in_a_row} films in a row; the last one: it {failure}") from None
            else:
                in_a_row = 0
                journal.write(film.uid, {"outcome": outcome})
                counts[outcome] += 1
        return counts

    def _unread(self, journal: Journal, counts: collections.Counter) -> Iterator[tuple[ListedFilm, Study]]:
        """Yields the films that are not done, each once; counts the others."""
        seen: dict[str, ListedFilm] = {}
        for uid, description in chest_films.studies(self.source, self.query):
            study = chest_films.look_into(self.source, self.query, uid, description)
            counts[STUDIES] += 1
            counts[EMPTY] += not study.films
            for film in study.films:
                if (first := seen.setdefault(film.uid, film)) != film:
                    counts[SAME] += 1
                    _say(f"film {film.uid} is in study {film.study} and in study {first.study}; one is read")
                elif film.uid in journal:
                    counts[DONE] += 1
                else:
                    yield film, study

    def _read(self, film: ListedFilm, study: Study) -> str:
        """Reads one film and stores its results; returns the outcome, in words."""
        there = study.series if self.target is self.source else chest_films.series_of(self.target, film.study)
        if self._expected(film.uid) <= there:
            return STORED
        data = self.source.fetch(film.study, film.series, film.uid)
        try:
            header, pixels, flags = self._open(film, data)
            reading = self.predictor.read(film.uid, pixels, flags)
            made = [results.make(reading, header, kind) for kind in results.kinds(reading)]
        except NoResults as why:
            return f"films left out, {why}"
        self._deliver(film.study, {each.SeriesInstanceUID: results.as_file(each) for each in made})
        return READ

    def _open(self, film: ListedFilm, data: bytes) -> tuple[Dataset, np.ndarray, tuple[str, ...]]:
        """Returns a film's header, grey levels and flags."""
        header = film_header.read(io.BytesIO(data))
        if header.SOPInstanceUID != film.uid or header.StudyInstanceUID != film.study:
            raise Declined("sent another film than the one asked for")
        chest_films.check(header, self.query)
        try:
            pixels, flags = self.decode(data, ".dcm")
        except ValueError as why:
            raise NoResults(str(why)) from None
        return header, pixels, flags

    def _expected(self, film: str) -> set[str]:
        """Returns the series that a film's results will be in."""
        provenance = self.predictor.provenance
        made_by = objects.identity(provenance)
        has = {"report": provenance.classifies, "lungs": self.predictor.lungs is not None, "picture": True}
        return {objects.series_uid(film, made_by, kind) for kind in objects.KINDS if has[kind]}

    def _deliver(self, study: str, files: Mapping[str, bytes]) -> None:
        """Stores what the target does not have, and makes sure that it has it.

        Args:
          study: its identifier.
          files: {Series Instance UID: DICOM file}, one in each series.
        """
        for pause in (*self.patience.pauses, None):
            missing = files.keys() - chest_films.series_of(self.target, study)
            if not missing:
                return
            try:
                reasons = self.target.store(study, [files[series] for series in sorted(missing)])
            except NotNow:
                if pause is None:
                    raise
                time.sleep(pause)
                continue
            if left := missing - chest_films.series_of(self.target, study):
                why = "; ".join(sorted(set(reasons.values()))) or "without a reason"
                raise Declined(f"did not store {len(left)} of {len(missing)} results: {why}")
            return


def run(
    source: str,
    target: str | None,
    query: Query,
    folder: Path,
    checkpoint: str | None,
    lrg: str | None,
    every: float | None,
    patience: Patience | None = None,
) -> int:
    """Loads the networks and reads round after round.

    Args:
      source: DICOMweb address of the films.
      target: where results go; the same if None.
      query: which films.
      folder: of the journal.
      checkpoint: folder of a classifier; None for lungs alone.
      lrg: as for `Predictor.load`.
      every: seconds from the end of a round to the start of the next; None for a single round.
      patience: how long the archives are waited for.

    Returns:
      how many films are to be tried again; never returns if `every` is given.

    Raises:
      UserError: if the archive or the networks cannot be used; in a single round, also if the archive is away.
    """
    patience = patience or Patience()
    films = Archive("from", source, patience)
    answers = films if target is None or target == source else Archive("to", target, patience)
    predictor = Predictor.load(checkpoint, lrg)
    _say(f"Films of {films.url}, {predictor.describe()}. {RESEARCH}")
    for note in filter(None, (*film_page.notes(predictor.provenance), predictor.gaps)):
        _say(note)
    for archive in {films, answers}:
        if not credentials.is_encrypted(archive.url):
            _say(f"WARNING: films and results travel to {archive.url} unencrypted")
    _say(f"Results go to {answers.url}, with the identifiers of their patients and studies.")
    with Decoders() as decoders:
        reader = Reader(predictor, decoders.decode, films, answers, query, patience)
        with reader.journal(folder) as journal:
            while True:
                failed = _round(reader, journal, single=every is None)
                if every is None:
                    return failed
                time.sleep(every)


def _round(reader: Reader, journal: Journal, single: bool) -> int:
    try:
        counts = reader.round(journal)
    except (NotNow, Declined) as failure:
        message = f"the archive {failure}. Nothing is lost: films that are done stay done"
        if single:
            raise UserError(message) from None
        _say(message)
        return 0
    _say("; ".join(f"{what}: {count:,}" for what, count in counts.items() if count))
    return counts[FAILED]


def _say(line: str) -> None:
    print(printable(line), flush=True)
