"""A box table says what it was made from, and is not used for other films or other numbers."""

import dataclasses
import os

import official_files as official
import pytest

from sdfn_jax.core import sources
from sdfn_jax.lungs import box_record
from sdfn_jax.lungs.lung_boxes import PostProcessing

POSTPROCESSING = PostProcessing()


@pytest.fixture
def films(tmp_path):
    """{name: path} of a few films."""
    found = {name: tmp_path / name for name in official.NAMES[:3]}
    for number, path in enumerate(found.values()):
        path.write_bytes(bytes([number]) * 9)
    return found


@pytest.fixture
def table(tmp_path, films):
    path = official.write_boxes(tmp_path / "lung_boxes.csv", films)
    box_record.write(path, "digest", POSTPROCESSING, {name: sources.look_at(film) for name, film in films.items()})
    return path


def test_what_was_just_made_is_current(table, films):
    assert box_record.compare(table, POSTPROCESSING, films) == box_record.BoxTableState(True, False, ())


def test_other_films_are_named(table, films, tmp_path):
    added = tmp_path / official.NAMES[3]
    added.write_bytes(b"new")
    first = films[official.NAMES[0]]
    modified = first.stat().st_mtime_ns + 10**9
    first.write_bytes(b"x" * 9)
    os.utime(first, ns=(modified, modified))
    found = box_record.compare(table, POSTPROCESSING, films | {added.name: added})
    assert found.differences == (f"1 file added ({added.name})", f"1 file changed ({first.name})")


def test_films_that_are_gone_do_no_harm(table):
    assert not box_record.compare(table, POSTPROCESSING, {}).differences


def test_other_postprocessing_is_a_difference(table, films):
    other = dataclasses.replace(POSTPROCESSING, margin_top=0)
    assert box_record.compare(table, other, films).differences == ("postprocessing had other settings",)


def test_a_table_edited_by_hand_is_reported(table, films):
    table.write_text(table.read_text().replace(",mirror,", ",none,"))
    assert box_record.compare(table, POSTPROCESSING, films) == box_record.BoxTableState(True, True, ())


def test_a_table_without_a_record_is_read_and_must_have_a_row_for_each_film(table, films, tmp_path):
    table.with_name("lung_boxes_made_from.json").unlink()
    assert box_record.compare(table, POSTPROCESSING, films) == box_record.BoxTableState(False, False, ())
    added = {"other.png": tmp_path / "other.png"}
    assert box_record.compare(table, POSTPROCESSING, films | added).differences == ("films without a row: 1",)


def test_a_damaged_record_is_said_and_counts_as_none(table, films, capsys):
    record = table.with_name("lung_boxes_made_from.json")
    record.write_text(record.read_text().replace('"margin_top": 15', '"margin_top": 16'))
    assert not box_record.compare(table, POSTPROCESSING, films).recorded
    assert "lung_boxes_made_from.json: not the record of a box table" in capsys.readouterr().err
