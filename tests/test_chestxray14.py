import re
import shutil

import numpy as np
import official_files as official
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from sdfn_jax.core.errors import UserError
from sdfn_jax.radiographs import pixels
from sdfn_jax.radiographs.findings import FINDINGS
from tfds_builders import base
from tfds_builders.chestxray14 import chestxray14_dataset_builder
from tfds_builders.prepare import prepare

SIZE = 16


@pytest.fixture
def download(tmp_path):
    return official.write_chestxray14(tmp_path / "download")


def prepared(download, **options):
    options = {"size": SIZE, "validation_share": 0.5, "validation_seed": 1} | options
    return prepare("chestxray14", manual_dir=download, data_dir=download.parent / "data", **options)


def read(folder):
    """Returns {split: {name: example}}."""
    source = tfds.builder_from_directory(folder).as_data_source()
    return {split: {example["name"].decode(): example for example in source[split]} for split in source}


def everything(folder):
    return {name: example for split in read(folder).values() for name, example in split.items()}


def replace(path, old, new):
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode())


def test_every_field_is_what_the_files_say(download):
    splits = read(prepared(download))
    assert set(splits["test"]) == set(official.TEST)
    examples = {name: example for split in splits.values() for name, example in split.items()}
    assert set(examples) == set(official.NAMES)
    left, top, right, bottom = official.BOX
    for index, (name, labels, follow_up, patient, _, _, sex, view) in enumerate(official.ROWS):
        example, film = examples[name], official.picture(index)
        np.testing.assert_array_equal(example["entire"], pixels.resize(film, (SIZE, SIZE)))
        np.testing.assert_array_equal(example["lung"], pixels.resize(film[top:bottom, left:right], (SIZE, SIZE)))
        assert example["entire"].dtype == np.uint8
        named = {FINDINGS[place] for place in np.flatnonzero(example["labels"])} or {"No Finding"}
        assert named == set(labels.split("|"))
        assert (example["follow_up"], example["patient"]) == (follow_up, patient)
        assert (example["sex"].decode(), example["view_position"].decode()) == (sex, view)
        assert example["image_size"].tolist() == [official.HEIGHT, official.WIDTH]
        assert example["original_size"].tolist() == [2749, 2682]
        assert example["lung_box"].tolist() == list(official.BOX)
        assert example["lung_rule"] == b"mirror"
    ages = [float(examples[name]["age"]) for name in official.NAMES]
    assert ages == pytest.approx([58, 59, 0.5, 10 / 365.25, 81, 414])
    boxes = examples[official.NAMES[5]]["reference_boxes"]
    assert np.asarray(boxes["finding"]).tolist() == [0]
    np.testing.assert_allclose(boxes["box"], [[10.5, 8.25, 30.5, 20.75]])
    # 30 + 18.6 is 0.6 outside a width of 48: rounding, clipped
    np.testing.assert_allclose(examples[official.NAMES[4]]["reference_boxes"]["box"], [[30, 20, 48, 30]])
    assert len(examples[official.NAMES[0]]["reference_boxes"]["finding"]) == 0


def test_the_v2020_table_has_its_own_labels_and_folder(download):
    old, new = prepared(download), prepared(download, label_version="v2020")
    assert (old.parent.name, new.parent.name) == ("size16_labels2017", "size16_labelsv2020")
    old, new = everything(old), everything(new)
    added = {name: np.flatnonzero(new[name]["labels"] != old[name]["labels"]).tolist() for name in official.NAMES}
    assert added == {name: [4] if name == official.NAMES[5] else [] for name in official.NAMES}
    assert [float(new[name]["age"]) for name in official.NAMES] == [57, 58, 0, 0, 81, 41]


@pytest.mark.parametrize("layout", [".", "images", "images_001/images", "train/a"])
def test_images_are_found_wherever_the_archives_put_them(tmp_path, layout):
    download = official.write_chestxray14(tmp_path / "download", images=layout)
    assert set(everything(prepared(download))) == set(official.NAMES)


