from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdfn_jax.heatmaps import cam
from sdfn_jax.models.initial import initial_variables, variable_shapes
from sdfn_jax.models.sdfn import SDFN, pool

SMALL = {"growth_rate": 4, "block_sizes": (1, 1), "init_features": 6, "bottleneck": 2}
# Not in alphabetical order, in which jit returns a dictionary.
BRANCHES = ("lung", "entire")


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return {branch: rng.normal(size=(3, 32, 32, 3)).astype(np.float32) for branch in BRANCHES}


def small(**options) -> SDFN:
    return SDFN(**({"branches": BRANCHES, "shape": SMALL} | options))


def infer(model: SDFN, variables, images):
    return jax.jit(lambda variables, images: model.apply(variables, images, False))(variables, images)


def test_published_size():
    images = {branch: jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32) for branch in SDFN().branches}
    shapes = variable_shapes(SDFN(), images, train=False)
    assert {path[1] for path in shapes} == {"entire", "lung", "head"}
    assert shapes["params", "head", "kernel"] == (2048, 14)
    parameters = sum(int(np.prod(shape)) for path, shape in shapes.items() if path[0] == "params")
    assert parameters == 2 * 6_953_856 + 2048 * 14 + 14


@pytest.mark.parametrize("branches", [("lung",), BRANCHES])
def test_class_activation_maps_average_to_the_logits(images, branches):
    model = small(branches=branches)
    variables = initial_variables(model, 0, images, train=False)
    head = variables["params"]["head"]
    head["bias"] = np.arange(14, dtype=np.float32)
    logits, features = infer(model, variables, images)
    assert logits.shape == (3, 14)
    assert logits.dtype == jnp.float32
    maps = cam.activation_maps(features, head["kernel"], branches)
    means = [maps[branch].mean(axis=(1, 2)) for branch in branches]
    np.testing.assert_allclose(sum(means) + head["bias"], logits, rtol=1e-5, atol=1e-5)


def test_extractors_carry_over_into_the_fusion_network(images):
    """Stage 2 into stage 3 is copying two entries: each branch then makes the same feature maps."""
    single = {branch: small(branches=(branch,)) for branch in BRANCHES}
    trained = {b: initial_variables(single[b], seed, images, train=False) for seed, b in enumerate(BRANCHES)}
    fusion = initial_variables(small(), 9, images, train=False)
    for branch in BRANCHES:
        for collection in ("params", "batch_stats"):
            fusion[collection][branch] = trained[branch][collection][branch]
    _, features = infer(small(frozen=True), fusion, images)
    for branch in BRANCHES:
        _, alone = infer(single[branch], trained[branch], images)
        np.testing.assert_array_equal(features[branch], alone[branch])


def test_frozen_branches_neither_learn_nor_move(images):
    variables = initial_variables(small(), 0, images, train=False)

    @partial(jax.jit, static_argnums=1)
    @partial(jax.grad, has_aux=True)
    def gradients_of_loss(params, model):
        both = {"params": params, "batch_stats": variables["batch_stats"]}
        (logits, _), updates = model.apply(both, images, True, mutable=["batch_stats"])
        return jnp.sum(jnp.square(logits)), (logits, updates["batch_stats"])

    gradients, (logits, statistics) = gradients_of_loss(variables["params"], small(frozen=True))
    assert all(not leaf.any() for branch in BRANCHES for leaf in jax.tree.leaves(gradients[branch]))
    assert all(leaf.any() for leaf in jax.tree.leaves(gradients["head"]))
    jax.tree.map(np.testing.assert_array_equal, statistics, variables["batch_stats"])
    np.testing.assert_allclose(logits, infer(small(), variables, images)[0], rtol=1e-5, atol=1e-6)

    gradients, (_, statistics) = gradients_of_loss(variables["params"], small())
    for branch in BRANCHES:
        assert gradients[branch]["conv0"]["kernel"].any()
        assert not np.array_equal(
            statistics[branch]["norm5"]["mean"], variables["batch_stats"][branch]["norm5"]["mean"]
        )


def test_bfloat16_pools_and_logits_are_float32(images):
    variables = initial_variables(small(), 0, images, train=False)
    logits, features = infer(small(dtype=jnp.bfloat16), variables, images)
    assert {maps.dtype for maps in features.values()} == {jnp.dtype(jnp.bfloat16)}
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, infer(small(), variables, images)[0], atol=0.05)


def test_a_pool_of_bfloat16_is_not_rounded_to_it():
    features = jnp.asarray(np.random.default_rng(0).random((2, 3, 3, 5)), jnp.bfloat16)
    exact = np.asarray(features, np.float64).mean((1, 2))
    np.testing.assert_allclose(pool(features), exact, rtol=1e-6)  # bfloat16 itself is off by up to 4e-3


def test_a_missing_image_is_named(images):
    variables = initial_variables(small(), 0, images, train=False)
    with pytest.raises(ValueError, match="branch entire; got lung"):
        small().apply(variables, {"lung": images["lung"]}, False)
