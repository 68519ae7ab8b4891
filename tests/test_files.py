"""A file is there whole or not at all."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from unittest import mock

import other_process
import pytest

from sdfn_jax.core import files
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.files import appears_when_complete, file_digest, locked


def test_a_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "folder" / "table.csv"
    with appears_when_complete(path) as unfinished:
        assert unfinished.suffix == ".csv"
        unfinished.write_text("half")
        assert not path.exists()
        unfinished.write_text("whole")
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_the_older_file_stays_until_then(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("older")
    with appears_when_complete(str(path)) as unfinished:
        unfinished.write_text("newer")
        assert path.read_text() == "older"
    assert path.read_text() == "newer"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_older_file_and_no_rubbish(tmp_path, error):
    path = tmp_path / "table.csv"
    path.write_text("older")
    with pytest.raises(error), appears_when_complete(path) as unfinished:
        unfinished.write_text("half")
        raise error
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_kill_left_does_no_harm(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("older")
    dies = """
import os, signal, sys
from sdfn_jax.core import files

for appears in (files.appears_when_complete, files.folder_appears_when_complete):
    appears(sys.argv[1]).__enter__().write_text("half")
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", dies, path]).returncode == -signal.SIGKILL
    lives = path.with_name(f".{files._HOST}-{os.getppid()}-0.writing.csv")
    of_another_machine = path.with_name(".00000000-1-0.writing.csv")
    for other in (lives, of_another_machine):
        other.write_text("half of another process")
    assert path.read_text() == "older"
    with appears_when_complete(path) as unfinished:
        unfinished.write_text("whole")
    assert path.read_text() == "whole"
    assert sorted(tmp_path.iterdir()) == sorted([path, lives, of_another_machine])


def test_two_processes_do_not_write_under_one_name(tmp_path):
    with appears_when_complete(tmp_path / "table.csv") as mine:
        name = (
            "import sys; from sdfn_jax.core import files; "
            "print(files.appears_when_complete(sys.argv[1]).__enter__().name)"
        )
        command = [sys.executable, "-c", name, tmp_path / "table.csv"]
        theirs = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        assert theirs != mine.name
        mine.touch()


def test_a_full_disk_is_one_of_the_file_that_was_to_be(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("older")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for where in ("os.fsync", "os.replace"):
        with (
            mock.patch(where, side_effect=full),
            pytest.raises(OSError, match="No space left") as refused,
            appears_when_complete(path) as unfinished,
        ):
            unfinished.write_text("newer")
        assert refused.value.filename == str(path)
        assert path.read_text() == "older"
        assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError, match="another"), appears_when_complete(path):
        (tmp_path / "another").read_text()


def test_the_digest_is_sha256sums(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 4096)  # more than one read
    expected = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]
    assert file_digest(path) == file_digest(str(path)) == expected
    path.write_bytes(b"")
    assert file_digest(path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_lock_is_held_by_one_until_its_block_ends(tmp_path):
    path = tmp_path / "new" / ".lock"
    with (
        other_process.holding(path),
        pytest.raises(UserError, match=r"runs/lrg is being written by another"),
        locked(path, "runs/lrg"),
    ):
        pytest.fail("two hold it")
    with locked(path, "runs/lrg"), locked(path, "runs/lrg"):  # whoever holds it may take it again
        pass
    with other_process.holding(path) as other:
        other.kill()
        other.wait()
        with locked(path, "runs/lrg"):  # free again, whatever ended the other one
            pass


def test_a_lock_that_cannot_be_written_is_no_lock_that_is_held(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError), locked(tmp_path / "file" / ".lock", "runs/lrg"):
        pytest.fail("there is no such folder")


def test_a_lock_that_may_not_be_written_is_said_of_what_it_is_for(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(PermissionError) as caught, locked(tmp_path / ".out.lock", tmp_path / "out"):
        pytest.fail("it may not be written")
    assert caught.value.filename == str(tmp_path / "out")


def test_a_user_without_a_home_folder_learns_how_to_name_one(monkeypatch, tmp_path):
    for name in ("HOME", "XDG_CACHE_HOME", files.CACHE_VARIABLE):
        monkeypatch.delenv(name, raising=False)

    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(UserError, match="no home folder .* environment variable SDFN_CACHE"):
        files.cache_folder()
    monkeypatch.setenv(files.CACHE_VARIABLE, str(tmp_path))
    assert files.cache_folder() == tmp_path
