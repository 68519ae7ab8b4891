"""Adam, its decaying rate, freezing and the plateau rule, each against its definition or another's code."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict
from peers import import_peer

from sdfn_jax.training import optimizer
from sdfn_jax.training.optimizer import make_optimizer, make_plateau, schedule

STEPS = 7  # updates an epoch


def make_config(learning_rate=0.01, decay=0.0, factor=0.1, patience=5):
    return ConfigDict(
        {
            "learning_rate": learning_rate,
            "learning_rate_decay": decay,
            "adam": {"b1": 0.9, "b2": 0.999, "epsilon": 1e-8},
            "plateau": {"factor": factor, "patience": patience, "minimum_fall": 1e-4},
        }
    )


def make_params():
    generator = np.random.default_rng(0)
    shapes = {"entire": {"kernel": (4, 3), "bias": (3,)}, "lung": {"kernel": (4, 3)}, "head": {"kernel": (6, 2)}}
    return jax.tree.map(
        lambda shape: jnp.asarray(generator.normal(size=shape), jnp.float32), shapes, is_leaf=lambda x: type(x) is tuple
    )


def loss(params, inputs):
    features = [jnp.tanh(inputs @ params[branch]["kernel"]) for branch in ("entire", "lung")]
    features[0] += params["entire"]["bias"]
    return jnp.mean(jnp.square(jnp.concatenate(features, axis=1) @ params["head"]["kernel"] - 1.0))


def minimise(optimizer, steps, params=None):
    params = make_params() if params is None else params
    state = optimizer.init(params)
    inputs = jnp.asarray(np.random.default_rng(1).normal(size=(8, 4)), jnp.float32)

    @jax.jit
    def step(params, state):
        updates, state = optimizer.update(jax.grad(loss)(params, inputs), state, params)
        return optax.apply_updates(params, updates), state

    for _ in range(steps):
        params, state = step(params, state)
    return params, state


def test_the_rate_is_kerass_inverse_time_decay():
    rate = schedule(make_config(1e-4, 1e-5), STEPS)
    # initial_learning_rate / (1 + decay_rate * step / decay_steps), with decay_steps = 1
    for step in (0, 1, 1000, 100_000, 700_000):
        assert rate(step) == pytest.approx(1e-4 / (1 + 1e-5 * step), rel=1e-12)
    assert rate(100_000) == pytest.approx(0.5e-4)
    assert schedule(make_config(1e-3, 0.0), STEPS)(12345) == 1e-3


def test_the_rule_is_chosen_by_name_and_a_config_without_one_means_the_papers(monkeypatch):
    monkeypatch.setitem(
        optimizer.LEARNING_RATE_RULES, "halves", lambda config, steps: lambda updates: config.learning_rate / 2**updates
    )
    config = make_config(learning_rate=0.5, decay=1.0)
    assert schedule(config, STEPS)(1) == 0.25
    config.learning_rate_rule = "inverse_time"
    assert schedule(config, STEPS)(3) == 0.125
    config.learning_rate_rule = "halves"
    assert schedule(config, STEPS)(3) == 0.0625
    params = {"head": jnp.zeros(3)}
    adam = make_optimizer(config, STEPS)
    state, moved = adam.init(params), []
    for _ in range(3):
        updates, state = adam.update({"head": jnp.full(3, 2.0)}, state, params)
        moved.append(-float(updates["head"][0]))
    assert moved == pytest.approx([0.5, 0.25, 0.125], rel=1e-4)


@pytest.mark.parametrize(("share", "warmup"), [(0.0, 0), (0.1, 4), (0.5, 21)])
def test_the_cosine_rule_is_its_formula_over_the_trainers_own_updates(share, warmup):
    config = make_config(learning_rate=0.3)
    config.learning_rate_rule, config.warmup_share, config.num_epochs = "cosine", share, 6
    rate, updates = schedule(config, STEPS), 6 * STEPS
    for step in range(updates + 1):
        rising = 0.3 * step / max(warmup, 1)
        falling = 0.3 * (1 + np.cos(np.pi * (step - warmup) / (updates - warmup))) / 2
        assert float(rate(step)) == pytest.approx(rising if step < warmup else falling, abs=1e-7)
    assert schedule(config, 2 * STEPS)(2 * warmup) == pytest.approx(0.3)  # twice the films, twice the updates
    torchs = torch_cosine(0.3, updates - warmup)
    np.testing.assert_allclose([rate(warmup + step) for step in range(updates - warmup)], torchs, atol=1e-6)


def torch_cosine(rate, updates):
    torch = import_peer("torch")
    theirs = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
    rule, rates = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, updates), []
    for _ in range(updates):
        rates.append(rule.get_last_lr()[0])
        theirs.step()
        rule.step()
    return rates


def test_adamw_is_pytorchs_with_decay_of_the_kernels_alone():
    torch = import_peer("torch")
    config = make_config(learning_rate=0.01)
    config.optimizer, config.weight_decay = "adamw", 0.3
    ours, _ = minimise(make_optimizer(config, STEPS), 20)
    params = jax.tree.map(lambda leaf: torch.tensor(np.array(leaf), requires_grad=True), make_params())
    kernels = [params[name]["kernel"] for name in ("entire", "lung", "head")]
    groups = [{"params": kernels}, {"params": [params["entire"]["bias"]], "weight_decay": 0.0}]
    theirs = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.3)
    inputs = torch.tensor(np.random.default_rng(1).normal(size=(8, 4)), dtype=torch.float32)
    for _ in range(20):
        theirs.zero_grad()
        found = [torch.tanh(inputs @ params[branch]["kernel"]) for branch in ("entire", "lung")]
        found[0] = found[0] + params["entire"]["bias"]
        torch.mean(torch.square(torch.cat(found, 1) @ params["head"]["kernel"] - 1.0)).backward()
        theirs.step()
    found, expected = (jax.tree.leaves(tree) for tree in (ours, params))
    for mine, torchs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, torchs.detach().numpy(), rtol=1e-4, atol=1e-6)


def test_adamw_leaves_frozen_branches_alone():
    config = make_config()
    config.optimizer, config.weight_decay = "adamw", 0.5
    before = make_params()
    after, state = minimise(make_optimizer(config, STEPS, frozen=("entire", "lung")), 3)
    assert all((before[branch]["kernel"] == after[branch]["kernel"]).all() for branch in ("entire", "lung"))
    assert sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.ndim) == 2 * 12


def test_without_frozen_branches_it_is_optaxs_adam():
    ours, _ = minimise(make_optimizer(make_config(), STEPS), 20)
    theirs, _ = minimise(optax.adam(0.01, b1=0.9, b2=0.999, eps=1e-8), 20)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, theirs)


def test_the_rate_falls_with_every_update():
    """Adam's first updates of a constant gradient have the size of the rate."""
    optimizer = make_optimizer(make_config(learning_rate=0.5, decay=1.0), STEPS)
    params = {"head": jnp.zeros(3)}
    state, moved = optimizer.init(params), []
    for _ in range(4):
        updates, state = optimizer.update({"head": jnp.full(3, 2.0)}, state, params)
        moved.append(float(updates["head"][0]))
    np.testing.assert_allclose(moved, [-0.5 / (1 + step) for step in range(4)], rtol=1e-4)


