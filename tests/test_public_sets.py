"""The public sets after ChestX-ray14: small files in their official formats, and their real tables."""

import collections
import csv
import gzip
import importlib.util
import io
import zipfile
from pathlib import Path

import dicom_files
import numpy as np
import official_files as official
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from sdfn_jax.core.errors import UserError
from sdfn_jax.radiographs.labels import ABSENT, PRESENT, UNCERTAIN, UNKNOWN
from tfds_builders import base, prepare, prepared, registry
from tfds_builders.siim_pneumothorax import siim_pneumothorax_dataset_builder as siim

CHEXPERT = (
    "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,"
    "Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"
)
NORMAL = "1.0,,,,,,,,,,,,,"
MIXED = ",,1.0,0.0,,-1.0,,,,,1.0,,,"  # Cardiomegaly, no opacity, perhaps edema, effusion
OF_MIXED = {"Cardiomegaly": PRESENT, "Lung_Opacity": ABSENT, "Edema": UNCERTAIN, "Effusion": PRESENT}


def film(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".dcm", ".dicom"):
        dicom_files.write(path, official.picture(1))
    else:
        Image.fromarray(official.picture(1)).save(path)


def table(path, *lines):
    text = "\n".join([*lines, ""])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def read(folder, name, names, **options):
    """Prepares a set with a lung box for each of `names`; returns ({film: example}, {film: split}, its folder)."""
    boxes = official.write_boxes(folder.parent / "boxes.csv", names)
    directory = prepare.prepare(
        name, manual_dir=folder, data_dir=folder.parent / "data", size=8, boxes=boxes, **options
    )
    sources = tfds.builder_from_directory(directory).as_data_source()
    films = {each["name"].decode(): each for source in sources.values() for each in source}
    sides = {each["name"].decode(): split for split, source in sources.items() for each in source}
    return films, sides, directory


def labelled(film, directory):
    """Returns {finding: code} of a film, without the unknown."""
    findings = prepared.data_metadata(directory)["findings"]
    return {name: int(code) for name, code in zip(findings, film["labels"], strict=True) if code != UNKNOWN}


def left_out(directory):
    rows = official.read_list(directory / base.LEFT_OUT_LIST)
    return {Path(row["path"]).name: row["reason"] for row in rows}


def test_chexpert(tmp_path):
    folder = tmp_path / "CheXpert-v1.0-small"
    path = "CheXpert-v1.0-small/{}/patient0000{}/study1/view{}.jpg"
    names = ["train/patient00001/study1/view1_frontal.jpg", "train/patient00002/study1/view1_frontal.jpg"]
    names.append("valid/patient00003/study1/view1_frontal.jpg")
    for name in names:
        film(folder / name)
    columns = f"Path,Sex,Age,Frontal/Lateral,AP/PA,{CHEXPERT}"
    table(
        folder / "train.csv",
        columns,
        f"{path.format('train', 1, '1_frontal')},Female,68,Frontal,AP,{NORMAL}",
        f"{path.format('train', 1, '2_lateral')},Female,68,Lateral,,{NORMAL}",
        f"{path.format('train', 2, '1_frontal')},Unknown,0,Frontal,PA,{MIXED}",
        f"{path.format('train', 2, '9_frontal')},Male,30,Frontal,PA,{MIXED}",
    )
    table(folder / "valid.csv", columns, f"{path.format('valid', 3, '1_frontal')},Male,30,Frontal,PA,{MIXED}")
    films, sides, directory = read(folder, "chexpert", names)
    assert set(films) == set(names) and sides[names[2]] == "test" and "test" not in (sides[names[0]], sides[names[1]])
    assert labelled(films[names[1]], directory) == OF_MIXED
    normal = labelled(films[names[0]], directory)
    assert len(normal) == 12 and set(normal.values()) == {ABSENT} and "Support_Devices" not in normal
    assert films[names[1]]["patient"] == b"patient00002" and films[names[1]]["sex"] == b""
    assert np.isnan(films[names[1]]["age"]) and films[names[0]]["age"] == 68
    assert films[names[0]]["view_position"] == b"AP"
    assert left_out(directory) == {"view2_lateral.jpg": "a lateral view"}
    assert [row["image"] for row in official.read_list(directory / base.MISSING_LIST)] == [
        "train/patient00002/study1/view9_frontal.jpg"
    ]


