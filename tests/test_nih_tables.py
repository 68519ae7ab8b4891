"""The official tables as people have them, and hostile ones."""

import csv
import re

import official_files as official
import pytest

from sdfn_jax.core.errors import UserError
from sdfn_jax.core.faults import Faults
from sdfn_jax.radiographs import nih_tables

ENTRY, ENTRY_2020, BOXES = "Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv", "BBox_List_2017.csv"
# Real rows: v2020 adds Pneumonia to the first and Mass to the second.
TELLING = (("00000150_002.png", "Infiltration", "Pneumonia"), ("00000830_000.png", "Effusion", "Mass"))


@pytest.fixture
def folder(tmp_path):
    return official.write_chestxray14(tmp_path / "tables")


def entries(folder, version="2017", skip=False):
    return nih_tables.read_entries(folder / nih_tables.LABEL_TABLES[version], version, Faults(skip))


def boxes(folder):
    return nih_tables.read_boxes(folder / BOXES, entries(folder), Faults(False))


def lists(folder):
    return nih_tables.read_lists(folder, entries(folder))


def change(path, *changes, encoding="utf-8"):
    text = path.read_bytes().decode()
    for old, new in changes:
        text, times = re.subn(old, new, text, flags=re.MULTILINE)
        assert times, old
    path.write_bytes(text.encode(encoding))


def comparable(read):
    return {
        name: (entry.labels.tolist(), entry.patient, entry.sex, entry.original_size) for name, entry in read.items()
    }


COPIES = {
    "Kaggle's, of 2017 with whole ages": [(r",0*(\d+)[YMD],", r",\1,"), (r",00(\d),0+(\d),", r",\1,\2,")],
    "Patient Sex, as NIH has it today": [("Patient Gender", "Patient Sex")],
    "names without blanks": [("Image Index", "ImageIndex"), ("Follow-up #", "Follow-up"), ("Patient ID", "PatientID")],
    "Kaggle's sample": [(r"OriginalImage\[Width,Height\]", "OriginalImageWidth,OriginalImageHeight")],
    "quoted names with commas": [(r"OriginalImage\[Width,Height\]", '"OriginalImage[Width,Height]"')],
    "an index": [("^(?=.)", "7,")],
    "semicolons": [(",", ";")],
    "tabs": [(",", "\t")],
    "old line ends": [("\r\n", "\r")],
    "numbers with a decimal point": [(r",0+(\d),(\d+[YMD]),", r",\1.0,\2,")],
    "folders before the names": [(r"^(\d+_)", r"images_001/images/\1")],
    "quotation marks": [(r"^(\d+_\d+\.png),([^,]+),", r'"\1","\2",')],
}


@pytest.mark.parametrize("copy", COPIES)
def test_copies_of_the_label_table_say_the_same(folder, copy):
    before = comparable(entries(folder))
    change(folder / ENTRY, *COPIES[copy])
    assert comparable(entries(folder)) == before


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_tables_and_lists_in_other_encodings_say_the_same(folder, encoding):
    before = comparable(entries(folder)), boxes(folder), lists(folder)
    for name in (ENTRY, BOXES, "train_val_list.txt", "test_list.txt"):
        change(folder / name, encoding=encoding)
    assert (comparable(entries(folder)), boxes(folder), lists(folder)) == before


@pytest.mark.parametrize(
    "changes",
    [
        [(r"Bbox \[x,y,w,h\],,,", "Bbox [x,y,w,h]")],
        [(r"Bbox \[x,y,w,h\],,,", '"Bbox [x,y,w,h]",,,')],
        [(r"Bbox \[x,y,w,h\],,,", '"Bbox [x","y","w","h]",,,')],
        [(",", ";")],
    ],
)
def test_copies_of_the_box_list_say_the_same(folder, changes):
    before = boxes(folder)
    change(folder / BOXES, *changes)
    assert boxes(folder) == before


@pytest.mark.parametrize(
    "changes", [[("^", "images/")], [("$", " 0 1 0 0")], [("^", '"'), ("$", '",')], [("\n", "\r\n")]]
)
def test_copies_of_the_lists_say_the_same(folder, changes):
    before = lists(folder)
    change(folder / "train_val_list.txt", *changes)
    assert lists(folder) == before


