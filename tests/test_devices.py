"""The same training on any number of devices and processes: simulated devices, gloo between processes on loopback."""

import csv
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from small import InMemory, extractor_config, fusion_config, train_classifier, two_branch_examples

from sdfn_jax.core import checkpoint, processes, run_identity
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.stops import Stopped
from sdfn_jax.lungs import box_table
from sdfn_jax.models.initial import initial_variables
from sdfn_jax.radiographs import synthetic_dataset
from sdfn_jax.training import features, steps, tasks, train
from sdfn_jax.training.metrics_log import MetricsLog
from sdfn_jax.workflow import modes

TRAINING, VALIDATION = two_branch_examples(27, seed=1), two_branch_examples(11, seed=2)
STEPS, BATCH = 3, 8  # an epoch; the last 3 films are left over
ROOT = Path(__file__).parent.parent
# Other devices sum a batch in another order, so that the last bits of float32 differ. Adam divides by a gradient's
# size, which would turn a rounding error where the gradient is about zero into a step as long as any: a larger epsilon
# keeps it what it is. Largest differences seen: 1e-7 (losses), 3e-7 (weights).
LOSS, WEIGHT = 1e-6, 2e-6


class Read(InMemory):
    """Examples that write down which of them were read."""

    def __init__(self, examples):
        super().__init__(examples)
        self.numbers, self.seen = range(len(self)), []

    def take(self, indices):
        taken = Read(list.__getitem__(self, index) for index in indices)
        taken.numbers, taken.seen = [self.numbers[index] for index in indices], self.seen
        return taken

    def __getitem__(self, index):
        self.seen.append(int(self.numbers[index]))
        return super().__getitem__(index)


class Signals(InMemory):
    """Examples at the first reading of which this process is asked to stop."""

    def take(self, indices):
        return Signals(list.__getitem__(self, index) for index in indices)

    def __getitem__(self, index):
        os.kill(os.getpid(), signal.SIGTERM)
        return super().__getitem__(index)


class Mortal(InMemory):
    """Examples of which the `last` to be read, over all epochs, kills this process."""

    def __init__(self, examples, last, record, read=None):
        super().__init__(examples)
        self.last, self.record, self.read = last, record, read or itertools.count(1)

    def take(self, indices):
        return Mortal((list.__getitem__(self, index) for index in indices), self.last, self.record, self.read)

    def __getitem__(self, index):
        if next(self.read) == self.last:
            self.record.write_text(str(time.time()))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def config_in(folder):
    config = extractor_config("entire", folder)
    config.batch_size = config.evaluation_batch_size = BATCH
    config.adam.epsilon = 1e-2
    return config


def run(folder, training=TRAINING, validation=VALIDATION):
    train_classifier(config_in(folder), training, validation)


def run_on_features(folder):
    """Trains the fusion head on features in the same folder."""
    config = config_in(folder)
    config.stage, config.branches, config.frozen = "fusion", ("entire", "lung"), True
    task = tasks.classification(config)
    variables = initial_variables(task.model, config.seed, task.inputs, train=False)

    extractors = features.Extractors(task, config, variables, steps.device_mesh(jax.local_devices()))

    def cached(examples, split):
        path = folder / "features" / f"{split}.npy"
        return features.cached(extractors, examples, path, mirrored=split == "train", origin={})

    train.train(
        tasks.fusion_head(task, config, variables),
        config,
        training=cached(TRAINING, "train"),
        validation=cached(VALIDATION, "validation"),
        initial_variables=lambda: {"params": {"head": variables["params"]["head"]}},
        metadata={"stage": config.stage, "config": run_identity.as_json(config), "inputs": {}},
    )


def over_validation(folder):
    config = config_in(folder)
    task, mesh = tasks.classification(config), steps.device_mesh()
    variables, _ = checkpoint.read_best(folder)
    return steps.run_over_split(
        steps.make_evaluation_step(task, mesh), variables, VALIDATION, task, BATCH, mesh, "validate"
    )