def test_mimic_cxr(tmp_path):
    folder = tmp_path / "mimic"
    name = "files/p10/p10000032/s5041/{}.jpg"
    for each in "ab":
        film(folder / name.format(each))
    rows = [f"{each},10000032,5041,{view}" for each, view in zip("abcd", ("PA", "AP", "LATERAL", ""), strict=True)]
    table(
        folder / "mimic-cxr-2.0.0-metadata.csv.gz",
        "dicom_id,subject_id,study_id,ViewPosition",
        *rows,
        "e,10000033,9,PA",
    )
    splits = zip("abcde", ("train", "train", "train", "train", "test"), strict=True)
    table(folder / "mimic-cxr-2.0.0-split.csv.gz", "dicom_id,split", *(f"{each},{split}" for each, split in splits))
    for labeler, row in (("chexpert", MIXED), ("negbio", NORMAL)):
        table(folder / f"mimic-cxr-2.0.0-{labeler}.csv", f"subject_id,study_id,{CHEXPERT}", f"10000032,5041,{row}")
    films, sides, directory = read(folder, "mimic_cxr", [name.format(each) for each in "ab"])
    assert sides == {name.format("a"): "train", name.format("b"): "train"}
    assert labelled(films[name.format("a")], directory) == OF_MIXED
    assert films[name.format("a")]["patient"] == b"p10000032"
    assert left_out(directory) == {
        "c.jpg": "a lateral view",
        "d.jpg": "an unknown view",
        "e.jpg": "its study has no labels",
    }
    films, _, directory = read(folder, "mimic_cxr", [name.format(each) for each in "ab"], labeler="negbio")
    assert labelled(films[name.format("a")], directory)["Edema"] == ABSENT
    assert prepared.data_metadata(directory)["label_version"] == "mimic_cxr negbio"


def test_brax(tmp_path):
    folder = tmp_path / "brax"
    names = [f"images/id_{number}/Study_1/Series_1/image.png" for number in range(5)]
    for name in names[:2]:
        film(folder / name)
    views = ("PA", "AP", "L", "", "PA")
    sizes = ("48,40", "48,40", "48,40", "48,40", "4000,300")
    table(
        folder / "master_spreadsheet_update.csv",
        f"PngPath,PatientID,PatientSex,PatientAge,ViewPosition,Rows,Columns,{CHEXPERT}",
        *(
            f"{name},id_{number},F,{'85 or more' if number else 40},{view},{size},{MIXED}"
            for number, (name, view, size) in enumerate(zip(names, views, sizes, strict=True))
        ),
    )
    films, _, directory = read(folder, "brax", names)
    assert labelled(films[names[1]], directory) == OF_MIXED
    assert films[names[1]]["age"] == 85 and films[names[1]]["view_position"] == b"AP"
    rows = official.read_list(directory / base.LEFT_OUT_LIST)
    assert [row["reason"] for row in rows] == ["a lateral view", "an unknown view", "a strip, no radiograph"]


PADCHEST = (
    ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,Projection,"
    "Labels,LabelsLocalizationsBySentence"
)
PADCHEST_ROWS = {
    "a.png": ("PA", "['normal']"),
    "b.png": ("AP_horizontal", "['pseudonodule ', ' pleural effusion', 'mediastinal mass', 'atelectasis basal', '']"),
    "c.png": ("AP", "['unchanged', 'nodule']"),
    "d.png": ("L", "['normal']"),
    "e.png": ("COSTAL", "['normal']"),
    "f.png": ("PA", "['exclude']"),
    "g.png": ("PA", "['normal', 'suboptimal study']"),
    "h.png": ("PA", ""),
}