class TestVersions:
    """Only the labels that differ tell the versions apart."""

    def write(self, folder, of_each, version="2017"):
        with (folder / nih_tables.LABEL_TABLES[version]).open("a", newline="") as file:
            for (name, label, added), has in zip(TELLING, of_each, strict=False):
                labels = f"{label}|{added}" if has else label
                csv.writer(file).writerow([name, labels, 0, int(name[:8]), 58, "M", "PA", 2500, 2048, 0.1, 0.1])

    @pytest.mark.parametrize(("version", "added"), [("2017", False), ("v2020", True)])
    def test_a_table_of_its_own_version_is_read(self, folder, version, added):
        self.write(folder, [added] * 2, version)
        read = entries(folder, version)
        assert nih_tables.revealing(folder, read) == [name for name, *_ in TELLING]

    @pytest.mark.parametrize(("version", "other"), [("2017", "v2020"), ("v2020", "2017")])
    def test_a_table_of_the_other_version_is_refused_however_it_writes_ages(self, folder, version, other):
        self.write(folder, [other == "v2020"] * 2, version)
        with pytest.raises(
            UserError, match=rf"labels 00000150_002.png as version {other} does, not as {version}.*={other}"
        ):
            entries(folder, version)

    def test_a_mixture_is_refused(self, folder):
        self.write(folder, [True, False])
        with pytest.raises(UserError, match=r"a mixture of both versions: 00000150_002.png .*, 00000830_000.png lacks"):
            entries(folder)

    def test_synthetic_radiographs_tell_nothing_whatever_they_are_called(self, folder):
        self.write(folder, [True, False])
        (folder / "synthetic.json").touch()
        assert nih_tables.revealing(folder, entries(folder)) == []

    def test_without_such_images_the_version_stays_unknown(self, folder):
        for version in nih_tables.LABEL_TABLES:
            assert nih_tables.revealing(folder, entries(folder, version)) == []

    def test_the_list_is_of_188_labels_on_181_images(self):
        added = nih_tables._added_in_v2020()
        assert (len(added), sum(int(labels.sum()) for labels in added.values())) == (181, 188)

    @pytest.mark.real
    def test_the_list_is_the_difference_of_nihs_tables(self, real_data):
        old, new = (entries(real_data / "chestxray14", version) for version in nih_tables.LABEL_TABLES)
        assert {name for name in old if (old[name].labels != new[name].labels).any()} == set(
            nih_tables._added_in_v2020()
        )
        for name, added in nih_tables._added_in_v2020().items():
            assert (new[name].labels == old[name].labels + added).all()
        for version, other in (("2017", "v2020"), ("v2020", "2017")):
            with pytest.raises(UserError, match=f"as version {version} does, not as {other}"):
                nih_tables.read_entries(
                    real_data / "chestxray14" / nih_tables.LABEL_TABLES[version], other, Faults(False)
                )


