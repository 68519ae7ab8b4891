"""config.dtype: bfloat16 changes the activations alone, and stays with the stage that was trained in it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import InMemory, extractor_config, lrg_config, two_branch_examples

from sdfn_jax.core import checkpoint, run_identity
from sdfn_jax.inference import formats
from sdfn_jax.lungs import segmenter
from sdfn_jax.models.initial import initial_variables
from sdfn_jax.training import evaluate, steps, tasks, train
from sdfn_jax.training.metrics_log import MetricsLog

TRAINING, VALIDATION = two_branch_examples(16, seed=1), two_branch_examples(10, seed=2)
NORMALISATION = {"mean": 0.5, "std": 0.3}


def films(count: int, size: int) -> InMemory:
    noise = np.random.default_rng(3).integers(0, 256, (count, 2, size, size)).astype(np.uint8)
    return InMemory({"image": image, "mask": 255 * (mask > 127).astype(np.uint8)} for image, mask in noise)


def make(stage: str, workdir, dtype: str):
    """(config, task, training films, validation films)."""
    if stage == "lrg":
        config = lrg_config(workdir)
        config.dtype = dtype
        return config, tasks.segmentation(config, NORMALISATION), films(8, 32), films(4, 32)
    config = extractor_config(stage, workdir)
    config.dtype = dtype
    return config, tasks.classification(config), TRAINING, VALIDATION


@pytest.fixture(scope="module", params=["entire", "lrg"])
def trained(request, tmp_path_factory):
    """An epoch in each precision from the same start: (stage, {dtype: config})."""
    configs = {}
    for dtype in ("float32", "bfloat16"):
        config, task, training, validation = make(request.param, tmp_path_factory.mktemp(dtype), dtype)
        config.num_epochs = 1
        options = {} if request.param == "lrg" else {"train": False}
        start = initial_variables(task.model, 0, task.inputs, **options)
        metadata = {"stage": config.stage, "config": run_identity.as_json(config), "inputs": {}}
        train.train(
            task,
            config,
            training=training,
            validation=validation,
            initial_variables=lambda start=start: start,
            metadata=metadata | {"normalisation": NORMALISATION},
        )
        configs[dtype] = config
    return request.param, configs


def test_an_epochs_losses_are_those_of_float32_to_two_digits(trained):
    """bfloat16 keeps 8 bits of each activation, 0.4 %; a mean over films averages most of that out."""
    single, half = (MetricsLog.read(config.workdir)[0] for config in trained[1].values())
    for name in ("train_loss", "validation_loss"):
        assert half[name] == pytest.approx(single[name], rel=0.02)
        assert half[name] != single[name]


def test_weights_statistics_and_moments_are_float32(trained):
    stage, configs = trained
    config, task, *_ = make(stage, configs["bfloat16"].workdir, "bfloat16")
    variables, _ = checkpoint.read_best(config.workdir)
    state = checkpoint.read_latest(config.workdir, steps.initial_state(task, config, variables))[0]
    leaves = checkpoint.flatten([variables, state]).values()
    assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32), np.dtype(np.int32)}


def outputs(stage, config, variables):
    _, task, _, validation = make(stage, config.workdir, config.dtype)
    rows = [task.select(film) for film in validation]
    inputs, targets = task.prepare({name: np.stack([row[name] for row in rows]) for name in rows[0]}, None)
    found, _ = task.apply(variables, inputs, False)
    return found, task.loss(found, targets)


def test_logits_are_those_of_float32_within_a_hundredth_of_their_range_and_float32_themselves(trained):
    stage, configs = trained
    variables, _ = checkpoint.read_best(configs["float32"].workdir)
    (single, single_loss), (half, half_loss) = (outputs(stage, config, variables) for config in configs.values())
    assert half.dtype == half_loss.dtype == single_loss.dtype == jnp.float32
    difference = np.abs(np.asarray(half) - np.asarray(single)).max()
    assert 0 < difference < 0.01 * np.ptp(np.asarray(single))
    np.testing.assert_allclose(half_loss, single_loss, rtol=0.01)


@pytest.mark.parametrize("trained", ["lrg"], indirect=True)
def test_a_trained_lrg_segments_in_its_precision(trained):
    _, configs = trained
    assert segmenter.Segmenter.load(configs["bfloat16"].workdir).model.dtype == jnp.bfloat16
    assert segmenter.Segmenter.load(configs["float32"].workdir).model.dtype == jnp.float32


class TestClassifier:
    @pytest.fixture
    def metadata(self, tmp_path):
        """Of a checkpoint trained in bfloat16."""
        config, task, *_ = make("entire", tmp_path, "bfloat16")
        variables = initial_variables(task.model, 0, task.inputs, train=False)
        metadata = {"stage": "entire", "config": run_identity.as_json(config), "inputs": {}}
        checkpoint.save_best(tmp_path, 1, variables, metadata)
        return checkpoint.best_metadata(tmp_path)

    def test_it_is_evaluated_in_the_precision_it_was_trained_in(self, tmp_path, metadata, monkeypatch):
        used = []

        def note(task, mesh):
            used.append(task.model.dtype)
            return steps.make_evaluation_step(task, mesh)

        class Described(InMemory):
            def has(self, *_):
                return False

            def fields(self, *_):
                return ({"name": film["name"], "patient": index} for index, film in enumerate(self))

        monkeypatch.setattr(evaluate, "Examples", lambda *_: Described(VALIDATION))
        monkeypatch.setattr(evaluate, "make_evaluation_step", note)
        config = extractor_config("entire", tmp_path)
        assert config.dtype == "float32"
        data_metadata = {"label_version": "2017", "drawings": True, "inputs_digest": "0"}
        evaluate.evaluate_classifier(config, tmp_path / "a/b/c", data_metadata, "test")
        assert used == [jnp.bfloat16]

    def test_it_is_exported_in_float32(self, tmp_path, metadata):
        variables, _ = checkpoint.read_best(tmp_path)
        image = jax.ShapeDtypeStruct((1, 16, 16), jnp.uint8)
        assert "bf16" not in str(jax.make_jaxpr(formats.probabilities([variables], metadata))(image))

    def test_a_checkpoint_from_before_the_setting_is_one_of_float32(self, metadata):
        del metadata["config"]["dtype"]
        assert run_identity.precision(metadata["config"]) == "float32"
