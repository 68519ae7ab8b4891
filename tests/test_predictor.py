"""Films to readings, with the golden networks (trained on synthetic radiographs) on drawn films."""

import dataclasses
import shutil
from pathlib import Path

import dicom_files
import jax
import numpy as np
import pytest
from PIL import Image
from test_platt import evaluation

from sdfn_jax.core import checkpoint, parallel
from sdfn_jax.core.errors import UserError
from sdfn_jax.heatmaps import cam
from sdfn_jax.inference import selftest
from sdfn_jax.inference.predictor import Predictor
from sdfn_jax.lungs import segmenter as lungs_segmenter
from sdfn_jax.lungs.lung_boxes import PostProcessing, lung_box
from sdfn_jax.metrics import calibration
from sdfn_jax.models.preprocessing import Preprocessing
from sdfn_jax.models.sdfn import SDFN
from sdfn_jax.radiographs import pixels, reader
from sdfn_jax.radiographs.opening import ImageFile, Unreadable
from sdfn_jax.radiographs.synthetic_film import draw


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folder of the runs `fusion` and `lrg`."""
    return selftest.unpack(tmp_path_factory.mktemp("runs")).parent


@pytest.fixture(scope="module")
def predictor(runs):
    return Predictor.load(runs / "fusion", batch_size=2)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Five files: films of several shapes, and the third is none."""
    folder = tmp_path_factory.mktemp("films")
    for number in range(5):
        radiograph = draw(np.random.default_rng(number), ("Cardiomegaly",)).image
        size = (1024 - 60 * number, 1024)
        Image.fromarray(radiograph).resize(size).save(folder / f"{number}.png", compress_level=1)
    (folder / "2.png").write_bytes(b"not a film")
    return [ImageFile(path.name, path) for path in sorted(folder.iterdir())]


@pytest.fixture(scope="module")
def readings(predictor, films):
    return list(predictor.readings(films))


def values(reading):
    """The 14 probabilities of a reading."""
    return np.array([*reading.probabilities.values()])


def with_postprocessing(predictor, **settings):
    lungs = dataclasses.replace(predictor.lungs, postprocessing=PostProcessing(**settings))
    return dataclasses.replace(predictor, lungs=lungs)


def other_stage(runs, folder, stage):
    """A run of one extractor, made of the fusion network's branch."""
    variables, metadata = checkpoint.read_best(runs / "fusion")
    for kind in ("params", "batch_stats"):
        variables[kind] = {name: tree for name, tree in variables[kind].items() if name in (stage, "head")}
    kernel = variables["params"]["head"]["kernel"]
    half = len(kernel) // 2
    variables["params"]["head"]["kernel"] = kernel[:half] if stage == "entire" else kernel[half:]
    config = metadata["config"] | {"stage": stage, "branches": [stage]}
    del config["lrg"], metadata["digest"]
    checkpoint.save_best(folder / stage, metadata.pop("step"), variables, metadata | {"config": config})
    return folder / stage


def test_readings_are_in_order_and_an_unreadable_file_keeps_its_place(films, readings):
    assert [each.name for each in readings] == [film.name for film in films]
    assert [isinstance(each, Unreadable) for each in readings] == [False, False, True, False, False]
    assert "2.png: cannot be decoded (not an image file)" in readings[2].reason


def test_a_reading_is_what_the_steps_of_training_give_one_by_one(runs, films, readings):
    variables, metadata = checkpoint.read_best(runs / "fusion")
    segmenter = lungs_segmenter.Segmenter.load(runs / "lrg")
    processing = PostProcessing(**metadata["config"]["lrg"]["postprocessing"])
    config = metadata["config"]
    model = SDFN(branches=tuple(config["branches"]), shape=config["model"])
    network = jax.jit(lambda inputs: model.apply(variables, inputs, train=False))
    for index in (0, 4):
        film, reading = films[index], readings[index]
        radiograph = reader.read_radiograph(film.path)
        np.testing.assert_array_equal(reading.radiograph, radiograph)
        (lungs,) = segmenter.probabilities(pixels.resize(radiograph, (256, 256))[None])
        region = lung_box(lungs > 0.5, radiograph.shape, processing)
        assert (reading.lung_box, reading.rule) == (region.box, region.rule)
        left, top, right, bottom = region.box
        size = (config["data"]["size"],) * 2
        cut = {
            "entire": pixels.resize(radiograph, size),
            "lung": pixels.resize(radiograph[top:bottom, left:right], size),
        }
        inputs = {branch: Preprocessing.of(config)(each[None]) for branch, each in cut.items()}
        logits, features = network(inputs)
        # float32 summed in another order
        np.testing.assert_allclose(values(reading), 1 / (1 + np.exp(-np.asarray(logits[0], float))), atol=1e-5)
        kernel = variables["params"]["head"]["kernel"]
        for branch, expected in cam.activation_maps(features, kernel, model.branches).items():
            np.testing.assert_allclose(reading.maps[branch], expected[0], atol=1e-3)


