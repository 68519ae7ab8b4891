import json
import random

import other_process
import pytest

from sdfn_jax.core import sealed
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.journal import Journal

MADE_BY = {"checkpoint": "c0ffee"}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "folder" / "journal.jsonl"
    with Journal(path, MADE_BY) as journal:
        journal.write("a", {"n": 1})
        journal.write("b/ü\n", {"n": 2})
        journal.write("a", {"n": 3})
    return path


def test_it_is_taken_up(path):
    with Journal(path, MADE_BY) as journal:
        assert {key: journal[key] for key in journal} == {"a": {"n": 3}, "b/ü\n": {"n": 2}}
        journal.write("c", {"n": 4})
        assert journal["a"] == {"n": 3}
        assert len(journal) == 3
    with Journal(path, MADE_BY) as journal:
        assert journal["c"] == {"n": 4}
        assert "d" not in journal


def test_killed_at_any_byte_it_is_taken_up_as_far_as_it_is_whole(path):
    whole = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        with Journal(path, MADE_BY) as journal:
            lines = max(0, sum(end <= size for end in ends) - 1)
            assert len(journal) == min(lines, 2)
            journal.write("z", {})
        with Journal(path, MADE_BY) as journal:
            assert journal["z"] == {}
            assert len(journal) == min(lines, 2) + 1


def test_of_other_work_it_is_refused_and_stays(path):
    before = path.read_bytes()
    with pytest.raises(UserError, match="started with other networks or settings: .*c0ffee.*now they are .*other"):
        Journal(path, {"checkpoint": "other"})
    assert path.read_bytes() == before


def test_of_an_older_version_it_is_refused(path):
    path.write_text(json.dumps(MADE_BY) + '\n{"key": "a", "value": {"n": 1}}\n')
    with pytest.raises(
        UserError, match=r"journal.jsonl: its first line is damaged, or was written by an older .*; delete the file"
    ):
        Journal(path, MADE_BY)


def test_no_flipped_bit_changes_a_piece_and_what_is_lost_is_said(path, capsys):
    whole = path.read_bytes()
    begins = whole.index(b"\n") + 1
    pieces = {"a": ({"n": 3}, {"n": 1}), "b/ü\n": ({"n": 2},)}  # of `a` the earlier one, where the later is lost
    for place in random.Random(0).sample(range(begins * 8, len(whole) * 8), 400):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        sealed.say.cache_clear()
        with Journal(path, MADE_BY) as journal:
            found = {key: journal[key] for key in journal}
        said = "of its lines are damaged; their work is repeated" in capsys.readouterr().err
        assert all(value in pieces[key] for key, value in found.items())
        assert said or found == {key: values[0] for key, values in pieces.items()} or flipped[-1] != ord("\n")


def test_a_flipped_bit_in_its_first_line_is_never_taken_for_the_same_work(path):
    whole = path.read_bytes()
    for place in range(0, whole.index(b"\n") * 8, 3):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(UserError, match="delete the file to start over"):
            Journal(path, MADE_BY)


def test_it_is_deleted(path):
    Journal(path, MADE_BY).delete()
    assert not path.exists()


def test_two_commands_do_not_write_into_one_journal(path):
    before = path.read_bytes()
    with other_process.holding(path.parent / ".journal.jsonl.lock") as other:
        for made_by in (MADE_BY, {"checkpoint": "another"}):
            with pytest.raises(
                UserError, match=r"journal.jsonl is being written by another command; wait for it to finish"
            ):
                Journal(path, made_by)
        assert path.read_bytes() == before
        other.kill()
        other.wait()
        with Journal(path, MADE_BY) as journal:  # free again, whatever ended the other one
            assert len(journal) == 2