def test_layouts_mix_and_a_copy_counts_once(download):
    (download / "images_001" / "images").mkdir(parents=True)
    shutil.move(download / "images" / official.NAMES[0], download / "images_001" / "images")
    shutil.copy(download / "images" / official.NAMES[1], download / official.NAMES[1])
    assert set(everything(prepared(download))) == set(official.NAMES)


def test_two_files_of_one_name_are_refused(download):
    (download / official.NAMES[1]).write_bytes(b"something else")
    with pytest.raises(UserError, match=rf"{official.NAMES[1]} is not the same file as"):
        prepared(download)


def test_a_partial_download_is_prepared_and_what_it_lacks_is_listed(tmp_path, capsys):
    download = official.write_chestxray14(tmp_path / "download", present=official.NAMES[1:5])
    (download / "images" / "thumbnail.png").touch()
    (download / "images" / f"._{official.NAMES[1]}").touch()
    folder = prepared(download)
    assert set(everything(folder)) == set(official.NAMES[1:5])
    assert [row["image"] for row in official.read_list(folder / base.MISSING_LIST)] == [
        official.NAMES[0],
        official.NAMES[5],
    ]
    said = capsys.readouterr().out
    assert re.search(r"test +1 images of 1 patients", said)
    assert re.search(r"missing +2 images", said) and re.search(r"unknown +1 PNG", said)
    first, second = said.split("left out  ")[1].splitlines()[1:3]
    assert "not a radiograph by name or content: 1, first" in first and first.endswith("v2020.csv")
    assert "written by macOS next to a file: 1, first" in second
    listed = [row["path"] for row in official.read_list(folder / base.LEFT_OUT_LIST)]
    assert listed == [f"{download}/Data_Entry_2017_v2020.csv", f"{download}/images/._{official.NAMES[1]}"]
    with pytest.raises(UserError, match=f"lacks 2 official files, first: {official.NAMES[0]}"):
        prepared(download, require_complete=True)


def test_links_to_films_and_copies_count_once_and_links_to_nothing_are_missing(download):
    (download / "images_001").mkdir()
    for name in official.NAMES[:2]:
        (download / "images_001" / name).symlink_to(download / "images" / name)
    (download / "again").symlink_to(download)
    (download / "images" / official.NAMES[2]).unlink()
    (download / "images" / official.NAMES[2]).symlink_to("/nowhere")
    folder = prepared(download)
    assert set(everything(folder)) == set(official.NAMES) - {official.NAMES[2]}
    assert [row["image"] for row in official.read_list(folder / base.MISSING_LIST)] == [official.NAMES[2]]
    reasons = [row["reason"].split(" (")[0] for row in official.read_list(folder / base.LEFT_OUT_LIST)]
    assert sorted(reasons) == [
        "a broken link",
        "a link back to a folder above it",
        "not a radiograph by name or content",
        *["reached twice"] * 2,
    ]


def test_a_folder_without_images_says_where_it_looked(tmp_path):
    download = official.write_chestxray14(tmp_path / "download", present=())
    with pytest.raises(
        UserError, match=rf"no image file named in .*looked for {official.NAMES[0]} and 5 others in"
    ) as e:
        prepared(download)
    assert str(download) in str(e.value)


def test_colour_with_equal_channels_is_grey(download):
    path = download / "images" / official.NAMES[0]
    Image.open(path).convert("RGBA").save(path)
    entire = everything(prepared(download))[official.NAMES[0]]["entire"]
    np.testing.assert_array_equal(entire, pixels.resize(official.picture(0), (SIZE, SIZE)))


