"""Work divided into shards: whatever becomes of the processes, the result is that of one."""

import hashlib
import subprocess
import sys

import numpy as np
import official_files as official
import other_process
import pytest
from test_lrg import POSTPROCESSING, Counting, Killed, dark_is_lung, write_films

from sdfn_jax import lrg as lrg_command
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.journal import Journal
from sdfn_jax.core.shards import UNDIVIDED, Shard, ShardedWork
from sdfn_jax.lungs import make_box_table
from tfds_builders import pieces, prepare

MADE_BY = {"checkpoint": "c0ffee"}
NAMES = [f"{number:08d}_{number % 7:03d}.png" for number in range(3000)]


def content(folder):
    """{file: digest} of everything in a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class Named:
    def __init__(self, name):
        self.name = name


class TestDivision:
    def test_each_name_is_in_one_shard_and_the_shards_are_about_as_large(self):
        for count in (1, 2, 7):
            sizes = [sum(Shard(number, count).holds(name) for name in NAMES) for number in range(1, count + 1)]
            assert sum(sizes) == len(NAMES)
            assert min(sizes) > 0.85 * len(NAMES) / count

    def test_it_is_the_same_in_all_versions(self):
        """The digest is SHA-256's, so that a shard begun today is resumed by a later version."""
        assert [int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) % 5 + 1 for name in NAMES[:50]] == [
            next(number for number in range(1, 6) if Shard(number, 5).holds(name)) for name in NAMES[:50]
        ]

    def test_a_name_may_hold_bytes_that_are_no_text(self):
        assert sum(Shard(number, 3).holds("\udce9.png") for number in (1, 2, 3)) == 1

    @pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/", "/4", "a/b", "1/0", "-1/4", "1/4/5", "1.0/4", "²/4"])
    def test_a_wrong_flag_is_refused(self, text, tmp_path, capsys):
        with pytest.raises(SystemExit):
            lrg_command.main([str(tmp_path), f"--output={tmp_path / 'boxes.csv'}", f"--shard={text}"])
        assert f"argument --shard: {text!r} is not I/N, with I from 1 to N, such as 1/8" in capsys.readouterr().err


def do(path, number, count=2, names=NAMES[:20], made_by=MADE_BY, limit=None, current=lambda *_: True):
    """One process's work: a piece for each name of its shard. Returns all pieces, if they are complete."""
    with ShardedWork(path, made_by, Shard(number, count)) as work:
        for item in work.mine(map(Named, names))[:limit]:
            if item.name not in work.journal:
                work.journal.write(item.name, {"by": number})
        if limit is not None:
            return None
        found = work.all_pieces(names, current)
        if found is None:
            return None
        found = {name: found[name] for name in found}
        work.delete()
        return found


# A shard that, when it is finished, waits until all are.
AT_ONCE = """
import pathlib, sys, time
from sdfn_jax.core import journal
from sdfn_jax.core.shards import Shard, ShardedWork

path, number = pathlib.Path(sys.argv[1]), int(sys.argv[2])
finish = journal.Journal.finish

def wait(one):
    finish(one)
    pathlib.Path(f"{path}-{number}").touch()
    while len(list(path.parent.glob(f"{path.name}-*"))) < 5:
        time.sleep(0.01)

journal.Journal.finish = wait
with ShardedWork(path, {}, Shard(number, 5)) as work:
    if work.all_pieces([], None) is not None:
        time.sleep(0.5)
        work.delete()
"""


