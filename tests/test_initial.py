import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util
from small import fusion_config

from sdfn_jax.models.initial import initial_variables
from sdfn_jax.models.sdfn import SDFN
from sdfn_jax.models.unet import UNet
from sdfn_jax.training import tasks
from sdfn_jax.workflow import plan, stages

SMALL = {"growth_rate": 8, "block_sizes": (1, 1), "init_features": 16}
BRANCHES = {name: jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32) for name in ("entire", "lung")}
PIXELS = jax.ShapeDtypeStruct((1, 16, 16, 1), jnp.float32)
NARROW = UNet(filters=(16, 32))


@pytest.mark.parametrize(
    ("model", "inputs", "options"), [(SDFN(shape=SMALL), BRANCHES, {"train": False}), (NARROW, PIXELS, {})]
)
def test_variables_are_distributed_as_those_of_model_init(model, inputs, options):
    ours = traverse_util.flatten_dict(initial_variables(model, 0, inputs, **options))
    images = jax.tree.map(lambda spec: jnp.zeros(spec.shape, spec.dtype), inputs)
    theirs = traverse_util.flatten_dict(jax.jit(lambda key: model.init(key, images, **options))(jax.random.key(0)))
    assert ours.keys() == theirs.keys()
    for path, array in ours.items():
        peer = np.asarray(theirs[path])
        assert (array.shape, array.dtype) == (peer.shape, peer.dtype), path
        if path[-1] == "kernel":
            # Both are samples: their standard deviations and extremes agree within their sampling errors.
            error = 5 / np.sqrt(2 * array.size)
            assert array.std() == pytest.approx(peer.std(), rel=2 * error), path
            assert abs(array.mean()) < 5 * array.std() / np.sqrt(array.size), path
            assert np.abs(array).max() == pytest.approx(np.abs(peer).max(), rel=0.5), path
        else:
            np.testing.assert_array_equal(array, peer, err_msg=str(path))


def test_scales_are_those_of_the_published_code():
    variables = initial_variables(SDFN(shape=SMALL), 0, BRANCHES, train=False)["params"]
    stem = variables["entire"]["conv0"]["kernel"]
    assert stem.std() == pytest.approx(np.sqrt(2 / (7 * 7 * 3)), rel=0.05)  # torch.nn.init.kaiming_normal_
    head = variables["head"]["kernel"]
    assert np.abs(head).max() == pytest.approx(1 / np.sqrt(len(head)), rel=0.05)  # torch.nn.Linear
    kernel = initial_variables(NARROW, 0, PIXELS)["params"]["bottom_conv"]["kernel"]
    assert np.abs(kernel).max() == pytest.approx(np.sqrt(6 / (9 * 16 + 9 * 32)), rel=0.01)  # Keras's glorot_uniform


def test_the_seed_decides_and_branches_differ():
    first, again, other = (initial_variables(SDFN(shape=SMALL), seed, BRANCHES, train=False) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    kernels = [variables["params"][name]["conv0"]["kernel"] for variables, name in [(first, "entire"), (first, "lung")]]
    kernels.append(other["params"]["entire"]["conv0"]["kernel"])
    assert not np.array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])


def test_the_first_head_of_the_fusion_is_not_that_of_an_extractor_again(tmp_path):
    """An extractor's features were trained for its own first head: the fusion would begin with that branch's answer."""
    config = fusion_config(tmp_path)
    heads = {
        each.stage: stages._initial_variables(tasks.classification(each), each)["params"]["head"]["kernel"]
        for each in plan.classifiers(config)
    }
    for half in np.split(heads["fusion"], 2):
        for extractor in ("entire", "lung"):
            assert abs(np.corrcoef(half.ravel(), heads[extractor].ravel())[0, 1]) < 0.4


def test_a_variable_without_a_rule_is_refused():
    class Odd(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x * self.param("temperature", nn.initializers.ones, ())

    with pytest.raises(ValueError, match="params/temperature"):
        initial_variables(Odd(), 0, PIXELS)