def worker(folder, coordinator, index):
    """What each of two processes does; ends with the other's death."""
    heard = []
    signal.signal(signal.SIGTERM, lambda *_: heard.append(True))
    processes.start(coordinator, 2, index)
    os.kill(os.getpid(), signal.SIGTERM)
    assert heard  # jax's own handler has not taken the place of this one
    training, validation = Read(TRAINING), Read(VALIDATION)
    run(folder / "two", training, validation)
    (folder / f"read_{index}.json").write_text(json.dumps([training.seen, validation.seen]))
    np.savez(folder / f"values_{index}.npz", **over_validation(folder / "two"))
    run(folder / "one_then_two")
    run_on_features(folder / "fusion")
    try:
        run(folder / "two_then_one", Signals(TRAINING) if index == 1 else TRAINING)
    except Stopped as stop:
        (folder / f"stopped_{index}.txt").write_text(str(stop))
    print("printed")
    with processes.ends_alone():
        if index == 1:
            sys.exit(3)
        run(folder / "left")


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{found.getsockname()[1]}"


def start_two(command, folder, devices) -> list[tuple[int, str, str]]:
    """Runs the commands of both processes to their end: (status, standard output, standard error) of each."""
    environment = {
        **os.environ,
        "JAX_NUM_CPU_DEVICES": str(devices),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)]),
    }
    coordinator, running = free_port(), []
    for index in (0, 1):
        with (folder / f"out_{index}.txt").open("w") as out, (folder / f"err_{index}.txt").open("w") as err:
            running.append(subprocess.Popen(command(coordinator, index), env=environment, stdout=out, stderr=err))
    deadline = time.monotonic() + 600  # a busy machine takes two minutes
    try:
        statuses = [process.wait(deadline - time.monotonic()) for process in running]
    finally:
        for process in running:
            process.kill()
    said = [[(folder / f"{stream}_{index}.txt").read_text() for stream in ("out", "err")] for index in (0, 1)]
    return [(status, *texts) for status, texts in zip(statuses, said, strict=True)]


def losses(folder):
    names = ("train_loss", "validation_loss", "validation_mean_auc")
    return np.array([[line[name] for name in names] for line in MetricsLog.read(folder)])


def state(folder):
    config = config_in(folder)
    task = tasks.classification(config)
    start = initial_variables(task.model, 0, task.inputs, train=False)
    found, metadata = checkpoint.read_latest(folder, steps.initial_state(task, config, start))
    return checkpoint.flatten({"params": found.params, "batch_stats": found.batch_stats}), metadata