def test_maps_and_probabilities_are_of_one_pass(runs, readings):
    bias = checkpoint.read_best(runs / "fusion")[0]["params"]["head"]["bias"]
    for reading in (readings[0], readings[4]):
        logits = sum(each.mean((0, 1)) for each in reading.maps.values()) + bias
        np.testing.assert_allclose(1 / (1 + np.exp(-logits)), values(reading), atol=1e-5)


def test_a_network_is_used_in_the_precision_it_was_trained_in(runs, films, readings, tmp_path):
    variables, metadata = checkpoint.read_best(runs / "fusion")
    del metadata["digest"]
    metadata["config"]["dtype"] = "bfloat16"
    checkpoint.save_best(tmp_path / "fusion", metadata.pop("step"), variables, metadata)
    (half,) = Predictor.load(tmp_path / "fusion", lrg=runs / "lrg", batch_size=2).readings(films[:1])
    # bfloat16 keeps 8 bits of each activation; float32 differs by 1e-6
    difference = np.abs(values(half) - values(readings[0])).max()
    assert 1e-5 < difference < 0.02


def test_one_film_in_memory_gives_the_same_reading(predictor, readings):
    one = predictor.read("x.png", readings[1].radiograph)
    assert (one.name, one.lung_box, one.rule) == ("x.png", readings[1].lung_box, readings[1].rule)
    np.testing.assert_allclose(values(one), values(readings[1]), atol=1e-6)


@pytest.mark.parametrize("form", [lambda film: film * np.uint16(257), lambda film: film[None] / 255])
def test_a_film_in_memory_may_have_any_usual_form(predictor, readings, form):
    film = readings[1].radiograph
    one = predictor.read("x.png", form(film.copy()))
    assert (one.radiograph.dtype, one.radiograph.shape) == (np.uint8, film.shape)
    np.testing.assert_allclose(values(one), values(readings[1]), atol=1e-6)


def test_what_is_no_film_in_memory_is_refused_in_a_sentence(predictor, readings):
    film = readings[1].radiograph
    with pytest.raises(ValueError, match=r"x\.png: pixels outside the range of 16-bit numbers .-1 to 1."):
        predictor.read("x.png", np.where(film > 100, 1, -1.0))
    with pytest.raises(ValueError, match=r"^an array of shape \(2, \d+, \d+\); expected one radiograph"):
        predictor.read("", np.stack([film, film]))


def test_the_batch_size_changes_nothing(runs, films, readings):
    others = list(Predictor.load(runs / "fusion", batch_size=4).readings(films))
    for one, other in zip(readings, others, strict=True):
        if isinstance(one, Unreadable):
            assert other == one
        else:
            assert other.lung_box == one.lung_box
            np.testing.assert_allclose(values(other), values(one), atol=1e-6)


def test_one_shape_is_compiled_however_many_films(predictor, readings):
    assert predictor.classifier._networks[0].func._cache_size() == 1
    assert predictor.lungs.segmenter._network.func._cache_size() == 1


def test_it_reads_only_as_far_ahead_as_it_needs(predictor, films):
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield films[0]

    stream = predictor.readings(endless())
    for _ in range(4):
        next(stream)
    # Two pools of threads with four films a worker, and two batches under way before each network.
    assert taken <= 4 + 2 * 4 * parallel.usable_cores() + 2 * 2 * 2
    stream.close()


