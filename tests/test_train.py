import os
import shutil
import signal

import jax
import numpy as np
import pytest
from small import DENSENET, InMemory, extractor_config, train_classifier, two_branch_examples

from sdfn_jax.core import checkpoint
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.stops import Stopped
from sdfn_jax.models.initial import initial_variables
from sdfn_jax.training import resume, steps, tasks, train
from sdfn_jax.training.metrics_log import MetricsLog

TRAINING, VALIDATION = two_branch_examples(14, seed=1), two_branch_examples(10, seed=2)


def run(config, training=TRAINING, validation=VALIDATION, start=None):
    train_classifier(config, training, validation, start)


def results(workdir) -> tuple[dict, dict, list]:
    """What must not depend on interruptions: the latest state, the best variables, the log."""
    latest, best = checkpoint.latest_metadata(workdir), checkpoint.best_metadata(workdir)
    return (
        {name: latest[name] for name in ("digest", "best_score", "best_epoch", "epochs_done", "finished", "step")},
        {name: best[name] for name in ("digest", "epoch", "validation")},
        MetricsLog.read(workdir),
    )


class StopsAt(InMemory):
    """Sends a signal to this process when the trainer asks for the n-th example."""

    def __init__(self, examples, number, signal_number):
        super().__init__(examples)
        self.countdown, self.signal_number = [number], signal_number

    def take(self, indices):
        taken = StopsAt((self[index] for index in indices), 0, self.signal_number)
        taken.countdown = self.countdown
        return taken

    def __getitem__(self, index):
        if self.countdown[0] is not None:
            self.countdown[0] -= 1
            if self.countdown[0] == 0:
                self.countdown[0] = None
                os.kill(os.getpid(), self.signal_number)
        return super().__getitem__(index)


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    run(extractor_config("entire", workdir))
    return workdir


@pytest.fixture(scope="module")
def uninterrupted(finished_run):
    return results(finished_run)


@pytest.mark.parametrize(("film", "signal_number"), [(1, signal.SIGTERM), (17, signal.SIGINT), (30, signal.SIGTERM)])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, uninterrupted, film, signal_number):
    config = extractor_config("entire", tmp_path)
    with pytest.raises(Stopped, match="the same command resumes"):
        run(config, training=StopsAt(TRAINING, film, signal_number))
    assert not checkpoint.latest_metadata(tmp_path)["finished"]
    run(config)
    assert results(tmp_path) == uninterrupted


def test_no_more_than_one_step_waits_for_the_device(tmp_path, monkeypatch):
    """A Ctrl-C waits for all that is queued, and the progress shown counts it as done."""
    make, made, waiting = train.make_train_step, [], []
    square = jax.numpy.ones((256, 256))

    @jax.jit
    def slowly(step):  # some 30 ms that the result depends on
        return step + jax.lax.fori_loop(0, 40, lambda _, x: x @ square / 256, square)[0, 0].astype(int) // 2

    def make_slow(*arguments):
        step = make(*arguments)

        def slow_step(state, batch):
            waiting.append(sum(not before.is_ready() for before in made))
            state = step(state, batch)
            state = state.replace(step=slowly(state.step))
            made.append(state.step + 0)
            return state

        return slow_step

    monkeypatch.setattr(train, "make_train_step", make_slow)
    run(extractor_config("entire", tmp_path))
    assert len(waiting) == 2 * 3 and max(waiting) <= 1, waiting


@pytest.mark.parametrize("film", [1, 13, 18, 22, 24])
def test_a_stop_during_validation_is_heard_in_the_last_epoch_too(tmp_path, uninterrupted, film):
    config = extractor_config("entire", tmp_path)
    with pytest.raises(Stopped, match="the same command resumes"):
        run(config, validation=StopsAt(VALIDATION, film, signal.SIGTERM))
    run(config)
    assert results(tmp_path) == uninterrupted