def test_a_patients_side_depends_on_number_and_seed_alone(tmp_path):
    def side(seed, present, folder):
        download = official.write_chestxray14(tmp_path / folder, present=present)
        splits = read(prepared(download, validation_seed=seed, size=4))
        return {name: split for split, examples in splits.items() for name in examples}

    sides = {seed: side(seed, official.NAMES, f"all{seed}") for seed in range(6)}
    for seed, sided in sides.items():
        assert sided[official.NAMES[0]] == sided[official.NAMES[1]], "two films of one patient"
        assert all((split == "test") == (name in official.TEST) for name, split in sided.items())
        if seed < 2:
            part = side(seed, official.NAMES[1:3], f"part{seed}")
            assert part == {name: sided[name] for name in official.NAMES[1:3]}
    assert len({tuple(sided.values()) for sided in sides.values()}) > 1


def test_the_share_of_validation_is_what_was_asked_for(tmp_path):
    builder = chestxray14_dataset_builder.Builder(data_dir=tmp_path, validation_share=0.1)
    sides = [builder._drawn("validation_share", str(patient)) for patient in range(1, 30001)]
    # four standard deviations of a fair draw
    assert abs(sum(sides) / 30000 - 0.1) < 4 * (0.1 * 0.9 / 30000) ** 0.5


NAME = official.NAMES[3]
ENTRY = "Data_Entry_2017.csv"
BAD_FILES = {
    "truncated": (lambda d: cut(d / "images" / NAME), rf"{NAME}: cannot be decoded"),
    "no image": (lambda d: (d / "images" / NAME).write_text("404"), rf"{NAME}: cannot be decoded"),
    "other size": (
        lambda d: Image.fromarray(official.picture(0, 10, 20)).save(d / "images" / NAME),
        rf"{NAME}: 20 x 10 pixels, but its lung box was made from an image of 48 x 40",
    ),
    "unknown finding": (
        lambda d: replace(d / ENTRY, "Hernia|", "Hernya|"),
        r"2017.csv, row 5: unknown finding 'Hernya'",
    ),
    "no number": (
        lambda d: replace(d / ENTRY, "00000003,", "x,"),
        r"2017.csv, row 5: Patient ID is 'x', not a whole number",
    ),
    "no age": (lambda d: replace(d / ENTRY, "010D", "old"), r"2017.csv, row 5: Patient Age is 'old'"),
    "short row": (
        lambda d: replace(d / ENTRY, ",AP,2682,2749,0.143,0.143\r\n0", "\r\n0"),
        r"2017.csv, row 3: too short: no View Position, OriginalImage\[Width, Height\]",
    ),
    "second row": (
        lambda d: append(d / ENTRY, f"{NAME},Mass,000,00000003,010D,F,AP,1,1,1,1\r\n"),
        rf"2017.csv, row 8: a second row for {NAME}",
    ),
    "in no list": (lambda d: replace(d / "train_val_list.txt", NAME, ""), rf"{NAME} is in neither official list"),
    "unknown finding of a box": (
        lambda d: append(d / "BBox_List_2017.csv", f"{NAME},Massive,1,1,9,9\n"),
        r"BBox_List_2017.csv, row 4: unknown finding 'Massive'",
    ),
    "second box": (
        lambda d: append(d / "BBox_List_2017.csv", f"{NAME},Mass,1,1,9,9\n" * 2),
        rf"BBox_List_2017.csv, row 5: a second row for the same box of {NAME}",
    ),
    "box outside": (
        lambda d: append(d / "BBox_List_2017.csv", f"{NAME},Mass,40,1,9.5,9\n"),
        r"BBox_List_2017.csv, row 4: the box .* = \(40.0, 1.0, 49.5, 10.0\) is not inside its 48 x 40 image",
    ),
    "box without extent": (
        lambda d: append(d / "BBox_List_2017.csv", f"{NAME},Mass,4,1,0,9\n"),
        r"BBox_List_2017.csv, row 4: a box 0 wide",
    ),
    "no lung box": (
        lambda d: official.write_boxes(d / "lung_boxes.csv", [name for name in official.NAMES if name != NAME]),
        r"lung_boxes.csv: no lung box for",
    ),
}