HUGE = "x" * 200_000
EVERY = {  # what is done to a file: (how, what is said of it)
    "a web page": (lambda data: b"\n<!DOCTYPE html><html>Box</html>\n" * 3, "a web page, not the file itself"),
    "empty": (lambda data: b"", "empty"),
    "blank": (lambda data: b"\r\n \r\n", "empty"),
    "zeros at the end": (lambda data: data + b"\n" + bytes(512), r", row \d+: zero bytes"),
    "zeros alone": (lambda data: bytes(512), "row 1: zero bytes"),
    "Latin letters": (lambda data: data + b"\nZ\xfcrich", r", row \d+: not text in UTF-8 \(byte 0xfc\)"),
    "a picture": (lambda data: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", r"row 1: not text in UTF-8 \(byte 0x89\)"),
    "half a letter": (lambda data: b"\xff\xfe" + data[:41], r"row \d+: not text in UTF-16"),
}
TABLES = {
    "a field over 128 KB": (
        lambda data: data + b"\n00000001_000.png," + HUGE.encode(),
        r"row \d+: cannot be read as a row",
    ),
    "an open quotation mark": (
        lambda data: data.replace(b"\n0", b'\n"0', 1),
        "row 2: .* an unclosed quotation mark",
    ),
    "a field over several lines": (
        lambda data: data.replace(b".png", b'.png,"a\nb"', 1),
        "row 2: cannot be read as a row of a table .a field over several lines",
    ),
    "text after a quotation mark": (lambda data: data.replace(b"\n0", b'\n"a"0', 1), "row 2: cannot be read as a row"),
    "no row": (lambda data: data.split(b"\n")[0], None),
    "other columns": (lambda data: b"a,b\n1,2\n", "no column Image Index, .* in its first row, which is 'a,b'"),
    "one name twice": (
        lambda data: data.replace(b"Image Index", b"Image Index,Image_Index", 1),
        "more than one column Image",
    ),
    "a huge name of a column": (lambda data: HUGE.encode() + b"\n1\n", "no column Image Index"),
}
CASES = [
    *(
        (name, fault, *EVERY[fault])
        for name in (ENTRY, BOXES, "train_val_list.txt", "test_list.txt")
        for fault in EVERY
    ),
    *(
        (name, fault, *TABLES[fault])
        for name in (ENTRY, BOXES)
        for fault in TABLES
        if (name, fault) != (BOXES, "no row")
    ),
]


@pytest.mark.parametrize(
    ("name", "fault", "damage", "message"), CASES, ids=[f"{name} {fault}" for name, fault, *_ in CASES]
)
def test_a_hostile_file_is_refused_in_a_sentence(folder, name, fault, damage, message):
    path = folder / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=f"{re.escape(str(path))}.*{message or 'no images, only the header'}") as caught:
        boxes(folder)
        lists(folder)
    assert len(str(caught.value)) < 700


def test_a_box_list_without_boxes_is_read(folder):
    (folder / BOXES).write_text("Image Index,Finding Label,Bbox [x,y,w,h]\n")
    assert boxes(folder) == {}


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (ENTRY, ",00000001,", ",99999999999999999999,", r"row 2: Patient ID is '9+', not a whole number"),
        (ENTRY, ",00000001,", ",4000000000,", "row 2: Patient ID is 4000000000, not a number from 0 to 2,147,483,647"),
        (ENTRY, ",00000001,", ",-1,", "row 2: Patient ID is -1, not a number from 0"),
        (ENTRY, ",00000001,", ",1_0,", "row 2: Patient ID is '1_0', not a whole number"),
        (ENTRY, ",058Y,", ",nan,", "row 2: Patient Age is 'nan', not a whole number"),
        (ENTRY, ",058Y,", ",99999Y,", "row 2: Patient Age is '99999Y', not a whole number"),
        (ENTRY, "Cardiomegaly", "x" * 100_000, r"row 2: unknown finding 'x{60} \.\.\.'"),
        (ENTRY, r"^00000001_000.png", "00000001_000", "row 2: '00000001_000' is not the file name of an image"),
        (ENTRY, r",M,.*\r$", "\r", "row 2: too short: no Patient Gender, View Position"),
        (BOXES, "10.5", "nan", r"row 2: Bbox \[x is 'nan', not a finite number"),
        (BOXES, "10.5", "1e308", r"row 2: Bbox \[x is 1e\+308, far outside any image"),
        (BOXES, "10.5", "'10,5'", 'row 2: Bbox .x is "\'10"'),
        ("test_list.txt", "^00000005_000.png", "Image Index", "row 2: 'Image' is not the file name of an image"),
        ("test_list.txt", "^00000005_000.png", "x" * 100_000, r"row 2: 'x{60} \.\.\.' is not"),
    ],
)
def test_a_bad_value_is_named_with_file_and_row(folder, name, old, new, message):
    change(folder / name, (old, new))
    with pytest.raises(UserError, match=f"{re.escape(str(folder / name))}, {message}") as caught:
        boxes(folder)
        lists(folder)
    assert len(str(caught.value)) < 700


def test_a_file_that_is_far_too_large_is_not_read(folder, monkeypatch):
    monkeypatch.setattr("sdfn_jax.core.tables.MAX_TABLE_BYTES", 100)
    with pytest.raises(UserError, match=r"Data_Entry_2017.csv: over 100 bytes"):
        entries(folder)
