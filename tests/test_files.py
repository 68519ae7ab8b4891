"""A file is there whole or not at all."""

import subprocess
from pathlib import Path

import pytest

from sdfn_jax import files
from sdfn_jax.errors import UserError
from sdfn_jax.files import appears_when_complete, file_digest, locked


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
    with appears_when_complete(path) as unfinished:
        unfinished.write_text("older")
    unfinished.write_text("half of a killed run")
    with appears_when_complete(path) as unfinished:
        unfinished.write_text("whole")
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]


def test_the_digest_is_sha256sums(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 4096)  # more than one read
    expected = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]
    assert file_digest(path) == file_digest(str(path)) == expected
    path.write_bytes(b"")
    assert file_digest(path) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_lock_is_held_by_one_until_its_block_ends(tmp_path):
    path = tmp_path / "new" / ".lock"
    with locked(path, "at work"), pytest.raises(UserError, match="at work"), locked(path, "at work"):
        pytest.fail("two hold it")
    with locked(path, "at work"):
        pass


def test_a_user_without_a_home_is_told_what_names_a_folder(monkeypatch, tmp_path):
    for name in ("HOME", "XDG_CACHE_HOME", files.CACHE_VARIABLE):
        monkeypatch.delenv(name, raising=False)

    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    with pytest.raises(UserError, match="no home folder .* environment variable SDFN_CACHE"):
        files.cache_folder()
    monkeypatch.setenv(files.CACHE_VARIABLE, str(tmp_path))
    assert files.cache_folder() == tmp_path