def spoil(step_folder):
    (step_folder / "metadata" / "metadata").write_text("{")


@pytest.mark.parametrize("spoilt", ["newest", "all", "gone"])
def test_a_finished_run_with_a_damaged_latest_and_a_whole_best_is_finished(finished_run, tmp_path, spoilt):
    workdir = shutil.copytree(finished_run, tmp_path / "run")
    steps = sorted((workdir / "latest").iterdir(), key=lambda path: int(path.name))
    for step in steps[-1:] if spoilt == "newest" else steps:
        spoil(step)
    if spoilt == "gone":
        shutil.rmtree(workdir / "latest")
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}
    assert resume.standing(workdir)["finished"]
    run(extractor_config("entire", workdir))
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()} == before


def test_a_run_is_not_taken_for_finished_by_its_log_alone(finished_run, tmp_path):
    workdir = shutil.copytree(finished_run, tmp_path / "run")
    for step in (workdir / "latest").iterdir():
        spoil(step)
    log = (workdir / "metrics.jsonl").read_text()
    (workdir / "metrics.jsonl").write_text(log.splitlines(keepends=True)[0])
    with pytest.raises(checkpoint.DamagedCheckpointError) as refused:
        resume.standing(workdir)
    assert "delete" not in str(refused.value)
    (workdir / "metrics.jsonl").write_text(log)
    spoil(max((workdir / "best").iterdir(), key=lambda path: int(path.name)))
    with pytest.raises(checkpoint.DamagedCheckpointError, match="latest: no checkpoint in it can be used"):
        resume.standing(workdir)


def test_a_run_resumes_only_with_the_best_that_its_state_speaks_of(tmp_path):
    config = extractor_config("entire", tmp_path)
    config.checkpoint_minutes = 1e-6
    with pytest.raises(Stopped):
        run(config, training=StopsAt(TRAINING, 30, signal.SIGTERM))
    assert checkpoint.latest_metadata(tmp_path)["best_epoch"] == 1
    (best,) = (tmp_path / "best").iterdir()
    spoil(best)
    with pytest.raises(UserError, match="the best checkpoint that belongs to it is damaged or gone"):
        run(config)


def test_a_run_that_saves_within_its_epochs_gives_the_same_bits(tmp_path, uninterrupted):
    config = extractor_config("entire", tmp_path)
    config.checkpoint_minutes = 1e-6
    run(config)
    assert results(tmp_path) == uninterrupted


def test_a_finished_run_is_left_alone(finished_run, tmp_path):
    workdir = shutil.copytree(finished_run, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}
    run(extractor_config("entire", workdir))
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()} == before
    assert results(workdir) == results(finished_run)


def test_the_log_has_a_line_an_epoch_with_the_rate_of_its_last_update(uninterrupted):
    log = uninterrupted[2]
    assert [line["epoch"] for line in log] == [1, 2]
    assert [line["step"] for line in log] == [3, 6]
    # 3 updates an epoch: 14 films, batches of 4, the last 2 films left over
    assert log[1]["learning_rate"] == pytest.approx(3e-3 / (1 + 1e-5 * 5), rel=1e-12)


def test_the_best_epoch_is_the_one_with_the_highest_validation_auc(tmp_path):
    config = extractor_config("entire", tmp_path)
    config.num_epochs = 5
    config.learning_rate = 3e-2  # so that the score goes up and down
    run(config)
    scores = [line["validation_mean_auc"] for line in MetricsLog.read(tmp_path)]
    best = checkpoint.best_metadata(tmp_path)
    assert best["epoch"] == 1 + int(np.argmax(scores))
    assert best["validation"]["mean_auc"] == max(scores)