def assert_same_run(folder, other):
    np.testing.assert_allclose(losses(folder), losses(other), rtol=0, atol=LOSS)
    (found, metadata), (expected, its_metadata) = state(folder), state(other)
    for name in ("step", "epochs_done", "best_epoch", "finished"):
        assert metadata[name] == its_metadata[name]
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=WEIGHT, err_msg=name)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """A run of one process on one device."""
    folder = tmp_path_factory.mktemp("one")
    run(folder)
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two processes of two devices each: (folder, what each left)."""
    folder = tmp_path_factory.mktemp("two")
    with pytest.raises(Stopped):
        run(folder / "one_then_two", training=Signals(TRAINING))
    code = (
        "import sys, pathlib, test_devices; "
        "test_devices.worker(pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))"
    )
    left = start_two(lambda coordinator, i: [sys.executable, "-c", code, str(folder), coordinator, str(i)], folder, 2)
    return folder, left


def test_eight_devices_give_the_same_losses_and_weights(one, tmp_path):
    code = "import sys, jax, test_devices; assert jax.device_count() == 8; test_devices.run(sys.argv[1])"
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)]),
    }
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment)
    assert_same_run(tmp_path, one)


@pytest.mark.long
class TestTwoProcesses:
    def test_they_train_what_one_does(self, one, two):
        assert_same_run(two[0] / "two", one)

    def test_each_reads_its_share_of_each_batch(self, two):
        seen = [json.loads((two[0] / f"read_{index}.json").read_text()) for index in (0, 1)]
        for epoch in range(2):
            order = np.random.default_rng((0, epoch)).permutation(len(TRAINING))
            for index, (training, _) in enumerate(seen):
                mine = order[: STEPS * BATCH].reshape(STEPS, 2, BATCH // 2)[:, index].ravel()
                read = training[epoch * mine.size : (epoch + 1) * mine.size]
                assert sorted(read) == sorted(mine)
        assert [len(training) for training, _ in seen] == [2 * STEPS * BATCH // 2] * 2
        # 11 films in batches of 8: the last is filled up with copies of the last film, all in the second's share.
        assert [sorted(set(validation)) for _, validation in seen] == [[0, 1, 2, 3, 8, 9, 10], [4, 5, 6, 7, 10]]

    def test_they_train_the_fusion_head_that_one_does(self, two, tmp_path):
        run_on_features(tmp_path)
        np.testing.assert_allclose(losses(two[0] / "fusion"), losses(tmp_path), rtol=0, atol=LOSS)
        (found, _), (expected, _) = (checkpoint.read_best(folder) for folder in (two[0] / "fusion", tmp_path))
        for name in ("kernel", "bias"):
            theirs = expected["params"]["head"][name]
            np.testing.assert_allclose(found["params"]["head"][name], theirs, rtol=0, atol=WEIGHT)

    def test_both_have_every_result_of_an_evaluation(self, two):
        expected = over_validation(two[0] / "two")
        for index in (0, 1):
            with np.load(two[0] / f"values_{index}.npz") as found:
                assert set(found) == set(expected)
                for name, array in expected.items():
                    np.testing.assert_allclose(found[name], array, rtol=0, atol=LOSS)

    def test_one_goes_on_with_what_two_have_saved_and_the_other_way_round(self, one, two):
        folder, _ = two
        assert_same_run(folder / "one_then_two", one)
        assert not checkpoint.latest_metadata(folder / "two_then_one")["finished"]
        run(folder / "two_then_one")
        assert_same_run(folder / "two_then_one", one)

    def test_a_signal_to_one_stops_both_at_the_same_step(self, two):
        texts = [(two[0] / f"stopped_{index}.txt").read_text() for index in (0, 1)]
        assert texts[0] == texts[1]
        assert texts[0].startswith("stopped at step ")

    def test_only_the_first_prints(self, two):
        assert "printed" in two[1][0][1]
        assert "printed" not in two[1][1][1]

    def test_where_one_ends_the_other_does_not_wait_for_it(self, two):
        (first, _, said), (second, _, _) = two[1]
        assert second == 3
        assert first == 1
        assert "process 1 ended before its work was done" in said
        assert "Traceback" not in said and "stack trace" not in said


def mortal_worker(folder, coordinator, index, killed, last):
    """What each of two processes does, one of which may die at the reading of one of its examples."""
    processes.start(coordinator, 2, index)
    with processes.ends_alone():
        run(folder / "run", Mortal(TRAINING, last, folder / "killed") if index == killed else TRAINING)


def start_mortals(folder, devices, killed=None, last=0):
    code = (
        "import sys, pathlib, test_devices; folder, coordinator, index = sys.argv[1:]; "
        f"test_devices.mortal_worker(pathlib.Path(folder), coordinator, int(index), {killed}, {last})"
    )
    return start_two(lambda at, i: [sys.executable, "-c", code, str(folder), at, str(i)], folder, devices)


@pytest.mark.long
@pytest.mark.parametrize(("killed", "devices"), [(0, 1), (1, 4)])
def test_the_death_of_one_ends_the_other_within_seconds_and_one_device_or_four_resume(one, tmp_path, killed, devices):
    share = STEPS * BATCH // 2  # of an epoch
    last = int(np.random.default_rng(killed).integers(share + 1, 2 * share))  # when there is something to resume
    left = start_mortals(tmp_path, 1, killed, last)
    noticed = time.time() - float((tmp_path / "killed").read_text())
    assert left[killed][0] == -signal.SIGKILL
    status, _, said = left[1 - killed]
    assert status == 1
    assert f"process {1 - killed}: process {killed} ended before its work was done" in said
    assert "Traceback" not in said and "stack trace" not in said.lower()
    assert noticed < 30  # two or three on a free machine
    if devices == 1:
        run(tmp_path / "run")
    else:
        assert [status for status, _, _ in start_mortals(tmp_path, devices // 2)] == [0, 0]
    assert_same_run(tmp_path / "run", one)


CONFIG_FILE = """
import pathlib
from small import fusion_config
from configs import lrg

