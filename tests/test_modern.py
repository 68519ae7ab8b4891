"""What `:modern` adds to the recipe, in drawing size: it trains, resumes bit-identically, and means what it says."""

import functools
import os
import signal

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from small import DENSENET, SIZE, InMemory, shrink, train_classifier, two_branch_examples

from configs import classifier, fusion
from sdfn_jax.core import checkpoint, run_identity
from sdfn_jax.core.stops import Stopped
from sdfn_jax.heatmaps import cam
from sdfn_jax.inference.classifier import Classifier
from sdfn_jax.models import sdfn
from sdfn_jax.models.initial import initial_variables
from sdfn_jax.models.preprocessing import Preprocessing
from sdfn_jax.training import averaging, features, steps, tasks, train
from sdfn_jax.training.input_pipeline import Rows
from sdfn_jax.training.losses import LOSSES
from sdfn_jax.training.metrics_log import MetricsLog
from sdfn_jax.training.optimizer import LEARNING_RATE_RULES, OPTIMIZERS

TRAINING, VALIDATION = two_branch_examples(14, seed=1), two_branch_examples(10, seed=2)


def small(config, workdir, **settings):
    shrink(config, workdir)
    config.model = ConfigDict(DENSENET)
    config.data.size = SIZE
    config.update(settings)
    return config


def modern(workdir, **settings):
    return small(classifier.get_config("entire,demo,modern"), workdir, **settings)


def result(workdir):
    latest, best = checkpoint.latest_metadata(workdir), checkpoint.best_metadata(workdir)
    return latest["digest"], best["digest"], MetricsLog.read(workdir)


