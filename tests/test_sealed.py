"""What was written is read back; anything else is refused in a sentence that names file and key."""

import json
import random
import re

import pytest

from sdfn_jax.core import sealed
from sdfn_jax.core.errors import UserError

RECORD = {"name": "größe", "share": 0.25, "counts": [1, 2], "inner": {"on": True, "none": None}}
SHAPE = {
    "name": sealed.TEXT,
    "share": sealed.SHARE,
    "counts": sealed.several(sealed.COUNT),
    "inner": {"on": sealed.BOOLEAN, "none": sealed.Maybe(sealed.NUMBER)},
}


@pytest.fixture(autouse=True)
def nothing_said_yet():
    sealed.say.cache_clear()


@pytest.fixture
def path(tmp_path):
    sealed.write(tmp_path / "record.json", RECORD)
    return tmp_path / "record.json"


def read(path, **changes):
    return sealed.read(path, SHAPE | changes, "the record", "make it again")


def test_it_is_read_as_it_was_written_in_whatever_layout(path, capsys):
    assert read(path) == RECORD
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert read(path) == RECORD
    assert capsys.readouterr().err == ""


def test_no_flipped_bit_changes_a_value_in_silence(path, capsys):
    whole = path.read_bytes()
    for place in range(len(whole) * 8):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        sealed.say.cache_clear()
        try:
            found = read(path)
        except sealed.DamagedError as error:
            assert str(error).startswith(f"{path}: not the record (")
            assert str(error).endswith("; make it again")
        else:
            said = (
                "was written by an older version without a digest" in capsys.readouterr().err
            )  # a bit of the seal's name
            assert said or found == RECORD


@pytest.mark.parametrize("size", [0, 1, 40, -3])
def test_a_torn_file_is_refused(path, size):
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=r"record\.json: not the record .*; make it again"):
        read(path)


def test_a_record_without_a_seal_is_used_and_that_is_said_once(path, capsys):
    path.write_text(json.dumps(RECORD))
    assert read(path) == read(path) == RECORD
    said = (
        "note: record.json was written by an older version without a digest; it is used, as its values are in range\n"
    )
    assert capsys.readouterr().err == said
    with pytest.raises(
        sealed.OlderError, match=r"record\.json: no digest: written by an older version, or not the rec"
    ):
        sealed.read(path, SHAPE, "the record", "make it again", older=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Expecting value"),
        ("[1]", "not an object"),
        ("3", "not an object"),
        ("{}", "name is missing"),
        ('{"name": "a", "name": "b"}', "name appears twice"),
        ('{"share": NaN}', "NaN is not a number"),
        ('{"share": -Infinity}', "-Infinity is not a number"),
        ('{"share": 1e999}', "1e999 is not a number"),
        ('{"counts": ' + "9" * 5000 + "}", "99999999999999999999... does not fit in 64 bits"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        (b"\xff\xfe{}", "'utf-8' codec can't decode"),
        (b"\x00" * 50, "Expecting value"),
    ],
)
def test_what_is_no_record_is_refused_in_a_sentence(path, text, said):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(sealed.DamagedError, match=re.escape(said)):
        read(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": 3}, "name is 3, not text"),
        ({"share": 1.5}, "share is 1.5, not a number from 0 to 1"),
        ({"share": True}, "share is true, not a number from 0 to 1"),
        ({"share": "0.5"}, 'share is "0.5", not a number from 0 to 1'),
        ({"counts": 1}, "counts is 1, not a list of items, each a whole number, 0 or more"),
        ({"counts": [1, -1]}, "counts is [1, -1], not a list of"),
        ({"inner": []}, "inner is [], not an object"),
        ({"inner": {"on": True}}, "inner.none is missing"),
        ({"inner": {"on": 1, "none": None}}, "inner.on is 1, not true or false"),
        ({"inner": {"on": True, "none": {"a": "b" * 99}}}, 'inner.none is {"a": "bbbb'),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_a_value_of_another_kind_is_named_with_its_key(path, changes, said, whole):
    record = RECORD | changes
    path.write_text(json.dumps(sealed.seal(record) if whole else record))
    with pytest.raises(sealed.DamagedError, match=re.escape(said)):
        read(path)


def test_a_list_may_have_a_fixed_length(path):
    assert read(path, counts=sealed.several(sealed.COUNT, 2)) == RECORD
    with pytest.raises(sealed.DamagedError, match="not a list of 3 items, each a whole number, 0 or more"):
        read(path, counts=sealed.several(sealed.COUNT, 3))


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "nothing.json")


def test_nan_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        sealed.write(tmp_path / "record.json", {"share": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_a_line_is_one_line_and_no_flipped_bit_passes():
    line = sealed.line(RECORD).encode()
    assert line.count(b"\n") == 1
    assert sealed.read_line(line) == RECORD
    for place in random.Random(0).sample(range((len(line) - 1) * 8), 500):
        flipped = bytearray(line)
        flipped[place // 8] ^= 1 << place % 8
        try:
            found = sealed.read_line(bytes(flipped))
        except ValueError:
            continue
        assert found == RECORD
