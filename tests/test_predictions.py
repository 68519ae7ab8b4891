import csv
import dataclasses
import hashlib
import json
import shlex

import numpy as np
import pytest

from configs import fusion
from sdfn_jax.core import config_flag, run_identity
from sdfn_jax.core.arguments import Parser
from sdfn_jax.metrics import predictions
from sdfn_jax.metrics.evaluation import (
    Evaluation,
    Origin,
    caveats,
    evaluation_command,
    read_evaluation,
    write_evaluation,
)
from sdfn_jax.metrics.predictions import Predictions, read_predictions
from sdfn_jax.radiographs.findings import FINDINGS

ORIGIN = Origin(
    stage="fusion",
    checkpoint="c0ffee",
    data_version="chestxray14/size224_labels2017/1.0.0",
    label_version="2017",
    split="test",
    drawings=False,
    seed=3,
)


def drawn_evaluation(count=50, seed=0, **origin):
    rng = np.random.default_rng(seed)
    values = Predictions(
        images=tuple(f"{index:08d}_000.png" for index in range(count)),
        patients=np.arange(count) // 2 + 1,
        probabilities=rng.random((count, 14)),
        labels=rng.integers(0, 2, (count, 14), dtype=np.uint8),
    )
    return Evaluation(dataclasses.replace(ORIGIN, **origin), values)


def with_values(evaluation, **values):
    return dataclasses.replace(evaluation, predictions=dataclasses.replace(evaluation.predictions, **values))


def record(folder):
    return json.loads((folder / "evaluation.json").read_text())


@pytest.fixture
def rows(tmp_path):
    """The table of three sound images as lists of texts, and a way to write them back."""
    write_evaluation(tmp_path, drawn_evaluation(3))
    path = tmp_path / "probabilities.csv"
    with path.open(newline="") as file:
        table = list(csv.reader(file))

    def write():
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(table)
        return path

    return table, write


def test_what_was_written_is_read_bit_for_bit(tmp_path):
    evaluation = drawn_evaluation()
    hard = np.array([0.0, 1.0, 1e-300, 5e-324, np.nextafter(1, 0), 1 / 3, 0.1, float(np.float32(0.1))])
    evaluation.predictions.probabilities[0, :8] = hard
    write_evaluation(tmp_path, evaluation)
    back = read_evaluation(tmp_path)
    assert back.origin == evaluation.origin
    assert back.predictions.images == evaluation.predictions.images
    for name in ("patients", "probabilities", "labels"):
        np.testing.assert_array_equal(getattr(back.predictions, name), getattr(evaluation.predictions, name))
    assert back.predictions.labels.dtype == np.uint8
    assert back.predictions.probabilities.dtype == np.float64


def test_float32_probabilities_keep_their_bits(tmp_path):
    evaluation = drawn_evaluation()
    single = evaluation.predictions.probabilities.astype(np.float32)
    write_evaluation(tmp_path, with_values(evaluation, probabilities=single))
    np.testing.assert_array_equal(read_evaluation(tmp_path).predictions.probabilities.astype(np.float32), single)


def test_columns_are_the_findings_in_the_papers_order(rows):
    header = rows[0][0]
    assert header[:3] == ["image", "patient", "probability_Atelectasis"]
    assert header[15:17] == ["probability_Hernia", "label_Atelectasis"]
    assert header[-1] == "label_Hernia"
    assert len(header) == 30


def test_evaluation_json_says_what_was_measured_on_what(tmp_path):
    evaluation = drawn_evaluation(200)
    evaluation.predictions.labels[:, 13] = 0
    write_evaluation(tmp_path, evaluation)
    said = record(tmp_path)
    assert {name: said[name] for name in dataclasses.asdict(ORIGIN)} == dataclasses.asdict(ORIGIN)
    assert (said["images"], said["patients"]) == (200, 100)
    assert list(said["positives"]) == list(said["auc"]) == list(FINDINGS)
    assert said["positives"]["Mass"] == evaluation.predictions.labels[:, 4].sum()
    assert said["auc"]["Hernia"] is None
    assert said["mean_auc_findings"] == 13
    assert said["mean_auc"] == pytest.approx(np.mean([value for value in said["auc"].values() if value is not None]))
    assert any("undefined" in sentence and "Hernia" in sentence for sentence in said["caveats"])
    assert said["software"]["numpy"] == np.__version__
    content = (tmp_path / "probabilities.csv").read_bytes()
    assert said["predictions_sha256"] == hashlib.sha256(content).hexdigest()


def test_the_image_list_digest_ignores_order_and_sees_every_name():
    expected = hashlib.sha256(b"a.png\nb.png\nc.png").hexdigest()
    assert predictions.image_list_digest(["c.png", "a.png", "b.png"]) == expected
    assert predictions.image_list_digest(["c.png", "a.png"]) != expected


def test_caveats_name_synthetic_radiographs_and_small_samples():
    assert caveats(drawn_evaluation(400)) == []
    (drawings,) = caveats(drawn_evaluation(400, drawings=True))
    assert "SYNTHETIC" in drawings
    (small,) = caveats(drawn_evaluation(47))
    assert "SMALL SAMPLE: among 47 images" in small
    assert "all 14 findings" in small
    rare = drawn_evaluation(400)
    rare.predictions.labels[29:, 13] = 0
    (one,) = caveats(rare)
    assert "of Hernia;" in one


