"""The record next to a box table: the network, the numbers of B.2.2 and the films that it was made from, its digest.

`<table>_made_from.json`, and `<table>_sources.csv` with the films (`sources`). A table without a record is an earlier
version's, or the user's own.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from sdfn_jax.core import sealed, sources
from sdfn_jax.core.files import file_digest
from sdfn_jax.lungs.box_table import read_box_table
from sdfn_jax.lungs.lung_boxes import PostProcessing

_SHAPE = {"checkpoint": sealed.TEXT, "postprocessing": sealed.OBJECT, "table_sha256": sealed.TEXT}


@dataclasses.dataclass(frozen=True)
class BoxTableState:
    """What is known of a box table.

    Attributes:
      recorded: whether it has a record; without one it may be anybody's.
      edited: whether it was changed after it was made.
      differences: phrases for what has changed among what it was made from.
    """

    recorded: bool
    edited: bool
    differences: tuple[str, ...]


def write(table: Path, checkpoint: str, postprocessing: PostProcessing, films: Mapping[str, sources.Source]) -> None:
    """Writes the record of a table that has just been written.

    Args:
      table: the table.
      checkpoint: digest of the network's checkpoint.
      postprocessing: how masks became boxes.
      films: {file name: film as it was read}, including those that could not be read.
    """
    sources.write(_films(table), films)
    settings = {"checkpoint": checkpoint, "postprocessing": dataclasses.asdict(postprocessing)}
    sealed.write(_record(table), settings | {"table_sha256": file_digest(table)})


def compare(table: Path, postprocessing: PostProcessing, films: Mapping[str, Path]) -> BoxTableState:
    """Compares a table with what it would be made from now.

    Args:
      table: the table, which exists.
      postprocessing: how masks are to become boxes.
      films: {file name: path} of the films that are there.
    """
    record_of_films = sources.read(_films(table))
    try:
        record = sealed.read(_record(table), _SHAPE, "the record of a box table", "the table is used as it is")
    except FileNotFoundError:
        record = None
    except sealed.DamagedError as error:
        sealed.say(str(error))
        record = None
    if record is None or record_of_films is None:
        without = len(films.keys() - read_box_table(table).keys())
        return BoxTableState(False, False, (f"films without a row: {without:,}",) if without else ())
    found = sources.compare(record_of_films, films, f"compare films with those of {table.name}")
    sources.renew(_films(table), record_of_films, found)
    # Rows of films that are gone do no harm.
    differences = dataclasses.replace(found, gone=()).describe()
    if record["postprocessing"] != dataclasses.asdict(postprocessing):
        differences.append("postprocessing had other settings")
    return BoxTableState(True, record["table_sha256"] != file_digest(table), tuple(differences))


def _record(table: Path) -> Path:
    return table.with_name(f"{table.stem}_made_from.json")


def _films(table: Path) -> Path:
    return table.with_name(f"{table.stem}_{sources.SOURCES_FILE}")
