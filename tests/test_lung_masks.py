"""jsrt and montgomery: films with lung masks."""

import io
import re
import shutil
from pathlib import Path

import numpy as np
import official_files as official
import pytest
import tensorflow_datasets as tfds
from PIL import Image, ImageChops

from sdfn_jax.core.errors import UserError
from sdfn_jax.radiographs import pixels, reader
from tfds_builders import base
from tfds_builders.prepare import prepare

SIZE = 16


def read(folder):
    """Returns {split: {name: example}}, the original mask as an array."""
    builder = tfds.builder_from_directory(folder)
    source = builder.as_data_source(decoders={"mask_original": tfds.decode.SkipDecoding()})
    splits = {split: {example["name"].decode(): example for example in source[split]} for split in source}
    for examples in splits.values():
        for example in examples.values():
            png = example["mask_original"]
            example["mask_original"] = np.asarray(Image.open(io.BytesIO(png)))
    return splits


def everything(folder):
    return {name: example for split in read(folder).values() for name, example in split.items()}


def run(name, download, **options):
    return prepare(name, manual_dir=download, data_dir=download.parent / "data", size=SIZE, **options)


def left_out(folder):
    return {Path(row["path"]).name: row["reason"] for row in official.read_list(folder / base.LEFT_OUT_LIST)}


def write_scr(folder, name, mask_folders=("left lung", "right lung"), side=64, suffix=".gif", scale=255):
    number = int(name[-3:])
    for mask, lung in zip(official.lung_masks(side, side), mask_folders, strict=True):
        path = folder / ("fold1" if number % 2 else "fold2") / "masks" / lung
        path.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask // 255 * np.uint8(scale)).save(path / f"{name}{suffix}")


def write_film(folder, name, side=128):
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(official.picture(int(name[-3:]), side, side)).save(folder / f"{name}.png")


@pytest.fixture
def jsrt(tmp_path):
    """PNG copies and SCR's folders, as `scratch.zip` unpacks."""
    folder = tmp_path / "download"
    for name in ("JPCLN001", "JPCLN002", "JPCNN006", "JPCNN093"):
        write_film(folder / "png", name)
        write_scr(folder / "scratch", name)
    (folder / "scratch" / "fold1" / "masks" / "heart").mkdir()
    for name in ("JPCLN001", "JPCLN002"):
        shutil.copy(
            folder / "scratch" / "fold1" / "masks" / "left lung" / "JPCLN001.gif",
            folder / "scratch" / "fold1" / "masks" / "heart" / f"{name}.gif",
        )
    return folder


@pytest.fixture
def montgomery(tmp_path):
    return official.write_montgomery(tmp_path / "download", (1, 2, 6))


def test_official_jsrt_files_are_read(tmp_path):
    dark = np.tile(np.linspace(0, 4095, 2048).astype(">u2"), (2048, 1))  # dark towards the right
    download = tmp_path / "download"
    download.mkdir()
    (download / "JPCLN008.IMG").write_bytes(dark.tobytes())
    write_scr(download, "JPCLN008", side=1024)
    examples = read(run("jsrt", download))
    assert list(examples) == ["fold_3"]
    example = examples["fold_3"]["JPCLN008"]
    assert example["image_size"].tolist() == [2048, 2048]
    assert example["image"][:, 0].min() > 240 and example["image"][:, -1].max() < 15
    left, right = official.lung_masks(1024, 1024)
    np.testing.assert_array_equal(example["mask_original"], left | right)
    np.testing.assert_array_equal(example["mask"], pixels.resize(left | right, (SIZE, SIZE)))


def test_png_copies_and_their_folds(jsrt):
    splits = read(run("jsrt", jsrt))
    assert {split: sorted(examples) for split, examples in splits.items()} == {
        "fold_1": ["JPCLN001", "JPCNN006"],
        "fold_2": ["JPCLN002"],
        "fold_3": ["JPCNN093"],
    }
    for examples in splits.values():
        for name, example in examples.items():
            film = official.picture(int(name[-3:]), 128, 128)
            np.testing.assert_array_equal(example["image"], pixels.resize(film, (SIZE, SIZE)))