def spoil(table, row, column, text):
    table[row][table[0].index(column)] = text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: [row.pop(5) for row in t], r"probabilities.csv: no column probability_Infiltration"),
        (
            lambda t: [row.insert(5, row.pop(6)) for row in t],
            r"column 20 is 'label_Infiltration', expected 'label_Mass'",
        ),
        (lambda t: [row.append("x") for row in t], "unexpected column 'x'"),
        (lambda t: spoil(t, 2, "image", t[1][0]), "row 3: image 00000000_000.png appears twice"),
        (lambda t: spoil(t, 2, "image", ""), "row 3: no image name"),
        (lambda t: spoil(t, 2, "patient", ""), "row 3: no patient of 00000001_000.png"),
        (lambda t: spoil(t, 2, "probability_Mass", "nan"), "row 3: probability_Mass of 00000001_000.png is nan"),
        (lambda t: spoil(t, 1, "probability_Mass", "1.01"), "row 2: probability_Mass .* is 1.01, not a number from 0"),
        (lambda t: spoil(t, 3, "probability_Mass", "-0.1"), "row 4: probability_Mass .* is -0.1"),
        (lambda t: spoil(t, 3, "probability_Mass", ""), "row 4: probability_Mass .* is '', not a number"),
        (lambda t: spoil(t, 2, "label_Hernia", "2"), "row 3: label_Hernia .* is '2', not 0, 1, uncertain, or nothing"),
        (
            lambda t: spoil(t, 2, "label_Hernia", "-1"),
            "row 3: label_Hernia .* is '-1', not 0, 1, uncertain, or nothing",
        ),
        (
            lambda t: spoil(t, 2, "label_Hernia", "0.5"),
            "row 3: label_Hernia .* is '0.5', not 0, 1, uncertain, or nothing",
        ),
        (lambda t: t[2].pop(), "row 3: 29 values, but the header has 30"),
        (lambda t: t.__delitem__(slice(1, None)), "no images, only the header"),
        (lambda t: t.clear(), "no column image, patient"),
    ],
)
def test_unsound_tables_are_refused_by_file_and_row(rows, change, message):
    table, write = rows
    change(table)
    with pytest.raises(ValueError, match=message):
        read_predictions(write())


def test_a_table_that_went_through_a_spreadsheet_is_read(rows):
    path = rows[1]()
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_predictions(path).images) == 3


def test_a_picture_is_not_a_table(tmp_path):
    path = tmp_path / "probabilities.csv"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\xff\xff")
    with pytest.raises(ValueError, match="not a table of UTF-8 text"):
        read_predictions(path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"probabilities": np.full((50, 14), np.nan)}, "image 00000000_000.png: probability_Atelectasis .* is nan"),
        ({"labels": np.full((50, 14), 4)}, "image 00000000_000.png: label_Atelectasis"),
        ({"images": ("a.png",) * 50}, "a.png appears twice"),
        ({"probabilities": np.zeros((49, 14))}, r"\(49, 14\).* do not fit 50 images"),
        ({"patients": np.zeros(49, int)}, r"\(49,\).* do not fit 50 images"),
    ],
)
def test_unsound_predictions_are_not_written(tmp_path, values, message):
    with pytest.raises(ValueError, match=message):
        write_evaluation(tmp_path, with_values(drawn_evaluation(), **values))
    assert list(tmp_path.iterdir()) == []


class Unwritable:
    def __str__(self):
        raise ValueError("no text")


def test_a_failed_write_leaves_the_earlier_evaluation(tmp_path):
    write_evaluation(tmp_path, drawn_evaluation())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    breaks_half_way = np.array([*range(25), *[Unwritable()] * 25])
    with pytest.raises(ValueError, match="no text"):
        write_evaluation(tmp_path, with_values(drawn_evaluation(seed=1), patients=breaks_half_way))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_files_of_two_evaluations_are_not_taken_for_one(tmp_path):
    write_evaluation(tmp_path, drawn_evaluation())
    write_evaluation(tmp_path / "other", drawn_evaluation(seed=1))
    (tmp_path / "other" / "probabilities.csv").rename(tmp_path / "probabilities.csv")
    with pytest.raises(ValueError, match=r"probabilities.csv: not the file that evaluation.json next to it describes"):
        read_evaluation(tmp_path)


@pytest.mark.parametrize(("text", "message"), [("{", "not the record of an evaluation"), ("{}", "stage is missing")])
def test_another_evaluation_json_is_refused(tmp_path, text, message):
    write_evaluation(tmp_path, drawn_evaluation())
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_evaluation(tmp_path)


@pytest.mark.parametrize("stage", ["fusion", "finetuned"])
def test_the_command_that_evaluates_a_run_names_its_stage_its_data_and_its_images_size(stage):
    config = fusion.get_config("own,size512" + ",finetuned" * (stage == "finetuned"))
    config.data.table = "my films.csv"
    command = evaluation_command("runs/mine", "validation", run_identity.as_json(config))
    arguments = shlex.split(command)[3:]
    parser = Parser("test", description="", examples="")
    config_flag.add(parser, "the stage", required=True)
    parser.add_argument("--mode")
    parser.add_argument("--split")
    _, parsed = config_flag.parse(parser, arguments)
    assert (parsed.data.table, parsed.data.size, parsed.data.data_dir) == ("my films.csv", 512, config.data.data_dir)
    assert (parsed.stage, parsed.workdir) == (stage, "runs/mine")
