"""A weights file loads whole or is refused; what is written comes back exactly."""

import collections
import gzip
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from densenet_peers import SMALL, our_outputs
from peers import assert_close
from safetensors.numpy import save_file

from sdfn_jax.models.densenet import DenseNet
from sdfn_jax.models.initial import initial_variables
from sdfn_jax.models.preprocessing import Preprocessing
from sdfn_jax.models.weights import chexnet, keras, torchvision, torchxrayvision, weights_file
from sdfn_jax.radiographs.findings import FINDINGS

MODEL = DenseNet(**SMALL)
GOLDEN = Path(__file__).parent / "golden"
KERAS_MODEL = DenseNet(growth_rate=4, block_sizes=(1, 2), init_features=6, bottleneck=4)
FEATURES = 19  # feature maps of the small network


def variables_of(model, channels=3):
    return initial_variables(model, 0, jax.ShapeDtypeStruct((1, 32, 32, channels), jnp.float32), train=False)


def tensors_of(classes=None, channels=3):
    """The tensors of a published file: with counters, and with a classifier where `classes` are given."""
    tensors = weights_file.branch_tensors(variables_of(MODEL, channels))
    for name in list(tensors):
        if name.endswith("running_var"):
            tensors[name.replace("running_var", "num_batches_tracked")] = np.array(7)
    if classes is not None:
        generator = np.random.default_rng(2)
        tensors["classifier.weight"] = generator.normal(size=(classes, FEATURES)).astype(np.float32)
        tensors["classifier.bias"] = generator.normal(size=classes).astype(np.float32)
    return tensors


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


def test_a_published_file_loads_exactly(path):
    save_file(tensors := tensors_of(1000), path)
    found = weights_file.read(path, MODEL)
    jax.tree.map(np.testing.assert_array_equal, found.variables, variables_of(MODEL))
    np.testing.assert_array_equal(found.head["kernel"], tensors["classifier.weight"].T)
    assert (found.source, found.preprocessing, found.classes) == (torchvision.NAME, torchvision.PREPROCESSING, None)
    assert found.sha256 in found.describe()
    assert torchvision.NAME in found.describe()


def test_names_and_layouts_are_those_of_torchvision():
    variables = variables_of(DenseNet())
    tensors = weights_file.branch_tensors(variables)
    assert len(tensors) == 120 + 4 * 121  # convolutions; weight, bias, mean, variance of each normalisation
    kernel = variables["params"]["denseblock2"]["denselayer3"]["conv2"]["kernel"]
    tensor = tensors["features.denseblock2.denselayer3.conv2.weight"]
    assert tensor.shape == (32, 128, 3, 3)
    assert tensor[5, 70, 0, 2] == kernel[0, 2, 70, 5]
    assert tensors["features.conv0.weight"].shape == (64, 3, 7, 7)
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        assert tensors[f"features.transition3.norm.{leaf}"].shape == (1024,)


@pytest.mark.parametrize(
    ("outputs", "channels", "source"),
    [
        (None, 3, torchvision.NAME),
        (1000, 3, torchvision.NAME),
        (14, 3, chexnet.NAME),
        (18, 1, torchxrayvision.NAME),
        (None, 1, torchxrayvision.NAME),
    ],
)
def test_a_converted_file_gives_the_same_weights(path, tmp_path, outputs, channels, source):
    classes = None if outputs is None else [f"class {number}" for number in range(outputs)]
    save_file(tensors_of(outputs, channels), path)
    found = weights_file.read(path, MODEL, classes)
    assert found.source == source
    weights_file.save(tmp_path / "new" / "converted.safetensors", found)
    again = weights_file.read(tmp_path / "new" / "converted.safetensors", MODEL)
    jax.tree.map(np.testing.assert_array_equal, again.variables, found.variables)
    jax.tree.map(np.testing.assert_array_equal, again.head, found.head)
    for name in ("classes", "preprocessing", "source", "file", "sha256"):
        assert getattr(again, name) == getattr(found, name)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["converted.safetensors"]


