import csv

import numpy as np
import pytest

from sdfn_jax.radiographs import findings


def test_the_order_is_the_papers():
    # B.1 of the paper, as printed
    printed = (
        "atelectasis, cardiomegaly, effusion, infiltration, mass, nodule, pneumonia, pneumothorax, consolidation, "
        "edema, emphysema, fibrosis, pleural thickening, hernia"
    )
    assert ", ".join(findings.display_name(name) for name in findings.FINDINGS).lower() == printed


def test_labels_become_a_vector_in_any_order():
    labels = findings.parse_labels("Hernia|Atelectasis|Pleural_Thickening")
    assert labels.dtype == np.uint8
    assert np.flatnonzero(labels).tolist() == [0, 12, 13]
    assert findings.parse_labels("No Finding").tolist() == [0] * 14


def test_the_box_lists_spelling_is_the_same_finding():
    assert findings.finding_index("Infiltrate") == findings.finding_index("Infiltration") == 3


@pytest.mark.parametrize("text", ["Efusion", "", "No Finding|Mass", "effusion", "Mass,Nodule"])
def test_other_names_are_refused(text):
    with pytest.raises(ValueError, match=r"unknown finding .*expected one of Atelectasis, "):
        findings.parse_labels(text)


@pytest.mark.real
@pytest.mark.parametrize(
    ("table", "positives"),
    [
        (
            "Data_Entry_2017.csv",
            [3255, 1065, 4648, 6088, 1712, 1615, 477, 2661, 1815, 925, 1093, 435, 1143, 86],
        ),
        (
            "Data_Entry_2017_v2020.csv",
            [3279, 1069, 4658, 6112, 1748, 1623, 555, 2665, 1815, 925, 1093, 435, 1143, 86],
        ),
    ],
)
def test_the_official_test_list_has_its_published_positives(real_data, table, positives):
    test = set((real_data / "chestxray14/test_list.txt").read_text().split())
    with (real_data / "chestxray14" / table).open(newline="") as file:
        labels = [findings.parse_labels(row[1]) for row in csv.reader(file) if row[0] in test]
    assert len(labels) == 25596
    assert np.sum(labels, axis=0, dtype=int).tolist() == positives
