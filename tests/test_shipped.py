"""The lung region generator that comes with the package."""

import jax
import numpy as np
import pytest
from PIL import Image

import sdfn_jax
from configs import lungs as lungs_config
from sdfn_jax import cli
from sdfn_jax.core import checkpoint, run_identity
from sdfn_jax.lungs import box_table, shipped
from sdfn_jax.metrics import scores
from sdfn_jax.radiographs import synthetic_film
from sdfn_jax.workflow import lung_stages
from tools import ship_lungs


@pytest.fixture(scope="module")
def lungs():
    return sdfn_jax.load_lungs()


@pytest.fixture(scope="module")
def drawings() -> list[synthetic_film.Drawing]:
    return [synthetic_film.draw(np.random.default_rng(seed), ()) for seed in range(4)]


def test_it_is_small_and_rounded_to_float16():
    files = [path for path in shipped.SHIPPED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 6_000_000
    variables, _ = checkpoint.read_best(shipped.SHIPPED)
    for leaf in jax.tree.leaves(variables):
        np.testing.assert_array_equal(leaf, leaf.astype(np.float16))


def test_it_is_that_of_its_config_and_names_no_folder_of_its_makers():
    stored = checkpoint.best_metadata(shipped.SHIPPED)["config"]
    asked = run_identity.as_json(lungs_config.get_config("own_lungs"))
    differing = {name for name, value in asked.items() if stored[name] != value}
    assert differing == {"num_epochs"}  # on more films than the config's own data set has


def test_its_card_says_what_it_was_trained_on_and_what_it_cannot_do():
    card = (shipped.SHIPPED / "MODEL_CARD.md").read_text()
    for word in ("National Library of Medicine", "NIH Clinical Center", "not for diagnosis", "## Limits", "Dice"):
        assert word in card


def test_it_finds_drawn_lungs_without_having_seen_a_drawing(lungs, drawings):
    for drawn, found in zip(drawings, lungs([drawn.image for drawn in drawings]), strict=True):
        truth = drawn.left_lung | drawn.right_lung
        assert scores.lung_recall(truth, found.box) > 0.98
        assert 0 < found.confidence < 1


def test_the_command_needs_no_checkpoint(drawings, tmp_path, capsys):
    for number, drawn in enumerate(drawings):
        (tmp_path / "films").mkdir(exist_ok=True)
        Image.fromarray(drawn.image).save(tmp_path / "films" / f"{number}.png")
    cli.main(["lungs", str(tmp_path / "films"), f"--output={tmp_path / 'boxes.csv'}"])
    printed = capsys.readouterr().out
    assert f"the lung region generator of the package ({shipped.digest()[:12]}" in printed
    rows = box_table.read_box_table(tmp_path / "boxes.csv").values()
    assert {row.checkpoint for row in rows} == {shipped.digest()}
    assert (tmp_path / "boxes.png").is_file()


def test_a_copy_of_it_is_a_run_folder_with_the_same_digest(tmp_path):
    shipped.copy_to(tmp_path)
    assert checkpoint.best_metadata(tmp_path)["digest"] == shipped.digest()


def test_the_main_job_takes_it_if_asked_and_never_in_place_of_another(tmp_path):
    config = lungs_config.of_job("shipped_lungs", "runs")
    config.workdir = str(tmp_path / "lungs")
    stage = lung_stages.ShippedGenerator(config)
    assert (stage.there, stage.status.notes) == (False, (shipped.describe(),))
    stage.run()
    assert lung_stages.ShippedGenerator(config).there

    variables, metadata = checkpoint.read_best(shipped.SHIPPED)
    other = jax.tree.map(lambda leaf: leaf * 2, variables)
    checkpoint.save_best(config.workdir, metadata["step"], other, metadata)
    (conflict,) = lung_stages.ShippedGenerator(config).status.conflicts
    assert "holds another lung region generator" in conflict and "--config.runs=FOLDER" in conflict


@pytest.mark.real
def test_it_holds_the_lungs_of_montgomerys_films(lungs, real_data):
    """It has seen these films: this tells that it is the network that was measured, not how good it is."""
    paths = ship_lungs.montgomery_films(real_data)[::6]
    dice = []
    for path, found in zip(paths, lungs(paths), strict=True):
        truth = ship_lungs.read_lungs(path)
        assert scores.lung_recall(truth, found.box) > 0.99
        dice.append(scores.dice(found.mask, truth))
    assert np.mean(dice) > 0.95
