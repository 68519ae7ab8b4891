import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sdfn_jax.models.densenet import DenseNet
from sdfn_jax.models.initial import initial_variables
from sdfn_jax.pretrained.torchvision import load_densenet, save_densenet

MODEL = DenseNet(growth_rate=4, block_sizes=(1, 2), init_features=6, bottleneck=2)


def variables_of(model):
    return initial_variables(model, 0, jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32), train=False)


@pytest.fixture
def weights(tmp_path):
    """A sound file with everything a published one has."""
    path = tmp_path / "weights.safetensors"
    save_densenet(path, variables_of(MODEL))
    tensors = load_file(path)
    for name in list(tensors):
        if name.endswith("running_var"):
            tensors[name.replace("running_var", "num_batches_tracked")] = np.array(7)
    tensors["classifier.weight"] = np.zeros((1000, 11), np.float32)
    tensors["classifier.bias"] = np.zeros(1000, np.float32)
    save_file(tensors, path)
    return path


def change(path, edit):
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


def test_a_published_file_loads_exactly(weights):
    loaded = load_densenet(weights, MODEL)
    jax.tree.map(np.testing.assert_array_equal, loaded, variables_of(MODEL))


def test_names_and_layouts_are_those_of_torchvision(tmp_path):
    variables = variables_of(DenseNet())
    path = tmp_path / "densenet121.safetensors"
    save_densenet(path, variables)
    tensors = load_file(path)
    assert len(tensors) == 120 + 4 * 121  # convolutions; weight, bias, mean, variance of each normalisation
    kernel = variables["params"]["denseblock2"]["denselayer3"]["conv2"]["kernel"]
    tensor = tensors["features.denseblock2.denselayer3.conv2.weight"]
    assert tensor.shape == (32, 128, 3, 3)
    assert tensor[5, 70, 0, 2] == kernel[0, 2, 70, 5]
    assert tensors["features.conv0.weight"].shape == (64, 3, 7, 7)
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        assert tensors[f"features.transition3.norm.{leaf}"].shape == (1024,)
    jax.tree.map(np.testing.assert_array_equal, load_densenet(path), variables)
    assert [file.name for file in tmp_path.iterdir()] == ["densenet121.safetensors"]


def test_every_fault_is_listed_in_one_error(weights):
    def edit(tensors):
        del tensors["features.norm5.weight"]
        tensors["features.extra.weight"] = np.zeros(3, np.float32)
        tensors["features.conv0.weight"] = np.zeros((6, 1, 7, 7), np.float32)
        tensors["features.norm0.bias"] = tensors["features.norm0.bias"].astype(np.float16)
        tensors["features.norm0.running_var"][2] = np.nan

    change(weights, edit)
    with pytest.raises(ValueError) as error:
        load_densenet(weights, MODEL)
    message = str(error.value)
    assert str(weights) in message
    assert message.splitlines()[1:] == [
        "  dtype: features.norm0.bias is float16, expected float32",
        "  missing: features.norm5.weight",
        "  not expected: features.extra.weight",
        "  not finite: features.norm0.running_var",
        "  shape: features.conv0.weight is (6, 1, 7, 7), expected (6, 3, 7, 7)",
    ]


def test_another_network_is_refused(weights):
    with pytest.raises(ValueError, match="missing: features.denseblock3.denselayer1.conv1.weight"):
        load_densenet(weights, DenseNet(growth_rate=4, block_sizes=(1, 2, 1), init_features=6, bottleneck=2))


@pytest.mark.parametrize("kept", [4, 100, 5000])
def test_a_truncated_file_is_refused(weights, kept):
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ValueError, match="weights.safetensors: not a whole .safetensors file"):
        load_densenet(weights, MODEL)


def test_a_web_page_is_refused(weights):
    weights.write_text("<!DOCTYPE html><html><body>Please sign in to download.</body></html>")
    with pytest.raises(ValueError, match="weights.safetensors: not a whole .safetensors file.*web page"):
        load_densenet(weights, MODEL)


def test_an_absent_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ValueError, match="none.safetensors: cannot be read"):
        load_densenet(tmp_path / "none.safetensors", MODEL)
    with pytest.raises(ValueError, match="cannot be read"):
        load_densenet(tmp_path, MODEL)


def test_a_failed_save_leaves_the_file_as_it_was(weights, monkeypatch):
    before = weights.read_bytes()

    def disk_full(tensors, path):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("sdfn_jax.pretrained.torchvision.save_file", disk_full)
    with pytest.raises(OSError, match="No space"):
        save_densenet(weights, variables_of(MODEL))
    assert weights.read_bytes() == before
    assert [file.name for file in weights.parent.iterdir()] == ["weights.safetensors"]
