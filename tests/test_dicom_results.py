"""`predict --dicom_results`: reports, segmentations and pictures, judged by readers that nobody here wrote."""

import contextlib
import csv
import dataclasses
import functools
import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import dicom_files
import highdicom
import numpy as np
import pydicom
import pytest
from commands import predict as command
from PIL import Image
from pydicom import uid
from pydicom.sr.codedict import codes
from readings import reading
from test_platt import evaluation

from sdfn_jax.core import checkpoint
from sdfn_jax.hospital import film_header, finding_codes, objects, results
from sdfn_jax.inference import selftest
from sdfn_jax.inference.predictor import Predictor
from sdfn_jax.lungs.finder import LungFinder
from sdfn_jax.metrics import calibration
from sdfn_jax.radiographs import reader
from sdfn_jax.radiographs.opening import ImageFile
from sdfn_jax.radiographs.synthetic_film import draw

RESEARCH = "For research, not for diagnosis."
STUDY, FILMS = "1.2.826.0.1.3680043.8.498.7", ("1.2.826.0.1.3680043.8.498.7.1", "1.2.826.0.1.3680043.8.498.7.2")
# Every text of a film's header that may leave it only into the results.
PATIENT = {
    "PatientName": "Sørensen^Åse",
    "PatientID": "P-4711-Z",
    "PatientBirthDate": "19610203",
    "PatientSex": "F",
    "AccessionNumber": "ACC-90210",
    "StudyInstanceUID": STUDY,
    "StudyDate": "20260102",
    "StudyTime": "101112",
    "StudyID": "ST-77",
    "StudyDescription": "CHEST-PA-OF-WARD-9",
    "ReferringPhysicianName": "Grünwald^Ida",
}


@functools.cache
def drawn(number):
    """(300, 320) uint16 of 12 bits."""
    large = draw(np.random.default_rng(number), ("Effusion", "Mass")).image
    return np.asarray(Image.fromarray(large).resize((320, 300))).astype(np.uint16) * 16


def film(path, number, **elements):
    """Writes a drawn film with a patient in its header."""
    header = PATIENT | {"SpecificCharacterSet": "ISO_IR 192", "Modality": "DX", "BodyPartExamined": "CHEST"}
    header |= {"SeriesInstanceUID": f"{STUDY}.3.{number}", "SOPInstanceUID": FILMS[number]}
    header |= {"PatientOrientation": ["L", "F"], "WindowCenter": 2048, "WindowWidth": 4096}
    return dicom_files.write(path, drawn(number), bits=12, **(header | elements))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = selftest.unpack(tmp_path_factory.mktemp("runs"))
    digest = checkpoint.best_metadata(run)["digest"]
    calibration.write(run, calibration.make(evaluation(stage="fusion", checkpoint=digest)))
    return run


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Two films, a copy of the first under its identifier, one without identifiers, and one that is not DICOM."""
    folder = tmp_path_factory.mktemp("films")
    film(folder / "a.dcm", 0)
    film(folder / "b.dcm", 1)
    film(folder / "z_same.dcm", 1, SOPInstanceUID=FILMS[0], PatientComments="not the same file")
    film(folder / "none.dcm", 1, StudyInstanceUID="")
    Image.fromarray(draw(np.random.default_rng(3), ()).image).resize((320, 300)).save(folder / "c.png")
    return folder


@pytest.fixture(scope="module")
def done(run, films, tmp_path_factory):
    """(output folder, results folder, what was printed)."""
    folder = tmp_path_factory.mktemp("done")
    output, dicom = folder / "output", folder / "dicom"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert command(*predict(films, output, dicom), f"--checkpoint={run}") == 0
    return output, dicom, printed.getvalue()


def predict(films, output, dicom):
    return films, f"--output={output}", f"--dicom_results={dicom}", "--batch_size=2"


def objects_of(dicom, film=FILMS[0]):
    """{kind: data set} of a film's results."""
    return {path.name.partition("-")[0]: pydicom.dcmread(path) for path in (dicom / film).iterdir()}


def lines(output):
    return {each["image"]: each for each in map(json.loads, (output / "predictions.jsonl").read_text().splitlines())}


