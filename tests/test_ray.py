"""The engine on a real Ray cluster of two nodes, which the tests start."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import ray_functions
from ray.cluster_utils import Cluster
from test_lrg import save_checkpoint, write_films
from test_shards import content

from sdfn_jax import lrg as lrg_command
from sdfn_jax.core import ray_engine
from sdfn_jax.core.errors import MissingPackageError, UserError
from sdfn_jax.radiographs.opening import ImageFile

pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray's own
TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of a CPU each: two workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS.parent)]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            found.add_node(num_cpus=1)
            patch.setenv("RAY_ADDRESS", found.address)
            yield found
        finally:
            found.shutdown()


def workers(cluster) -> dict[int, int]:
    """{process: CPU time in ticks} of the workers."""
    raylets = {str(node.all_processes["raylet"][0].process.pid) for node in cluster.list_all_nodes()}
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, state = (folder / "cmdline").read_text(), (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if name.startswith("ray::_Worker") and state[1] in raylets:
            found[int(folder.name)] = int(state[11]) + int(state[12])
    return found


@pytest.mark.long
def test_a_worker_killed_at_work_changes_nothing_in_the_result(cluster, tmp_path, capsys):
    save_checkpoint(tmp_path / "lrg")
    films = write_films(tmp_path / "films", 300)
    films[7].write_bytes(b"torn")
    command = [str(tmp_path / "films"), f"--checkpoint={tmp_path / 'lrg'}", "--skip_bad_files"]
    (tmp_path / "ray").mkdir()
    partial = tmp_path / "ray" / "boxes.csv.partial"
    killed = []

    def kill():
        while not (partial.exists() and partial.read_bytes().count(b"\n") > 1):
            time.sleep(0.005)
        found = workers(cluster)
        killed.append(max(found, key=found.get))  # the one that made the first pieces
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    lrg_command.main([*command, f"--output={tmp_path / 'ray' / 'boxes.csv'}", "--engine=ray"])
    killer.join()
    assert "a worker died; what it had goes to another" in capsys.readouterr().err
    assert killed and not Path(f"/proc/{killed[0]}").exists()
    lrg_command.main([*command, f"--output={tmp_path / 'one' / 'boxes.csv'}"])
    assert content(tmp_path / "ray") == content(tmp_path / "one")


ITEMS = [ImageFile(name, Path()) for name in ("fatal", "1.png", "2.png", "3.png")]


@pytest.mark.long
def test_what_ends_a_worker_ends_the_work_after_three_and_a_users_mistake_at_once(cluster):
    before = signal.getsignal(signal.SIGTERM)
    with ray_engine.engine("ray", ray_functions.nothing) as engine:
        assert signal.getsignal(signal.SIGTERM) is before  # Ray would end the command without a word
        with pytest.raises(UserError, match=r"3 workers died while they had the 4 files from fatal on \("):
            list(engine(ray_functions.fall, ITEMS, 4))
        with pytest.raises(UserError, match=r"^1.png: not one that can be read$"):
            list(engine(ray_functions.refuse, ITEMS[1:], 4))


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    named = r"--engine=ray needs the package ray: pip install .*\[ray\]"
    with pytest.raises(MissingPackageError, match=named), ray_engine.engine("ray", ray_functions.nothing):
        pass


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([{"CPU": 2.0}], [(2, 0)]),
        ([{"CPU": 16.0}, {"CPU": 1.0}], [(4, 0)] * 4 + [(1, 0)]),
        ([{"CPU": 16.0, "GPU": 2.0}, {"node:head": 1.0}], [(8, 1)] * 2),
    ],
)
def test_what_workers_reserve(nodes, expected):
    found = ray_engine._shares([{"Alive": True, "Resources": each} for each in nodes], on_gpus=True)
    assert [(share["num_cpus"], share["num_gpus"]) for share in found] == expected


def test_a_cluster_without_cpus_is_refused():
    with pytest.raises(UserError, match="the Ray cluster has no CPUs"):
        ray_engine._shares([{"Alive": False, "Resources": {"CPU": 4.0}}], on_gpus=True)