def cut(path):
    path.write_bytes(path.read_bytes()[:300])


def append(path, text):
    path.write_bytes(path.read_bytes() + text.encode())


@pytest.mark.parametrize("fault", BAD_FILES)
def test_a_bad_file_is_one_clear_error_or_listed_and_left_out(download, fault):
    damage, message = BAD_FILES[fault]
    damage(download)
    with pytest.raises(UserError, match=message) as e:
        prepared(download)
    assert "--skip_bad_files" in str(e.value)
    assert not (download.parent / "data" / "chestxray14").exists()

    folder = prepared(download, skip_bad_files=True)
    bad = official.NAMES[1] if fault == "short row" else NAME
    assert set(everything(folder)) == set(official.NAMES) - {bad}
    (skipped,) = official.read_list(folder / base.SKIPPED_LIST)
    assert skipped["image"] == bad and re.search(message, skipped["reason"])
    # without the flag it is an error again, not "already prepared"
    with pytest.raises(UserError, match=message):
        prepared(download)


WRONG_TABLES = {
    "no label table": (lambda d: (d / ENTRY).unlink(), r"Data_Entry_2017.csv is missing"),
    "no box list": (lambda d: (d / "BBox_List_2017.csv").unlink(), r"BBox_List_2017.csv is missing"),
    "no test list": (lambda d: (d / "test_list.txt").unlink(), r"test_list.txt is missing"),
    "no lung boxes": (
        lambda d: (d / "lung_boxes.csv").unlink(),
        r"lung_boxes.csv; write them with python -m sdfn_jax.lrg",
    ),
    "no column": (
        lambda d: replace(d / ENTRY, "Patient ID", "Patient"),
        r"2017.csv: no column Patient ID in its first row, which is 'Image",
    ),
    "empty table": (lambda d: (d / ENTRY).write_text(""), r"2017.csv: empty; a table of this kind has Image"),
    "patient in both lists": (
        lambda d: replace(d / ENTRY, "00000005,414Y", "00000003,414Y"),
        rf"patient 3 is in both lists: {official.NAMES[3]} in train_val_list.txt, {official.NAMES[5]} in test_list.txt",
    ),
    "image in both lists": (
        lambda d: append(d / "test_list.txt", f"\n{official.NAMES[2]}"),
        r"patient 2 is in both lists",
    ),
    "lung box outside": (
        lambda d: replace(d / "lung_boxes.csv", ",6,4,42,36,", ",6,4,49,36,"),
        r"lung_boxes.csv, row 2: box .*not inside its 48 x 40 image",
    ),
    "boxes of other images": (
        lambda d: official.write_boxes(d / "lung_boxes.csv", ["a.png"]),
        rf"lung_boxes.csv: no lung box for 6 of 6 images, first: {official.NAMES[0]}, {official.NAMES[1]}, ",
    ),
}


@pytest.mark.parametrize("fault", WRONG_TABLES)
@pytest.mark.parametrize("skip", [False, True])
def test_a_wrong_table_is_an_error_in_any_case(download, fault, skip):
    damage, message = WRONG_TABLES[fault]
    damage(download)
    with pytest.raises(UserError, match=message):
        prepared(download, skip_bad_files=skip)


def test_a_set_of_bad_files_only_is_an_error(download):
    for name in official.NAMES:
        cut(download / "images" / name)
    with pytest.raises(UserError, match=rf"all 6 images are bad; {official.NAMES[0]}: .*cannot be decoded"):
        prepared(download, skip_bad_files=True)


def test_a_split_or_shard_of_bad_files_only_is_left_out(download, monkeypatch):
    monkeypatch.setattr(base, "_SHARD_BYTES", 2 * SIZE**2)  # one image a shard
    for name in (*official.TEST, official.NAMES[1]):
        cut(download / "images" / name)
    folder = prepared(download, skip_bad_files=True, validation_share=0)
    splits = read(folder)
    assert {split: list(examples) for split, examples in splits.items()} == {
        "train": [official.NAMES[0], official.NAMES[2], official.NAMES[3]]
    }