class TestObjects:
    def test_a_film_has_three_in_its_study_each_in_a_series_of_its_own(self, done):
        _, dicom, _ = done
        assert sorted(path.name for path in dicom.iterdir()) == sorted(FILMS)
        found = objects_of(dicom)
        assert {kind: each.SOPClassUID for kind, each in found.items()} == {
            "report": uid.ComprehensiveSRStorage,
            "lungs": uid.SegmentationStorage,
            "picture": uid.SecondaryCaptureImageStorage,
        }
        series = {each.SeriesInstanceUID for each in found.values()}
        assert len(series) == 3 and f"{STUDY}.3.0" not in series
        for each in found.values():
            for name, value in PATIENT.items():
                assert str(each[name].value) == value
            assert RESEARCH in each.SeriesDescription

    def test_each_says_that_it_is_research_within_its_content(self, done):
        _, dicom, _ = done
        found = objects_of(dicom)
        comments = [
            item.TextValue
            for item in found["report"].ContentSequence
            if item.ConceptNameCodeSequence[0].CodeMeaning == "Comment"
        ]
        assert comments[0] == RESEARCH
        assert RESEARCH in found["lungs"].SegmentSequence[0].SegmentDescription
        assert RESEARCH in found["picture"].DerivationDescription

    def test_they_refer_to_the_film(self, done):
        _, dicom, _ = done
        found = objects_of(dicom)
        evidence = found["report"].CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
        assert evidence.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == FILMS[0]
        assert found["picture"].SourceImageSequence[0].ReferencedSOPInstanceUID == FILMS[0]
        assert FILMS[0] in str(found["lungs"].ReferencedSeriesSequence)
        for kind in ("lungs", "picture"):
            assert found[kind].PatientOrientation == ["L", "F"] and found[kind].BodyPartExamined == "CHEST"

    def test_david_clunies_validator_finds_no_error(self, done):
        if not os.environ.get("CI") and shutil.which("dciodvfy") is None:
            pytest.skip("no dciodvfy (Debian: dicom3tools)")
        _, dicom, _ = done
        for path in dicom.rglob("*.dcm"):
            judged = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True).stderr.splitlines()
            assert not [line for line in judged if line.startswith("Error")]
            doubts = [line for line in judged if line.startswith("Warning") and "99SDFN" not in line]
            assert not doubts


class TestReport:
    def test_highdicom_reads_every_number_of_the_prediction(self, done):
        output, dicom, _ = done
        row = lines(output)["a.dcm"]
        report = highdicom.sr.srread(next(dicom.glob(f"{FILMS[0]}/report-*")))
        groups = report.content.get_image_measurement_groups()
        assert [group.tracking_identifier for group in groups] == list(row["probabilities"])
        for group, (finding, probability) in zip(groups, row["probabilities"].items(), strict=True):
            numbers = {each.name.value: each.value for each in group.get_measurements()}
            expected = {"PROBABILITY": probability}
            if row["calibrated"][finding] is not None:
                expected["CALIBRATED"] = row["calibrated"][finding]
            called = {}
            if finding in row["decisions"]:
                expected["OPERATING_POINT"] = row["decisions"][finding]["threshold"]
                is_there = codes.cid240.Present if row["decisions"][finding]["positive"] else codes.cid240.Absent
                called = {finding_codes.of(finding): is_there}
            assert numbers == pytest.approx(expected, rel=1e-9)
            assert {each.name: each.value for each in group.get_qualitative_evaluations()} == called
            assert group.finding_type == finding_codes.of(finding)
        assert len({bool(each["positive"]) for each in row["decisions"].values()}) == 2  # both words were said
        assert row["undecided"].keys() and row["decisions"].keys()

    def test_its_regions_are_the_lung_box_and_the_heatmaps_boxes(self, done):
        output, dicom, _ = done
        row = lines(output)["a.dcm"]
        report = highdicom.sr.srread(next(dicom.glob(f"{FILMS[0]}/report-*")))
        regions = [
            (group.finding_type.value, group.roi.value.tolist())
            for group in report.content.get_planar_roi_measurement_groups()
        ]
        boxes = [
            (finding_codes.of(finding).value, box)
            for finding, levels in row["boxes"].items()
            for found in levels.values()
            for box in found
        ]
        corners = [
            (code, [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]])
            for code, (left, top, right, bottom) in [(codes.SCT.Lung.value, row["lung_box"]), *boxes]
        ]
        assert sorted(regions) == sorted(corners)

    def test_it_names_algorithm_version_and_checkpoint(self, done, run):
        _, dicom, _ = done
        report = highdicom.sr.srread(next(dicom.glob(f"{FILMS[0]}/report-*")))
        group = report.content.get_image_measurement_groups()[0]
        text = {
            item.ConceptNameCodeSequence[0].CodeMeaning: item.TextValue
            for item in reversed(group[0].ContentSequence)
            if item.ValueType == "TEXT"
        }
        assert text["Algorithm Name"] == "sdfn_jax"
        assert text["Algorithm Version"] == objects.version(Predictor.load(run).provenance)
        assert text["Algorithm Parameters"] == f"checkpoint {checkpoint.best_metadata(run)['digest']}"


class TestPictures:
    def test_the_segmentation_is_the_lung_mask_in_the_films_grid(self, done, films, run):
        _, dicom, _ = done
        segmentation = highdicom.seg.segread(next(dicom.glob(f"{FILMS[0]}/lungs-*")))
        found = segmentation.get_pixels_by_source_instance([FILMS[0]])[0, ..., 0].astype(bool)
        expected = LungFinder.load(run.parent / "lrg")(films / "a.dcm").mask
        assert found.shape == reader.read_radiograph(films / "a.dcm").shape
        assert (found == expected).all() and 0.05 < found.mean() < 0.9

    def test_the_secondary_capture_has_the_overlays_pixels(self, done):
        output, dicom, _ = done
        picture = objects_of(dicom)["picture"]
        assert (picture.pixel_array == np.asarray(Image.open(output / "overlays/a.dcm.png"))).all()


