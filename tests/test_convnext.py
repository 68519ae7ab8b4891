"""ConvNeXt has timm's features, logits and gradients for the same weights, and does all that a backbone does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from densenet_peers import import_torchvision
from ml_collections import ConfigDict
from peers import assert_close, import_peer
from safetensors.numpy import save_file
from small import SIZE, shrink, train_classifier, two_branch_examples

from configs import classifier, fusion
from sdfn_jax.core import checkpoint
from sdfn_jax.core.errors import UserError
from sdfn_jax.heatmaps import over_split
from sdfn_jax.inference import formats
from sdfn_jax.models import backbones, convnext
from sdfn_jax.models.convnext import ConvNeXtTiny
from sdfn_jax.models.initial import LAYER_SCALE, initial_variables
from sdfn_jax.models.sdfn import pool
from sdfn_jax.models.weights import timm_convnext, weights_file
from sdfn_jax.training import tasks
from sdfn_jax.workflow import checks

SMALL = {"depths": (1, 1), "widths": (4, 6)}
FOUR = {"depths": (1, 2, 1, 1), "widths": (6, 10, 14, 18)}  # timm's always has four stages


@pytest.mark.parity
def test_checkpoints_of_training_give_the_moving_average_and_say_so(tmp_path):
    torch, model = import_peer("torch"), ConvNeXtTiny(**FOUR)
    averaged = timm_network(**FOUR).state_dict()
    trained = {name: tensor + 1 for name, tensor in averaged.items()}
    wrapped = {f"module.{name}": tensor for name, tensor in averaged.items()}
    expected = weights_file.read(saved(timm_network(**FOUR), tmp_path / "model.safetensors"), model)
    assert expected.source == timm_convnext.NAME
    for stored, place in (
        ({"state_dict": trained, "state_dict_ema": averaged, "epoch": 3}, "state_dict_ema"),
        (
            {"model": trained, "model_ema": wrapped, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}},
            "model_ema",
        ),
        ({"checkpoint": {"model": trained, "ema": averaged}}, "checkpoint.ema"),
        ({"model": wrapped}, ""),
    ):
        torch.save(stored, tmp_path / "checkpoint.pth")
        found = weights_file.read(tmp_path / "checkpoint.pth", model)
        assert found.source == timm_convnext.NAME + (f", moving average {place}" if place else "")
        jax.tree.map(np.testing.assert_array_equal, found.variables, expected.variables)
    flat = {f"model.{name}": tensor for name, tensor in trained.items()}
    flat |= {f"model_ema.{name}": tensor for name, tensor in wrapped.items()}
    save_file({name: tensor.numpy() for name, tensor in flat.items()}, tmp_path / "flat.safetensors")
    found = weights_file.read(tmp_path / "flat.safetensors", model)
    assert found.source.endswith(", moving average model_ema")
    jax.tree.map(np.testing.assert_array_equal, found.variables, expected.variables)


@pytest.mark.parity
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_read_exactly(tmp_path, dtype):
    torch, model = import_peer("torch"), ConvNeXtTiny(**FOUR)
    halves = {name: tensor.to(getattr(torch, dtype)) for name, tensor in timm_network(**FOUR).state_dict().items()}
    import_peer("safetensors.torch").save_file(halves, tmp_path / "model.safetensors")
    torch.save(halves, tmp_path / "model.pth")
    for file in ("model.safetensors", "model.pth"):
        found = weights_file.branch_tensors(weights_file.read(tmp_path / file, model).variables)
        for name, tensor in timm_convnext.to_timm(found).items():
            assert tensor.dtype == np.float32
            np.testing.assert_array_equal(tensor, halves[name].float().numpy(), err_msg=name)


def import_timm(name):
    import_torchvision()  # timm imports it
    return import_peer(name)


def timm_network(classes=1000, name=None, **shape):
    """Returns timm's network with weights far from the initial ones, which hide every block behind a 1e-6."""
    torch = import_peer("torch")
    module = import_timm("timm.models.convnext")
    if name:
        network = getattr(module, name)(num_classes=classes)
    else:
        network = module.ConvNeXt(depths=shape["depths"], dims=shape["widths"], num_classes=classes)
    generator = np.random.default_rng(5)
    state = {}
    for key, tensor in network.state_dict().items():
        spread = 1 / np.sqrt(np.prod(tensor.shape[1:])) if tensor.ndim > 1 else 0.3
        centre = 1.0 if tensor.ndim == 1 and key.endswith(("weight", "gamma")) else 0.0
        state[key] = torch.tensor(generator.normal(centre, spread, tensor.shape), dtype=torch.float32)
    network.load_state_dict(state)
    return network.eval()


def saved(network, path):
    save_file({name: tensor.numpy() for name, tensor in network.state_dict().items()}, path, {"format": "pt"})
    return path


def images_of(size):
    return np.random.default_rng(9).normal(size=size).astype(np.float32)


