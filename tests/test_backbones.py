"""A second backbone is a file and a line: here the file is this one, and every use of a network is tried with it."""

import jax
import numpy as np
import pytest
from flax import linen as nn
from safetensors.numpy import save_file
from small import extractor_config, two_branch_examples

from configs import classifier
from sdfn_jax.core import checkpoint, run_identity, run_metadata
from sdfn_jax.core.errors import UserError
from sdfn_jax.heatmaps import over_split
from sdfn_jax.inference import formats
from sdfn_jax.inference.predictor import Predictor
from sdfn_jax.models import backbones
from sdfn_jax.models.densenet import DenseNet
from sdfn_jax.models.initial import KAIMING_NORMAL, initial_variables
from sdfn_jax.models.kernels.densenet import CpuDenseNet
from sdfn_jax.models.unet import UNet
from sdfn_jax.models.weights import weights_file
from sdfn_jax.training import features, steps, tasks, train
from sdfn_jax.workflow import checks, starting_weights

SMALL = {"growth_rate": 4, "block_sizes": (1, 2), "init_features": 6, "bottleneck": 2}
TRAINING, VALIDATION = two_branch_examples(12, seed=1), two_branch_examples(8, seed=2)


class Patches(nn.Module):
    """Two convolutions, with biases and without running statistics."""

    width: int = 8
    dtype: type = np.float32
    remat: bool = False

    conv_scaling = KAIMING_NORMAL
    smallest_side = 8
    title = "a network of patches"

    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Conv(self.width, (4, 4), 4, dtype=self.dtype, name="patch")(x))
        return nn.relu(nn.Conv(2 * self.width, (3, 3), dtype=self.dtype, name="mix")(x))


@pytest.fixture(scope="module", autouse=True)
def second():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(backbones.BACKBONES, "patches", backbones.Backbone(f"{__name__}:Patches"))
        yield


def with_patches(config):
    config.backbone, config.model = "patches", {"width": 3}
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def entire(folder):
    """A trained extractor."""
    return trained(with_patches(extractor_config("entire", folder / "entire")))


@pytest.fixture(scope="module")
def fusion(entire, folder):
    """The fusion of two extractors, its head trained on their kept features."""
    lung = trained(with_patches(extractor_config("lung", folder / "lung")))
    config = with_patches(extractor_config("entire", folder / "fusion"))
    config.stage, config.branches, config.frozen = "fusion", ("entire", "lung"), True
    task = tasks.classification(config)
    variables = initial_variables(task.model, 0, task.inputs, train=False)
    for stage in (entire, lung):
        (branch,) = stage.branches
        variables["params"][branch] = checkpoint.read_best(stage.workdir)[0]["params"][branch]
    extractors = features.Extractors(task, config, variables, steps.device_mesh())
    rows = [
        features.cached(extractors, split, folder / f"features/{name}.npy", mirrored=name == "train", origin={})
        for name, split in (("train", TRAINING), ("validation", VALIDATION))
    ]
    head = {"params": {"head": variables["params"]["head"]}}
    return trained(config, tasks.fusion_head(task, config, variables), head, *rows)


def trained(config, task=None, variables=None, training=TRAINING, validation=VALIDATION):
    task = task or tasks.classification(config)
    train.train(
        task,
        config,
        training=training,
        validation=validation,
        initial_variables=lambda: variables or initial_variables(task.model, 0, task.inputs, train=False),
        metadata=run_metadata.make(config, {}, data_version="in memory", drawings=True),
    )
    return config


def test_it_trains_fuses_explains_and_leaves(fusion, tmp_path):
    variables, metadata = checkpoint.read_best(fusion.workdir)
    assert variables["params"]["entire"]["mix"]["kernel"].shape == (3, 3, 3, 6)
    assert variables["params"]["head"]["kernel"].shape == (2 * 6, 14)
    assert run_identity.backbone(metadata["config"]) == "patches"

    task = tasks.classification(fusion)
    (batch,) = ({name: np.stack([each[name] for each in VALIDATION]) for name in ("entire", "lung", "labels")},)
    logits, maps = task.model.apply(variables, task.prepare(batch, None)[0], train=False)
    heatmaps = list(over_split.stream(fusion, variables, VALIDATION))
    sums = [sum(each.mean((0, 1)) for each in of_image.values()) for of_image in heatmaps]
    np.testing.assert_allclose(np.add(sums, variables["params"]["head"]["bias"]), logits, atol=1e-4)  # eq. 5

    for ending in ("safetensors", "stablehlo"):
        assert "of the checkpoint" in formats.export(fusion.workdir, tmp_path / f"network.{ending}")
    again, record = formats.read_variables(tmp_path / "network.safetensors")
    assert record["backbone"] == "patches"
    jax.tree.map(np.testing.assert_array_equal, again["params"], variables["params"])
    with pytest.raises(
        UserError,
        match=r"patches is not exported to .onnx \(densenet, convnext_tiny, convnext_base are\): .safetensors and",
    ):
        formats.export(fusion.workdir, tmp_path / "network.onnx")


