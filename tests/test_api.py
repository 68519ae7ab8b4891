"""The Python API, as docs/api.md and the other pages show it, with the golden networks on synthetic films."""

import functools
import json
import math
import subprocess
import sys
from pathlib import Path

import dicom_files
import jax
import numpy as np
import page_blocks
import pytest
from flax import traverse_util
from PIL import Image

import sdfn_jax
from sdfn_jax.heatmaps import cam
from sdfn_jax.inference import outputs, selftest
from sdfn_jax.models.densenet import DenseNet
from sdfn_jax.models.initial import variable_shapes
from sdfn_jax.models.preprocessing import Preprocessing
from sdfn_jax.models.weights import download, weights_file
from sdfn_jax.radiographs.synthetic_film import draw

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "api.md"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with `runs/fusion`, `runs/lrg`, two films and a file that is none."""
    folder = tmp_path_factory.mktemp("notebook")
    selftest.unpack(folder / "runs")
    film = draw(np.random.default_rng(0), ("Cardiomegaly",)).image
    dicom_files.write(folder / "film.dcm", film)
    Image.fromarray(film).resize((600, 800)).save(folder / "film.png")
    (folder / "torn.png").write_bytes(b"not a film")
    return folder


@pytest.fixture(scope="module")
def model(place):
    return sdfn_jax.load(place / "runs" / "fusion")


@pytest.fixture(scope="module")
def result(model, place):
    return model(place / "film.dcm")


@pytest.fixture(scope="module")
def lungs(place):
    return sdfn_jax.load_lungs(place / "runs" / "lrg")


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory):
    """A weights file of DenseNet-121's shapes."""
    shapes = variable_shapes(DenseNet(), jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32), train=False)
    flat = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    path = tmp_path_factory.mktemp("weights") / "imagenet.safetensors"
    preprocessing = Preprocessing(0, 1, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224)
    variables = traverse_util.unflatten_dict(flat)
    weights_file.save(path, weights_file.Weights(variables, None, None, preprocessing, "a test", "a", "0" * 64))
    return path


def run(page):
    """Runs the Python of a page from top to bottom, and returns its names."""
    found = {}
    for block in page_blocks.blocks(page):
        if block.language == "python":
            exec(compile(block.text, page.name, "exec"), found)
    return found


def test_the_page_runs_from_top_to_bottom(place, imagenet, monkeypatch, capsys):
    monkeypatch.chdir(place)
    monkeypatch.setattr(download.Published, "fetch", lambda published: imagenet)
    found = run(PAGE)
    assert found["features"].shape[0] == 2
    assert len(found["boxes"]) == 2
    assert found["variables"]["params"].keys() == found["weights"].variables["params"].keys()
    # The page's own prints, and nothing else.
    printed = capsys.readouterr()
    assert [line.split()[0] for line in printed.out.splitlines()] == ["film.dcm", "film.png", "torn.png"]
    assert printed.err == ""