def test_validation_reads_every_film_once_without_augmentation(tmp_path):
    config = extractor_config("lung", tmp_path)
    task = tasks.classification(config)
    mesh = steps.device_mesh()
    variables = initial_variables(task.model, 0, task.inputs, train=False)
    values = steps.run_over_split(
        steps.make_evaluation_step(task, mesh), variables, VALIDATION, task, 4, mesh, "validate"
    )
    stacked = {name: np.stack([film[name] for film in VALIDATION]) for name in ("lung", "labels")}
    images, _ = task.prepare(stacked, None)
    logits, _ = task.apply(variables, images, False)
    assert values["logits"].shape == (10, 14)
    np.testing.assert_allclose(values["logits"], logits, atol=1e-5)
    np.testing.assert_array_equal(values["labels"], stacked["labels"])


def test_the_plateau_rule_lowers_the_rate(tmp_path):
    config = extractor_config("entire", tmp_path)
    config.num_epochs = 4
    config.learning_rate = 1e-9
    config.plateau.patience, config.plateau.minimum_fall = 2, 10.0  # no epoch after the first falls by that much
    run(config)
    rates = [line["learning_rate"] for line in MetricsLog.read(tmp_path)]
    np.testing.assert_allclose(rates, [1e-9, 1e-9, 1e-9, 1e-10], rtol=1e-3)


def test_a_loss_that_is_not_finite_stops_and_names_step_and_checkpoint(tmp_path):
    config = extractor_config("entire", tmp_path)
    config.num_epochs = 1
    run(config)
    config.num_epochs = 3
    config.learning_rate = 1e38
    kept = checkpoint.best_metadata(tmp_path)
    with pytest.raises(UserError, match=r"step [4-9] is not finite; last good checkpoint: .*latest/3"):
        latest = checkpoint.latest_metadata(tmp_path)
        assert latest["finished"]
        _unfinish(tmp_path, config)
        run(config)
    assert checkpoint.best_metadata(tmp_path) == kept


def _unfinish(workdir, config):
    """As if the run had been asked for more epochs from the start."""
    task = tasks.classification(config)
    start = initial_variables(task.model, config.seed, task.inputs, train=False)
    state, metadata = checkpoint.read_latest(workdir, steps.initial_state(task, config, start))
    checkpoint.save_latest(workdir, metadata["step"], state, {**metadata, "finished": False})
    (workdir / "metrics.jsonl").unlink()


def test_a_training_that_diverges_with_a_finite_loss_stops_and_is_not_trained(tmp_path):
    config = extractor_config("entire", tmp_path)
    config.learning_rate = 1e6
    with pytest.raises(UserError, match=r"epoch 1: the training loss is .*: training has diverged.*\(now 1e\+06\)"):
        run(config)
    assert checkpoint.latest_metadata(tmp_path) is None
    assert checkpoint.best_metadata(tmp_path) is None


def test_an_epoch_with_an_absurd_validation_loss_is_never_the_best(tmp_path, monkeypatch):
    config = extractor_config("entire", tmp_path)
    answers = iter([False, True, False, True])  # the training and the validation loss of both epochs
    monkeypatch.setattr(train, "has_diverged", lambda _: next(answers))
    with pytest.raises(UserError, match="no epoch has a plausible validation loss"):
        run(config)


def test_an_undefined_score_never_replaces_a_good_one(tmp_path):
    config = extractor_config("entire", tmp_path)
    all_negative = InMemory({**film, "labels": np.zeros(14, np.uint8)} for film in VALIDATION)
    with pytest.raises(UserError, match="mean_auc is nan"):
        run(config, validation=all_negative)
    assert checkpoint.best_metadata(tmp_path) is None


@pytest.fixture(scope="module")
def one_step():
    """(maker of fresh states, the step, a batch): the step gives up the memory of the state it takes."""
    config = extractor_config("entire", "unused")
    task = tasks.classification(config)
    start = initial_variables(task.model, 0, task.inputs, train=False)
    rows = [task.select(film) for film in TRAINING[:4]]
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    step = steps.make_train_step(task, config, steps.device_mesh(), 3)
    return lambda: steps.initial_state(task, config, jax.tree.map(np.copy, start)), step, batch


