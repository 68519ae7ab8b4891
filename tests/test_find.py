"""The walker over folders: each real file once, and an account of all that is left out."""

import os

import pytest

from sdfn_jax.core import csv_table
from sdfn_jax.core.errors import UserError
from sdfn_jax.inference import inputs
from sdfn_jax.lungs import make_box_table
from sdfn_jax.radiographs import find

DICOM = b"\0" * 128 + b"DICM"
DIRECTORY = DICOM + b"\x02\x00\x00\x00UL\x04\x00\xc0\x00\x00\x00\x02\x00\x02\x00UI\x14\x001.2.840.10008.1.3.10"


def write(path, content=b"a film"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def films(folder, **given):
    return [path.relative_to(folder).as_posix() for path in find.below(folder, **given).films]


def left_out(folder):
    return {each.path.relative_to(folder).as_posix(): each.kind for each in find.below(folder).left_out}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "films"
    for name in ("b/x.png", "a/deep/y.JPG", "a/x.png"):
        write(folder / name, name.encode())
    return folder


PLAIN = ["a/x.png", "a/deep/y.JPG", "b/x.png"]


def test_a_folders_files_come_before_those_of_the_folders_in_it(folder):
    assert films(folder) == PLAIN
    assert left_out(folder) == {}


@pytest.mark.parametrize(
    "name",
    [
        "._x.png",
        ".x.png",
        ".ipynb_checkpoints/x-checkpoint.png",
        ".Trash-1000/files/x.png",
        "__MACOSX/b/._x.png",
        "@eaDir/x.png/SYNOPHOTO_THUMB_M.jpg",
        "$RECYCLE.BIN/x.png",
    ],
)
def test_what_systems_and_programs_leave_behind_is_no_film_and_is_listed(folder, name):
    write(folder / "b" / name)
    assert films(folder) == PLAIN
    (path,) = left_out(folder)
    assert f"b/{name}".startswith(path)


def test_a_hidden_file_that_could_be_no_film_is_not_listed(folder):
    write(folder / ".DS_Store")
    assert left_out(folder) == {}


def test_a_hidden_folder_that_is_asked_for_is_searched(tmp_path):
    write(tmp_path / ".films" / "x.png")
    assert films(tmp_path / ".films") == ["x.png"]


@pytest.mark.parametrize("target", [".", "..", "../..", "../../.."])
def test_a_link_that_leads_back_is_not_followed(folder, target):
    (folder / "a" / "deep" / "again").symlink_to(target)
    write(folder.parent / "beside.png")
    assert films(folder) == PLAIN
    assert left_out(folder) == {"a/deep/again": "a link back to a folder above it"}


def test_links_that_lead_to_each_other_are_followed_once(folder, tmp_path):
    write(tmp_path / "disk" / "z.png")
    (folder / "disk").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "back").symlink_to(folder / "a")
    assert films(folder) == [*PLAIN, "disk/z.png"]
    assert left_out(folder) == {"disk/back": "reached twice"}


def test_a_film_reached_twice_is_one_film_under_its_own_path(folder):
    (folder / "0 link").symlink_to(folder / "b")
    (folder / "0.png").symlink_to(folder / "b" / "x.png")
    assert films(folder) == PLAIN
    assert left_out(folder) == {"0 link": "reached twice", "0.png": "reached twice"}


def test_a_folder_of_links_next_to_the_archives_holds_each_film_once(folder):
    for name in ("a/x.png", "a/deep/y.JPG"):
        (folder / "images").mkdir(exist_ok=True)
        (folder / "images" / name.replace("/", "_")).symlink_to(folder / name)
    assert films(folder) == PLAIN


def test_a_link_to_another_disk_is_a_film_under_the_links_path(folder, tmp_path):
    (folder / "z.png").symlink_to(write(tmp_path / "disk" / "other name"))
    assert films(folder) == ["z.png", *PLAIN]