@pytest.mark.parametrize("scale", [1, 255])
@pytest.mark.parametrize("folders", [("left_lung", "right_lung"), ("Left Lung", "Right Lung")])
def test_copies_of_the_masks_are_found_and_scaled(tmp_path, folders, scale):
    download = tmp_path / "download"
    write_film(download, "JPCLN001")
    write_scr(download, "JPCLN001", folders, suffix=".png", scale=scale)
    mask = everything(run("jsrt", download))["JPCLN001"]["mask_original"]
    np.testing.assert_array_equal(mask, np.maximum(*official.lung_masks(64, 64)))


@pytest.mark.parametrize("place", ["masks/JPCLN001.png", "JPCLN001msk.png"])
def test_one_mask_of_both_lungs_will_do(tmp_path, place):
    download = tmp_path / "download"
    write_film(download, "JPCLN001")
    both = np.maximum(*official.lung_masks(64, 64))
    (download / place).parent.mkdir(exist_ok=True)
    Image.fromarray(both).save(download / place)
    np.testing.assert_array_equal(everything(run("jsrt", download))["JPCLN001"]["mask_original"], both)


def test_what_a_partial_jsrt_lacks_is_listed(jsrt):
    (jsrt / "scratch" / "fold2" / "masks" / "right lung" / "JPCLN002.gif").unlink()
    folder = run("jsrt", jsrt)
    assert "JPCLN002" not in everything(folder)
    missing = official.read_list(folder / base.MISSING_LIST)
    assert [row["missing"] for row in missing if row["image"] == "JPCLN002"] == ["right lung mask"]
    assert len({row["image"] for row in missing}) == 247 - 3
    assert tfds.builder_from_directory(folder).info.metadata["missing"] == 247 - 3
    with pytest.raises(UserError, match="official files, first: JPCLN002"):
        run("jsrt", jsrt, require_complete=True)


@pytest.mark.parametrize("inside", [False, True])
def test_montgomery_is_found_in_its_folder_or_next_to_it(montgomery, inside):
    folder = run("montgomery", montgomery / "MontgomerySet" if inside else montgomery)
    splits = read(folder)
    assert {split: sorted(examples) for split, examples in splits.items()} == {
        "fold_1": ["MCUCXR_0001_0", "MCUCXR_0006_0"],
        "fold_2": ["MCUCXR_0002_0"],
    }
    example = splits["fold_2"]["MCUCXR_0002_0"]
    np.testing.assert_array_equal(example["image"], pixels.resize(official.picture(2), (SIZE, SIZE)))
    both = np.maximum(*official.lung_masks(official.HEIGHT, official.WIDTH))
    np.testing.assert_array_equal(example["mask_original"], both)
    assert example["image_size"].tolist() == [official.HEIGHT, official.WIDTH]
    assert len({row["image"] for row in official.read_list(folder / base.MISSING_LIST)}) == 138 - 3


@pytest.mark.parametrize("name", ["jsrt", "montgomery"])
def test_an_empty_folder_says_where_it_looked(tmp_path, name):
    (tmp_path / "download").mkdir()
    with pytest.raises(UserError, match=r"no radiograph with its lung masks was found in .*found 0 radiographs") as e:
        run(name, tmp_path / "download")
    assert str(tmp_path / "download") in str(e.value)


def assert_refused_or_left_out(name, download, bad, message):
    with pytest.raises(UserError, match=message):
        run(name, download)
    folder = run(name, download, skip_bad_files=True)
    assert bad not in everything(folder)
    (skipped,) = official.read_list(folder / base.SKIPPED_LIST)
    assert skipped["image"] == bad and re.search(message, skipped["reason"])


def test_a_jsrt_file_of_the_wrong_size(jsrt):
    (jsrt / "png" / "JPCLN001.png").unlink()
    (jsrt / "JPCLN001.IMG").write_bytes(bytes(2048 * 2048))
    assert_refused_or_left_out("jsrt", jsrt, "JPCLN001", r"JPCLN001.IMG: 4194304 bytes; a JSRT .IMG has 8388608")


def test_two_films_of_one_name(jsrt):
    Image.fromarray(official.picture(0, 128, 128)).save(jsrt / "JPCLN001.png")
    assert_refused_or_left_out(
        "jsrt", jsrt, "JPCLN001", r"png/JPCLN001.png: a second radiograph of JPCLN001, next to .*download/JPCLN001.png"
    )


def test_a_jsrt_mask_of_another_shape(jsrt):
    Image.fromarray(np.full((64, 60), 255, np.uint8)).save(jsrt / "scratch/fold1/masks/left lung/JPCLN001.gif")
    assert_refused_or_left_out(
        "jsrt",
        jsrt,
        "JPCLN001",
        r"left lung/JPCLN001.gif: a mask of 60 x 64 pixels does not fit .*JPCLN001.png with 128",
    )


