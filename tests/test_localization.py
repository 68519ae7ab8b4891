"""Boxes from heatmaps, and Wang et al.'s rules, on cases small enough to count by hand; the real box list."""

import json

import numpy as np
import pytest

from sdfn_jax import localize as localize_command
from sdfn_jax.core import sealed
from sdfn_jax.core.errors import UserError
from sdfn_jax.heatmaps import detections, floors, localization, localize
from sdfn_jax.heatmaps.localization import FindingBoxes
from sdfn_jax.metrics import bootstrap, published
from tests import other_process

MASS, NODULE = "Mass", "Nodule"


def heatmap(*boxes, size=(64, 64)):
    """255 within boxes (left, top, right, bottom[, value]), 0 outside."""
    drawn = np.zeros(size, np.float32)
    for left, top, right, bottom, *value in boxes:
        drawn[top:bottom, left:right] = value[0] if value else 255
    return drawn


def case(image, finding, references, *boxes, patient=1):
    return localization.locate(image, patient, finding, np.array(references, float), heatmap(*boxes))


def scores(cases, thresholds=localization.THRESHOLDS):
    resamples = bootstrap.draw([each.patient for each in cases], 50, seed=0)
    rows = localization.score(cases, resamples, thresholds)
    return {(row.criterion, None if row.criterion == "pointing" else row.level, row.finding): row for row in rows}


class TestFindBoxes:
    def test_one_box_a_region_and_both_thresholds_on_their_own(self):
        drawn = heatmap((2, 3, 10, 9), (20, 30, 25, 50, 100))
        np.testing.assert_array_equal(localization.find_boxes(drawn, 180), [[2, 3, 10, 9]])
        np.testing.assert_array_equal(localization.find_boxes(drawn, 60), [[2, 3, 10, 9], [20, 30, 25, 50]])

    def test_a_region_is_boxed_whole(self):
        drawn = heatmap((2, 2, 4, 20), (2, 18, 30, 20))  # an L
        np.testing.assert_array_equal(localization.find_boxes(drawn, 60), [[2, 2, 30, 20]])

    def test_regions_that_touch_at_a_corner_are_one(self):
        assert len(localization.find_boxes(heatmap((2, 2, 4, 4), (4, 4, 6, 6)), 60)) == 1
        assert len(localization.find_boxes(heatmap((2, 2, 4, 4), (5, 4, 7, 6)), 60)) == 2

    def test_nothing_above_the_threshold_is_no_box(self):
        assert localization.find_boxes(np.full((8, 8), 60.0), 60).shape == (0, 4)


def test_overlaps_of_known_boxes():
    reference = np.array([[0, 0, 10, 10]])
    drawn = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [2, 2, 4, 4], [20, 20, 30, 30], [10, 0, 20, 10.0]])
    np.testing.assert_allclose(localization.overlaps("IoU", reference, drawn)[0], [1, 1 / 3, 0.04, 0, 0])
    np.testing.assert_allclose(localization.overlaps("IoBB", reference, drawn)[0], [1, 0.5, 1, 0, 0])


def test_hits_false_boxes_and_denominators_counted_by_hand():
    cases = [
        # found by both criteria, and one box elsewhere
        case("a", MASS, [[10, 10, 20, 20]], (10, 10, 20, 20), (40, 40, 50, 50)),
        # a tiny box inside: IoBB 1, IoU 0.04
        case("b", MASS, [[10, 10, 20, 20]], (12, 12, 14, 14)),
        # missed
        case("c", NODULE, [[10, 10, 20, 20]], (40, 40, 50, 50)),
        # two references, one found
        case("d", NODULE, [[0, 0, 10, 10], [30, 30, 40, 40]], (0, 0, 10, 10)),
    ]
    found = scores(cases)
    assert (found["IoU", 0.1, "Mass"].found, found["IoU", 0.1, "Mass"].of) == (1, 2)
    assert (found["IoBB", 0.9, "Mass"].found, found["IoBB", 0.9, "Mass"].of) == (2, 2)
    assert (found["IoU", 0.5, "Nodule"].found, found["IoU", 0.5, "Nodule"].of) == (1, 3)
    # The list has 5 boxes, whatever the finding.
    assert found["IoBB", 0.1, "Mass"].false_boxes == pytest.approx(1 / 5)
    assert found["IoU", 0.1, "Mass"].false_boxes == pytest.approx(2 / 5)
    assert found["IoU", 0.1, "Nodule"].false_boxes == pytest.approx(1 / 5)
    assert found["IoU", 0.1, "mean"].accuracy == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert (found["pointing", None, "Nodule"].found, found["pointing", None, "Nodule"].of) == (1, 2)


