"""Whether a prepared data set is what would be prepared now: the one answer for `prepare` and for the main job."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from sdfn_jax.core import sealed, sources
from sdfn_jax.core.errors import UserError
from tfds_builders.base import NothingFoundError, RadiographBuilder, read_metadata


@dataclasses.dataclass(frozen=True)
class Freshness:
    """What is known of a prepared set.

    Attributes:
      metadata: what its preparation wrote of it.
      differences: phrases for what has changed since; empty for a set that is current.
      notes: sentences for what could not be compared, and why.
    """

    metadata: dict[str, Any]
    differences: tuple[str, ...]
    notes: tuple[str, ...]


def compare(final: Path, builder: RadiographBuilder, manual_dir: str | Path) -> Freshness | None:
    """Compares a prepared set with the current films, tables and settings; decodes nothing.

    If all films have been deleted since, that is not a difference: the set is complete without them.

    Args:
      final: its folder.
      builder: of the requested set.
      manual_dir: the user's download, as the user calls it.

    Returns:
      what was found; None if there is no readable set.
    """
    try:
        metadata = read_metadata(final, builder.METADATA)
    except FileNotFoundError:
        return None
    except sealed.DamagedError as error:
        sealed.say(str(error))
        return None
    folder = Path(manual_dir)
    settings = builder.other_settings(metadata, folder)
    record = sources.read(final / sources.SOURCES_FILE)
    try:
        films = builder.films(folder)
    except NothingFoundError:
        differences, notes = _without_films(metadata, record, builder, folder)
    except UserError as error:
        differences, notes = [f"it could not be prepared now: {error}"], []
    else:
        if record is None:
            differences, notes = _by_size(metadata, builder, folder, settings)
        else:
            files = {**films, **_there(builder.tables(folder))}
            found = sources.compare(record, files, f"compare the files in {folder} with those prepared")
            sources.renew(final / sources.SOURCES_FILE, record, found)
            differences, notes = found.describe(), []
    return Freshness(metadata, (*settings, *differences), tuple(notes))


def _there(tables: dict[str, Path]) -> dict[str, Path]:
    return {name: path for name, path in tables.items() if path.is_file()}


def _without_films(
    metadata: dict[str, Any], record: dict[str, sources.Source] | None, builder: RadiographBuilder, folder: Path
) -> tuple[list[str], list[str]]:
    """Returns differences and notes if no film is in the folder: remaining tables still count."""
    tables = builder.tables(folder)
    recorded = {name: source for name, source in (record or {}).items() if name in tables}
    found = sources.compare(recorded, _there(tables), "compare tables")
    source = metadata.get("source")
    its_tables = bool(recorded) and not found.describe()
    if source is not None and not its_tables and not _same_place(source, folder):
        return [f"it was prepared from {source}, but no film is in {folder}"], []
    if found.changed:
        return found.describe(), []
    return [], [f"no film is in {folder} now: used as it was prepared"]


def _same_place(source: str, folder: Path) -> bool:
    return source == str(folder) or os.path.abspath(source) == os.path.abspath(folder)


def _by_size(
    metadata: dict[str, Any], builder: RadiographBuilder, folder: Path, settings: list[str]
) -> tuple[list[str], list[str]]:
    """Compares a set of an earlier version, which kept no record of its files."""
    earlier = "prepared by an earlier version, which kept no record of its files"
    try:
        digest = builder.inputs(folder).digest
    except UserError:  # because there are no lung boxes, which are not compared here
        pass
    else:
        if settings or digest == metadata["inputs_digest"]:
            return [], [f"{earlier}: only their names and sizes could be compared"]
        return [f"its files have other names or sizes than those in {folder}"], []
    images = sum(split["images"] for split in metadata["splits"].values())
    there = sum(builder.split_counts(folder).values())
    if images != there and not metadata["skipped"]:
        return [f"it has {images:,} films, but {folder} holds {there:,}"], []
    return [], [f"{earlier}: only their number could be compared"]