def test_masks_of_two_sizes(jsrt):
    Image.fromarray(official.lung_masks(32, 32)[1]).save(jsrt / "scratch/fold1/masks/right lung/JPCLN001.gif")
    assert_refused_or_left_out(
        "jsrt",
        jsrt,
        "JPCLN001",
        r"right lung/JPCLN001.gif: a mask of 32 x 32 pixels does not fit .*left lung.* 64 x 64",
    )


def test_a_montgomery_mask_of_another_size(montgomery):
    Image.fromarray(np.full((80, 96), 255, np.uint8)).save(
        montgomery / "MontgomerySet/ManualMask/leftMask/MCUCXR_0001_0.png"
    )
    assert_refused_or_left_out(
        "montgomery", montgomery, "MCUCXR_0001_0", r"leftMask/MCUCXR_0001_0.png: a mask of 96 x 80 .* with 48 x 40"
    )


def test_an_empty_or_damaged_mask(montgomery):
    path = montgomery / "MontgomerySet/ManualMask/rightMask/MCUCXR_0002_0.png"
    Image.fromarray(np.zeros((official.HEIGHT, official.WIDTH), np.uint8)).save(path)
    assert_refused_or_left_out("montgomery", montgomery, "MCUCXR_0002_0", r"MCUCXR_0002_0.png: an empty mask")
    path.write_bytes(path.read_bytes()[:50])
    assert_refused_or_left_out("montgomery", montgomery, "MCUCXR_0002_0", r"MCUCXR_0002_0.png: cannot be decoded")


def write_img(path, film, order=">u2"):
    """A film of 0 to 255 as JSRT's .IMG, 2048 x 2048."""
    path.write_bytes((4095 - np.kron(film, np.ones((16, 16), int)) * 16).astype(order).tobytes())


def test_an_official_file_comes_before_copies_of_other_formats(jsrt):
    write_img(jsrt / "JPCLN001.IMG", official.picture(7, 128, 128))
    mask = jsrt / "scratch/fold1/masks/left lung/JPCLN001.gif"
    (jsrt / "left_lung_png").mkdir()
    Image.fromarray(reader.read_radiograph(mask)).save(jsrt / "left_lung_png" / "JPCLN001.png")
    folder = run("jsrt", jsrt)
    assert everything(folder)["JPCLN001"]["image_size"].tolist() == [2048, 2048]
    assert left_out(folder)["JPCLN001.png"] == f"a copy (of {jsrt}/JPCLN001.IMG)"


def test_masks_of_one_name_must_show_the_same_lungs(jsrt):
    mask = reader.read_radiograph(jsrt / "scratch/fold1/masks/left lung/JPCLN001.gif").copy()
    mask[30] = 0
    (jsrt / "left_lung_png").mkdir()
    Image.fromarray(mask).save(jsrt / "left_lung_png" / "JPCLN001.png")
    assert_refused_or_left_out(
        "jsrt", jsrt, "JPCLN001", r"left_lung_png/JPCLN001.png: not the same lungs as .*left lung/JPCLN001.gif"
    )


def test_masks_of_each_lung_and_of_both_must_show_the_same(jsrt):
    (jsrt / "masks").mkdir()
    both = np.maximum(*official.lung_masks(64, 64))
    Image.fromarray(both).save(jsrt / "masks" / "JPCLN001.png")
    np.testing.assert_array_equal(everything(run("jsrt", jsrt))["JPCLN001"]["mask_original"], both)
    Image.fromarray(both[:, ::-1] * np.uint8(1) | both.T).save(jsrt / "masks" / "JPCLN001.png")
    assert_refused_or_left_out("jsrt", jsrt, "JPCLN001", r"JPCLN001.gif: not the same lungs as .*masks/JPCLN001.png")


@pytest.mark.parametrize("name", ["heart_png", "Heart", "left_clavicle_png", "clavicles", "masks/ribs", "heart/fold1"])
def test_masks_of_other_structures_are_no_radiographs_and_are_listed(jsrt, name):
    (jsrt / name).mkdir(parents=True)
    shutil.copy(jsrt / "scratch/fold1/masks/left lung/JPCLN001.gif", jsrt / name / "JPCNN001.gif")
    folder = run("jsrt", jsrt)
    assert left_out(folder)["JPCNN001.gif"] == "a mask of another structure"
    assert sorted(everything(folder)) == ["JPCLN001", "JPCLN002", "JPCNN006", "JPCNN093"]