def test_a_level_has_to_be_exceeded():
    (exact,) = [case("a", MASS, [[0, 0, 10, 10]], (0, 0, 10, 5))]
    found = scores([exact])
    assert found["IoU", 0.4, "Mass"].found == 1
    assert found["IoU", 0.5, "Mass"].found == 0


def test_the_boxes_of_both_thresholds_compete_and_equal_ones_count_once():
    # Below 180 the hot core is a part of a large region.
    drawn = [case("a", MASS, [[10, 10, 20, 20]], (5, 5, 60, 60, 100), (10, 10, 20, 20))]
    assert scores(drawn)["IoU", 0.7, "Mass"].found == 1
    assert scores(drawn)["IoU", 0.7, "Mass"].false_boxes == 1
    assert scores(drawn, [60])["IoU", 0.7, "Mass"].found == 0
    assert scores(drawn, [180])["IoU", 0.7, "Mass"].false_boxes == 0
    once = [case("a", MASS, [[40, 40, 50, 50]], (10, 10, 20, 20))]
    assert scores(once)["IoU", 0.1, "Mass"].false_boxes == 1


def test_pointing_shares_a_maximum_of_several_pixels():
    half = localization.locate("a", 1, MASS, np.array([[0, 0, 10, 10]]), heatmap((5, 0, 15, 10)))
    assert half.pointing == 0.5
    nowhere = localization.locate("a", 1, MASS, np.array([[0, 0, 32, 64]]), np.zeros((64, 64)))
    assert nowhere.pointing == 0.5


def test_intervals_are_over_patients():
    right, wrong = [(10, 10, 20, 20)], [(40, 40, 50, 50)]
    many = [
        case(f"{patient}_{copy}", MASS, right, *(right if patient % 2 else wrong), patient=patient)
        for patient in range(10)
        for copy in range(20)
    ]
    low, high = scores(many)["IoU", 0.5, "Mass"].interval
    assert high - low > 0.4  # as of 10 draws, not of 200


def test_reference_boxes_as_heatmaps_are_all_found():
    rng = np.random.default_rng(0)
    cases = []
    for number in range(12):
        left, top = rng.integers(0, 30, 2)
        box = (left, top, left + rng.integers(8, 30), top + rng.integers(8, 30))
        cases.append(case(str(number), number % 3, [box], box, patient=number))
    for row in scores(cases).values():
        assert row.accuracy == 1
        assert row.interval == (1, 1)
        assert row.criterion == "pointing" or row.false_boxes == 0


def test_the_median_box_never_sees_the_patients_own_boxes():
    cases = [case(str(n), MASS, [[n, n, n + 10, n + 20]], (0, 0, 5, 5), patient=n) for n in (0, 10, 20, 40)]
    cases.append(case("x", NODULE, [[50, 50, 60, 60]], (0, 0, 5, 5), patient=0))
    np.testing.assert_array_equal(floors.median_box(cases, MASS, patient=40), [10, 10, 20, 30])
    np.testing.assert_array_equal(floors.median_box(cases, MASS, patient=0), [20, 20, 30, 40])
    np.testing.assert_array_equal(floors.median_box(cases, NODULE, patient=0), [50, 50, 60, 60])
    floor = floors.median_floor(cases)
    assert [each.pointing for each in floor] == [0, 0, 0, 0, 1]


def test_random_boxes_hit_as_often_as_geometry_says():
    # A 32 x 32 box thrown uniformly into 64 x 64: how often it overlaps the central one by more than IoU 1/3.
    cases = [case(str(n), MASS, [[16, 16, 48, 48]], (0, 0, 5, 5), patient=n) for n in range(40)]
    shift = np.abs(np.random.default_rng(1).uniform(-16, 16, (200_000, 2)))
    shared = np.prod(32 - shift, axis=1)
    expected = np.mean(shared / (2 * 1024 - shared) > 1 / 3)
    found = floors.random_floor(cases, "IoU", 1 / 3, seed=0)
    assert found["Mass"] == pytest.approx(expected, abs=0.02)
    assert found["mean"] == found["Mass"]


def test_scores_by_size_split_the_boxes_into_quarters():
    cases = [
        case(str(side), MASS, [[0, 0, side, side]], *([(0, 0, side, side)] if side > 12 else [(40, 40, 50, 50)]))
        for side in range(4, 20)
    ]
    groups = localization.by_size(cases, bootstrap.draw([1] * len(cases), 10, seed=0))
    assert [row.of for *_, row in groups] == [4, 4, 4, 4]
    assert [row.accuracy for *_, row in groups] == [0, 0, 0.75, 1]
    assert (groups[0][0], groups[-1][1]) == (4, 19)


