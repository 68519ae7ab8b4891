"""Steps that differ in their seed or in the name of their branch alone are one program, compiled once."""

import jax
import numpy as np
import pytest
from small import SIZE, extractor_config, fusion_config

from sdfn_jax.models.initial import initial_variables
from sdfn_jax.training import steps, tasks
from sdfn_jax.training.programs import Branches


def made(branch, seed, what, **settings):
    """A small extractor's step, and what it takes."""
    config = extractor_config(branch, "unused")
    config.seed = seed
    config.update(settings)
    task = tasks.classification(config)
    batch = {branch: np.arange(4 * SIZE * SIZE).reshape(4, SIZE, SIZE).astype(np.uint8)}
    batch["labels"] = np.eye(4, 14, dtype=np.uint8)
    variables = initial_variables(task.model, 0, task.inputs, train=False)
    if what == "evaluation":
        return steps.make_evaluation_step(task, steps.device_mesh()), variables, batch
    step = steps.make_train_step(task, config, steps.device_mesh(), 3)
    return step, steps.initial_state(task, config, variables), batch


def program(*args, **settings):
    """The program of a step, as XLA gets it."""
    step, *trees = made(*args, **settings)
    return step.lower(*trees).as_text()


@pytest.mark.parametrize("settings", [{}, {"ema_decay": 0.9}, {"frozen": True}], ids=["all", "average", "head alone"])
@pytest.mark.parametrize("what", ["training", "evaluation"])
def test_another_seed_or_branch_is_the_same_program(what, settings):
    assert program("entire", 0, what, **settings) == program("lung", 1, what, **settings)


def test_lungs_of_another_fold_are_the_same_program(tmp_path):
    def lungs(normalisation):
        config = fusion_config(tmp_path).lrg
        task = tasks.segmentation(config, normalisation)
        size = config.data.size
        film = task.select({"image": np.zeros((size, size), np.uint8), "mask": np.zeros((size, size), np.uint8)})
        batch = {name: np.stack([value] * 4) for name, value in film.items()}
        state = steps.initial_state(task, config, initial_variables(task.model, 0, task.inputs))
        return steps.make_train_step(task, config, steps.device_mesh(), 3).lower(state, batch).as_text()

    assert lungs({"mean": 0.4, "std": 0.2}) == lungs({"mean": 0.5, "std": 0.3})


def test_another_recipe_is_not():
    assert program("entire", 0, "training") != program("entire", 0, "training", frozen=True)


def test_what_is_drawn_depends_on_the_seed():
    def losses(seed):
        step, state, batch = made("entire", seed, "training")
        states = [state.replace(step=np.int32(number)) for number in range(6)]
        return [float(step(jax.tree.map(np.copy, each), batch).loss_sum) for each in states]

    assert losses(0) != losses(1)


def test_a_state_gets_its_names_back():
    _, state, _ = made("lung", 0, "training", ema_decay=0.9)
    branches = Branches(["lung"])
    by_place = branches.by_place(state)
    places = {str(path) for path, _ in jax.tree_util.tree_leaves_with_path(by_place)}
    assert not any("lung" in place for place in places) and any("branch_0" in place for place in places)
    assert jax.tree.structure(branches.by_name(by_place)) == jax.tree.structure(state)
    for ours, theirs in zip(jax.tree.leaves(branches.by_name(by_place)), jax.tree.leaves(state), strict=True):
        assert ours is theirs