def test_the_python_of_all_other_pages_runs(place, monkeypatch):
    """With the package's own lungs, compiled once: the pages load them again and again."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(sdfn_jax, "load_lungs", functools.cache(sdfn_jax.load_lungs))
    pages = [page for page in page_blocks.PAGES if page != PAGE]
    ran = {page.name for page in pages if run(page)}
    assert {"README.md", "quick_start.md", "lungs.md", "faq.md"} <= ran


def test_the_page_names_everything_public():
    page = PAGE.read_text(encoding="utf-8")
    assert {name for name in sdfn_jax.__all__ if name not in page} <= {"Reading", "Lungs", "__version__"}


def test_importing_it_loads_neither_jax_nor_numpy_and_is_fast():
    code = (
        "import time; start = time.process_time(); import sdfn_jax, sys; took = time.process_time() - start\n"
        "assert not {'jax', 'numpy', 'flax'} & set(sys.modules), sorted(sys.modules)\n"
        "assert {'load', 'DenseNet', '__version__'} <= set(dir(sdfn_jax))\n"
        "assert took < 0.1, took"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_every_public_name_is_there_and_an_unknown_one_is_named():
    assert all(getattr(sdfn_jax, name) is not None for name in sdfn_jax.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'lode'; it has FINDINGS, SDFN, DenseNet"):
        sdfn_jax.lode  # noqa: B018


class TestReading:
    def test_file_and_array_give_the_same(self, model, place, result):
        again = model(sdfn_jax.read_radiograph(place / "film.dcm"))
        assert again.to_dict() == result.to_dict() | {"image": ""}
        assert result.name == str(place / "film.dcm")

    def test_findings_are_asked_by_name(self, result):
        for values in (result.probabilities, result.calibrated, result.decisions):
            assert tuple(values) == sdfn_jax.FINDINGS
        assert all(type(value) is float and 0 < value < 1 for value in result.probabilities.values())
        # The golden run was not evaluated: nothing is calibrated or decided, and it says why.
        assert {*result.calibrated.values(), *result.decisions.values()} == {None}
        assert "no operating points" in result.provenance.undecided["Mass"]

    def test_a_heatmap_covers_the_radiograph_from_0_to_1(self, result):
        found = result.heatmap("Cardiomegaly")
        assert (found.shape, found.dtype) == (result.radiograph.shape, np.float32)
        assert found.min() == 0 and 1 - 1e-6 < found.max() <= 1
        maps = {branch: each[..., 1] for branch, each in result.maps.items()}
        entire, lung = cam.resize_map(maps["entire"], found.shape), np.full(found.shape, maps["lung"].mean())
        left, top, right, bottom = result.lung_box
        lung[top:bottom, left:right] = cam.resize_map(maps["lung"], (bottom - top, right - left))
        fused = entire + lung
        expected = (fused - fused.min()) / (fused.max() - fused.min())
        np.testing.assert_allclose(found, expected, atol=1e-5)
        with pytest.raises(ValueError, match="unknown finding 'Cancer'; expected one of Atelectasis"):
            result.heatmap("Cancer")

    def test_its_dictionary_is_json_and_a_line_of_predictions(self, result):
        held = result.to_dict()
        assert json.loads(json.dumps(held, allow_nan=False)) == held
        line = outputs.row(result, {})
        assert line.items() >= held.items()
        assert line.keys() - held.keys() == {"overlay"}
        assert held["boxes"].keys() == {held["top"]}


class TestMany:
    def test_results_come_in_order_and_a_bad_file_at_its_place(self, model, place):
        paths = [place / "film.png", place / "torn.png", place / "film.dcm"]
        found = list(model(paths))
        assert [each.name for each in found] == list(map(str, paths))
        assert isinstance(found[1], sdfn_jax.Unreadable)
        assert found[1].reason == f"{paths[1]}: cannot be decoded (not an image file)"

    def test_they_stream(self, model, place):
        taken = 0

        def endless():
            nonlocal taken
            while True:
                taken += 1
                yield place / "film.png"

        stream = model(endless())
        first = next(stream)
        stream.close()
        assert first.name == str(place / "film.png")
        assert taken < 100

    def test_arrays_are_called_by_their_place(self, model, result):
        found = list(model([result.radiograph, result.radiograph / 255]))
        assert [each.name for each in found] == ["0", "1"]
        np.testing.assert_allclose(*([*each.probabilities.values()] for each in found), atol=1e-6)


class TestFeatures:
    def test_they_are_what_the_head_sees(self, model, place, result):
        found = model.features([place / "film.dcm", result.radiograph])
        head = model.classifier.members[0]["params"]["head"]
        assert (found.shape, found.dtype) == ((2, len(head["kernel"])), np.float32)
        logits = found[0] @ head["kernel"] + head["bias"]
        np.testing.assert_allclose(1 / (1 + np.exp(-logits)), [*result.probabilities.values()], atol=1e-5)
        np.testing.assert_allclose(found[1], found[0], atol=1e-5)
        assert model.features([]).shape == (0, found.shape[1])

    def test_a_film_that_cannot_be_read_raises(self, model, place):
        with pytest.raises(ValueError, match=r"torn\.png: cannot be decoded"):
            model.features([place / "film.png", place / "torn.png"])


class TestLungs:
    def test_box_rule_and_mask_belong_together(self, lungs, place, result):
        found = lungs(place / "film.dcm")
        assert (found.box, found.rule) == (result.lung_box, result.rule)
        assert (found.mask.shape, found.mask.dtype) == (result.radiograph.shape, bool)
        left, top, right, bottom = found.box
        assert found.mask.any() and not np.delete(found.mask, np.s_[left:right], axis=1).any()
        assert math.isclose(found.mask.mean(), found.region.kept.mean(), rel_tol=0.05)

    def test_one_is_what_it_is_among_others(self, lungs, place, result):
        many = list(lungs([place / "film.dcm", place / "torn.png", result.radiograph]))
        assert [each.name for each in many] == [str(place / "film.dcm"), str(place / "torn.png"), "2"]
        assert isinstance(many[1], sdfn_jax.Unreadable)
        assert many[0].box == many[2].box == lungs(result.radiograph).box


class TestMistakes:
    """An exception with a sentence, never SystemExit."""

    @pytest.mark.parametrize("load", [sdfn_jax.load, sdfn_jax.load_lungs])
    def test_no_run(self, load, tmp_path):
        with pytest.raises(ValueError, match="holds no trained checkpoint"):
            load(tmp_path)

    def test_the_wrong_stage(self, place):
        with pytest.raises(ValueError, match="holds a lung region generator"):
            sdfn_jax.load(place / "runs" / "lrg")
        with pytest.raises(ValueError, match="holds a checkpoint of the stage 'fusion'"):
            sdfn_jax.load_lungs(place / "runs" / "fusion")

    @pytest.mark.parametrize("network", ["model", "lungs"])
    def test_no_radiograph(self, network, place, request):
        network = request.getfixturevalue(network)
        with pytest.raises(FileNotFoundError, match="nowhere.png"):
            network(place / "nowhere.png")
        with pytest.raises(ValueError, match="cannot be decoded"):
            network(place / "torn.png")
        with pytest.raises(ValueError, match="^an array of shape"):
            network(np.zeros((2, 8, 8)))
        with pytest.raises(TypeError, match=r"^int; expected radiographs: a path, an \(H, W\) array"):
            network(3)
        with pytest.raises(TypeError, match=r"^int; expected a radiograph: a path or an \(H, W\) array"):
            next(network([3]))

    def test_no_weights(self, tmp_path):
        with pytest.raises(ValueError, match="w.pth: cannot be read"):
            sdfn_jax.load_weights(tmp_path / "w.pth")
        with pytest.raises(ValueError, match="w.pth: cannot be read"):
            sdfn_jax.DenseNet.from_pretrained(tmp_path / "w.pth")
