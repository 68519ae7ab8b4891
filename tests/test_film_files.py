"""Files, folders, patterns and lists -> films with different names."""

import re
from pathlib import Path

import pytest

from sdfn_jax.core.errors import UserError
from sdfn_jax.inference import inputs


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("a/x.png", "a/deep/y.JPG", "b/x.png", "b/z.IMG", "a/.hidden.png", "a/.git/x.png", "a/notes.txt"):
        path = tmp_path / "films" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "films"


def names(*places, **given):
    films, problems, _ = inputs.find(map(str, places), **given)
    assert problems == []
    return [film.name for film in films]


def test_a_folder_is_searched_below_and_names_are_paths_in_it(folder):
    assert names("films") == ["a/x.png", "a/deep/y.JPG", "b/x.png", "b/z.IMG"]
    assert names("films/") == names(folder) == names("films")
    (film, *_), _, _ = inputs.find(["films"])
    assert film.path == folder / "a/x.png"


def test_a_file_is_called_by_its_name_whatever_its_suffix(folder):
    assert names("films/a/notes.txt", folder / "b/z.IMG") == ["notes.txt", "z.IMG"]


def test_two_of_one_name_are_distinguished_by_their_parent_folders(folder):
    assert names("films/a/x.png", "films/b/x.png", "films/b/z.IMG") == ["a/x.png", "b/x.png", "z.IMG"]
    assert names("films/a", "films/b") == ["a/x.png", "deep/y.JPG", "b/x.png", "z.IMG"]
    deep = folder / "c" / "a" / "x.png"
    deep.parent.mkdir(parents=True)
    deep.touch()
    assert names("films/a/x.png", deep, "films/b/x.png") == ["films/a/x.png", "c/a/x.png", "b/x.png"]


def test_a_file_meant_twice_is_read_once(folder):
    assert names("films", "films/b/x.png", "films/b/../b/x.png", "films/*/x.png") == names("films")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("films/*/x.png", ["a/x.png", "b/x.png"]),
        ("films/**/*.JPG", ["a/deep/y.JPG"]),
        ("films/?/deep", ["a/deep/y.JPG"]),
        ("*/b/*", ["films/b/x.png", "films/b/z.IMG"]),
    ],
)
def test_patterns(folder, pattern, expected):
    assert names(pattern) == expected
    assert names(folder.parent / pattern) == expected


def test_a_file_with_brackets_in_its_name_is_no_pattern(folder):
    (folder / "x[1].png").touch()
    assert names("films/x[1].png") == ["x[1].png"]


def test_the_output_is_no_film(folder):
    assert names("films", leave_out=Path("films/b")) == ["a/x.png", "a/deep/y.JPG"]
    with pytest.raises(UserError, match="no radiograph in films/b"):
        names("films/b", leave_out=Path("films/b"))


def test_dicom_files_without_a_suffix_are_films(folder):
    (folder / "IM0001").write_bytes(b"\0" * 128 + b"DICM")
    (folder / "README").write_bytes(b"\0" * 200)
    assert names("films")[0] == "IM0001"
    assert "README" not in names("films")


def test_links_are_followed(folder, tmp_path):
    other = tmp_path / "links"
    other.mkdir()
    (other / "b").symlink_to(folder / "b")
    assert names(other) == ["b/x.png", "b/z.IMG"]


def test_a_link_to_a_folder_above_is_not_followed(folder):
    before = names("films")
    (folder / "a" / "deep" / "again").symlink_to(Path("..", ".."))
    assert names("films") == before


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nowhere", "nowhere: no such file or folder"),
        ("films/*.bmp", r"no radiograph in films/\*.bmp: looked, .* for files ending in .png"),
        ("empty", "no radiograph in empty"),
        ("long" * 100, "longlong: no such file or folder"),
    ],
)
def test_what_names_no_film_is_said_and_the_others_are_found(folder, place, message):
    Path("empty").mkdir()
    films, ((where, problem),), _ = inputs.find([place, "films/b"])
    assert where == place
    assert re.search(message, problem)
    assert [film.name for film in films] == ["x.png", "z.IMG"]
    with pytest.raises(UserError, match=message):
        inputs.find([place])
    with pytest.raises(UserError, match=message + ".*; and 1 more places without one"):
        inputs.find([place, "nothing"])


def test_a_list(folder):
    Path("list.txt").write_text("films/a/x.png\n\n  films/b\r\n", encoding="utf-8-sig")
    assert names(*inputs.read_list("list.txt")) == ["a/x.png", "b/x.png", "z.IMG"]


@pytest.mark.parametrize("content", [None, b"", b"\n\n", b"\xff\xfe\x00"])
def test_no_list(folder, content):
    if content is not None:
        Path("list.txt").write_bytes(content)
    with pytest.raises(UserError, match="--list=list.txt.*: .*expected a .*path on each line"):
        inputs.read_list("list.txt")