@pytest.mark.parity
def test_it_is_timms_network_and_learns_like_it(tmp_path):
    torch = import_peer("torch")
    network, model = timm_network(**FOUR), ConvNeXtTiny(**FOUR)
    found = weights_file.read(saved(network, tmp_path / "model.safetensors"), model)
    assert found.source == timm_convnext.NAME
    images, labels = images_of((2, 75, 101, 3)), np.random.default_rng(1).integers(0, 2, (2, 1000)).astype(np.float32)

    tensor = torch.tensor(images.transpose(0, 3, 1, 2))
    their_logits = network(tensor)
    torch.nn.functional.binary_cross_entropy_with_logits(their_logits, torch.tensor(labels)).backward()
    theirs = timm_convnext.to_torchvision({name: leaf.grad.numpy() for name, leaf in network.named_parameters()})

    def loss(params, head):
        pooled = pool(model.apply({"params": params}, images, train=True))
        logits = pooled @ head["kernel"] + head["bias"]
        return optax.sigmoid_binary_cross_entropy(logits, labels).mean(), (pooled, logits)

    step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (_, (pooled, logits)), (gradients, head) = step(found.variables["params"], found.head)
    ours = weights_file.branch_tensors({"params": gradients})
    ours |= {"classifier.weight": np.asarray(head["kernel"]).T, "classifier.bias": head["bias"]}
    their_pooled = network.forward_head(network.forward_features(tensor), pre_logits=True)
    assert np.abs(logits).max() > 0.1
    assert_close(pooled, their_pooled.detach(), "pooled features")
    assert_close(logits, their_logits.detach(), "logits")
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert_close(ours[name], gradient, name, tolerance=1e-4)


@pytest.mark.parity
def test_the_full_tiny_is_timms(tmp_path):
    torch, network = import_peer("torch"), timm_network(name="convnext_tiny")
    found = weights_file.read(saved(network, tmp_path / "model.safetensors"), ConvNeXtTiny())
    assert sum(leaf.size for leaf in jax.tree.leaves((found.variables, found.head))) == 28_589_128  # the paper: 29M
    images = images_of((1, 64, 64, 3))
    maps = jax.jit(functools.partial(ConvNeXtTiny().apply, train=False))(found.variables, images)
    ours = np.asarray(pool(maps)) @ found.head["kernel"] + found.head["bias"]
    theirs = network(torch.tensor(images.transpose(0, 3, 1, 2))).detach()
    assert_close(ours, theirs, "logits", tolerance=1e-4)


@pytest.mark.parity
def test_the_base_has_the_tensors_of_timms():
    torch, module = import_peer("torch"), import_timm("timm.models.convnext")
    with torch.device("meta"):
        theirs = {name: tuple(tensor.shape) for name, tensor in module.convnext_base().state_dict().items()}
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    init = functools.partial(backbones.build("convnext_base", {}).init, train=False)
    ours = jax.tree.map(
        lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), jax.eval_shape(init, jax.random.key(0), image)
    )
    ours = {name: tensor.shape for name, tensor in timm_convnext.to_timm(weights_file.branch_tensors(ours)).items()}
    assert ours | {"head.fc.weight": (1000, 1024), "head.fc.bias": (1000,)} == theirs


@pytest.mark.parity
def test_initial_weights_are_distributed_as_timms():
    theirs = import_timm("timm.models.convnext").ConvNeXt(depths=(1, 1, 1, 1), dims=(32, 32, 64, 64)).state_dict()
    model = ConvNeXtTiny(depths=(1, 1, 1, 1), widths=(32, 32, 64, 64))
    ours = initial_variables(model, 0, jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32), train=False)
    for name, tensor in timm_convnext.to_timm(weights_file.branch_tensors(ours)).items():
        peer = theirs[name].numpy()
        if peer.ndim == 1:
            np.testing.assert_array_equal(tensor, peer, err_msg=name)
        else:
            assert tensor.std() == pytest.approx(peer.std(), rel=10 / np.sqrt(2 * peer.size)), name


@pytest.mark.parity
def test_blocks_have_timms_chances_and_are_left_out_whole():
    """A block left out adds nothing; one that is kept adds 1 / (1 - chance) times what it adds outside training."""
    helper = import_timm("timm.layers").calculate_drop_path_rates
    depths, chances = (2, 3, 1), []
    model = ConvNeXtTiny(depths=depths, widths=(4, 4, 4), drop_path=0.6)
    image = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    with pytest.MonkeyPatch.context() as patch:
        call = convnext.Block.__call__
        patch.setattr(convnext.Block, "__call__", lambda self, *of: chances.append(self.chance) or call(self, *of))
        jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), image)
    np.testing.assert_allclose(chances, sum(helper(0.6, list(depths), stagewise=True), []), atol=1e-7)

    x = images_of((400, 1, 1, 3))
    block = convnext.Block(chance=0.25)
    variables = jax.jit(block.init, static_argnums=2)(jax.random.key(0), x, False)
    variables["params"]["gamma"] = np.ones(3, np.float32)
    added, trained = (
        np.asarray(jax.jit(block.apply, static_argnums=2)(variables, x, train, rngs={"drop_path": jax.random.key(1)}))
        - x
        for train in (False, True)
    )
    left_out = (trained == 0).all((1, 2, 3))
    assert 0.15 < left_out.mean() < 0.35
    np.testing.assert_allclose(trained[~left_out], added[~left_out] / 0.75, rtol=1e-3, atol=1e-5)


