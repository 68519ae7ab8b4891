"""The synthetic radiographs, and their files read back with nothing of this package."""

import csv
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from skimage.measure import label, regionprops

from sdfn_jax.core import sealed
from sdfn_jax.core.errors import UserError
from sdfn_jax.radiographs import synthetic_dataset
from sdfn_jax.radiographs.findings import FINDINGS, NO_FINDING
from sdfn_jax.radiographs.synthetic_dataset import chestxray14_films, jsrt_films, write_chestxray14, write_jsrt
from sdfn_jax.radiographs.synthetic_film import draw

HEADER = (
    b"Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    b"OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
CHEST = {"films": 24, "seed": 7, "test_share": 0.3}


@pytest.fixture(scope="module")
def jsrt(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "jsrt"
    return folder, write_jsrt(folder, films=4, seed=1)


@pytest.fixture(scope="module")
def chest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "chestxray14"
    return folder, write_chestxray14(folder, **CHEST)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Drawing


def test_a_changed_drawing_has_a_new_version():
    """If this fails because films are drawn otherwise on purpose, raise DRAWING_VERSION and put the new values here."""
    film = draw(np.random.default_rng(0), FINDINGS)
    # Means of 256 x 256 pixels; a pixel that another processor rounds otherwise changes one by 0.00002.
    means = film.image.reshape(4, 256, 4, 256).mean((1, 3))
    assert synthetic_dataset.DRAWING_VERSION == 1
    assert means == pytest.approx(
        np.array(
            [
                [41.753, 70.490, 123.191, 27.182],
                [113.540, 180.741, 151.534, 95.971],
                [140.537, 203.037, 199.505, 100.125],
                [153.777, 224.030, 221.658, 129.439],
            ]
        ),
        abs=0.002,
    )
    assert (film.left_lung.sum(), film.right_lung.sum()) == pytest.approx((104522, 150472), abs=20)
    assert film.boxes["Cardiomegaly"] == (338, 432, 796, 792)


@pytest.mark.parametrize("finding", FINDINGS)
def test_a_finding_changes_its_box_and_little_else(finding):
    for seed in (3, 4):
        without = draw(np.random.default_rng(seed), []).image.astype(int)
        drawn = draw(np.random.default_rng(seed), [finding])
        assert list(drawn.boxes) == [finding]
        left, top, right, bottom = drawn.boxes[finding]
        assert 0 <= left < right <= 1024 and 0 <= top < bottom <= 1024
        change = np.abs(drawn.image - without)
        inside = change[top:bottom, left:right]
        outside = (change.sum() - inside.sum()) / (change.size - inside.size)
        assert inside.mean() > 8
        # Atelectasis also raises the diaphragm below its box.
        assert inside.mean() > (4 if finding == "Atelectasis" else 15) * outside
        if finding != "Atelectasis":
            assert inside.sum() > 0.8 * change.sum()


def test_sizes_of_the_findings_that_are_known_by_their_size():
    def extent(finding, seed):
        left, top, right, bottom = draw(np.random.default_rng(seed), [finding]).boxes[finding]
        return max(right - left, bottom - top)

    nodules, masses = ([extent(name, seed) for seed in range(5)] for name in ("Nodule", "Mass"))
    assert max(nodules) < 100 < min(masses)


@pytest.mark.parametrize("seed", range(6))
def test_two_lungs_darker_than_what_is_between_them(seed):
    drawn = draw(np.random.default_rng(seed), [])
    lungs = [drawn.left_lung, drawn.right_lung]
    assert all(mask.dtype == bool and mask.shape == (1024, 1024) for mask in lungs)
    assert label(lungs[0] | lungs[1]).max() == 2
    (left,), (right,) = (regionprops(mask.astype(np.uint8)) for mask in lungs)
    assert left.centroid[1] > right.centroid[1] + 200
    assert 1 / 3 < left.area / right.area < 3
    assert 0.15 < (left.area + right.area) / 1024**2 < 0.5
    top, bottom = int(right.centroid[0]) - 50, int(right.centroid[0]) + 50
    inner, outer = right.bbox[3], left.bbox[1]
    between = drawn.image[top:bottom, inner:outer]
    assert between.mean() > drawn.image[lungs[0] | lungs[1]].mean() + 40


def test_lung_fields_stay_whole_where_a_finding_hides_them():
    healthy, hidden = (draw(np.random.default_rng(2), names) for names in ([], ["Effusion", "Consolidation"]))
    np.testing.assert_array_equal(healthy.left_lung, hidden.left_lung)
    np.testing.assert_array_equal(healthy.right_lung, hidden.right_lung)


@pytest.mark.parametrize("seed", [12, 29, 45, 85])
def test_moved_outlines_leave_no_loose_bits(seed):
    drawn = draw(np.random.default_rng([9, seed]), ["Cardiomegaly", "Atelectasis"])
    assert label(drawn.left_lung | drawn.right_lung).max() == 2


def test_a_film_has_every_finding_it_is_asked_for_in_any_order():
    drawn = draw(np.random.default_rng(0), FINDINGS)
    assert set(drawn.boxes) == set(FINDINGS)
    np.testing.assert_array_equal(drawn.image, draw(np.random.default_rng(0), FINDINGS[::-1]).image)
    assert (drawn.image != draw(np.random.default_rng(1), FINDINGS).image).mean() > 0.5


def test_films_vary_in_place_size_and_exposure():
    masks, means = [], []
    for seed in range(8):
        drawn = draw(np.random.default_rng(seed), [])
        masks.append(drawn.left_lung | drawn.right_lung)
        means.append(drawn.image.mean())
    share = np.mean(masks, axis=0)
    assert ((share > 0.2) & (share < 0.8)).sum() > 0.15 * (share > 0.5).sum()  # a fixed shape would not do
    assert np.ptp(means) > 15


def test_unknown_finding():
    with pytest.raises(ValueError, match="unknown finding 'Fracture'"):
        draw(np.random.default_rng(0), ["Fracture"])


def test_drawing_needs_no_jax():
    command = "import sys, sdfn_jax.radiographs.synthetic_dataset; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command], check=False).returncode == 0


# JSRT format


def test_jsrt_images(jsrt):
    folder, films = jsrt
    assert [film.name for film in films] == ["JPCLN001", "JPCLN002", "JPCNN001", "JPCNN002"]
    assert [film.findings for film in films] == [("Nodule",), ("Nodule",), (), ()]
    assert sorted(path.stem for path in folder.rglob("*.IMG")) == [film.name for film in films]
    for film in films:
        path = folder / f"{film.name}.IMG"
        assert path.stat().st_size == 8_388_608
        pixels = np.fromfile(path, ">u2").reshape(2048, 2048)
        assert 3500 < pixels.max() <= 4095
        # High is dark: each 2 x 2 pixels, inverted, are one pixel of the drawing.
        bright = (4095 - pixels.astype(int)).reshape(1024, 2, 1024, 2).mean((1, 3)) / 16
        assert np.abs(bright - film.draw().image).mean() < 2


def test_scr_masks(jsrt):
    folder, films = jsrt
    assert len(list(folder.rglob("*.gif"))) == 2 * len(films)
    for film in films:
        fold = "fold1" if film.name.endswith("1") else "fold2"
        drawn = film.draw()
        for lung, mask in (("left lung", drawn.left_lung), ("right lung", drawn.right_lung)):
            with Image.open(folder / fold / "masks" / lung / f"{film.name}.gif") as image:
                assert image.format == "GIF"
                np.testing.assert_array_equal(np.asarray(image), np.where(mask, 255, 0))


def test_jsrt_share_of_films_with_a_nodule_is_the_official_one():
    films = jsrt_films(247, seed=0)
    assert [film.name[:5] for film in films].count("JPCLN") == 154
    assert films[-1].name == "JPCNN093"
    with pytest.raises(ValueError, match="at least 2"):
        jsrt_films(1, seed=0)


# ChestX-ray14 format


def test_chestxray14_images(chest):
    folder, films = chest
    assert sorted(path.name for path in folder.iterdir()) == [
        "BBox_List_2017.csv",
        "Data_Entry_2017.csv",
        "Data_Entry_2017_v2020.csv",
        "images",
        "synthetic.json",
        "test_list.txt",
        "train_val_list.txt",
    ]
    assert sorted(path.name for path in (folder / "images").iterdir()) == [f"{film.name}.png" for film in films]
    modes = []
    for film in films[:6]:
        with Image.open(folder / "images" / f"{film.name}.png") as image:
            modes.append(image.mode)
            pixels = np.asarray(image)
        if image.mode == "RGBA":
            assert (pixels[..., 3] == 255).all()
            assert (pixels[..., :3] == pixels[..., :1]).all()
            pixels = pixels[..., 0]
        np.testing.assert_array_equal(pixels, film.draw().image)
    assert modes.count("RGBA") == 1 and modes.count("L") == 5


def test_table_of_2017(chest):
    folder, films = chest
    data = (folder / "Data_Entry_2017.csv").read_bytes()
    lines = data.split(b"\r\n")
    assert b"\n" not in b"".join(lines)
    assert lines[0] == HEADER + b","
    assert lines[-1] == b""
    table = rows(folder / "Data_Entry_2017.csv")[1:]
    assert [row[0] for row in table] == [f"{film.name}.png" for film in films]
    units = set()
    for row, film in zip(table, films, strict=True):
        assert len(row) == 11
        assert row[1] == ("|".join(film.labels_2017) or NO_FINDING)
        assert row[0] == f"{row[3]}_{row[2]}.png"
        assert len(row[2]) == 3 and len(row[3]) == 8
        assert len(row[4]) == 4 and 0 <= int(row[4][:3]) <= 95
        units.add(row[4][3])
        assert row[5] in "MF" and row[6] in ("PA", "AP")
        assert int(row[7]) > 1024 and int(row[8]) > 1024
        assert row[9] == row[10] and 0.1 < float(row[9]) < 0.2
    assert units == {"Y", "M", "D"}


def test_table_of_v2020(chest):
    folder, films = chest
    data = (folder / "Data_Entry_2017_v2020.csv").read_bytes()
    assert data.startswith(HEADER + b"\n") and b"\r" not in data
    table = rows(folder / "Data_Entry_2017_v2020.csv")[1:]
    for row, old, film in zip(table, rows(folder / "Data_Entry_2017.csv")[1:], films, strict=True):
        assert row[0] == old[0] and row[5:9] == old[5:9]
        assert row[1] == ("|".join(film.findings) or NO_FINDING)
        assert (row[2], row[3]) == (str(film.follow_up), str(film.patient))
        years = int(old[4][:3]) // {"Y": 1, "M": 12, "D": 365}[old[4][3]]
        assert row[4] == str(years)
        assert float(row[9]) == pytest.approx(float(old[9]))


def test_lists_share_no_patient_and_name_every_film_once(chest):
    folder, films = chest
    names = {}
    for name in ("train_val_list.txt", "test_list.txt"):
        data = (folder / name).read_bytes()
        assert not data.endswith(b"\n") and b"\r" not in data
        names[name] = data.decode().split("\n")
    assert sorted(names["train_val_list.txt"] + names["test_list.txt"]) == [f"{film.name}.png" for film in films]
    patients = [{name[:8] for name in part} for part in names.values()]
    assert patients[0] and patients[1] and not patients[0] & patients[1]
    assert 0.3 * 24 <= len(names["test_list.txt"]) <= 0.3 * 24 + 3


def test_boxes_are_those_of_the_test_films(chest):
    folder, films = chest
    header, *table = rows(folder / "BBox_List_2017.csv")
    assert (folder / "BBox_List_2017.csv").read_bytes().startswith(b"Image Index,Finding Label,Bbox [x,y,w,h],,,\n")
    assert len(header) == 9
    boxes = {(row[0], row[1].replace("Infiltrate", "Infiltration")): row[2:] for row in table}
    assert {row[1] for row in table} <= {
        "Atelectasis", "Cardiomegaly", "Effusion", "Infiltrate", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    }  # fmt: skip
    expected = {}
    for film in films:
        if film.test:
            for name, box in film.draw().boxes.items():
                if name in synthetic_dataset.BOXED_FINDINGS:
                    expected[f"{film.name}.png", name] = box
    assert boxes.keys() == expected.keys() and len(boxes) == len(table) > 3
    for key, (left, top, right, bottom) in expected.items():
        x, y, width, height = map(float, boxes[key])
        assert all("." in number for number in boxes[key])
        assert (x, y, x + width, y + height) == (left, top, right, bottom)


def test_label_versions_differ_as_officially_and_every_finding_is_everywhere():
    films = chestxray14_films(400, seed=0, test_share=0.25)
    assert len(films) == 400 and len({film.name for film in films}) == 400
    assert max(film.follow_up for film in films) == 3
    lost = 0
    for film in films:
        missing = set(film.findings) - set(film.labels_2017)
        assert set(film.labels_2017) <= set(film.findings)
        assert not missing or film.test
        assert missing <= set(synthetic_dataset.BOXED_FINDINGS)
        lost += len(missing)
    assert 1 <= lost <= 25
    test = [film for film in films if film.test]
    assert 100 <= len(test) <= 103
    for name in FINDINGS:
        assert sum(name in film.labels_2017 for film in test) >= 5
        assert sum(name in film.findings for film in films if not film.test) >= 20
    assert 0.15 < np.mean([not film.findings for film in films]) < 0.35
    assert max(len(film.findings) for film in films) == 3


@pytest.mark.parametrize(
    ("films", "test_share", "message"), [(7, 0.5, "films is 7"), (9, 0, "test_share is 0"), (9, 1, "test_share is 1")]
)
def test_impossible_requests(films, test_share, message):
    with pytest.raises(ValueError, match=message):
        chestxray14_films(films, 0, test_share)


def test_the_smallest_set_has_both_lists():
    for seed in range(50):
        assert {film.test for film in chestxray14_films(8, seed, 0.9)} == {False, True}


# Writing


def test_same_seed_same_bytes_and_another_seed_others(chest, tmp_path):
    write_chestxray14(tmp_path / "again", **CHEST)
    assert tree(tmp_path / "again") == tree(chest[0])
    assert chestxray14_films(24, 8, 0.3) != chest[1]


def test_drawn_once_and_again_for_other_settings(tmp_path):
    folder = tmp_path / "new" / "jsrt"
    write_jsrt(folder, films=2, seed=0)
    first = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write_jsrt(folder, films=2, seed=0) == jsrt_films(2, seed=0)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == first
    former = (folder / "JPCLN001.IMG").read_bytes()
    write_jsrt(folder, films=2, seed=1)
    assert (folder / "JPCLN001.IMG").read_bytes() != former
    assert list(folder.parent.iterdir()) == [folder]


def test_an_older_version_is_drawn_again(tmp_path, monkeypatch):
    folder = tmp_path / "jsrt"
    write_jsrt(folder, films=2, seed=0)
    first = (folder / "JPCLN001.IMG").stat().st_ino
    write_jsrt(folder, films=2, seed=0)
    assert (folder / "JPCLN001.IMG").stat().st_ino == first
    monkeypatch.setattr(synthetic_dataset, "DRAWING_VERSION", 2)
    write_jsrt(folder, films=2, seed=0)
    assert (folder / "JPCLN001.IMG").stat().st_ino != first
    assert synthetic_dataset.read_settings(folder, {"films": 0})["version"] == 2


def test_a_folder_that_version_0_1_0_drew_is_used_as_it_is(tmp_path):
    folder = tmp_path / "jsrt"
    write_jsrt(folder, films=2, seed=0)
    (folder / "synthetic.json").unlink()
    sealed.write(folder / "phantom.json", {"format": "jsrt", "films": 2, "seed": 0, "code": ["a" * 64, "b" * 64]})
    before = tree(folder)
    assert synthetic_dataset.is_synthetic(folder)
    write_jsrt(folder, films=2, seed=0)
    assert tree(folder) == before
    write_jsrt(folder, films=2, seed=1)
    assert sorted(path.name for path in folder.iterdir() if path.is_file() and path.suffix == ".json") == [
        "synthetic.json"
    ]


def test_a_failure_leaves_what_was_there_and_no_rubbish(tmp_path, monkeypatch):
    folder = tmp_path / "jsrt"
    write_jsrt(folder, films=2, seed=0)
    before = tree(folder)

    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr(synthetic_dataset, "_write_jsrt_film", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_jsrt(folder, films=3, seed=0)
    assert tree(folder) == before
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "JPCLN001.IMG").write_bytes(b"real")
    with pytest.raises(UserError, match=str(tmp_path)):
        write_jsrt(tmp_path, films=2, seed=0)
    assert (tmp_path / "JPCLN001.IMG").read_bytes() == b"real"
