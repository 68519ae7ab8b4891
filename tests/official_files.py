"""Writes a few tiny files in the official formats: what the builders' tests read."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from sdfn_jax.lungs.box_table import BoxRow, write_box_table

HEADER_2017 = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
# name, labels, follow-up, patient, age as 2017 and v2020 write it, sex, view
ROWS = (
    ("00000001_000.png", "Cardiomegaly|Emphysema", 0, 1, "058Y", 57, "M", "PA"),
    ("00000001_001.png", "No Finding", 1, 1, "059Y", 58, "M", "AP"),
    ("00000002_000.png", "Pleural_Thickening", 0, 2, "006M", 0, "F", "PA"),
    ("00000003_000.png", "Hernia|Infiltration", 0, 3, "010D", 0, "F", "AP"),
    ("00000004_000.png", "No Finding", 0, 4, "081Y", 81, "M", "PA"),
    ("00000005_000.png", "Atelectasis", 0, 5, "414Y", 41, "F", "PA"),
)
NAMES = tuple(row[0] for row in ROWS)
TEST = NAMES[4:]
WIDTH, HEIGHT = 48, 40
BOX = (6, 4, 42, 36)


def picture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)


def write_chestxray14(folder: Path, images: str = "images", present=NAMES) -> Path:
    """Writes the tables of `ROWS`, those of its images that are present, and lung boxes for them."""
    (folder / images).mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(NAMES):
        if name in present:
            Image.fromarray(picture(index)).save(folder / images / name)
    entries = [
        f"{name},{labels},{follow_up:03},{patient:08},{age},{sex},{view},2682,2749,0.143,0.143"
        for name, labels, follow_up, patient, age, _, sex, view in ROWS
    ]
    (folder / "Data_Entry_2017.csv").write_bytes("\r\n".join([HEADER_2017, *entries, ""]).encode())
    entries = [
        f"{name},{labels},{follow_up},{patient},{age},{sex},{view},2682,2749,0.14300000000000002,0.14300000000000002"
        for name, labels, follow_up, patient, _, age, sex, view in ROWS
    ]
    entries[5] = entries[5].replace("Atelectasis", "Atelectasis|Mass")
    (folder / "Data_Entry_2017_v2020.csv").write_text("\n".join([HEADER_2017.rstrip(","), *entries, ""]))
    (folder / "BBox_List_2017.csv").write_text(
        "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
        f"{NAMES[5]},Atelectasis,10.5,8.25,20,12.5,,,\n{NAMES[4]},Infiltrate,30,20,18.6,10,,,\n"
    )
    (folder / "train_val_list.txt").write_text("\n".join(NAMES[:4]))
    (folder / "test_list.txt").write_text("\n".join(TEST))
    write_boxes(folder / "lung_boxes.csv", NAMES)
    return folder


def write_boxes(path: Path, names) -> Path:
    write_box_table(path, [BoxRow(name, WIDTH, HEIGHT, *BOX, "mirror", 0.3, "digest") for name in names])
    return path


def lung_masks(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the left lung (on the image's right) and the right lung, 0 and 255."""
    left, right = np.zeros((2, height, width), np.uint8)
    left[height // 4 : -height // 4, 5 * width // 8 : 7 * width // 8] = 255
    right[height // 4 : -height // 4, width // 8 : 3 * width // 8] = 255
    return left, right


def write_montgomery(folder: Path, numbers) -> Path:
    root = folder / "MontgomerySet"
    for part in ("CXR_png", "ManualMask/leftMask", "ManualMask/rightMask"):
        (root / part).mkdir(parents=True, exist_ok=True)
    left, right = lung_masks(HEIGHT, WIDTH)
    for number in numbers:
        name = f"MCUCXR_{number:04}_0.png"
        Image.fromarray(picture(number)).save(root / "CXR_png" / name)
        Image.fromarray(left).save(root / "ManualMask" / "leftMask" / name)
        Image.fromarray(right).save(root / "ManualMask" / "rightMask" / name)
    return folder


def read_list(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
