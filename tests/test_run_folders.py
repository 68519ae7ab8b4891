"""The folder of several runs in place of one."""

import pytest

from sdfn_jax.core import run_folders
from sdfn_jax.core.errors import UserError


@pytest.fixture
def holding(tmp_path):
    """Makes a folder of runs: {name: stage}, None for a folder without a run."""

    def make(**runs):
        for name in runs:
            (tmp_path / name).mkdir()
        (tmp_path / "notes.txt").write_text("")
        return tmp_path

    return make


def stages(**runs):
    return lambda folder: runs.get(folder.name)


def test_a_run_is_itself(holding):
    runs = {"fusion": "fusion", "entire": "entire"}
    folder = holding(**runs)
    assert run_folders.network(folder / "entire", stages(**runs)) == folder / "entire"


@pytest.mark.parametrize(
    ("runs", "chosen"),
    [
        ({"entire": "entire", "lung": "lung", "mine": "fusion", "tfds": None}, "mine"),
        ({"lung": "lung", "tfds": None}, "lung"),
        ({"entire": "entire"}, "entire"),
    ],
)
def test_of_a_folder_of_runs_it_is_the_fusion_or_else_the_one_extractor(holding, runs, chosen):
    folder = holding(**runs)
    assert run_folders.network(folder, stages(**runs)) == folder / chosen


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ({"a": "fusion", "b": "fusion"}, "2 runs of the stage fusion: .*a, .*b; name the one you mean"),
        ({"entire": "entire", "lung": "lung"}, "no fusion network but two extractors: .*lung, .*entire; name"),
    ],
)
def test_several_that_may_be_meant_are_named(holding, runs, said):
    with pytest.raises(UserError, match=said):
        run_folders.network(holding(**runs), stages(**runs))


def test_a_folder_without_any_is_left_to_its_reader(holding, tmp_path):
    assert run_folders.network(holding(tfds=None), stages()) == tmp_path
    assert run_folders.network(tmp_path / "nothing", stages()) == tmp_path / "nothing"