def test_a_mask_in_a_radiographs_place_is_refused(jsrt):
    """As when the radiographs' names are not known and those of another structure are."""
    shutil.copy(jsrt / "scratch/fold1/masks/left lung/JPCLN001.gif", jsrt / "png" / "JPCLN001.gif")
    (jsrt / "png" / "JPCLN001.png").unlink()
    assert_refused_or_left_out("jsrt", jsrt, "JPCLN001", r"JPCLN001.gif: two grey levels, like a mask")


@pytest.mark.parametrize("name", ["{}.IMG.png", "{}.img.PNG", "{}.PNG"])
def test_films_are_known_by_their_official_name_in_the_files(jsrt, name):
    for path in (jsrt / "png").iterdir():
        path.rename(path.with_name(name.format(path.stem)))
    assert sorted(everything(run("jsrt", jsrt))) == ["JPCLN001", "JPCLN002", "JPCNN006", "JPCNN093"]


@pytest.mark.parametrize(
    ("radiographs", "masks"),
    [
        ("Lung Segmentation/CXR_png", "Lung Segmentation/masks"),
        ("Lungs/CXR_png", "Lungs/lung_masks"),
        ("images", "masks/fold1"),
        (".", "Lung"),
    ],
)
def test_montgomery_copies_with_one_mask(tmp_path, radiographs, masks):
    download = tmp_path / "download"
    both = np.maximum(*official.lung_masks(official.HEIGHT, official.WIDTH))
    for folder, name, picture in (
        (radiographs, "MCUCXR_0001_0.png", official.picture(1)),
        (masks, "MCUCXR_0001_0_mask.png", both),
        (radiographs, "CHNCXR_0001_0.png", official.picture(2)),
    ):
        (download / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(download / folder / name)
    folder = run("montgomery", download)
    example = everything(folder)["MCUCXR_0001_0"]
    np.testing.assert_array_equal(example["mask_original"], both)
    np.testing.assert_array_equal(example["image"], pixels.resize(official.picture(1), (SIZE, SIZE)))
    assert left_out(folder) == {"CHNCXR_0001_0.png": "not a name of this data set"}


def test_mended_img_files_are_other_inputs(tmp_path):
    """All .IMG files have one size."""
    download = tmp_path / "download"
    for name in ("JPCLN001", "JPCLN002"):
        write_scr(download, name)
        write_img(download / f"{name}.IMG", official.picture(1, 128, 128))
    before = everything(run("jsrt", download))
    write_img(download / "JPCLN002.IMG", official.picture(2, 128, 128))
    after = everything(run("jsrt", download))
    assert (before["JPCLN002"]["image"] != after["JPCLN002"]["image"]).any()
    np.testing.assert_array_equal(before["JPCLN001"]["image"], after["JPCLN001"]["image"])


def test_a_little_endian_img_file_is_the_same_film(tmp_path):
    films = {}
    for order in (">u2", "<u2"):
        download = tmp_path / order[0] / "download"
        write_scr(download, "JPCLN001")
        write_img(download / "JPCLN001.IMG", official.picture(1, 128, 128), order)
        films[order] = everything(run("jsrt", download))["JPCLN001"]["image"]
    np.testing.assert_array_equal(films[">u2"], films["<u2"])


@pytest.mark.real
def test_the_real_montgomery_set(real_data, tmp_path):
    folder = prepare("montgomery", manual_dir=real_data / "montgomery", data_dir=tmp_path, require_complete=True)
    splits = read(folder)
    assert sorted(splits) == [f"fold_{fold}" for fold in range(5)]
    examples = {name: example for split in splits.values() for name, example in split.items()}
    assert len(examples) == 138
    masks = real_data / "montgomery" / "MontgomerySet" / "ManualMask"
    for name, example in examples.items():
        with (
            Image.open(masks / "leftMask" / f"{name}.png") as left,
            Image.open(masks / "rightMask" / f"{name}.png") as right,
        ):
            union = np.asarray(ImageChops.lighter(left.convert("L"), right.convert("L")))
        np.testing.assert_array_equal(example["mask_original"], union)
        assert abs(example["mask"].mean() - union.mean()) < 1
