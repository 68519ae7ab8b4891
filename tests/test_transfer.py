"""What goes to the devices, and when: grey bytes, ahead of their use."""

import jax
import numpy as np
import pytest
from small import SIZE, extractor_config, two_branch_examples

from sdfn_jax.heatmaps import over_split
from sdfn_jax.models.initial import initial_variables
from sdfn_jax.training import input_pipeline, steps, tasks, train

FILMS = two_branch_examples(10, seed=1)


@pytest.fixture
def setting(tmp_path):
    config = extractor_config("entire", tmp_path)
    task = tasks.classification(config)
    return config, task, initial_variables(task.model, 0, task.inputs, train=False)


@pytest.mark.parametrize("branches", [("entire",), ("entire", "lung")])
def test_branches_go_to_the_devices_as_grey_bytes(tmp_path, monkeypatch, branches):
    sent, put = [], jax.make_array_from_process_local_data

    def noted(sharding, array):
        sent.append((array.dtype.name, array.shape))
        return put(sharding, array)

    config = extractor_config("entire", tmp_path)
    config.branches, config.num_epochs = branches, 1
    task = tasks.classification(config)
    variables = initial_variables(task.model, 0, task.inputs, train=False)
    weights = len(jax.tree.leaves(steps.initial_state(task, config, variables)))
    monkeypatch.setattr(jax, "make_array_from_process_local_data", noted)
    monkeypatch.setattr(jax, "device_put", None)
    train.train(
        task,
        config,
        training=FILMS,
        validation=FILMS,
        initial_variables=lambda: variables,
        metadata={"config": {}, "inputs": {}},
    )
    batch = [*([("uint8", (4, SIZE, SIZE))] * len(branches)), ("uint8", (4, 14))]
    in_steps = 2 * len(batch)  # of the epoch: 10 films in batches of 4
    assert sorted(sent[weights : weights + in_steps]) == sorted(2 * batch)
    of_validation = [each for each in sent[weights + in_steps :] if each[0] == "uint8"]
    assert sorted(of_validation) == sorted(3 * batch)


def test_a_batch_is_under_way_while_the_results_of_another_are_fetched(setting, monkeypatch):
    _, task, variables = setting
    events, fetch = [], jax.device_get

    def step(_, batch):
        events.append("start")
        return {"loss": batch["labels"][:, 0].astype(np.float32)}

    monkeypatch.setattr(jax, "device_get", lambda tree: events.append("fetch") or fetch(tree))
    values = steps.run_over_split(step, variables, FILMS, task, 4, steps.device_mesh(), "validate")
    assert events == ["start", "start", "fetch", "start", "fetch", "fetch"]
    np.testing.assert_array_equal(values["loss"], [film["labels"][0] for film in FILMS])


def test_heatmaps_are_looked_at_while_the_next_are_computed(setting, monkeypatch):
    config, _, variables = setting
    read, batches = [], input_pipeline.evaluation_batches

    def noted(*arguments):
        for batch in batches(*arguments):
            read.append(batch)
            yield batch

    monkeypatch.setattr(over_split, "evaluation_batches", noted)
    stream = over_split.stream(config, variables, FILMS)
    ahead = []
    for number, _ in enumerate(stream):
        if number % 4 == 0:
            ahead.append(len(read))
    assert number == 9
    assert ahead == [2, 3, 3]
