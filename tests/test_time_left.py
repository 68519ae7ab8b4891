"""How long a job still takes, told after the first steps of its first training."""

import pytest
from small import fusion_config

from sdfn_jax.core import progress
from sdfn_jax.training import train
from sdfn_jax.workflow import plan, time_left


@pytest.fixture(scope="module")
def works(tmp_path_factory):
    """{step: operations} of a job of which nothing is there."""
    steps = plan.make_plan(fusion_config(tmp_path_factory.mktemp("job")))
    return {step.name: step.work() for step in steps}


def test_every_step_with_a_network_has_its_work(works):
    films, train_films, validation = 32, 32 - 10 - 9, 9
    both = works["fusion network"] / (2 * train_films + validation)  # features of each film and its mirror image
    one = both / 2
    assert works["extractor, entire branch"] == works["extractor, lung branch"]
    assert works["extractor, lung branch"] == pytest.approx(2 * (5 * train_films + validation) * one)
    assert works["evaluation on test"] == pytest.approx((10 + validation) * 4 * one)
    assert works["lung region generator"] == pytest.approx(2 * (5 * 9 + 1) * works["lung boxes"] / films)
    assert works["synthetic radiographs"] == works["data set jsrt"] == 0


def test_the_speed_of_one_training_is_that_of_all_that_follows():
    with time_left.told([lambda: 100.0, lambda: 300.0, lambda: 0.0]):
        assert progress.time_left(3_600, 1_800) == "  about 30 min left for this training, 3.5 h for the whole job"
    assert progress.time_left(3_600, 1_800) == ""


def test_it_is_said_once_when_the_pace_is_known(monkeypatch):
    now, lines = 100.0, []
    monkeypatch.setattr(train.time, "monotonic", lambda: now)
    bar = type("Bar", (), {"write": lambda self, line: lines.append(line)})()
    pace = train._Pace(total=1_000, done=200)
    with progress.estimating(lambda whole, left: f"{whole:.0f} {left:.0f}"):
        for step in range(20):
            now += 60 if step == 0 else 3  # the first compiles
            pace.step(bar)
    assert lines == ["3000 2385"]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(40, "40 s"), (600, "10 min"), (5_000, "83 min"), (12_600, "3.5 h"), (86_400, "24 h"), (1e6, "12 days")],
)
def test_a_time_is_said_as_people_do(seconds, said):
    assert progress.roughly(seconds) == said
