"""Tables that a spreadsheet can open without harm, and that read back as they were."""

import csv
import os
import random

import pytest

from sdfn_jax.core import csv_table
from sdfn_jax.lungs import box_table
from sdfn_jax.lungs.box_table import BoxRow
from sdfn_jax.metrics import predictions

FORMULAS = [
    '=HYPERLINK("http://x","y").png',
    "+1+cmd|' /C calc'!A0",
    "-2+3.png",
    "@SUM(A1)",
    "\t=1",
    " =1",
    "\uff1d1",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_no_text_is_a_formula(tmp_path, text):
    with csv_table.writing(tmp_path / "a.csv") as table:
        table.row([text, "film"])
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        ((first, second),) = csv.reader(file)
    assert (first, second) == (f"'{text}", "film")
    assert csv_table.read(tmp_path / "a.csv") == [[text, "film"]]


def test_numbers_stay_numbers(tmp_path):
    with csv_table.writing(tmp_path / "a.csv") as table:
        table.row([-1, -0.5, 1e-7, ""])
    assert (tmp_path / "a.csv").read_text() == "-1,-0.5,1e-07,\n"


def test_whatever_is_written_is_read_back(tmp_path):
    names = [
        "\r=1",
        "\n=1",
        "a\rb",
        "'=1",
        "''=1",
        "'quoted'",
        "it's",
        "\\udce9",
        "\\udc5c",
        "a\\udc5cudce9",
        os.fsdecode(b"lat\xe9.png"),
        'a,"b"\n',
    ]
    rng = random.Random(0)
    names += ["".join(rng.choices("'=-@+ \t\r\n\\udc5e9\udce9\udc80a", k=9)) for _ in range(2000)]
    with csv_table.writing(tmp_path / "a.csv") as table:
        table.rows([name] for name in names)
    assert [name for (name,) in csv_table.read(tmp_path / "a.csv")] == names
    assert all("\udce9" not in line for line in (tmp_path / "a.csv").read_text(encoding="utf-8"))


def test_a_table_of_others_is_read_as_it_is(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfimage,note\r\na.png,it's -1\r\n")
    assert csv_table.read(tmp_path / "a.csv") == [["image", "note"], ["a.png", "it's -1"]]
    (tmp_path / "a.csv").write_bytes(b"image\n\xe9.png\n")
    with pytest.raises(ValueError, match="a.csv: not a table of UTF-8 text"):
        csv_table.read(tmp_path / "a.csv")


@pytest.mark.parametrize("image", ["=cmd.png", "-1.png", os.fsdecode(b"lat\xe9.png"), "two\nlines.png"])
def test_a_box_table_gives_any_film_its_box(tmp_path, capsys, image):
    row = BoxRow(image, 10, 10, 1, 2, 9, 8, "none", 0.25, "digest")
    box_table.write_box_table(tmp_path / "boxes.csv", [row])
    assert box_table.read_box_table(tmp_path / "boxes.csv") == {image: row}
    assert capsys.readouterr().err == ""  # as it was written


def test_no_table_is_written_past_the_one_writer():
    """Each would have to think of formulas by itself."""
    root = csv_table.Path(predictions.__file__).parents[2]
    files = [*(root / "sdfn_jax").rglob("*.py"), *(root / "tfds_builders").rglob("*.py")]
    found = {path.name for path in files if "csv.writer(" in (text := path.read_text()) or "csv.DictWriter(" in text}
    assert found == {"csv_table.py"}