def test_a_run_of_it_reads_films(entire, tmp_path):
    film = np.random.default_rng(0).integers(0, 256, (40, 30)).astype(np.uint8)
    predictor = Predictor.load(entire.workdir)
    reading = predictor(film)
    assert reading.heatmap("Mass").shape == (40, 30)
    assert predictor.features(film).shape == (1, 6)


def test_its_exported_weights_start_another_training(entire, tmp_path):
    formats.export(entire.workdir, tmp_path / "start.safetensors")
    config = with_patches(extractor_config("entire", tmp_path / "again"))
    config.pretrained = str(tmp_path / "start.safetensors")
    found = starting_weights.load(config)
    expected = checkpoint.read_best(entire.workdir)[0]["params"]["entire"]
    jax.tree.map(np.testing.assert_array_equal, found.variables["params"], expected)


def test_weights_that_are_not_its_own_are_refused(tmp_path):
    config = with_patches(classifier.get_config("entire,demo"))
    config.pretrained = "imagenet"
    with pytest.raises(UserError, match="no ImageNet weights are known for the backbone .*Patches: give a"):
        starting_weights.place(config)
    path, _ = densenet_file(tmp_path)
    with pytest.raises(UserError, match="not weights for a network of patches from a known source .there is none"):
        weights_file.read(path, backbones.from_config(config))


def test_pretrained_networks_are_those_of_the_backend(tmp_path):
    path, variables = densenet_file(tmp_path)
    model, found = DenseNet.from_pretrained(path, **SMALL)
    assert type(model) is CpuDenseNet
    jax.tree.map(np.testing.assert_array_equal, found, variables)


def densenet_file(folder):
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    variables = initial_variables(backbones.build("densenet", SMALL), 0, image, train=False)
    save_file(weights_file.branch_tensors(variables), folder / "densenet.safetensors")
    return folder / "densenet.safetensors", variables


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        (
            "densnet",
            {},
            r"no backbone 'densnet' \(there are: densenet, .*, patches\); did you mean densenet?",
        ),
        ("patches", {"growth_rate": 3}, r"the backbone patches has no growth_rate \(in config.model\); it has width"),
        ("densenet", {"dtype": "x"}, "the backbone densenet has no dtype"),
    ],
)
def test_an_unknown_name_or_shape_is_a_sentence(name, shape, said):
    config = classifier.get_config("entire,demo")
    config.backbone, config.model = name, shape
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        backbones.from_config(config)
    with pytest.raises(UserError, match=rf"--config.backbone={name}: {said}".replace("?", r"\?")):
        checks.check(config)


def test_the_smallest_image_is_the_backbones():
    config = with_patches(classifier.get_config("entire,demo"))
    config.data.size = 8
    checks.check(config)
    config.data.size = 7
    with pytest.raises(UserError, match="--config.data.size=7: expected 8 to 16384"):
        checks.check(config)


def test_a_run_from_before_backbones_is_a_densenets():
    """Its config has no `backbone`; one that has the name it had is the same recipe, another name is not."""
    config = classifier.get_config("entire")
    before = run_identity.as_json(config)
    del before["backbone"]
    assert type(backbones.from_config(before)) is CpuDenseNet
    run_identity.check_same_run("runs/x", {"config": before, "inputs": {}}, config, {})
    with pytest.raises(UserError, match='backbone is "densenet" there, but "patches" was requested'):
        run_identity.check_same_run("runs/x", {"config": before, "inputs": {}}, with_patches(config), {})


def test_each_backend_has_its_network():
    assert type(backbones.build("densenet", {}, backend="gpu")) is DenseNet
    assert type(backbones.build("densenet", {}, backend="cpu")) is CpuDenseNet
    assert type(backbones.build("patches", {}, backend="cpu")) is Patches
    for model in (backbones.build("densenet", {}), DenseNet()):
        assert backbones.of(model) is backbones.BACKBONES["densenet"]
    with pytest.raises(TypeError, match="UNet is not a backbone; known are: densenet"):
        backbones.of(UNet())