def test_a_link_to_nothing_or_to_itself_is_lost(folder):
    (folder / "gone.png").symlink_to("/nowhere/gone.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / ".loop").symlink_to(".loop")
    found = find.below(folder)
    assert [each.path.name for each in found.left_out if each.lost] == ["gone.png", "loop.png"]
    assert films(folder) == PLAIN


def test_folders_and_pipes_named_as_films_are_none(folder):
    write(folder / "folder.png" / "z.png")
    os.mkfifo(folder / "pipe.png")
    os.mkfifo(folder / "pipe")
    assert films(folder) == [*PLAIN, "folder.png/z.png"]
    assert left_out(folder) == {"pipe.png": "not a file"}


def test_a_folder_that_cannot_be_opened_is_lost(folder, monkeypatch):
    scan = os.scandir

    def refused(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    (lost,) = find.below(folder).left_out
    assert lost == find.LeftOut(folder / "a" / "deep", "cannot be opened", "Permission denied", lost=True)
    assert films(folder) == ["a/x.png", "b/x.png"]


@pytest.mark.parametrize("name", ["x.ima", "x.DX", "x.dcm30", "IM0001", "1.2.840.113619.2.5", "x.bin"])
def test_dicom_files_of_any_suffix_are_films_by_their_content(tmp_path, name):
    write(tmp_path / name, DICOM)
    write(tmp_path / "other.ima", b"\0" * 500)
    assert films(tmp_path) == [name]
    assert left_out(tmp_path) == {"other.ima": find.OTHER}


@pytest.mark.parametrize("name", ["DICOMDIR", "dicomdir", "Dicomdir", "DICOMDIR;1", "IM0001"])
def test_the_table_of_contents_of_a_disc_is_no_film(tmp_path, name):
    write(tmp_path / name, DIRECTORY)
    assert films(tmp_path) == []


def test_the_output_is_not_searched_however_it_is_reached(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder / "a")
    assert films(folder, leave_out=tmp_path / "link") == ["b/x.png"]
    (folder / "output").symlink_to(write(tmp_path / "output" / "z.png").parent)
    assert films(folder, leave_out=tmp_path / "output") == PLAIN


def test_names_that_are_not_utf8_are_listed_in_one_printable_line(tmp_path):
    name = os.fsdecode(b".\xff\n.png")
    write(tmp_path / name)
    found = find.below(tmp_path)
    assert find.describe(found.left_out) == f"left out, hidden: 1, first {tmp_path}/.\\udcff\\n.png"
    find.write_list(tmp_path / "list.csv", found.left_out)
    assert csv_table.read(tmp_path / "list.csv")[1:] == [[str(found.left_out[0].path), "hidden"]]


def test_what_was_left_out_is_counted_and_listed(folder, tmp_path, capsys):
    for number in range(3):
        write(folder / f".{number}.png")
    write(folder / "notes.txt")
    find.report(find.below(folder).left_out, tmp_path / "list.csv")
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"left out, hidden: 3, first {folder}/.0.png",
        f"left out, {find.OTHER}: 1, first {folder}/notes.txt",
        f"full list: {tmp_path}/list.csv",
    ]
    assert len((tmp_path / "list.csv").read_text().splitlines()) == 1 + 4
    find.report([], tmp_path / "list.csv")
    assert not (tmp_path / "list.csv").exists() and capsys.readouterr().out == ""


def test_copies_count_once_by_name_and_others_of_that_name_are_reported(folder):
    write(folder / "copies" / "y.JPG", b"a/deep/y.JPG")
    found = find.below(folder)
    by_name, different, copies = find.by_name(found.films)
    assert by_name == {"x.png": folder / "a/x.png", "y.JPG": folder / "a/deep/y.JPG"}
    assert different == [(folder / "a/x.png", folder / "b/x.png")]
    assert [each.path for each in copies] == [folder / "copies/y.JPG"]


class TestOfAllWays:
    """The lung region generator's search and prediction's see the same films."""

    def test_links_back_and_twice(self, folder, tmp_path):
        os.remove(folder / "b" / "x.png")
        (folder / "a" / "again").symlink_to("../..")
        (folder / "b" / "y.JPG").symlink_to(folder / "a" / "deep" / "y.JPG")
        (folder / "b" / "gone.png").symlink_to("/nowhere")
        expected = [folder / "a/x.png", folder / "a/deep/y.JPG"]
        assert make_box_table.find_radiographs(folder).films == expected
        for place in (str(folder), f"{folder}/**", f"{folder}/**/*.*"):
            found, problems, passed_over = inputs.find([place])
            assert [film.path for film in found] == expected
            assert problems == [(f"{folder}/b/gone.png", f"{folder}/b/gone.png: a broken link (/nowhere)")]
            assert {each.path.name for each in passed_over} == {"again", "y.JPG"}

    def test_a_file_given_twice_by_links_is_read_once(self, folder, tmp_path):
        (tmp_path / "link.png").symlink_to(folder / "a/x.png")
        found, _, passed_over = inputs.find([str(folder), str(tmp_path / "link.png")])
        assert [film.name for film in found] == PLAIN
        assert [each.reason for each in passed_over] == [f"reached twice (the same file as {folder}/a/x.png)"]

    def test_the_box_table_refuses_a_folder_without_films_and_says_what_there_is(self, tmp_path):
        write(tmp_path / ".Trash-0" / "x.png")
        with pytest.raises(UserError, match=r"no radiograph in .*\nleft out, hidden: 1, first .*Trash-0"):
            make_box_table.find_radiographs(tmp_path)
