"""Are heatmaps about the network? The checks, against loops and against a network whose one pixel is known."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from configs import fusion
from sdfn_jax.core import sealed
from sdfn_jax.heatmaps import boxed_run, check_results, checks, faithfulness
from sdfn_jax.models.initial import initial_variables
from sdfn_jax.training import tasks


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_the_rank_correlation_is_scipys(rng):
    one, other = rng.integers(0, 9, (2, 6, 5))  # with ties
    assert faithfulness.rank_correlation(one, other) == pytest.approx(spearmanr(one.ravel(), other.ravel()).statistic)
    assert faithfulness.rank_correlation(one, one * 3 - 7) == pytest.approx(1)
    assert faithfulness.rank_correlation(one, np.ones((6, 5))) == 0


def test_the_control_has_the_same_values_elsewhere(rng):
    maps = {"entire": rng.normal(size=(7, 7)), "lung": rng.normal(size=(5, 4))}
    control = faithfulness.shuffled(maps, rng)
    for branch, each in maps.items():
        assert control[branch].shape == each.shape
        np.testing.assert_array_equal(np.sort(control[branch], axis=None), np.sort(each, axis=None))
        assert (control[branch] != each).any()


def test_the_hottest_pixels_are_the_same_places_in_both_images(rng):
    heatmap = rng.permutation(40 * 60).reshape(40, 60).astype(float)  # no ties
    left, top, right, bottom = box = (12, 8, 52, 32)
    chosen = faithfulness.hottest(heatmap, box, {"entire": 20, "lung": 8})
    entire = [[heatmap[int((y + 0.5) * 2), int((x + 0.5) * 3)] for x in range(20)] for y in range(20)]
    lung = [[heatmap[top + int((y + 0.5) * 3), left + int((x + 0.5) * 5)] for x in range(8)] for y in range(8)]
    order = sorted(np.ravel(entire), reverse=True)
    for number in range(1, 10):
        coldest = order[40 * number - 1]
        assert chosen["entire"][number].sum() == 40 * number
        np.testing.assert_array_equal(chosen["entire"][number], np.array(entire) >= coldest)
        np.testing.assert_array_equal(chosen["lung"][number], np.array(lung) >= coldest)
    for each in chosen.values():
        assert not each[0].any() and each[-1].all()


def test_a_network_of_the_lung_region_is_asked_about_the_lung_region():
    heatmap = np.zeros((40, 40))
    heatmap[10:30, 10:30] = np.arange(400).reshape(20, 20) + 1
    chosen = faithfulness.hottest(heatmap, (10, 10, 30, 30), {"lung": 20})
    np.testing.assert_array_equal(chosen["lung"].sum(axis=(1, 2)), np.arange(11) * 40)


def test_deletion_greys_out_what_insertion_shows(rng):
    image, chosen = rng.integers(0, 256, (4, 4), dtype=np.uint8), rng.random((11, 4, 4)) < 0.5
    deleted, inserted = np.split(faithfulness.altered(image, chosen), 2)
    grey = round(image.mean())
    for fraction, y, x in np.ndindex(11, 4, 4):
        shown, hidden = (image[y, x], grey) if chosen[fraction, y, x] else (grey, image[y, x])
        assert (deleted[fraction, y, x], inserted[fraction, y, x]) == (hidden, shown)
    assert deleted.dtype == np.uint8


def test_the_area_is_the_trapezoids(rng):
    curve = rng.random((3, 11))
    expected = [sum((row[k] + row[k + 1]) / 2 * 0.1 for k in range(10)) for row in curve]
    np.testing.assert_allclose(faithfulness.area(curve), expected)


# A fusion network that sees one bright square of the radiograph, and nothing else.
BOX, SQUARE, FINDING = (16, 16, 80, 80), (40, 24), 4  # (left, top) of the square's 16 x 16 pixels


def _square_network():
    """A radiograph of 96 x 96 pixels; the lung region's image shows the box at the same scale."""
    radiograph = np.full((96, 96), 60, np.uint8)
    radiograph[SQUARE[1] : SQUARE[1] + 16, SQUARE[0] : SQUARE[0] + 16] = 250
    example = {"entire": radiograph, "lung": radiograph[16:80, 16:80]}
    config = fusion.get_config("demo")
    return boxed_run.BoxedRun(config, [{}], [example], {})


def _square_probabilities(images):
    entire = images["entire"][:, SQUARE[1] : SQUARE[1] + 16, SQUARE[0] : SQUARE[0] + 16].mean((1, 2))
    lung = images["lung"][:, SQUARE[1] - 16 : SQUARE[1], SQUARE[0] - 16 : SQUARE[0]].mean((1, 2))
    found = np.zeros((len(entire), 14))
    found[:, FINDING] = (entire + lung) / 500
    return found