def test_padchest_by_whole_labels(tmp_path):
    folder = tmp_path / "padchest"
    for place, name in enumerate(PADCHEST_ROWS):
        film(folder / str(place) / name)
    film(folder / "1" / "other.png")
    rows = [
        f"{place},{name},{place},20150914,s,p{place},1930.0,{'MF'[place % 2]},X,{view},\"{text}\",\"['one' 'two'\n ]\""
        for place, (name, (view, text)) in enumerate(PADCHEST_ROWS.items())
    ]
    table(folder / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", PADCHEST, *rows)
    films, _, directory = read(folder, "padchest", ["a.png", "b.png", "c.png"])
    present = {
        name: {finding for finding, code in labelled(each, directory).items() if code == PRESENT}
        for name, each in films.items()
    }
    assert present == {"a.png": set(), "b.png": {"Effusion", "Atelectasis"}, "c.png": {"Nodule"}}
    assert labelled(films["c.png"], directory) == {"Nodule": PRESENT}
    assert len(labelled(films["a.png"], directory)) == 14
    assert films["b.png"]["age"] == 85 and films["b.png"]["view_position"] == b"AP"
    assert left_out(directory) == {
        "d.png": "a lateral view",
        "e.png": "a view of the ribs",
        "f.png": "excluded by its owners",
        "g.png": "a suboptimal study",
        "h.png": "no labels",
        "other.png": "not in the table",
    }


def test_vindr_cxr_by_votes(tmp_path):
    folder = tmp_path / "vindr"
    for name in ("train/a", "train/b", "test/c"):
        film(folder / f"{name}.dicom")
    columns = "Atelectasis,Nodule/Mass,Pleural effusion,{},No finding"
    table(
        folder / "annotations" / "image_labels_train.csv",
        f"image_id,rad_id,{columns.format('Other diseases')}",
        *(f"a,R{reader},1,{int(reader > 1)},{int(reader > 2)},0,0" for reader in (1, 2, 3)),
        *(f"b,R{reader},0,0,0,0,1" for reader in (1, 2, 3)),
    )
    table(
        folder / "annotations" / "image_labels_test.csv",
        f"image_id,{columns.format('Other disease')}",
        "c,0,0,1,0,0",
    )
    box = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max"
    table(
        folder / "annotations" / "annotations_train.csv", box, "a,R3,Pleural effusion,1,2,11,12", "b,R1,No finding,,,,"
    )
    table(folder / "annotations" / "annotations_test.csv", box.replace(",rad_id", ""), "c,Pleural effusion,1,2,11.5,12")
    films, sides, directory = read(folder, "vindr_cxr", ["a.dicom", "b.dicom", "c.dicom"])
    assert labelled(films["a"], directory) == {"Atelectasis": PRESENT, "Nodule or Mass": PRESENT, "Effusion": UNCERTAIN}
    assert set(labelled(films["b"], directory).values()) == {ABSENT}
    assert labelled(films["c"], directory)["Effusion"] == PRESENT and sides["c"] == "test"
    assert np.asarray(films["c"]["reference_boxes"]["finding"]).tolist() == [2]
    np.testing.assert_allclose(films["c"]["reference_boxes"]["box"], [[1, 2, 11.5, 12]])


def test_rsna_pneumonia(tmp_path):
    folder = tmp_path / "rsna"
    for name in "ab":
        film(folder / "stage_2_train_images" / f"{name}.dcm")
    table(
        folder / "stage_2_train_labels.csv",
        "patientId,x,y,width,height,Target",
        "a,,,,,0",
        "b,1.0,2.0,10.0,12.0,1",
        "b,20.0,2.0,10.0,12.0,1",
    )
    films, _, directory = read(folder, "rsna_pneumonia", ["a.dcm", "b.dcm"])
    assert [labelled(films[name], directory)["Pneumonia"] for name in "ab"] == [ABSENT, PRESENT]
    np.testing.assert_allclose(films["b"]["reference_boxes"]["box"], [[1, 2, 11, 14], [20, 2, 30, 14]])


def encode(mask):
    """Run lengths of a mask, relative, down the columns, in a plain loop."""
    pairs, end = [], 0
    flat = mask.T.ravel().tolist()
    place = 0
    while place < len(flat):
        if not flat[place]:
            place += 1
            continue
        start = place
        while place < len(flat) and flat[place]:
            place += 1
        pairs += [start - end, place - start]
        end = place
    return " ".join(map(str, pairs))


class TestSiimPneumothorax:
    def test_a_masks_box(self):
        rng = np.random.default_rng(0)
        for trial in range(5):
            mask = np.zeros((1024, 1024), bool)
            left, top = rng.integers(0, 900, 2)
            mask[top : top + 100, left : left + 60] = rng.random((100, 60)) < 0.3
            if trial == 0:
                mask[:, 500:502] = True  # a run into the next column
            rows, columns = np.nonzero(mask)
            expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert siim.mask_box(encode(mask)) == expected

    def test_a_small_folder(self, tmp_path):
        folder = tmp_path / "siim"
        for name in ("1.2.3.4", "1.2.3.5"):
            film(folder / "dicom-images-train" / "1.2" / f"{name}.dcm")
        mask = np.zeros((1024, 1024), bool)
        mask[3:9, 4:8] = True
        table(folder / "train-rle.csv", "ImageId, EncodedPixels", "1.2.3.4, -1", f"1.2.3.5,{encode(mask)}")
        films, _, directory = read(folder, "siim_pneumothorax", ["1.2.3.4.dcm", "1.2.3.5.dcm"])
        assert [labelled(each, directory)["Pneumothorax"] for _, each in sorted(films.items())] == [ABSENT, PRESENT]
        np.testing.assert_allclose(films["1.2.3.5"]["reference_boxes"]["box"], [[4, 3, 8, 9]])

    @pytest.mark.parametrize("text", ["1 2 3", "a b", "5 0", "1048576 1", "-3 5", ""])
    def test_what_is_no_mask_is_refused(self, text):
        with pytest.raises(ValueError, match="EncodedPixels is"):
            siim.mask_box(text)


SETS = ("chexpert", "mimic_cxr", "brax", "padchest", "vindr_cxr", "rsna_pneumonia", "siim_pneumothorax")


@pytest.mark.parametrize("name", SETS)
def test_an_empty_folder_is_one_sentence_with_the_table_that_is_expected(name, tmp_path):
    (tmp_path / "films").mkdir()
    with pytest.raises(UserError, match=r"\.csv(\.gz)? is missing; put the official table of that name there"):
        read(tmp_path / "films", name, [])


def test_a_value_outside_the_convention_names_file_row_and_column(tmp_path):
    folder = tmp_path / "chexpert"
    columns = f"Path,Sex,Age,Frontal/Lateral,AP/PA,{CHEXPERT}"
    table(folder / "train.csv", columns, f"train/patient00001/a.jpg,Female,68,Frontal,AP,{MIXED.replace('-1.0', '2')}")
    table(folder / "valid.csv", columns)
    with pytest.raises(UserError, match=r"train.csv, row 2: Edema is '2'; expected 1, 0, -1 or nothing"):
        read(folder, "chexpert", [])


def wheel(name):
    """Bytes of a real table, unpacked: TorchXRayVision's wheel carries them."""
    spec = importlib.util.find_spec("torchxrayvision")
    if spec is None:
        pytest.skip("TorchXRayVision is not installed")
    path = Path(spec.submodule_search_locations[0]) / "data" / name
    if path.suffix == ".zip":
        return zipfile.ZipFile(path).read(path.stem.removeprefix("kaggle_"))
    return gzip.decompress(path.read_bytes())


def rows_of(name, folder):
    """Returns (the findings, their codes (N, K), the rows) of the tables in a folder without films."""
    builder = registry.builder(name)(data_dir=folder / "data")
    findings, rows = builder._read_rows(folder)
    rows = list(rows)
    assert not builder._faults.reasons
    return findings, np.stack([row.labels for row in rows]), rows


def records(data):
    return list(csv.DictReader(io.StringIO(data.decode()), skipinitialspace=True))


class TestRealTables:
    """The tables as their owners publish them; counts by other code, or from `datasets-more.md`'s reading."""

    def test_rsna_pneumonia(self, tmp_path):
        data = wheel("kaggle_stage_2_train_labels.csv.zip")
        (tmp_path / "stage_2_train_labels.csv").write_bytes(data)
        _, codes, rows = rows_of("rsna_pneumonia", tmp_path)
        assert (len(rows), (codes == PRESENT).sum()) == (26_684, 6_012)
        assert sum(len(row.boxes) for row in rows) == 9_555

    def test_siim_pneumothorax(self, tmp_path):
        data = wheel("siim-pneumothorax-train-rle.csv.gz")
        (tmp_path / "train-rle.csv").write_bytes(data)
        _, codes, rows = rows_of("siim_pneumothorax", tmp_path)
        positive = {record["ImageId"] for record in records(data) if record["EncodedPixels"].strip() != "-1"}
        assert {row.name for row, (code,) in zip(rows, codes, strict=True) if code == PRESENT} == positive
        assert (len(rows), len(positive)) == (12_047, 2_669)

    def test_vindr_cxr_of_kaggle(self, tmp_path):
        data = wheel("vinbigdata-train.csv.gz")
        (tmp_path / "train.csv").write_bytes(data)
        findings, codes, rows = rows_of("vindr_cxr", tmp_path)
        voices = collections.defaultdict(set)
        for record in records(data):
            voices[record["image_id"], record["class_name"]].add(record["rad_id"])
        assert len(rows) == 15_000 and len(findings) == 14
        for name in ("Cardiomegaly", "Nodule/Mass", "Pneumothorax"):
            votes = [len(readers) for (_, finding), readers in voices.items() if finding == name]
            found = codes[:, findings.index(name.replace("/", " or "))]
            assert (found == PRESENT).sum() == sum(count > 1 for count in votes)
            assert (found == UNCERTAIN).sum() == votes.count(1)

    @pytest.mark.real
    def test_chexpert(self, tmp_path):
        data = wheel("chexpert_train.csv.gz")
        (tmp_path / "train.csv").write_bytes(data)
        header = data.split(b"\n")[0]
        (tmp_path / "valid.csv").write_bytes(header + b"\n")
        findings, codes, rows = rows_of("chexpert", tmp_path)
        assert len(rows) == 223_414
        views = collections.Counter(row.view for row in rows)
        # 32,387 say Lateral; 17 more say Frontal, but LL or RL.
        assert views == {"AP": 161_590, "PA": 29_420, "": 32_387 + 17}
        uncertain = {name: (codes[:, place] == UNCERTAIN).sum() for place, name in enumerate(findings)}
        assert (uncertain["Atelectasis"], uncertain["Consolidation"], uncertain["Pneumonia"]) == (
            33_739,
            27_742,
            18_770,
        )
        assert (codes[:, findings.index("Pneumonia")] == PRESENT).sum() == 6_039

    @pytest.mark.real
    def test_padchest(self, tmp_path):
        name = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
        data = wheel(f"{name}.gz")
        (tmp_path / name).write_bytes(data)
        findings, codes, rows = rows_of("padchest", tmp_path)
        assert len(rows) == 160_861
        assert collections.Counter(row.view for row in rows) == {"PA": 91_728, "AP": 14_346 + 4_559, "": 50_228}
        assert sum(row.left_out == "a lateral view" for row in rows) == 49_579
        # The labels as text, without brackets, quotes and blanks, and not by this project's parser.
        labels = [{part.strip(" '[]") for part in record["Labels"].split(",")} - {""} for record in records(data)]
        unchanged = np.array(["unchanged" in each for each in labels])
        assert unchanged.sum() == 14_334
        assert (codes == UNKNOWN).any(axis=1).tolist() == unchanged.tolist()
        nodules = np.array([bool(each & {"nodule", "multiple nodules"}) for each in labels])
        np.testing.assert_array_equal(codes[:, findings.index("Nodule")] == PRESENT, nodules)
        hernias = np.array(["hiatal hernia" in each for each in labels])
        np.testing.assert_array_equal(codes[:, findings.index("Hernia")] == PRESENT, hernias)