def test_every_fault_is_listed_in_one_error(path):
    tensors = tensors_of(14)
    del tensors["features.norm5.weight"], tensors["classifier.bias"]
    tensors["features.extra.weight"] = np.zeros(3, np.float32)
    tensors["features.extra.num_batches_tracked"] = np.array(3)
    tensors["features.conv0.weight"] = np.zeros((6, 2, 7, 7), np.float32)
    tensors["features.norm0.bias"] = np.full(6, 1 / 3)
    tensors["features.norm0.running_var"][2] = np.nan
    tensors["features.transition1.norm.running_var"][1] = -1
    save_file(tensors, path)
    with pytest.raises(ValueError) as error:
        weights_file.read(path, MODEL)
    assert str(error.value).startswith(f"{path}: ")
    assert str(error.value).splitlines()[1:] == [
        "  dtype: features.norm0.bias is float64, with numbers that float32 does not hold exactly",
        "  missing: classifier.bias",
        "  missing: features.norm5.weight",
        "  negative variance: features.transition1.norm.running_var",
        "  not expected: features.extra.num_batches_tracked",
        "  not expected: features.extra.weight",
        "  not finite: features.norm0.running_var",
        "  shape: features.conv0.weight is (6, 2, 7, 7), expected (6, 3, 7, 7)",
    ]


def test_another_densenet_is_named(path):
    save_file(weights_file.branch_tensors(variables_of(DenseNet(4, (6, 12, 32, 32), 6, 2))), path)
    with pytest.raises(ValueError, match=r"DenseNet-121 \(.*but of DenseNet-169 \(blocks of 6, 12, 32, 32 layers\)"):
        weights_file.read(path, DenseNet())


def test_half_a_file_is_refused_with_what_is_missing(path):
    tensors = tensors_of()
    half = dict(list(tensors.items())[: len(tensors) // 2])
    save_file(half, path)
    with pytest.raises(ValueError) as error:
        weights_file.read(path, MODEL)
    missing = sorted(name for name in tensors.keys() - half.keys() if not name.endswith("num_batches_tracked"))
    assert f"{len(missing)} tensors are at fault" in str(error.value)
    lines = [f"  missing: {name}" for name in missing[:3]]
    assert str(error.value).splitlines()[1:] == [*lines, f"  missing: {len(missing) - 3} more"]


def test_another_network_is_refused(path):
    save_file({"layer1.0.conv1.weight": np.zeros((2, 2, 1, 1), np.float32), "fc.weight": np.zeros(2)}, path)
    with pytest.raises(ValueError, match="not weights for DenseNet-121 .*from a known source .*2 tensors.*(layer1|fc)"):
        weights_file.read(path, DenseNet())


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "net.", "module._orig_mod.model.densenet121."])
@pytest.mark.parametrize(("outputs", "channels"), [(14, 3), (18, 1)])
def test_one_prefix_before_all_names_is_taken_off(path, prefix, outputs, channels):
    tensors = tensors_of(outputs, channels)
    if channels == 1:
        tensors["op_threshs"] = np.zeros(18, np.float32)
    save_file({prefix + name: tensor for name, tensor in tensors.items()}, path)
    found = weights_file.read(path, MODEL)
    jax.tree.map(np.testing.assert_array_equal, found.variables, variables_of(MODEL, channels))
    np.testing.assert_array_equal(found.head["bias"], tensors["classifier.bias"])


def test_what_lies_outside_the_prefix_is_not_expected(path):
    tensors = {f"model.{name}": tensor for name, tensor in tensors_of(14).items()}
    save_file(tensors | {"head.weight": np.zeros((2, 2), np.float32)}, path)
    with pytest.raises(ValueError, match="not expected: head.weight"):
        weights_file.read(path, MODEL)


def test_several_networks_are_refused(path):
    tensors = tensors_of()
    tensors |= {f"other.{name}": tensor for name, tensor in tensors.items()}
    save_file(tensors, path)
    with pytest.raises(ValueError, match="several networks .features.conv0.weight, other.features.conv0.weight.: save"):
        weights_file.read(path, MODEL)