class TestFiles:
    @pytest.fixture
    def written(self, tmp_path):
        cases = [
            case("a.png", MASS, [[10.5, 10, 20, 20.25]], (10, 10, 20, 20), (40, 40, 50, 50, 100), patient=7),
            case("a.png", NODULE, [[1, 2, 3, 4], [5, 6, 7, 8]], (0, 0, 64, 64), patient=7),
            localization.locate("b.png", 8, MASS, np.array([[1, 2, 3, 4]]), np.zeros((32, 16))),
        ]
        detections.write(tmp_path, cases, {"method": "mine"})
        return tmp_path, cases

    def test_what_was_written_is_read(self, written):
        folder, cases = written
        back, origin = detections.read(folder)
        assert origin["method"] == "mine"
        assert (origin["images"], origin["reference_boxes"]) == (2, 4)
        for mine, its in zip(cases, back, strict=True):
            assert (mine.image, mine.patient, mine.finding, mine.size, mine.pointing) == (
                its.image, its.patient, its.finding, its.size, its.pointing
            )  # fmt: skip
            np.testing.assert_array_equal(mine.references, its.references)
            for threshold in localization.THRESHOLDS:
                np.testing.assert_array_equal(mine.detections[threshold], its.detections[threshold])

    def spoil(self, folder, old, new):
        path = folder / detections.DETECTIONS_FILE
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
        record = json.loads((folder / detections.ORIGIN_FILE).read_text())
        record["detections_sha256"] = detections.file_digest(path)
        del record["sha256"]
        sealed.write(folder / detections.ORIGIN_FILE, record)

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("kind", "sort", "columns"),
            ("10.5", "ten", "row 2: could not convert"),
            ("10.5", "nan", "row 2: nan is not a number"),
            ("10.5", "1" * 200_000, "field larger than field limit"),
            ("reference", "61", "row 2: '61'"),
            ("b.png,8,Mass,32,16,reference", "c.png,8,Mass,32,16,60", "c.png has no reference box of Mass"),
        ],
    )
    def test_unsound_tables_are_refused(self, written, old, new, message):
        self.spoil(written[0], old, new)
        with pytest.raises(ValueError, match=message):
            detections.read(written[0])

    def test_files_that_do_not_belong_together_are_refused(self, written):
        folder, _ = written
        with (folder / detections.DETECTIONS_FILE).open("a") as file:
            file.write("x")
        with pytest.raises(ValueError, match="not the file that localization.json next to it describes"):
            detections.read(folder)
        (folder / detections.ORIGIN_FILE).write_text("[]")
        with pytest.raises(ValueError, match="not the record"):
            detections.read(folder)

    def test_boxes_of_before_the_rule_was_recorded_added_nothing_outside_the_lung_box(self, written):
        assert detections.read(written[0])[1]["outside"] == "zero"

    def test_a_record_that_was_changed_is_refused(self, written):
        path = written[0] / detections.ORIGIN_FILE
        path.write_text(path.read_text().replace('"mine"', '"none"'))
        with pytest.raises(UserError, match="localization.json: not the record of a localization .changed since"):
            detections.read(written[0])