class TestIdentifiers:
    def test_they_are_in_the_results_folder_alone_and_the_log_says_so(self, done):
        output, dicom, printed = done
        texts = [value.encode() for value in (*PATIENT.values(), *FILMS) if len(value) > 1]
        for path in output.rglob("*"):
            if path.is_file():
                assert not [text for text in texts if text in path.read_bytes()], path
        assert PATIENT["PatientName"].encode() in next(dicom.rglob("report*")).read_bytes()
        assert f"DICOM results of 2 films, with the identifiers of their patients and studies: {dicom}" in printed

    def test_films_without_results_are_counted_and_listed_with_the_reason(self, done):
        output, _, printed = done
        with (output / "no_dicom_results.csv").open(newline="") as file:
            reasons = {row["image"]: row["reason"] for row in csv.DictReader(file)}
        assert reasons == {
            "c.png": "not DICOM",
            "none.dcm": "its header lacks a study, series or SOP instance UID, or one is not valid",
            "z_same.dcm": "has the SOP Instance UID of a.dcm",
        }
        assert "no DICOM results: 1 film: not DICOM" in printed

    def test_a_folder_that_would_mix_them_with_other_files_is_refused(self, films, tmp_path, capsys):
        for inside in (tmp_path / "out" / "dicom", films / "results"):
            assert command(*predict(films, tmp_path / "out", inside)) == 2
            assert f"--dicom_results={inside} is in " in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


class TestRepeat:
    def test_the_same_networks_give_the_same_objects_and_others_give_others(self, tmp_path):
        path = film(tmp_path / "a.dcm", 0)
        mask = np.zeros((32, 32), np.float32)
        mask[8:24, 4:14] = mask[8:24, 18:28] = 0.9
        one = reading(size=(300, 320), probabilities={}, calibrated={}, maps={}, lung_probabilities=mask)
        other = dataclasses.replace(one, provenance=dataclasses.replace(one.provenance, checkpoint="0ther"))
        header = film_header.read(path)
        corrected = dataclasses.replace(one, fixes=("inverted",))
        uids = [results.make(each, header, "lungs").SOPInstanceUID for each in (one, one, other, corrected)]
        assert uids[0] == uids[1] and len(set(uids)) == 3
        assert all(uid.UID(each).is_valid for each in uids)
        folder = results.ResultsFolder(tmp_path / "results", [ImageFile(one.name, path)])
        assert folder.write(one, path) == ""
        before = {each: each.read_bytes() for each in folder.folder.rglob("*.dcm")}
        assert folder.write(one, path) == ""
        assert {each: each.read_bytes() for each in folder.folder.rglob("*.dcm")} == before
        assert folder.write(other, path) == "" and len(list(folder.folder.rglob("*.dcm"))) == 2 * len(before) == 4

    def test_without_a_classifier_there_is_no_report(self, done):
        lungs = reading(probabilities={}, calibrated={}, maps={}, lung_probabilities=np.ones((8, 8), np.float32))
        assert results.kinds(lungs) == ["lungs", "picture"]
        assert results.kinds(reading()) == ["report", "picture"]

    def test_what_the_page_withholds_and_what_was_turned_has_none(self, tmp_path):
        header = film_header.read(film(tmp_path / "a.dcm", 0))
        for change, why in (
            ({"flags": ("not_frontal_chest",)}, "withheld: does not look like a frontal chest radiograph"),
            ({"fixes": ("rotated_180",)}, "turned before it was read"),
        ):
            with pytest.raises(film_header.NoResults, match=why):
                results.make(reading(**change), header, "picture")

    @pytest.mark.parametrize("element", ["PatientBirthDate", "StudyTime"])
    def test_a_damaged_header_is_a_reason_that_quotes_nothing(self, tmp_path, element):
        path = dicom_files.garble(film(tmp_path / "a.dcm", 0), element, b"Secret-value")
        with pytest.raises(film_header.NoResults) as why:
            header = film_header.read(path)
            results.make(reading(), header, "report")
        assert "Secret" not in str(why.value)


def test_a_label_has_a_public_code_or_one_of_the_private_scheme():
    assert finding_codes.of("Pneumothorax") == codes.SCT.Pneumothorax
    assert finding_codes.of("Nodule") == codes.SCT.Nodule and finding_codes.of("Mass") == codes.SCT.Mass
    assert finding_codes.of("Edema") == codes.SCT.PulmonaryEdema
    assert finding_codes.of("Effusion") == codes.SCT.PleuralEffusion
    assert finding_codes.of("Infiltration") == codes.DCM.Infiltrate
    for label in ("Hernia", "Pleural_Thickening", "Tuberculosis suspected (active)"):
        code = finding_codes.of(label)
        assert code.scheme_designator == finding_codes.SCHEME and code.value.isupper()


def test_objects_share_nothing_but_what_they_should():
    assert len({objects.uid("1.2", "a", kind) for kind in objects.KINDS}) == 3
    assert objects.uid("1.2", "a", "report") != objects.uid("1.3", "a", "report")
    assert Path(objects.uid("1.2", "a", "report")).name.startswith("2.25.")