class TestGuards:
    @pytest.fixture
    def wrong(self, films, tmp_path):
        """The first film as it is, inverted, on its head, and both."""
        film = np.asarray(reader.read_radiograph(films[0].path))
        kinds = {"0": film, "1": 255 - film, "2": film[::-1, ::-1], "3": 255 - film[::-1, ::-1]}
        for name, radiograph in kinds.items():
            Image.fromarray(radiograph).save(tmp_path / f"{name}.png")
        return [ImageFile(name, tmp_path / f"{name}.png") for name in kinds]

    def test_what_looks_wrong_is_flagged_and_left(self, predictor, wrong):
        found = list(predictor.readings(wrong))
        expected = [set(), {"inverted"}, {"rotated_180"}, {"inverted", "rotated_180"}]
        assert [set(each.flags) - {"lung_region_fallback"} for each in found] == expected
        assert [each.fixes for each in found] == [()] * 4
        for each, film in zip(found, wrong, strict=True):
            np.testing.assert_array_equal(each.radiograph, reader.read_radiograph(film.path))

    def test_a_correction_that_is_asked_for_is_applied_where_it_is_needed(self, predictor, wrong, readings):
        found = list(predictor.readings(wrong, fixes=("rotated_180", "inverted")))
        assert [each.fixes for each in found] == [(), ("inverted",), ("rotated_180",), ("inverted", "rotated_180")]
        for each in found:
            assert each.flags == readings[0].flags
            assert each.lung_box == readings[0].lung_box
            np.testing.assert_array_equal(each.radiograph, readings[0].radiograph)
            np.testing.assert_allclose(values(each), values(readings[0]), atol=1e-6)

    def test_a_film_in_memory_is_corrected_too(self, predictor, readings):
        one = predictor.read("", 255 - readings[0].radiograph, fixes=("inverted",))
        assert one.fixes == ("inverted",)
        np.testing.assert_array_equal(one.radiograph, readings[0].radiograph)

    def test_one_that_is_not_asked_for_is_not(self, predictor, wrong):
        found = list(predictor.readings(wrong, fixes=("inverted",)))
        assert [each.fixes for each in found] == [(), ("inverted",), (), ("inverted",)]
        assert "rotated_180" in found[3].flags

    def test_the_lung_region_counts(self, predictor, films):
        strict = with_postprocessing(predictor, smallest_side=1.0)
        (reading,) = strict.readings(films[:1])
        assert "whole_image" in reading.rule
        assert "lung_region_fallback" in reading.flags

    def test_what_of_its_header_could_not_be_used_is_among_a_films_flags(self, predictor, films, tmp_path):
        film = reader.read_radiograph(films[0].path)
        dicom_files.write(tmp_path / "a.dcm", film, WindowCenter=0, WindowWidth=0)
        (plain, found) = predictor.readings([films[0], ImageFile("a.dcm", tmp_path / "a.dcm")])
        assert found.flags == (*plain.flags, "dicom_window")
        assert predictor.read("a.dcm", film, ("dicom_window",)).flags == found.flags
        np.testing.assert_array_equal(found.radiograph, film)