def test_frozen_branches_stay_bit_for_bit_and_the_head_learns():
    before = make_params()
    after, _ = minimise(make_optimizer(make_config(), STEPS, frozen=("entire", "lung")), 100)
    for branch in ("entire", "lung"):
        for name, array in before[branch].items():
            assert array.tobytes() == after[branch][name].tobytes()
    assert not np.isclose(before["head"]["kernel"], after["head"]["kernel"], atol=0.01).any()
    # What optax.masked would do: frozen leaves move by their raw gradient.
    trap = optax.masked(optax.adam(0.01), {"entire": False, "lung": False, "head": True})
    trapped, _ = minimise(trap, 1)
    assert (before["lung"]["kernel"] != trapped["lung"]["kernel"]).all()


def test_frozen_branches_get_zero_updates():
    params = make_params()
    optimizer = make_optimizer(make_config(), STEPS, frozen=("entire", "lung"))
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
    assert all((leaf == 0).all() for branch in ("entire", "lung") for leaf in jax.tree.leaves(updates[branch]))
    np.testing.assert_allclose(updates["head"]["kernel"], -0.01, rtol=1e-5)


@pytest.mark.parametrize(
    ("frozen", "moments"), [((), 2 * (12 + 3 + 12 + 12)), (("entire",), 2 * 24), (("entire", "lung"), 2 * 12)]
)
def test_adam_keeps_moments_of_the_trained_leaves_only(frozen, moments):
    state = make_optimizer(make_config(), STEPS, frozen).init(make_params())
    arrays = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim > 0]
    assert sum(leaf.size for leaf in arrays) == moments
    counters = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim == 0]
    assert len(counters) == 2  # of Adam and of the schedule


def reduce_lr_on_plateau(losses, factor, patience, min_delta):
    """Keras's callback (monitor val_loss, cooldown 0, min_lr 0): the rate after each epoch, from a rate of 1."""
    best, wait, rate, rates = float("inf"), 0, 1.0, []
    for value in losses:
        if value < best - min_delta:
            best, wait = value, 0
        else:
            wait += 1
            if wait >= patience:
                rate, wait = rate * factor, 0
        rates.append(rate)
    return rates


def plateau_scales(config, losses):
    """Our rule: the factor on the rate after each epoch."""
    plateau = make_plateau(config)

    def epoch(state, value):
        _, state = plateau.update({}, state, value=value)
        return state, state.scale

    return jax.lax.scan(epoch, plateau.init(make_params()), jnp.asarray(losses))[1]


@pytest.mark.parametrize(("patience", "factor"), [(5, 0.1), (1, 0.5), (3, 0.7)])
def test_the_plateau_rule_is_kerass(patience, factor):
    generator = np.random.default_rng(patience)
    falling = 0.5 * np.exp(-np.arange(100) / 20)
    losses = np.round(0.2 + falling + 0.01 * generator.normal(size=100), 3).astype(np.float32)
    scales = plateau_scales(make_config(factor=factor, patience=patience), losses)
    expected = reduce_lr_on_plateau(losses, factor, patience, 1e-4)
    np.testing.assert_allclose(scales, expected, rtol=1e-5)
    assert len(set(expected)) > 3  # the rule acted several times


@pytest.mark.parametrize(("fall", "scale"), [(0.3e-4, 0.1), (0.5e-4, 1.0)])
def test_small_falls_count_from_the_best_loss(fall, scale):
    """Three falls of 0.3e-4 are none of 1e-4; of three of 0.5e-4 the last is."""
    losses = np.float32(0.5 - fall * np.arange(4))
    assert plateau_scales(make_config(patience=3), losses)[-1] == pytest.approx(scale)
