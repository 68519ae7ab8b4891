"""Whenever the power goes, there is the former state or the new one, whole."""

import json

import numpy as np
import pytest
from power_cut import at_every_moment

from sdfn_jax.core import checkpoint, files
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.journal import Journal


@pytest.fixture
def root(tmp_path):
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def scratch(tmp_path):
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def tree(step):
    return {"params": {name: np.full((50, 50), step, np.float32) for name in "ab"}}


def test_a_file(root, scratch):
    allowed = {None}

    def check(left):
        path = left / "table.csv"
        assert (path.read_text() if path.exists() else None) in allowed

    with at_every_moment(root, scratch, check, allowed) as moments:
        for text in ("first", "second"):
            allowed.add(text)
            with files.appears_when_complete(root / "table.csv") as path:
                path.write_text(text)
            allowed.intersection_update({text})
    assert len(moments) >= 6


def test_a_folder(root, scratch):
    allowed = {None}

    def check(left):
        files.bring_back(left / "set")
        found = sorted(path.read_text() for path in (left / "set").rglob("*") if path.is_file())
        assert (tuple(found) or None) in allowed

    with at_every_moment(root, scratch, check, allowed):
        for text in ("first", "second"):
            allowed.add((text, text))
            with files.folder_appears_when_complete(root / "set") as folder:
                (folder / "deep" / "er").mkdir(parents=True)
                for name in ("a", "er/b"):
                    (folder / "deep" / name).write_text(text)
            allowed.intersection_update({(text, text)})


def test_a_journal(root, scratch):
    done = []

    def check(left):
        try:
            with Journal(left / "journal.jsonl", {}) as journal:
                assert [*journal] == done or [*journal] == [*done, "next"]
        except UserError as error:
            raise AssertionError from error

    with at_every_moment(root, scratch, check, done), Journal(root / "journal.jsonl", {}) as journal:
        for key in "abc":
            done.append(key)
            journal.write(key, {})


@pytest.mark.long
def test_checkpoints(root, scratch):
    """Of those that are there, the newest can be read, and it is at most one behind."""
    saved = {"latest": 0, "best": 0}

    def check(left):
        found = checkpoint.read_latest(left, tree(0))
        step = 0 if found is None else found[1]["step"]
        assert saved["latest"] <= step <= saved["latest"] + 10
        if step:
            assert (found[0]["params"]["a"] == step).all()
        best = checkpoint.best_metadata(left)
        assert saved["best"] <= (0 if best is None else best["step"]) <= saved["best"] + 10
        if best is not None:
            assert (checkpoint.read_best(left)[0]["params"]["a"] == best["step"]).all()
            assert step <= best["step"]  # a state never speaks of a best that is not there

    with at_every_moment(root, scratch, check, saved) as moments:
        for step in (10, 20, 30):
            checkpoint.save_best(root, step, tree(step), {})
            saved["best"] = step
            checkpoint.save_latest(root, step, tree(step), {})
            saved["latest"] = step
    assert sum("rmdir" in moment for moment in moments) >= 2
    assert json.loads((root / "best" / "30" / "metadata" / "metadata").read_text())["step"] == 30