@pytest.mark.parametrize("sees", [True, False])
def test_a_faithful_heatmap_beats_chance_and_its_opposite_does_not(monkeypatch, sees):
    monkeypatch.setattr(checks, "_probabilities", lambda network: _square_probabilities)
    maps = {"entire": np.zeros((6, 6, 14), np.float32), "lung": np.zeros((4, 4, 14), np.float32)}
    maps["entire"][1:3, 2:4, FINDING] = maps["lung"][0:2, 1:3, FINDING] = 1 if sees else -1
    case = checks._Case(0, FINDING, 1, (96, 96), BOX, np.zeros((1, 4)))
    curves = checks.probability_curves(_square_network(), [case] * 8, [maps], "mean")
    assert curves.shape == (8, 2, 2, 11)
    deletion, insertion = curves[:, :, 0], curves[:, :, 1]
    np.testing.assert_allclose(deletion[..., 0], 1)  # nothing deleted, everything inserted
    np.testing.assert_allclose(insertion[..., -1], 1)
    np.testing.assert_array_equal(deletion[..., -1], insertion[..., 0])  # all grey
    difference = faithfulness.area(curves).mean(0) @ [1, 0], faithfulness.area(curves).mean(0) @ [0, 1]
    assert (difference[0][0] < difference[0][1]) == sees
    assert (difference[1][0] > difference[1][1]) == sees


@pytest.mark.parametrize("seed", [0, (0, 2)])  # a head that training has moved little is no random one
def test_random_weights_are_not_the_trainings_own_first_ones_and_replace_the_part_they_are_named_after(seed):
    config = fusion.get_config("demo")
    task = tasks.classification(config)
    trained = initial_variables(task.model, seed, task.inputs, train=False)
    found = checks.randomised_variables(boxed_run.BoxedRun(config, [trained], [], {}))
    assert list(found) == ["head", "branches", "all"]

    def same(part, branch):
        mine, theirs = (each["params"][branch] for each in (found[part], trained))
        mine, theirs = (each if branch == "head" else each["conv0"] for each in (mine, theirs))
        return np.array_equal(mine["kernel"], theirs["kernel"])

    assert [same(part, "head") for part in found] == [False, True, False]
    for branch in ("entire", "lung"):
        assert [same(part, branch) for part in found] == [True, False, False]


def _found():
    one = check_results.CaseMean(0.25, 0.125, 0.5)
    return check_results.Checks(
        cases=3,
        rules={"mean": (one, one)},
        randomised={"head": one, "all": dataclasses.replace(one, mean=-0.75)},
        curves=dict.fromkeys(check_results.CURVES, np.tile(np.linspace(0, 1, 11), (2, 1))),
        areas=dict.fromkeys(check_results.CURVES, (one, one, one)),
    )


def test_the_table_says_what_is_better_and_whose_rule_it_is():
    text = check_results.table(_found(), {"method": "fusion, cam", "outside": "mean"})
    for part in ("3 findings", "0.250  [0.125, 0.500]", "The paper does not say", "below 0: better", "above 0: better"):
        assert part in text
    assert "-0.750" in text


def test_the_record_and_the_figure(tmp_path):
    check_results.write(tmp_path, _found(), {"method": "fusion, cam", "drawings": True})
    record = sealed.read(tmp_path / check_results.CHECKS_FILE, {"method": sealed.TEXT}, "the checks", "check again")
    assert record["rules"]["mean"][1] == {"mean": 0.25, "low": 0.125, "high": 0.5}
    assert np.shape(record["curves"]["deletion"]) == (2, len(record["fractions"]))
    with Image.open(tmp_path / check_results.CHECKS_FIGURE) as image:
        assert image.format == "PNG"


def test_the_record_is_read_as_it_was_written(tmp_path):
    check_results.write(tmp_path, _found(), {"checkpoint": "c0ffee", "outside": "mean", "drawings": False})
    found, record = check_results.read(tmp_path)
    np.testing.assert_array_equal(found.curves.pop("deletion"), _found().curves["deletion"])
    del found.curves["insertion"]
    assert dataclasses.replace(_found(), curves={}) == found
    assert record["checkpoint"] == "c0ffee"
    sealed.write(tmp_path / check_results.CHECKS_FILE, record | {"rules": {"mean": [{"mean": 1}]}})
    with pytest.raises(sealed.DamagedError, match=r"heatmap_checks.json: not the record .*; check again"):
        check_results.read(tmp_path)