def test_a_classifier_of_several_layers_is_refused(path):
    tensors = tensors_of()
    for layer in (0, 2):
        tensors[f"classifier.{layer}.weight"] = np.zeros((FEATURES, FEATURES), np.float32)
    save_file(tensors, path)
    with pytest.raises(ValueError, match="several names: classifier.0.weight, classifier.2.weight"):
        weights_file.read(path, MODEL)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_precisions_are_read_exactly(path, dtype):
    tensors = tensors_of(14)
    narrow = {name: tensor.astype(dtype) if tensor.ndim else tensor for name, tensor in tensors.items()}
    save_file(narrow, path)
    found = weights_file.read(path, MODEL)
    kernel = found.variables["params"]["conv0"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(
        torchvision.to_torch(kernel), narrow["features.conv0.weight"].astype(np.float32), strict=True
    )


EXPECTED = torchvision.PREPROCESSING.as_dict()
RECORD = {"source": "s", "file": "f", "sha256": "0", "classes": None, "preprocessing": EXPECTED}


@pytest.mark.parametrize(
    "record",
    [
        "[]",
        "3",
        "{",
        "null",
        '"text"',
        "[" * 5000,
        *(json.dumps(RECORD | {name: wrong}) for name in RECORD for wrong in (7, [[1]], {"a": 1})),
        json.dumps({"stage": 3}),
        json.dumps(RECORD | {"preprocessing": EXPECTED | {"mean": "x"}}),
        json.dumps(RECORD | {"preprocessing": EXPECTED | {"size": "large"}}),
        json.dumps(RECORD | {"preprocessing": EXPECTED | {"mean": [1] * 100000, "std": [1] * 100000}}),
    ],
)
def test_a_header_record_of_another_kind_is_refused_in_a_sentence(path, record):
    save_file(tensors_of(14), path, {weights_file.HEADER: record})
    with pytest.raises(ValueError, match=f"{path}: "):
        weights_file.read(path, MODEL)


def test_a_type_that_is_not_read_is_named(path):
    header = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(ValueError, match="the tensor a has numbers of an unsupported type: F8_E4M3"):
        weights_file.read(path, MODEL)


def test_names_do_nothing_to_a_terminal_and_do_not_fill_it(path):
    save_file({"\x1b[31m": np.zeros(2), "x" * 100_000: np.zeros(2)}, path)
    with pytest.raises(ValueError) as error:
        weights_file.read(path, MODEL)
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize("kept", [4, 100, 5000])
def test_a_truncated_file_is_refused(path, kept):
    save_file(tensors_of(), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="weights.safetensors: .*download it again"):
        weights_file.read(path, MODEL)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "an empty file: download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "a Git LFS pointer, not the file"),
        (gzip.compress(b"a network", mtime=0), "a file packed with gzip: unpack it first"),
        (b"a network", "neither a .safetensors nor a PyTorch nor a Keras file"),
    ],
)
def test_what_is_no_weights_file_is_called_what_it_is(tmp_path, content, said):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(ValueError, match=f"w.pth: {said}"):
        weights_file.read(tmp_path / "w.pth", MODEL)


@pytest.mark.parametrize("name", ["w.pth", "w.h5", "w.safetensors"])
def test_a_web_page_is_refused(tmp_path, name):
    (tmp_path / name).write_text("\n<!DOCTYPE html><html><body>Please sign in to download.</body></html>")
    with pytest.raises(ValueError, match=f"{name}: a web page, not weights"):
        weights_file.read(tmp_path / name, DenseNet())


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"\x80\x02"])
def test_the_beginning_of_any_format_is_refused(tmp_path, start):
    pytest.importorskip("h5py")
    (tmp_path / "w").write_bytes(start + bytes(range(200)))
    with pytest.raises(ValueError, match=r"/w: "):
        weights_file.read(tmp_path / "w", DenseNet())


def test_an_absent_file_and_a_folder_are_refused(tmp_path):
    for place in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(ValueError, match=f"{place}: cannot be read"):
            weights_file.read(place, DenseNet())


def test_a_failed_save_leaves_the_file_as_it_was(path, monkeypatch):
    save_file(tensors_of(), path)
    found, before = weights_file.read(path, MODEL), path.read_bytes()

    def disk_full(path, content):
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError("No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", disk_full)
    with pytest.raises(OSError, match="No space"):
        weights_file.save(path, found)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