def test_the_plateau_scale_multiplies_the_update(one_step):
    fresh, step, batch = one_step
    before = checkpoint.flatten(fresh().params)
    moved = []
    for scale in (1.0, 0.25):
        state = fresh()
        state = step(state.replace(plateau=state.plateau._replace(scale=np.float32(scale))), batch)
        moved.append({name: np.asarray(leaf) - before[name] for name, leaf in checkpoint.flatten(state.params).items()})
    for name in before:
        np.testing.assert_allclose(moved[1][name], 0.25 * moved[0][name], atol=1e-7)
    assert max(np.abs(update).max() for update in moved[0].values()) > 1e-3


def test_flips_are_drawn_anew_at_every_step_and_losses_add_up(one_step):
    fresh, step, batch = one_step
    losses = [float(step(fresh().replace(step=np.int32(number)), batch).loss_sum) for number in range(6)]
    assert len(set(losses)) > 1  # the same films, weights and statistics: only the flips differ
    second = step(fresh().replace(step=np.int32(1), loss_sum=np.float32(2.0)), batch)
    assert float(second.loss_sum) == pytest.approx(2.0 + losses[1], rel=1e-6)


def test_a_batch_must_divide_by_the_devices(monkeypatch, tmp_path):
    monkeypatch.setattr(jax, "device_count", lambda: 3)
    with pytest.raises(UserError, match="--config.batch_size=4 does not divide by the 3 devices"):
        steps.check_batch_size(extractor_config("entire", tmp_path))


@pytest.fixture(scope="module")
def fusion(tmp_path_factory):
    config = extractor_config("entire", tmp_path_factory.mktemp("fusion"))
    config.stage, config.branches, config.frozen = "fusion", ("entire", "lung"), True
    task = tasks.classification(config)
    start = initial_variables(task.model, 5, task.inputs, train=False)
    # Statistics that a batch would not have: an update of any of them shows.
    start["batch_stats"] = jax.tree.map(lambda leaf: leaf + np.float32(0.3), start["batch_stats"])
    run(config, start=lambda: start)
    variables, _ = checkpoint.read_best(config.workdir)
    state = steps.initial_state(task, config, start)
    # What is frozen is not stored again with every state.
    state = state.replace(params={"head": state.params["head"]}, batch_stats={})
    latest, _ = checkpoint.read_latest(config.workdir, state)
    return start, variables, latest


def test_frozen_weights_and_statistics_are_bit_identical(fusion):
    start, variables, _ = fusion
    for branch in ("entire", "lung"):
        for kind in ("params", "batch_stats"):
            digest = checkpoint.tree_digest(start[kind][branch])
            assert checkpoint.tree_digest(variables[kind][branch]) == digest


def test_the_head_has_changed(fusion):
    start, variables, _ = fusion
    for name in ("kernel", "bias"):
        assert np.abs(variables["params"]["head"][name] - start["params"]["head"][name]).max() > 1e-4


def test_the_optimizer_keeps_moments_of_the_head_alone(fusion):
    start, _, latest = fusion
    moments = [leaf.size for leaf in jax.tree.leaves(latest.opt_state) if leaf.ndim]
    head = [leaf.size for leaf in jax.tree.leaves(start["params"]["head"])]
    assert sorted(moments) == sorted(2 * head)


def test_extractors_update_weights_and_statistics(finished_run):
    task = tasks.classification(extractor_config("entire", finished_run))
    start = initial_variables(task.model, 0, task.inputs, train=False)
    variables, metadata = checkpoint.read_best(finished_run)
    before, after = checkpoint.flatten(start), checkpoint.flatten(variables)
    assert before.keys() == after.keys()
    unchanged = [name for name in before if np.array_equal(before[name], after[name])]
    assert unchanged == []
    assert metadata["config"]["model"]["block_sizes"] == list(DENSENET["block_sizes"])