class TestHeatmapFiles:
    @pytest.fixture
    def tables(self, tmp_path):
        from tests.official_files import write_chestxray14

        return write_chestxray14(tmp_path / "tables")

    def heatmaps(self, folder):
        """The two reference boxes of the small official files, as heatmaps of a sixteenth of the side."""
        folder.mkdir()
        for name, (left, top, right, bottom) in {
            "00000005_000_Atelectasis": (10.5, 8.25, 30.5, 20.75),
            "00000004_000_Infiltration": (30, 20, 48.6, 30),
        }.items():
            drawn = np.zeros((1024, 1024), np.float16)
            drawn[round(top) : round(bottom), round(left) : round(right)] = 3
            np.save(folder / f"{name}.npy", drawn)
        return folder

    def test_another_methods_heatmaps_are_scored(self, tmp_path, tables, capsys):
        folder, output = self.heatmaps(tmp_path / "theirs"), tmp_path / "out"
        localize_command.main([f"--heatmaps={folder}", f"--tables={tables}", f"--output={output}"])
        cases, origin = detections.read(output)
        assert origin["method"] == "theirs"
        assert {(each.image, each.patient) for each in cases} == {("00000004_000.png", 4), ("00000005_000.png", 5)}
        assert all(row.accuracy == 1 for key, row in scores(cases).items() if key[1] in (0.1, 0.5, None))
        assert "IoU > 0.5            1.000  [1.000, 1.000]" in capsys.readouterr().out

    def test_bad_heatmaps_are_named(self, tmp_path, tables):
        folder = self.heatmaps(tmp_path / "theirs")
        np.save(folder / "00000005_000_Atelectasis.npy", np.full((7, 7), np.nan))
        with pytest.raises(UserError, match="Atelectasis.npy: .* all finite"):
            localize.of_files(folder, tables)
        (folder / "00000005_000_Atelectasis.npy").write_text("x")
        with pytest.raises(UserError, match="Atelectasis.npy: not a .npy file"):
            localize.of_files(folder, tables)
        (folder / "00000005_000_Atelectasis.npy").unlink()
        with pytest.raises(UserError, match="1 of 2 heatmaps are missing, such as 00000005_000_Atelectasis.npy"):
            localize.of_files(folder, tables)
        with pytest.raises(UserError, match="--heatmaps needs --tables"):
            localize_command.main([f"--heatmaps={folder}"])

    def test_one_command_at_a_time_writes_to_a_folder(self, tmp_path, tables):
        folder, output = self.heatmaps(tmp_path / "theirs"), tmp_path / "out"
        command = [f"--heatmaps={folder}", f"--tables={tables}", f"--output={output}"]
        with (
            other_process.holding(tmp_path / ".out.lock"),
            pytest.raises(UserError, match="out is being written by another command"),
        ):
            localize_command.main(command)
        assert not output.exists()
        (tmp_path / "run").mkdir()
        with (
            other_process.holding(tmp_path / "run" / ".lock"),  # as the main job does
            pytest.raises(UserError, match="run is being written by another command"),
        ):
            localize_command.main([f"--run={tmp_path / 'run'}"])

    def test_a_method_is_one_of_those_that_are_there(self, tmp_path):
        with pytest.raises(UserError, match="--method=guess: unknown; give one of cam"):
            localize_command.main([f"--run={tmp_path}", "--method=guess"])
        with pytest.raises(UserError, match="nothing: no such folder"):
            localize_command.main([f"--run={tmp_path / 'nothing'}"])
        with pytest.raises(UserError, match="--outside=guess: unknown; give one of mean, minimum, zero"):
            localize_command.main([f"--run={tmp_path}", "--outside=guess"])
        with pytest.raises(UserError, match="--outside=zero needs --output=FOLDER: the run's own folder is for mean"):
            localize_command.main([f"--run={tmp_path}", "--outside=zero"])
        with pytest.raises(UserError, match="--checks is for --run"):
            localize_command.main(["--checks", *(f"--{flag}={tmp_path}" for flag in ("heatmaps", "tables", "output"))])
        assert not (tmp_path / "nothing").exists()

    def test_what_would_be_ignored_is_refused(self, tmp_path):
        with pytest.raises(UserError, match="--tables is for --heatmaps"):
            localize_command.main([f"--run={tmp_path}", f"--tables={tmp_path}"])


def test_wangs_figures_are_whole_counts():
    boxes = (180, 146, 153, 123, 85, 79, 120, 98)
    for count, accuracy, wrong in zip(
        boxes, published.WANG_ACCURACY.values(), published.WANG_FALSE_BOXES.values(), strict=True
    ):
        assert accuracy * count == pytest.approx(round(accuracy * count), abs=1.1e-4 * count)
        assert wrong * 984 == pytest.approx(round(wrong * 984), abs=0.11)


@pytest.mark.real
def test_the_median_box_of_the_real_list_and_its_denominators(real_data):
    references = localize._official_boxes(real_data / "chestxray14")
    cases = [
        FindingBoxes(image, patient, finding, (1024, 1024), boxes, {each: np.empty((0, 4)) for each in (60, 180)}, 0.0)
        for (image, finding), (patient, boxes) in references.items()
    ]
    floor = scores(floors.median_floor(cases))
    assert round(floor["IoU", 0.5, "mean"].accuracy, 3) == 0.120
    assert round(floor["IoU", 0.1, "mean"].accuracy, 3) == 0.376
    names = list(published.WANG_ACCURACY)
    assert [floor["IoU", 0.1, name].of for name in names] == [180, 146, 153, 123, 85, 79, 120, 98]
    seen = [
        localization.locate(each.image, each.patient, each.finding, each.references, _as_heatmap(each.references))
        for each in cases[::12]
    ]
    assert {row.accuracy for row in scores(seen).values()} == {1.0}


def _as_heatmap(references):
    return heatmap(*np.rint(references).astype(int), size=(1024, 1024))
