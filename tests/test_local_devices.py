"""Prediction on all devices of a machine: four simulated ones give what one gives."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from sdfn_jax.core import backend
from sdfn_jax.inference import selftest
from sdfn_jax.inference.predictor import Predictor
from sdfn_jax.radiographs.synthetic_film import draw

ROOT = Path(__file__).parent.parent
# A device sums over fewer films at once, so that the last bits of float32 differ. Largest difference seen: 6e-8.
PROBABILITY = 1e-6


def read(run, batch_size):
    """(14 probabilities of each film, the lung boxes, devices that had a share of a batch)."""
    predictor = Predictor.load(run, batch_size=batch_size)
    films = [draw(np.random.default_rng(number), ("Mass",)).image[::4, ::4] for number in range(6)]
    readings = list(predictor(films))
    blank = np.zeros((predictor.classifier.preprocessing.size,) * 2, np.uint8)
    ((logits, _),) = predictor.classifier.start([dict.fromkeys(predictor.classifier.model.branches, blank)])
    mask = predictor.lungs.segmenter.start(np.zeros((1, *(predictor.lungs.segmenter.size,) * 2), np.float32))
    devices = [len(each.sharding.device_set) for each in (logits, mask)]
    return [list(each.probabilities.values()) for each in readings], [each.lung_box for each in readings], devices


def test_four_devices_read_films_as_one_does(tmp_path):
    run = selftest.unpack(tmp_path)
    code = (
        "import sys, numpy, test_local_devices\n"
        "probabilities, boxes, devices = test_local_devices.read(sys.argv[1], 4)\n"
        "numpy.savez(sys.argv[2], probabilities=probabilities, boxes=boxes, devices=devices)"
    )
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT)]),
    }
    subprocess.run([sys.executable, "-c", code, run, tmp_path / "found.npz"], check=True, env=environment)
    probabilities, boxes, devices = read(run, 4)
    assert devices == [1, 1]
    with np.load(tmp_path / "found.npz") as found:
        assert found["devices"].tolist() == [4, 4]
        assert found["boxes"].tolist() == [list(box) for box in boxes]
        np.testing.assert_allclose(found["probabilities"], probabilities, rtol=0, atol=PROBABILITY)


def test_one_device_has_the_program_that_it_always_had():
    compiled = backend.on_local_devices(lambda variables, batch: batch * variables, np.float32(2), 8)
    assert len(compiled(np.ones(8, np.float32)).sharding.device_set) == 1
    assert "shard_map" not in str(compiled.func.lower(*compiled.args, np.ones(8, np.float32)).as_text())