def test_recomputing_activations_changes_no_gradient():
    images, one = images_of((2, 4, 4, 3)), {"depths": (2,), "widths": (4,), "drop_path": 0.5}
    variables = initial_variables(ConvNeXtTiny(**one), 0, images, train=False)
    variables["params"] = jax.tree.map(lambda leaf: leaf + 0.1, variables["params"])

    def gradients(remat):
        model, rngs = ConvNeXtTiny(**one, remat=remat), {"drop_path": jax.random.key(3)}
        return jax.jit(jax.grad(lambda v: model.apply(v, images, train=True, rngs=rngs).var()))(variables)

    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), gradients(True), gradients(False))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An extractor by the modern recipe: blocks left out, AdamW, a moving average, test-time flips."""
    config = small_config(tmp_path_factory.mktemp("convnext") / "entire")
    train_classifier(config, two_branch_examples(12, seed=1), two_branch_examples(8, seed=2))
    return config


def small_config(workdir):
    config = shrink(classifier.get_config("entire,demo,modern,convnext_tiny"), workdir)
    config.model, config.data.size = ConfigDict({**SMALL, "drop_path": 0.5}), SIZE
    config.dtype, config.ema_decay = "float32", 0.5  # exact enough to compare, and the average follows in two epochs
    return config


def test_it_trains_and_its_maps_sum_to_the_logits(trained):
    variables, _ = checkpoint.read_best(trained.workdir)
    assert np.abs(variables["params"]["entire"]["stages_0_blocks_0"]["gamma"] - LAYER_SCALE).max() > 1e-4
    films = two_branch_examples(4, seed=3)
    task = tasks.classification(trained)
    images, _ = task.prepare({name: np.stack([each[name] for each in films]) for name in ("entire", "labels")}, None)
    logits, _ = task.apply(variables, images, False)
    maps = [each["entire"].mean((0, 1)) for each in over_split.stream(trained, variables, films)]
    np.testing.assert_allclose(maps + variables["params"]["head"]["bias"], logits, atol=1e-4)  # eq. 5


def test_its_maps_of_grad_cam_plus_plus_are_refused(trained):
    variables, _ = checkpoint.read_best(trained.workdir)
    with pytest.raises(UserError, match="Grad-CAM.. needs features that are never negative, .* use the method cam"):
        next(over_split.stream(trained, variables, two_branch_examples(4, seed=3), "grad-cam++"))


@pytest.mark.parametrize("name", ["convnext_tiny", "convnext_base"])
def test_its_word_changes_network_and_folder_of_every_stage_and_nothing_else(name):
    paper, config = fusion.get_config(), fusion.get_config(name)
    checks.check(config)
    checks.check(fusion.get_config(f"{name},demo"))
    model = backbones.from_config(config)
    assert (model.depths, model.widths) == (type(model)().depths, type(model)().widths)
    for stage, same in ((config.entire, paper.entire), (config.lung, paper.lung), (config, paper)):
        assert (stage.backbone, stage.model) == (name, config.model)
        stage.backbone, stage.model, stage.workdir = same.backbone, same.model, stage.workdir.replace(f"{name}/", "")
    assert config.to_dict() == paper.to_dict()


def test_exported_it_is_the_same_network(trained, tmp_path):
    for ending in ("safetensors", "stablehlo", "onnx"):
        assert "of the checkpoint" in formats.export(trained.workdir, tmp_path / f"network.{ending}")
    again, _ = formats.read_variables(tmp_path / "network.safetensors")
    jax.tree.map(np.testing.assert_array_equal, again["params"], checkpoint.read_best(trained.workdir)[0]["params"])


@pytest.mark.parity
def test_timm_loads_an_exported_extractor(tmp_path):
    network = timm_network(classes=14, **FOUR)
    found = weights_file.read(saved(network, tmp_path / "model.safetensors"), ConvNeXtTiny(**FOUR))
    variables = {"params": {"entire": found.variables["params"], "head": found.head}}
    exported = timm_convnext.to_timm(formats.to_tensors(variables, ["entire"]))
    assert exported.keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        np.testing.assert_array_equal(exported[name], tensor.numpy(), err_msg=name)


def test_an_image_that_is_too_small_is_refused():
    model = ConvNeXtTiny(**SMALL)
    assert model.smallest_side == 8 and ConvNeXtTiny().smallest_side == 32
    with pytest.raises(ValueError, match="an image of 7 x 8: this ConvNeXt needs at least 8 x 8"):
        model.init(jax.random.key(0), np.zeros((1, 7, 8, 3)), train=False)
