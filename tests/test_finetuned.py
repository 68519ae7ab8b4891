"""The fusion network trained on as a whole: everything moves, and a stopped run resumes bit-identically."""

import pytest
from small import fusion_config, train_classifier, two_branch_examples
from test_modern import StopsOnce

from configs import fusion
from sdfn_jax.core import checkpoint
from sdfn_jax.core.stops import Stopped
from sdfn_jax.models.initial import initial_variables
from sdfn_jax.training import tasks
from sdfn_jax.workflow import checks, plan, stages

TRAINING, VALIDATION = two_branch_examples(12, 0), two_branch_examples(10, 1)


@pytest.mark.parametrize("words", ["finetuned", "size512,finetuned", "modern,finetuned", "small,finetuned"])
def test_it_follows_the_same_fusion_in_the_same_folder_at_a_tenth_of_its_rate(words):
    config, alone = fusion.get_config(words), fusion.get_config(words.replace("finetuned", "").strip(","))
    checks.check(config)
    *before, last = plan.classifiers(config)
    assert [stage.to_dict() for stage in before[:2]] == [stage.to_dict() for stage in plan.classifiers(alone)[:2]]
    same = {name: value for name, value in before[2].to_dict().items() if name in alone}
    assert same == {name: value for name, value in alone.to_dict().items() if name not in ("runs", "seeds")}
    assert (last.stage, last.frozen, last.workdir) == ("finetuned", False, alone.workdir.replace("fusion", "finetuned"))
    assert last.learning_rate == pytest.approx(alone.learning_rate / 10)
    assert stages.upstream(last) == {"fusion": alone.workdir}


def test_a_stopped_run_resumes_to_the_same_bits(tmp_path):
    def train(folder, training):
        config = fusion_config(folder, "demo,finetuned")
        task = tasks.classification(config)
        start = initial_variables(task.model, 5, task.inputs, train=False)
        train_classifier(config, training, VALIDATION, start=lambda: start)
        return config.workdir

    whole = train(tmp_path / "whole", TRAINING)
    with pytest.raises(Stopped):
        train(tmp_path / "stopped", StopsOnce(TRAINING, [13]))
    assert checkpoint.latest_metadata(tmp_path / "stopped" / "finetuned")["step"] < 6
    stopped = train(tmp_path / "stopped", TRAINING)
    for read in (checkpoint.latest_metadata, checkpoint.best_metadata):
        assert read(stopped)["digest"] == read(whole)["digest"]