class TestClasses:
    def read(self, path, classes, outputs=15):
        save_file(tensors_of(outputs), path)
        return weights_file.read(path, MODEL, classes)

    def test_the_head_is_put_in_the_order_of_the_findings(self, path):
        order = [*reversed(FINDINGS), weights_file.NO_CLASS]
        found = self.read(path, order)
        head = found.findings_head()
        for place, name in enumerate(FINDINGS):
            np.testing.assert_array_equal(head["kernel"][:, place], found.head["kernel"][:, order.index(name)])
            assert head["bias"][place] == found.head["bias"][order.index(name)]

    def test_spellings_of_the_same_finding(self, path):
        names = [name.replace("_", " ").upper() for name in FINDINGS]
        assert self.read(path, [*names, "Fracture"]).classes == (*FINDINGS, "Fracture")

    @pytest.mark.parametrize(
        ("classes", "message"),
        [
            (FINDINGS, "the class list has 14 names, the classifier 15 outputs"),
            ((*FINDINGS, "edema"), "names Edema more than once"),
        ],
    )
    def test_a_wrong_list_is_refused(self, path, classes, message):
        with pytest.raises(ValueError, match=f"{path.name}: .*{message}"):
            self.read(path, classes)

    def test_a_list_without_all_findings_gives_no_head(self, path):
        with pytest.raises(ValueError, match="the class list lacks Hernia; it has"):
            self.read(path, [*FINDINGS[:-1], "a", "b"]).findings_head()
        with pytest.raises(ValueError, match="does not say what its outputs are"):
            self.read(path, None).findings_head()

    def test_a_list_for_a_file_without_classifier_is_refused(self, path):
        with pytest.raises(ValueError, match="the file has no classifier"):
            self.read(path, FINDINGS, outputs=None)

    def test_lists_in_both_forms(self, tmp_path):
        (tmp_path / "classes.txt").write_text("Mass\n\nPleural Thickening\n-\n")
        assert weights_file.parse_classes(str(tmp_path / "classes.txt")) == ["Mass", "Pleural Thickening", "-"]
        assert weights_file.parse_classes("Mass, Hernia,-") == ["Mass", "Hernia", "-"]
        with pytest.raises(ValueError, match="none.txt: a class list is"):
            weights_file.parse_classes(str(tmp_path / "none.txt"))

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    @pytest.mark.parametrize("separator", ["\n", "\r\n", ", ", ",\n"])
    def test_lists_as_editors_save_them(self, tmp_path, encoding, separator):
        (tmp_path / "classes.txt").write_bytes(separator.join(["Mass", "Hernia", "-"]).encode(encoding))
        assert weights_file.parse_classes(str(tmp_path / "classes.txt")) == ["Mass", "Hernia", "-"]


def keras_layers():
    """{layer: {variable: array}} of a small Keras DenseNet."""
    pytest.importorskip("h5py")
    layers = collections.defaultdict(dict)
    for name, array in keras.read(GOLDEN / "keras.h5").items():
        layer, _, variable = name.rpartition("/")
        layers[layer][variable] = array
    return layers


def write_h5(path, layout, layers, dtype=np.float32):
    import h5py

    with h5py.File(path, "w") as file:
        for layer, variables in layers.items():
            for variable, array in variables.items():
                file[layout(layer, variable)] = array.astype(dtype)


LAYOUTS = {
    "plain": lambda layer, variable: f"{layer}/{layer}/{variable}:0",
    "of 2018": lambda layer, variable: f"{old(layer)}/{old(layer)}/{variable}:0",
    "in a model": lambda layer, variable: f"model_weights/densenet121/{layer}/{variable}:0",
    "of 2018, in a model": lambda layer, variable: f"model_weights/densenet121/{old(layer)}/{variable}:0",
    "of 2018, in a model in a model": lambda layer, variable: (
        f"model_weights/model_1/densenet121/{old(layer)}/{variable}:0"
    ),
    "on several GPUs": lambda layer, variable: f"model_1/{layer}/{variable}:0",
}


def old(layer):
    """The name of 2018: conv1/bn for conv1_bn, conv2_block1_0/bn for conv2_block1_0_bn."""
    start, _, kind = layer.rpartition("_")
    return f"{start}/{kind}" if start else kind


@pytest.mark.parametrize("layout", LAYOUTS)
def test_keras_layers_are_found_wherever_the_network_lies(tmp_path, layout):
    write_h5(tmp_path / "w.h5", LAYOUTS[layout], keras_layers())
    found, expected = (weights_file.read(path, KERAS_MODEL) for path in (tmp_path / "w.h5", GOLDEN / "keras.h5"))
    jax.tree.map(np.testing.assert_array_equal, found.variables, expected.variables)
    jax.tree.map(np.testing.assert_array_equal, found.head, expected.head)


def test_half_precision_of_keras_is_read_exactly(tmp_path):
    layers = keras_layers()
    write_h5(tmp_path / "w.h5", LAYOUTS["plain"], layers, np.float16)
    found = weights_file.read(tmp_path / "w.h5", KERAS_MODEL)
    np.testing.assert_array_equal(
        found.variables["params"]["conv0"]["kernel"],
        layers["conv1_conv"]["kernel"].astype(np.float16).astype(np.float32),
    )


