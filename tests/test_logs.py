"""A run's log: what a resumed run drops, what a kill leaves, TensorBoard's events."""

import struct
import sys
import time

import numpy as np
import pytest

from sdfn_jax.core.errors import UserError
from sdfn_jax.training.metrics_log import MetricsLog


def line(epoch, loss=0.5):
    return {"epoch": epoch, "step": 10 * epoch, "validation_loss": loss}


def write(workdir, lines, epochs_done=0, tensorboard=False):
    log = MetricsLog(workdir, epochs_done, tensorboard)
    for one in lines:
        log.write(one)


def test_lines_come_back_in_order(tmp_path):
    assert MetricsLog.read(tmp_path) == []
    write(tmp_path, [line(1, 0.1), line(2, 1e-20)])
    assert MetricsLog.read(tmp_path) == [line(1, 0.1), line(2, 1e-20)]
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 2


def test_each_line_is_on_disk_at_once(tmp_path):
    log = MetricsLog(tmp_path, 0, False)
    log.write(line(1))
    assert MetricsLog.read(tmp_path) == [line(1)]


@pytest.mark.parametrize("epochs_done", [0, 2, 3, 9])
def test_a_resumed_run_drops_the_epochs_it_goes_through_again(tmp_path, epochs_done):
    write(tmp_path, [line(1), line(2), line(3)])
    write(tmp_path, [line(epochs_done + 1, 0.25)], epochs_done)
    kept = [line(epoch) for epoch in (1, 2, 3) if epoch <= epochs_done]
    assert MetricsLog.read(tmp_path) == [*kept, line(epochs_done + 1, 0.25)]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("torn", ['{"epoch": 3, "st', '{"epoch": 3, "step": 3', "\0\0\0"])
def test_a_line_torn_by_a_kill_is_left_out_and_made_again(tmp_path, torn):
    write(tmp_path, [line(1), line(2)])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    assert MetricsLog.read(tmp_path) == [line(1), line(2)]
    write(tmp_path, [line(3)], epochs_done=2)
    assert MetricsLog.read(tmp_path) == [line(1), line(2), line(3)]


@pytest.mark.parametrize("harm", ["[]", "null", "{}", '{"epoch": "2", "step": 1}', "[" * 9999, "\udcff", '{"epoch": 2'])
def test_a_damaged_line_is_left_out_and_counted(tmp_path, harm, capsys):
    write(tmp_path, [line(1), line(2), line(3)])
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = harm.encode(errors="surrogateescape") + b"\n"
    path.write_bytes(b"".join(lines))
    assert MetricsLog.read(tmp_path) == [line(1), line(3)]
    assert capsys.readouterr().err == f"note: {path}: 1 of its lines are damaged and left out\n"


def test_a_loss_may_be_nan(tmp_path):
    write(tmp_path, [line(1, float("nan"))])
    assert np.isnan(MetricsLog.read(tmp_path)[0]["validation_loss"])


def test_events_without_tensorboardx_are_refused_with_what_mends_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)  # importing it raises ImportError
    with pytest.raises(UserError, match=r"--config.tensorboard=True needs tensorboardX.*pip install .*tensorboard"):
        MetricsLog(tmp_path, 0, tensorboard=True)
    write(tmp_path, [line(1)])  # asked for nothing, needs nothing


def read_events(path):
    """Returns {(name, step): value} of an events file: records of length, CRC, bytes, CRC."""
    from tensorboardX.proto.event_pb2 import Event

    content, place, found = path.read_bytes(), 0, {}
    while place + 8 <= len(content):
        (length,) = struct.unpack_from("<Q", content, place)
        if place + length + 16 > len(content):
            break  # not all of it is there yet
        event = Event.FromString(content[place + 12 : place + 12 + length])
        found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
        place += length + 16
    return found


def test_events_say_what_the_lines_say(tmp_path):
    write(tmp_path, [line(1, 0.5), line(2, 0.25)], tensorboard=True)
    write(tmp_path, [line(3, 0.125)], epochs_done=2, tensorboard=True)
    expected = {("validation_loss", 10): 0.5, ("validation_loss", 20): 0.25, ("validation_loss", 30): 0.125}
    found, given_up = {}, time.monotonic() + 20
    while not expected.items() <= found.items() and time.monotonic() < given_up:
        time.sleep(0.2)  # they are written within about a second
        files = list((tmp_path / "tensorboard").iterdir())
        found = {key: value for file in files for key, value in read_events(file).items()}
    assert expected.items() <= found.items()
    assert len(files) == 2  # the resumed run's beside the first's