def test_the_box_list_without_trailing_commas_is_the_same(download):
    before = everything(prepared(download))
    path = download / "BBox_List_2017.csv"
    path.write_text(path.read_text().replace(",,,", ""))
    after = everything(prepared(download))
    np.testing.assert_array_equal(
        before[official.NAMES[5]]["reference_boxes"]["box"], after[official.NAMES[5]]["reference_boxes"]["box"]
    )


@pytest.mark.real
def test_the_real_files_come_through(real_data, tmp_path):
    source = real_data / "chestxray14"
    names, sizes, modes = [], {}, {}
    for path in sorted((source / "images").glob("*.png")):
        with Image.open(path) as film:
            names.append(path.name)
            sizes[path.name], modes[path.name] = film.size, film.mode
    rows = [official.BoxRow(name, *sizes[name], 0, 0, *sizes[name], "whole_image", 0.0, "none") for name in names]
    official.write_box_table(tmp_path / "boxes.csv", rows)
    folder = prepare("chestxray14", manual_dir=source, data_dir=tmp_path, size=64, boxes=tmp_path / "boxes.csv")
    splits = read(folder)
    assert len(splits["test"]) == 47
    assert len(splits["train"]) + len(splits["validation"]) == 277
    examples = {name: example for split in splits.values() for name, example in split.items()}
    assert sorted(examples) == names
    patients = [{int(example["patient"]) for example in split.values()} for split in splits.values()]
    assert sum(map(len, patients)) == len(set().union(*patients)) == 306
    assert len(official.read_list(folder / base.MISSING_LIST)) == 111796
    assert not official.read_list(folder / base.SKIPPED_LIST)
    assert_labels_as_in(source / "Data_Entry_2017.csv", examples)
    colour = [name for name in names if modes[name] == "RGBA"]
    assert len(colour) == 5
    for name in colour:
        with Image.open(source / "images" / name) as film:
            grey = np.asarray(film.getchannel("R"))
        np.testing.assert_array_equal(examples[name]["entire"], pixels.resize(grey, (64, 64)))
    boxes = [line.split(",")[0] for line in (source / "BBox_List_2017.csv").read_text().splitlines()]
    assert sum(len(e["reference_boxes"]["finding"]) for e in examples.values()) == sum(n in examples for n in boxes) > 0


@pytest.mark.real
def test_the_real_v2020_labels(real_data, tmp_path):
    """On the test list, where the versions differ."""
    source, download = real_data / "chestxray14", tmp_path / "download"
    download.mkdir()
    test = set((source / "test_list.txt").read_text().split())
    names = sorted(test & {path.name for path in (source / "images").iterdir()})
    for path in [*(source / "images" / name for name in names), *source.glob("*.csv"), *source.glob("*.txt")]:
        (download / path.name).symlink_to(path)
    rows = [official.BoxRow(name, 1024, 1024, 0, 0, 1024, 1024, "whole_image", 0.0, "none") for name in names]
    official.write_box_table(download / "lung_boxes.csv", rows)
    examples = everything(
        prepare("chestxray14", manual_dir=download, data_dir=tmp_path / "data", size=8, label_version="v2020")
    )
    assert sorted(examples) == names
    assert_labels_as_in(source / "Data_Entry_2017_v2020.csv", examples)


def assert_labels_as_in(table, examples):
    """The table read by its first columns alone, not by the builder."""
    lines = [line.split(",") for line in table.read_text().splitlines() if line[:16] in examples]
    assert {line[0]: int(line[3]) for line in lines} == {name: e["patient"] for name, e in examples.items()}
    for line in lines:
        named = [FINDINGS[place] for place in np.flatnonzero(examples[line[0]]["labels"])]
        assert set(named) == set(line[1].split("|")) - {"No Finding"}