class TestLoad:
    def test_provenance(self, runs, predictor):
        found = predictor.provenance
        assert found.checkpoint == checkpoint.best_metadata(runs / "fusion")["digest"]
        assert found.lrg_checkpoint == checkpoint.best_metadata(runs / "lrg")["digest"]
        assert (found.stage, found.label_version, found.drawings) == ("fusion", "2017", True)
        assert found.data_version == "chestxray14/size96_labels2017/1.0.0"
        assert "jax" in found.software

    def test_an_entire_network_needs_no_lung_region_generator(self, runs, films, tmp_path):
        loaded = Predictor.load(other_stage(runs, tmp_path, "entire"), batch_size=2)
        (reading,) = loaded.readings(films[:1])
        assert (reading.lung_box, reading.rule, list(reading.maps)) == (None, "", ["entire"])
        assert loaded.provenance.lrg_checkpoint is None

    def test_a_lung_network_takes_the_one_that_is_named(self, runs, films, readings, tmp_path):
        run = other_stage(runs, tmp_path, "lung")
        with pytest.raises(UserError, match=rf"in {tmp_path}/lrg\. Name its folder: --lrg=FOLDER"):
            Predictor.load(run)
        (reading,) = Predictor.load(run, lrg=runs / "lrg", batch_size=2).readings(films[:1])
        assert reading.lung_box == readings[0].lung_box
        assert list(reading.maps) == ["lung"]

    def test_a_run_in_its_place_takes_the_one_of_its_config(self, runs, tmp_path, monkeypatch):
        """The config of the golden run has runs/demo/fusion and runs/demo/lrg."""
        monkeypatch.chdir(tmp_path)
        shutil.copytree(runs / "fusion", "runs/demo/fusion")
        run = Path("runs/demo/fusion")
        with pytest.raises(UserError, match=rf"in runs/demo/lrg and {tmp_path}/runs/demo/lrg\. Name its folder: --lrg"):
            Predictor.load(run)
        shutil.copytree(runs / "lrg", "runs/demo/lrg")
        digest = checkpoint.best_metadata(runs / "lrg")["digest"]
        for place in (run, run.absolute()):
            assert Predictor.load(place).provenance.lrg_checkpoint == digest

    def test_a_moved_run_takes_the_generator_next_to_it(self, runs, tmp_path, monkeypatch):
        """Not the one that others have trained where its config says."""
        variables, metadata = checkpoint.read_best(runs / "lrg")
        del metadata["digest"]
        others = jax.tree.map(np.zeros_like, variables)
        checkpoint.save_best(tmp_path / "runs" / "demo" / "lrg", metadata.pop("step"), others, metadata)
        monkeypatch.chdir(tmp_path)
        digest = checkpoint.best_metadata(runs / "lrg")["digest"]
        assert Predictor.load(runs / "fusion").provenance.lrg_checkpoint == digest
        assert all(difference.passed for difference in selftest.run())
        shutil.copytree(runs / "fusion", tmp_path / "alone" / "fusion")
        with pytest.raises(UserError, match=rf"looked for a trained one in {tmp_path}/alone/lrg\. Name"):
            Predictor.load(tmp_path / "alone" / "fusion")

    def test_a_lung_region_generator_finds_no_findings(self, runs):
        with pytest.raises(UserError, match="holds a lung region generator.*give the folder of a classifier"):
            Predictor.load(runs / "lrg")

    def test_a_classifier_finds_no_lungs(self, runs):
        with pytest.raises(UserError, match="lung boxes need a lung region generator"):
            Predictor.load(runs / "fusion", lrg=runs / "fusion")

    def test_a_folder_of_runs_means_the_fusion_network_in_it(self, runs, tmp_path):
        digest = checkpoint.best_metadata(runs / "fusion")["digest"]
        assert Predictor.load(str(runs)).provenance.checkpoint == digest
        shutil.copytree(runs, tmp_path / "runs")
        shutil.copytree(runs / "fusion", tmp_path / "runs" / "another")
        with pytest.raises(UserError, match="2 runs of the stage fusion: .*another, .*fusion; name the one you mean"):
            Predictor.load(tmp_path / "runs")

    def test_without_a_run_there_are_lungs_and_no_findings(self, runs, films, readings):
        loaded = Predictor.load(None, lrg=runs / "lrg", batch_size=2)
        (reading,) = loaded.readings(films[:1])
        assert (reading.lung_box, reading.rule, reading.flags) == (
            readings[0].lung_box,
            readings[0].rule,
            readings[0].flags,
        )
        assert 0 < reading.confidence <= 1 and 0 < reading.lung_area < 1 and reading.lung_outline
        assert (reading.probabilities, reading.calibrated, reading.decisions, reading.top) == ({}, {}, {}, None)
        assert loaded.provenance.lrg_checkpoint == checkpoint.best_metadata(runs / "lrg")["digest"]
        assert loaded.read("x", readings[0].radiograph).lung_box == reading.lung_box
        with pytest.raises(ValueError, match="no classifier was loaded"):
            loaded.features(films[0].path)

    def test_an_empty_folder(self, tmp_path):
        with pytest.raises(UserError, match="holds no trained checkpoint"):
            Predictor.load(tmp_path)

    def test_the_classifiers_own_post_processing_counts(self, runs, predictor, films):
        wide = with_postprocessing(predictor, margin_top=0)
        (reading,) = wide.readings(films[:1])
        assert reading.lung_box[1] > next(predictor.readings(films[:1])).lung_box[1]


class TestCalibration:
    @pytest.fixture
    def run(self, runs, tmp_path):
        for stage in ("fusion", "lrg"):
            (tmp_path / stage).mkdir()
            (tmp_path / stage / "best").symlink_to(runs / stage / "best")
        return tmp_path / "fusion"

    def write(self, run, digest):
        record = calibration.make(evaluation(stage="fusion", checkpoint=digest))
        calibration.write(run, record)
        return record

    def test_a_runs_calibration_is_applied(self, run, films, predictor, readings):
        record = self.write(run, predictor.provenance.checkpoint)
        loaded = Predictor.load(run, batch_size=2)
        (reading,) = loaded.readings(films[:1])
        np.testing.assert_allclose(values(reading), values(readings[0]), atol=1e-6)
        calibrated = record.apply(values(reading))
        assert list(reading.calibrated.values()) == [None if np.isnan(value) else value for value in calibrated]
        assert loaded.provenance.thresholds == record.thresholds()
        assert loaded.provenance.calibrated == record.calibrated()
        assert loaded.uncalibrated == ""

    def test_that_of_another_checkpoint_is_not(self, run):
        self.write(run, "another")
        loaded = Predictor.load(run)
        assert (loaded.calibration, loaded.provenance.thresholds, loaded.provenance.calibrated) == (None, {}, ())
        assert "calibration.json belongs to another checkpoint" in loaded.uncalibrated

    def test_without_one_the_command_that_makes_it_is_named(self, runs, predictor, readings):
        assert set(readings[0].calibrated.values()) == {None}
        assert predictor.uncalibrated.endswith(
            f"calibration.json is missing. Make it: python -m sdfn_jax.main --config=configs/fusion.py:demo "
            f"--config.workdir={runs / 'fusion'} --mode=evaluate --split=validation"
        )