class StopsOnce(InMemory):
    """Asks this process to stop when the trainer reads the n-th film."""

    def __init__(self, films, countdown):
        super().__init__(films)
        self.countdown = countdown

    def take(self, indices):
        return StopsOnce((list.__getitem__(self, index) for index in indices), self.countdown)

    def __getitem__(self, index):
        self.countdown[0] -= 1
        if self.countdown[0] == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__getitem__(index)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an extractor trained without a stop."""
    folder = tmp_path_factory.mktemp("whole")
    train_classifier(modern(folder), TRAINING, VALIDATION)
    return folder


def test_a_stopped_extractor_resumes_to_the_same_bits(tmp_path, whole):
    with pytest.raises(Stopped):
        train_classifier(modern(tmp_path), StopsOnce(TRAINING, [17]), VALIDATION)
    assert checkpoint.latest_metadata(tmp_path)["step"] < 6
    train_classifier(modern(tmp_path), TRAINING, VALIDATION)
    assert result(tmp_path) == result(whole)


def test_the_average_of_weights_and_statistics_is_what_is_saved(whole):
    config = modern(whole)
    task = tasks.classification(config)
    start = initial_variables(task.model, config.seed, task.inputs, train=False)
    state, metadata = checkpoint.read_latest(whole, steps.initial_state(task, config, start))
    assert checkpoint.tree_digest(state.variables) == checkpoint.tree_digest(state.average)
    if checkpoint.best_metadata(whole)["epoch"] == 2:
        assert checkpoint.best_metadata(whole)["digest"] == checkpoint.tree_digest(state.average)
    for kind, last in (("params", state.params), ("batch_stats", state.batch_stats)):
        averaged = checkpoint.flatten(state.average[kind])
        for name, leaf in checkpoint.flatten(last).items():
            assert (averaged[name] != leaf).any(), name  # nothing is as the last step left it


def head(folder, stop_at=None, **settings):
    """Trains a fusion head on drawn features; asks to stop at a batch."""
    config = small(fusion.get_config("demo,modern"), folder, **settings)
    network = tasks.classification(config)
    variables = initial_variables(network.model, 0, network.inputs, train=False)
    task = tasks.fusion_head(network, config, variables)
    training, validation = (drawn_rows(number) for number in (14, 10))
    train.train(
        task,
        config,
        training=training if stop_at is None else StopsAt(training, stop_at),
        validation=validation,
        initial_variables=lambda: {"params": {"head": variables["params"]["head"]}},
        metadata={"stage": "fusion", "config": run_identity.as_json(config), "inputs": {}},
    )
    return task, validation


def drawn_rows(count):
    generator = np.random.default_rng(count)
    table = np.zeros(count, [("features", np.float32, (2, 16)), ("labels", np.uint8, 14)])
    table["features"] = generator.normal(size=(count, 2, 16))
    table["labels"] = generator.integers(0, 2, (count, 14))
    return Rows(table)


class StopsAt(Rows):
    """Asks this process to stop when the trainer reads the n-th batch."""

    def __init__(self, rows, number):
        self.__dict__.update(rows.__dict__)
        self.countdown = number if isinstance(number, list) else [number]

    def __getitem__(self, index):
        self.countdown[0] -= 1
        if self.countdown[0] == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__getitem__(index)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("rule", LEARNING_RATE_RULES)
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_a_stopped_head_resumes_to_the_same_bits(tmp_path, optimizer, rule, ema_decay):
    settings = {"optimizer": optimizer, "learning_rate_rule": rule, "ema_decay": ema_decay}
    head(tmp_path / "whole", **settings)
    with pytest.raises(Stopped):
        head(tmp_path / "stopped", stop_at=5, **settings)
    assert 3 <= checkpoint.latest_metadata(tmp_path / "stopped")["step"] < 6
    head(tmp_path / "stopped", **settings)
    assert result(tmp_path / "stopped") == result(tmp_path / "whole")


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_trains_and_validation_reports_the_cross_entropy(tmp_path, loss):
    task, validation = head(tmp_path, loss=loss, num_epochs=1)
    (line,) = MetricsLog.read(tmp_path)
    best, _ = checkpoint.read_best(tmp_path)
    features, labels = task.prepare(validation[np.arange(10)], None)
    logits = np.asarray(features @ best["params"]["head"]["kernel"] + best["params"]["head"]["bias"], np.float64)
    expected = np.logaddexp(0, np.where(np.asarray(labels) == 1, -logits, logits)).mean()
    assert line["validation_loss"] == pytest.approx(expected, rel=1e-5)
    assert line["train_loss"] != pytest.approx(expected, rel=1e-3)


def classify(config, variables, films):
    """Logits as `predict` has them."""
    network = Classifier(sdfn.from_config(config), [variables], Preprocessing.of(config), len(films))
    ((logits, _),) = network.start([{branch: film[branch] for branch in config["branches"]} for film in films])
    return np.asarray(logits)


def test_the_average_is_its_formula_of_weights_and_statistics_but_not_of_what_is_frozen():
    generator = np.random.default_rng(0)
    kinds = {"params": ("entire", "head"), "batch_stats": ("entire", "lung")}

    def drawn():
        return {kind: {name: {"x": np.float32(generator.normal(size=4))} for name in kinds[kind]} for kind in kinds}

    current = drawn()
    average = averaging.begin(current, ("lung",))
    expected = {kind: {name: tree[name]["x"].astype(float) for name in tree} for kind, tree in current.items()}
    for updates in range(60):
        current = drawn()
        average = averaging.update(average, current, np.int32(updates), 0.8)
        decay = min(0.8, (1 + updates) / (10 + updates))
        for kind, names in kinds.items():
            for name in names:
                expected[kind][name] = decay * expected[kind][name] + (1 - decay) * current[kind][name]["x"]
    assert set(average["batch_stats"]) == {"entire"}
    for kind, name in (("params", "entire"), ("params", "head"), ("batch_stats", "entire")):
        np.testing.assert_allclose(average[kind][name]["x"], expected[kind][name].astype(np.float32), atol=1e-5)


def test_with_flips_logits_and_heatmaps_are_the_means_of_both(tmp_path):
    config = modern(tmp_path, dtype="float32")
    once, both = sdfn.from_config({**config, "test_time_flip": False}), sdfn.from_config(config)
    task = tasks.classification(config)
    variables = initial_variables(task.model, 3, task.inputs, train=False)
    images = {"entire": np.random.default_rng(0).normal(size=(3, SIZE, SIZE, 3)).astype(np.float32)}
    (mine, maps), (plain, own), (mirrored, other) = (
        jax.jit(functools.partial(network.apply, train=False))(variables, seen)
        for network, seen in ((both, images), (once, images), (once, {"entire": images["entire"][:, :, ::-1]}))
    )
    np.testing.assert_allclose(mine, (plain + mirrored) / 2, atol=1e-5)
    np.testing.assert_allclose(maps["entire"], (own["entire"] + other["entire"][:, :, ::-1]) / 2, atol=1e-5)
    head = variables["params"]["head"]
    heatmaps = cam.activation_maps(jax.device_get(maps), head["kernel"], ("entire",))["entire"]
    np.testing.assert_allclose(heatmaps.mean((1, 2)) + head["bias"], mine, atol=1e-5)
    in_training = [
        jax.jit(functools.partial(network.apply, train=True, mutable=["batch_stats"]))(variables, images)[0][0]
        for network in (once, both)
    ]
    np.testing.assert_array_equal(*in_training)


def test_evaluation_and_prediction_are_one_network_and_know_no_left_or_right(tmp_path):
    config = run_identity.as_json(modern(tmp_path, dtype="float32"))
    task = tasks.classification(ConfigDict(config))
    variables = initial_variables(task.model, 3, task.inputs, train=False)
    predicted = classify(config, variables, VALIDATION)
    values = steps.run_over_split(
        steps.make_evaluation_step(task, steps.device_mesh()), variables, VALIDATION, task, 4, steps.device_mesh(), "x"
    )
    np.testing.assert_allclose(predicted, values["logits"], atol=1e-5)
    mirrored = [{**film, "entire": film["entire"][:, ::-1]} for film in VALIDATION]
    np.testing.assert_allclose(classify(config, variables, mirrored), predicted, atol=1e-5)
    assert not np.allclose(predicted, classify({**config, "test_time_flip": False}, variables, VALIDATION), atol=1e-4)


def test_a_fusion_head_on_kept_features_answers_as_the_whole_network(tmp_path):
    config = small(fusion.get_config("demo,modern"), tmp_path, dtype="float32")
    network = tasks.classification(config)
    variables = initial_variables(network.model, 0, network.inputs, train=False)
    extractors = features.Extractors(network, config, variables, steps.device_mesh())
    rows = features.cached(extractors, VALIDATION, tmp_path / "validation.npy", mirrored=True, origin={})
    task = tasks.fusion_head(network, config, variables)
    pools, _ = task.prepare(rows[np.arange(len(VALIDATION))], None)
    logits = pools @ variables["params"]["head"]["kernel"] + variables["params"]["head"]["bias"]
    np.testing.assert_allclose(classify(config, variables, VALIDATION), logits, atol=1e-5)
