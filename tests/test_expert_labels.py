"""Expert labels as a second reference: their tables in the official format, the numbers, and what is refused."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from sdfn_jax.core.errors import UserError
from sdfn_jax.metrics import agreement
from sdfn_jax.metrics.evaluation import Evaluation, Origin, write_evaluation
from sdfn_jax.metrics.predictions import Predictions
from sdfn_jax.radiographs import expert_labels
from sdfn_jax.radiographs.findings import FINDINGS, display_name
from sdfn_jax.radiographs.labels import ABSENT, PRESENT, UNKNOWN
from sdfn_jax.reporting import experts, report
from sdfn_jax.reporting.material import gather
from sdfn_jax.reporting.sections import experts as section

# As Google writes them: blanks in two names, other columns around ours, the order of the paper.
COLUMNS = ["Abnormal", *(name.replace("_", " ") for name in FINDINGS), "Other"]
FILMS = 60
FINDING_NAMES = tuple(map(display_name, FINDINGS))
NAMES = ("test_labels.csv", "all_findings_expert_labels_test_labels.csv")
READERS = {name: name.replace("test_labels", "test_individual_readers") for name in NAMES}


def image(index):
    return f"{index // 2:08d}_{index % 2:03d}.png"


def evaluation():
    """60 films of 30 patients; the network knows what the experts see, and the data set's labels are half noise."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (FILMS, 14), dtype=np.uint8)
    probabilities = np.clip(0.6 * rng.random((FILMS, 14)) + 0.3 * truth(), 0, 1)
    origin = Origin("fusion", "c0ffee", "chestxray14/size224_labels2017/1.0.0", "2017", "test", False, 3)
    images = tuple(image(index) for index in range(FILMS))
    return Evaluation(origin, Predictions(images, np.arange(FILMS) // 2, probabilities, labels))


def truth():
    """The experts' labels of the first 60 films; no one has a hernia."""
    labels = np.random.default_rng(1).integers(0, 2, (FILMS, 14), dtype=np.uint8)
    labels[:, 13] = 0
    return labels


def write_labels(path, first=20, films=50, answers=("NO", "YES"), columns=COLUMNS):
    """Of films 20 to 69: ten of them were not evaluated."""
    labels = np.vstack([truth(), np.zeros((films, 14), np.uint8)])
    rows = [",".join(["Image ID", "Patient ID", *columns])]
    for index in range(first, first + films):
        cells = [answers[value] for value in labels[index]]
        rows.append(",".join([image(index), str(index // 2), "YES", *cells, "NO"]))
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("\n".join(rows) + "\n")
    return path


def write_readers(path, films=20):
    """Three readers: two see what is there, the third the opposite on every fourth film, once with a caret."""
    rows = [",".join(["Image ID", "Patient ID", "Reader ID", *COLUMNS])]
    for index in range(20, 20 + films):
        for reader in range(3):
            wrong = reader == 2 and index % 4 == 0
            cells = [["NO", "YES"][value ^ wrong] for value in truth()[index]]
            cells[13] = "NO^" if index == 20 else cells[13]
            rows.append(",".join([image(index), str(index // 2), str(7 * reader), "YES", *cells, "NO"]))
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("name", NAMES)
def test_either_naming_is_read_from_the_file_or_its_folder(tmp_path, name):
    path = write_labels(tmp_path / name)
    write_readers(tmp_path / READERS[name])
    for given in (path, tmp_path):
        found = expert_labels.read(given, FINDING_NAMES)
        assert (found.path, len(found.images)) == (path, 50)
        np.testing.assert_array_equal(found.labels[:40], truth()[20:])
        assert (found.readings.readers, len(found.readings.images)) == (3, 20)
        assert set(found.readings.of.ravel()) == {3}
        assert set(found.readings.yes[truth()[20:40] == 1]) <= {2, 3}


def test_a_finding_that_they_did_not_judge_is_unknown_and_other_names_in_any_order_are_found(tmp_path):
    path = write_labels(tmp_path / "labels.csv")
    found = expert_labels.read(path, ["Mass", "Tuberculosis", "pleural_thickening"])
    np.testing.assert_array_equal(found.labels[:40, 0], truth()[20:, FINDINGS.index("Mass")])
    assert set(found.labels[:, 1]) == {UNKNOWN}
    assert set(found.labels[:, 2]) == {ABSENT, PRESENT}
    assert found.readings is None


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    labelled = expert_labels.read(write_labels(tmp_path_factory.mktemp("labels") / NAMES[0]), FINDING_NAMES)
    reference = experts.match(labelled, evaluation(), 400)
    return reference, experts.score(reference, evaluation().predictions.probabilities)


class TestNumbers:
    def test_both_aucs_are_of_the_same_films(self, scored):
        reference, scores = scored
        values = evaluation().predictions
        np.testing.assert_array_equal(reference.places, np.arange(20, FILMS))
        for estimates, labels in ((scores.own, values.labels), (scores.theirs, truth())):
            expected = [roc_auc_score(labels[20:, c], values.probabilities[20:, c]) for c in range(13)]
            np.testing.assert_allclose([each.value for each in estimates[:13]], expected)
            assert estimates[14].value == pytest.approx(np.mean(expected))
        assert scores.findings == 13
        assert np.isnan(scores.theirs[13].value) and not np.isnan(scores.own[13].value)  # no hernia for the experts
        assert "40 of the 50 films in test_labels.csv were evaluated, of 20 patients" in reference.describe()

    def test_the_difference_is_paired(self, scored):
        _, scores = scored
        mean = scores.differences[14]
        assert mean.value == pytest.approx(scores.theirs[14].value - scores.own[14].value)
        assert mean.low > 0.1 and mean.signed  # the network knows what the experts see
        assert all(each.few for each in scores.differences[:13])  # 40 films are few

    def test_patients_are_resampled_together(self, scored):
        reference, _ = scored
        assert len(reference.resamples.counts) == 20

    def test_labels_that_one_reference_does_not_know_count_for_neither(self, scored):
        reference, _ = scored
        half = reference.theirs.copy()
        half[::2, 0] = UNKNOWN
        half[:, 1] = UNKNOWN
        found = dataclasses.replace(reference, theirs=half)
        scores = experts.score(found, evaluation().predictions.probabilities)
        values = evaluation().predictions
        kept = np.arange(21, FILMS, 2)
        expected = roc_auc_score(values.labels[kept, 0], values.probabilities[kept, 0])
        assert scores.own[0].value == pytest.approx(expected)
        assert np.isnan(scores.own[1].value)
        assert scores.findings == 12

    def test_the_terminal_says_how_many_films_and_that_they_were_chosen(self, tmp_path):
        labelled = expert_labels.read(write_labels(tmp_path / NAMES[0]), FINDING_NAMES)
        lines = experts.text(labelled, [evaluation()], FINDING_NAMES).splitlines()
        said = " ".join(lines[:4])
        assert "40 of the 50 films" in said and "no random sample of the test list" in said
        (mean,) = [line for line in lines if line.startswith("Mean of 13")]
        assert "+0." in mean and mean.endswith("]")
        (hernia,) = [line for line in lines if line.startswith("Hernia")]
        assert hernia.split()[-2:] == ["undefined", "undefined"]
        assert max(map(len, lines)) <= 100


class TestAgreement:
    def test_of_two_readers_with_equal_habits_it_is_cohens_kappa(self):
        first, second = np.array([[1, 1], [1, 0], [0, 1], [0, 0], [0, 0], [1, 1]]).T  # both say yes three times
        found = agreement.fleiss_kappa(first + second, np.full(6, 2))
        assert found == pytest.approx(cohen_kappa_score(first, second))

    def test_it_is_the_worked_value(self):
        # Five films, five readers: shares of equal pairs 1, 0.6, 0.4, 0.6, 1; 11 of 25 answers are yes.
        found = agreement.fleiss_kappa([5, 4, 2, 0, 0], [5] * 5)
        chance = (11 / 25) ** 2 + (14 / 25) ** 2
        assert found == pytest.approx(((1 + 0.6 + 0.4 + 1 + 1) / 5 - chance) / (1 - chance))
        assert agreement.unanimous([5, 4, 2, 0, 0], [5] * 5) == 0.6

    def test_one_answer_says_nothing(self):
        assert np.isnan(agreement.fleiss_kappa([1, 0], [1, 1]))
        assert np.isnan(agreement.unanimous([1, 0], [1, 1]))
        assert np.isnan(agreement.fleiss_kappa([3, 3], [3, 3]))  # no chance of anything else


def test_the_report_has_both_references_and_the_readers(tmp_path, monkeypatch):
    monkeypatch.setattr(report.page, "_picture", lambda *_: "")
    write_evaluation(tmp_path / "fusion/evaluation/test", evaluation())
    write_labels(tmp_path / "google" / NAMES[1])
    write_readers(tmp_path / "google" / READERS[NAMES[1]])
    page = report.write_report([tmp_path / "fusion"], tmp_path / "out", None, (), 20, tmp_path / "google").read_text()
    assert "40 of the 50 films in all_findings_expert_labels_test_labels.csv were evaluated" in page
    assert "no random sample" in page
    found = section.expert_labels(gather([tmp_path / "fusion"], None, (), 20, tmp_path / "google"))
    aucs, labels = found.parts
    assert aucs.columns == ["Finding", "SDFN: 2017", "SDFN: experts", "SDFN: difference"]
    first = dict(zip(labels.columns, labels.rows[0], strict=True))
    own, theirs = evaluation().predictions.labels[20:, 0], truth()[20:, 0]
    assert first["precision"] == theirs[own == 1].mean()
    assert first["sensitivity"] == own[theirs == 1].mean()
    assert first["readers unanimous"] == 0.75
    assert "3 readers on 20 films" in labels.caption


def with_cell(text, row, column, answer):
    """The table with another answer; the header is row 1."""
    lines = text.splitlines()
    cells = lines[row - 1].split(",")
    cells[lines[0].split(",").index(column)] = answer
    lines[row - 1] = ",".join(cells)
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: with_cell(text, 3, "Edema", "MAYBE"), "row 3: Edema is 'MAYBE'; expected YES or NO"),
        (lambda text: with_cell(text, 3, "Edema", ""), "row 3: Edema is ''; expected YES or NO"),
        (lambda text: with_cell(text, 4, "Image ID", ""), "row 4: no Image ID"),
        (lambda text: text.replace("Image ID", "Image Index"), "no column Image ID in its first row"),
        (lambda text: text.splitlines()[0], "no images, only the header"),
        (lambda text: text + text.splitlines()[1], "row 52: a second row for 00000010_000.png; keep the right one"),
        (lambda text: "Image ID,Fracture\na.png,NO", "none of the findings Atelectasis, .* has a column"),
        (lambda text: "<!doctype html><html>", "a web page, not the file itself; download it again"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path, change, message):
    path = write_labels(tmp_path / "test_labels.csv")
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=f"test_labels.csv.*{message}"):
        expert_labels.read(path, FINDING_NAMES)


def test_a_folder_without_a_table_or_with_two_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no test_labels.csv or all_findings.*; Google gives them out on request"):
        expert_labels.read(tmp_path, FINDING_NAMES)
    for name in NAMES:
        write_labels(tmp_path / name)
    with pytest.raises(UserError, match="both test_labels.csv and all_findings_.* are in it; name the one you mean"):
        expert_labels.read(tmp_path, FINDING_NAMES)


def test_a_reader_has_one_row_for_a_film(tmp_path):
    write_labels(tmp_path / NAMES[0])
    path = write_readers(tmp_path / READERS[NAMES[0]])
    with path.open("a") as file:
        file.write(path.read_text().splitlines()[1] + "\n")
    with pytest.raises(UserError, match="row 62: a second row of reader 0 for 00000010_000.png"):
        expert_labels.read(tmp_path, FINDING_NAMES)


def test_films_that_were_not_evaluated_are_refused(tmp_path):
    labelled = expert_labels.read(write_labels(tmp_path / NAMES[0], first=60, films=40), FINDING_NAMES)
    with pytest.raises(UserError, match=r"none of its 40 films, such as 00000030_000.png, .* the 60 .* \(split test\)"):
        experts.match(labelled, evaluation(), 5)