def get_config():
    folder = pathlib.Path(__file__).parent
    whole = fusion_config(folder)
    config = whole.entire
    config.num_epochs = 1
    config.data, config.lrg, config.synthetic = whole.data, whole.lrg, whole.synthetic
    config.data.boxes = str(folder / "boxes.csv")
    config.synthetic.jsrt_films = 2
    config.synthetic.chestxray14_films = 24
    return config
"""


def command(folder, *more):
    def of(coordinator, index):
        several = [f"--coordinator={coordinator}", "--processes=2", f"--process={index}"]
        return [sys.executable, "-m", "sdfn_jax.main", f"--config={folder / 'config.py'}", *several, *more]

    return of


@pytest.fixture(scope="module")
def commanded(tmp_path_factory):
    """The whole command in two processes, from nothing but a box table: (folder, what each process left)."""
    folder = tmp_path_factory.mktemp("command")
    (folder / "config.py").write_text(CONFIG_FILE)
    settings = configured(folder).synthetic
    films = synthetic_dataset.chestxray14_films(settings.chestxray14_films, settings.seed, settings.test_share)
    box = {"left": 100, "top": 100, "right": 900, "bottom": 900, "width": 1024, "height": 1024, "lung_area": 0.3}
    rows = [box_table.BoxRow(image=f"{film.name}.png", **box, rule="none", checkpoint="drawn") for film in films]
    box_table.write_box_table(folder / "boxes.csv", rows)
    return folder, start_two(command(folder), folder, 1)


def configured(folder):
    namespace = {"__file__": str(folder / "config.py")}
    exec((folder / "config.py").read_text(), namespace)
    return namespace["get_config"]()


@pytest.mark.long
class TestCommand:
    def test_the_first_prepares_and_writes_and_prints(self, commanded):
        (first, printed, _), (second, also, said) = commanded[1]
        assert (first, second) == (0, 0), commanded[1]
        assert "[2/4] data set chestxray14" in printed
        assert printed.count("epoch 1/1") == 1
        assert "AUC  " in printed
        assert [line for line in also.splitlines() if "Gloo" not in line] == []  # the library's own greeting
        assert "train entire" not in said
        assert len(MetricsLog.read(commanded[0] / "entire")) == 1

    def test_the_predictions_are_those_of_one_process(self, commanded):
        folder, _ = commanded
        path = folder / "entire" / "evaluation" / "test" / "probabilities.csv"
        of_two = path.read_text()
        path.unlink()
        modes.run(configured(folder), "evaluate", "test")
        two, one = (list(csv.reader(text.splitlines())) for text in (of_two, path.read_text()))
        assert len(two) == len(one) > 1
        for mine, theirs in zip(two, one, strict=True):
            assert mine[:2] + mine[16:] == theirs[:2] + theirs[16:]
        probabilities = [np.array([row[2:16] for row in rows[1:]], float) for rows in (two, one)]
        # A convolution over 2 images instead of 4 may add in another order.
        np.testing.assert_allclose(*probabilities, rtol=0, atol=LOSS)

    def test_processes_of_different_commands_are_refused(self, commanded):
        folder, _ = commanded
        alike = command(folder, "--mode=evaluate")
        left = start_two(lambda at, index: [*alike(at, index), f"--split={('test', 'validation')[index]}"], folder, 1)
        assert [status for status, _, _ in left] == [2, 2]
        for index in (0, 1):
            said = left[index][2]
            assert f"process {index}: error: the command: process 1 has a different one than process 0" in said
            assert "Traceback" not in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("host:1234", None, None), "--processes and --process missing"),
        ((None, 2, 0), "--coordinator missing"),
        (("host:1234", 2, 2), "--process=2: expected 0 to 1"),
        (("host", 2, 0), "--coordinator=host: expected HOST:PORT"),
        (("auto", 2, None), "leave --processes and --process out"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(flags, said):
    with pytest.raises(UserError, match=said):
        processes.start(*flags)
    assert not processes.several()


def test_the_lung_region_generator_is_scored_by_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "several", lambda: True)
    monkeypatch.setattr(processes, "check_agreement", lambda *_: None)
    config = fusion_config(tmp_path).lrg
    for mode in ("evaluate", "cross_validate"):
        with pytest.raises(UserError, match=f"--mode={mode} of the lung region generator is for one process"):
            modes.run(config, mode, "test")