class TestWork:
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "journal.jsonl"

    def test_the_last_gets_all_pieces_and_nothing_is_left(self, path, capsys):
        for number in (2, 3):
            assert do(path, number, 3) is None
        assert (
            capsys.readouterr()
            .out.splitlines()[-1]
            .startswith(
                "shard 3/3 is finished. Not finished: 1/3 (not begun). The shard that finishes last writes the result"
            )
        )
        found = do(path, 1, 3)
        assert set(found) == set(NAMES[:20])
        assert all(Shard(piece["by"], 3).holds(name) for name, piece in found.items())
        assert list(path.parent.iterdir()) == []

    def test_a_killed_one_is_named_and_resumes(self, path, capsys):
        do(path, 1, limit=3)
        assert do(path, 2) is None
        assert "Not finished: 1/2. " in capsys.readouterr().out
        before = Shard(1, 2).journal(path).read_bytes()
        assert len(do(path, 1)) == 20
        assert before.count(b"\n") == 4  # the settings, and three pieces that were not made again

    def test_more_names_change_no_shard_and_who_lacks_them_is_named(self, path, capsys):
        do(path, 1)
        more = [*NAMES[:20], next(name for name in NAMES[20:] if Shard(1, 2).holds(name))]
        assert do(path, 2, names=more) is None
        assert f"1/2 (lacks 1, as new or changed since: {more[-1]})" in capsys.readouterr().out
        assert len(do(path, 1, names=more)) == 21

    def test_a_piece_of_a_file_that_changed_since_is_not_used(self, path, capsys):
        do(path, 1)
        changed = next(name for name in NAMES if Shard(1, 2).holds(name))
        assert do(path, 2, current=lambda name, _: name != changed) is None
        assert f"1/2 (lacks 1, as new or changed since: {changed})" in capsys.readouterr().out

    def test_other_settings_of_another_shard_are_refused(self, path):
        do(path, 1)
        with pytest.raises(UserError, match="1_of_2 was started with other networks or settings: .*c0ffee.*now .*beef"):
            do(path, 2, made_by={"checkpoint": "beef"})

    @pytest.mark.parametrize(
        ("begun", "now", "said"),
        [
            (Shard(1, 2), Shard(1, 3), r"begun in 2 shards \(--shard=I/2\); continue so, or delete the file"),
            (Shard(1, 2), UNDIVIDED, r"begun in 2 shards"),
            (UNDIVIDED, Shard(1, 2), r"begun in one piece \(without --shard\)"),
        ],
    )
    def test_another_number_of_shards_is_refused(self, path, begun, now, said):
        with ShardedWork(path, MADE_BY, begun) as work:
            work.journal.write("a", {})
        with pytest.raises(UserError, match=said):
            ShardedWork(path, MADE_BY, now)

    def test_two_processes_of_one_shard_are_refused(self, path):
        with other_process.holding(path.with_name(".journal.jsonl.1_of_2.lock")):
            with pytest.raises(UserError, match="journal.jsonl.1_of_2 is being written by another command"):
                do(path, 1)
            assert do(path, 2) is None

    def test_of_many_that_finish_at_once_one_has_all_and_the_others_nothing(self, path):
        running = [
            subprocess.Popen([sys.executable, "-c", AT_ONCE, path, str(number)], stdout=subprocess.PIPE, text=True)
            for number in range(1, 6)
        ]
        said = [process.communicate()[0].splitlines()[-1] for process in running]
        assert [process.returncode for process in running] == [0] * 5
        assert said.count("all 5 shards are finished") == 1
        assert not list(path.parent.glob("*_of_*"))


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A folder of drawings, two of which cannot be read."""
    paths = write_films(tmp_path_factory.mktemp("films") / "films", 30)
    for path in (paths[4], paths[17]):
        path.write_bytes(path.read_bytes()[:60])
    return paths


class TestLungs:
    def make(self, folder, films, shard=UNDIVIDED, digest="c0ffee"):
        return make_box_table.make_box_table(
            dark_is_lung(digest=digest),
            films,
            folder / "boxes.csv",
            POSTPROCESSING,
            skip_bad_files=True,
            masks=folder / "masks",
            shard=shard,
        )

    def test_table_masks_and_lists_are_those_of_one_process_after_a_kill(self, films, tmp_path, monkeypatch):
        rows = self.make(tmp_path / "one", films)
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(make_box_table, "_row", Counting(make_box_table._row, limit=5))
            self.make(tmp_path / "three", films, Shard(1, 3))
        for number in (2, 3):
            assert self.make(tmp_path / "three", films, Shard(number, 3)) is None
        assert not (tmp_path / "three" / "boxes.csv").exists()
        assert self.make(tmp_path / "three", films, Shard(1, 3)) == rows
        assert content(tmp_path / "three") == content(tmp_path / "one")

    def test_a_shard_of_another_checkpoint_is_refused(self, films, tmp_path):
        self.make(tmp_path, films, Shard(1, 3))
        with pytest.raises(UserError, match="boxes.csv.partial.1_of_3 was started with other networks or settings"):
            self.make(tmp_path, films, Shard(2, 3), digest="beef")

    def test_the_command_of_a_shard_leaves_table_and_sheet_to_the_last(self, films, tmp_path, capsys):
        command = [str(films[0].parent), f"--output={tmp_path / 'boxes.csv'}", "--skip_bad_files"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sdfn_jax.lungs.segmenter.Segmenter.load", lambda *_: dark_is_lung())
            lrg_command.main([*command, "--shard=2/2"])
            assert [path.name for path in tmp_path.iterdir()] == ["boxes.csv.partial.2_of_2"]
            lrg_command.main([*command, "--shard=1/2"])
        assert {"boxes.csv", "boxes.png", "boxes_skipped.txt"} <= {path.name for path in tmp_path.iterdir()}
        assert "all 2 shards are finished" in capsys.readouterr().out


class TestDataSets:
    @pytest.fixture(params=["montgomery", "chestxray14"])
    def name(self, request):
        return request.param

    @pytest.fixture
    def download(self, name, tmp_path):
        if name == "montgomery":
            folder = official.write_montgomery(tmp_path / "download", (1, 2, 3, 6, 17))
            (folder / "MontgomerySet/CXR_png/MCUCXR_0003_0.png").write_bytes(b"torn")
            return folder
        return official.write_chestxray14(tmp_path / "download")

    def prepare(self, name, download, data_dir, shard=UNDIVIDED):
        return prepare.prepare(name, manual_dir=download, data_dir=data_dir, size=16, skip_bad_files=True, shard=shard)

    def test_the_records_are_those_of_one_process_after_a_kill(self, name, download, tmp_path, monkeypatch, capsys):
        self.prepare(name, download, tmp_path / "one")
        with monkeypatch.context() as patch, pytest.raises(Killed):
            write = Counting(Journal.write, limit=1)
            patch.setattr(Journal, "write", lambda *given: write(*given))
            self.prepare(name, download, tmp_path / "two", Shard(1, 2))
        assert self.prepare(name, download, tmp_path / "two", Shard(2, 2)) is None
        said = capsys.readouterr().out
        decoded = []
        monkeypatch.setattr(pieces, "make", lambda _, items, make=pieces.make: decoded.extend(items) or make(_, items))
        folder = self.prepare(name, download, tmp_path / "two", Shard(1, 2))
        assert "Not finished: 1/2" in said and "resuming: 1 of" in capsys.readouterr().out
        assert folder == prepare.prepared_dir(name, tmp_path / "two", 16)
        assert content(tmp_path / "two") == content(tmp_path / "one")
        assert self.prepare(name, download, tmp_path / "two", Shard(2, 2)) == folder
        assert "already prepared from these files" in capsys.readouterr().out

    def test_what_the_tables_say_of_a_film_may_not_change_meanwhile(self, tmp_path, capsys):
        download = official.write_chestxray14(tmp_path / "download")
        boxes = download / "lung_boxes.csv"
        self.prepare("chestxray14", download, tmp_path / "data", Shard(1, 2))
        boxes.write_text(boxes.read_text().replace(",mirror,", ",none,"))
        assert self.prepare("chestxray14", download, tmp_path / "data", Shard(2, 2)) is None
        assert "Not finished: 1/2 (lacks" in capsys.readouterr().out

    def test_a_bad_file_stops_its_shard_unless_it_may_be_skipped(self, tmp_path):
        download = official.write_montgomery(tmp_path / "download", (1, 2, 3))
        (download / "MontgomerySet/CXR_png/MCUCXR_0002_0.png").write_bytes(b"torn")
        with pytest.raises(UserError, match="MCUCXR_0002_0.png: cannot be decoded"):
            for number in (1, 2):
                prepare.prepare(
                    "montgomery", manual_dir=download, data_dir=tmp_path / "data", size=16, shard=Shard(number, 2)
                )


def test_an_example_is_the_same_after_the_journal():
    example = {
        "array": np.arange(6, dtype=np.uint8).reshape(2, 3),
        "one": np.int32(3),
        "bytes": b"\x00\xff",
        "fields": [{"finding": 2, "box": np.array([0.1, 2.5], np.float32)}],
        "none": [],
        "age": 0.1,
    }
    found = pieces._from_json(pieces._to_json(example))
    assert found.keys() == example.keys()
    np.testing.assert_array_equal(found["array"], example["array"])
    assert found["array"].dtype == np.uint8
    np.testing.assert_array_equal(found["fields"][0].pop("box"), example["fields"][0].pop("box"))
    assert [found[name] for name in ("one", "bytes", "fields", "none", "age")] == [
        3,
        b"\x00\xff",
        [{"finding": 2}],
        [],
        0.1,
    ]