def test_two_keras_networks_in_a_file_are_refused(tmp_path):
    layers = keras_layers()
    write_h5(tmp_path / "w.h5", lambda layer, variable: f"a/{layer}/{variable}", layers)
    import h5py

    with h5py.File(tmp_path / "w.h5", "a") as file:
        file["b/conv1_conv/kernel"] = layers["conv1_conv"]["kernel"]
    with pytest.raises(ValueError, match="several networks.*conv1_conv/kernel appears twice"):
        weights_file.read(tmp_path / "w.h5", KERAS_MODEL)


def test_two_keras_classifiers_are_refused(tmp_path):
    layers = keras_layers()
    (head,) = (name for name in layers if name in ("predictions", "fc1000"))
    layers["dense"] = layers[head]
    write_h5(tmp_path / "w.h5", LAYOUTS["plain"], layers)
    with pytest.raises(ValueError, match="classifier of several layers: classifier.*appears twice"):
        weights_file.read(tmp_path / "w.h5", KERAS_MODEL)


@pytest.mark.parametrize("where", ["layers", "older layers", "config"])
def test_a_keras_classifier_of_maxima_is_refused(tmp_path, where):
    """It would be read as one of means, and every probability would be wrong."""
    path = tmp_path / "w.h5"
    write_h5(path, LAYOUTS["in a model"], keras_layers())
    import h5py

    with h5py.File(path, "a") as file:
        if where == "config":
            file.attrs["model_config"] = '{"layers": [{"class_name": "GlobalMaxPooling2D", "name": "pool"}]}'
        else:
            file.create_group(
                "model_weights/" + {"layers": "global_max_pooling2d_1", "older layers": "max_pool"}[where]
            )
    with pytest.raises(ValueError, match="reads the maximum of each feature map"):
        weights_file.read(path, KERAS_MODEL)


def test_a_keras_network_with_max_pooling_but_without_classifier_is_read(tmp_path):
    layers = {name: each for name, each in keras_layers().items() if name not in ("predictions", "fc1000")}
    write_h5(tmp_path / "w.h5", LAYOUTS["in a model"], layers)
    import h5py

    with h5py.File(tmp_path / "w.h5", "a") as file:
        file.create_group("model_weights/max_pool")
    assert weights_file.read(tmp_path / "w.h5", KERAS_MODEL).head is None


def test_numbers_of_another_file_are_not_read(tmp_path):
    h5py = pytest.importorskip("h5py")
    (tmp_path / "secret").write_bytes(bytes(400))
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_dataset("conv1_conv/kernel", (100,), "f4", external=[(str(tmp_path / "secret"), 0, 400)])
    with pytest.raises(ValueError, match="the numbers of conv1_conv/kernel are in another file"):
        weights_file.read(tmp_path / "w.h5", KERAS_MODEL)


@pytest.mark.parametrize(
    ("name", "source", "model"),
    [
        ("chexnet.pth.tar", chexnet.NAME, SMALL),
        ("torchxrayvision.pt", torchxrayvision.NAME, SMALL),
        ("keras.h5", keras.NAME, {"growth_rate": 4, "block_sizes": (1, 2), "init_features": 6, "bottleneck": 4}),
    ],
)
def test_golden_outputs(name, source, model):
    """Files and outputs of the libraries themselves, kept from a run of tests/golden/make.py."""
    found = weights_file.read(GOLDEN / name, DenseNet(**model))
    assert found.source == source
    image = np.random.default_rng(9).normal(size=(1, 75, 51, found.preprocessing.channels)).astype(np.float32)
    with np.load(GOLDEN / "outputs.npz") as outputs:
        for kind, ours in zip(("features", "logits"), our_outputs(found, image, model), strict=True):
            assert_close(ours, outputs[f"{name.split('.')[0]}_{kind}"], f"{kind} of {name}")


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "sdfn_jax.pretrained", *map(str, arguments)], capture_output=True, text=True
    )


def test_the_command_says_what_is_wrong_and_writes_nothing(tmp_path):
    (tmp_path / "w.pth").write_text("<html>")
    result = run(tmp_path / "w.pth", f"--output={tmp_path}/out.safetensors")
    assert result.returncode == 2
    assert "w.pth: a web page" in result.stderr
    assert "Traceback" not in result.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["w.pth"]


def test_preprocessing_of_torchxrayvision_spans_its_range():
    grey = np.array([[[0, 255]]], np.uint8)
    np.testing.assert_allclose(torchxrayvision.PREPROCESSING(grey)[0, 0, :, 0], [-1024, 1024])
    assert Preprocessing(**torchxrayvision.PREPROCESSING.as_dict()) == torchxrayvision.PREPROCESSING
