import csv
import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy.stats import ttest_rel
from sklearn.metrics import roc_auc_score

from sdfn_jax.metrics import published
from sdfn_jax.metrics.evaluation import Evaluation, Origin
from sdfn_jax.metrics.predictions import Predictions
from sdfn_jax.radiographs.findings import FINDINGS, display_name
from sdfn_jax.reporting import roc_curves, table_one


def evaluation(stage, /, *, count=300, drawings=False, rare=None, **changes):
    """Predictions of a stage; all stages share images and labels."""
    labels = np.random.default_rng(0).integers(0, 2, (count, 14), dtype=np.uint8)
    if rare is not None:
        labels[:, rare] = 0
    noise = np.random.default_rng(list(published.COLUMN_NAMES).index(stage) + 1)
    origin = Origin(stage, "c0ffee", "chestxray14/size224_labels2017/1.0.0", "2017", "test", drawings, 7)
    values = Predictions(
        images=tuple(f"{index:08d}_000.png" for index in range(count)),
        patients=np.arange(count) // 3,
        probabilities=np.clip(0.4 * noise.random((count, 14)) + 0.2 * labels, 0, 1),
        labels=labels,
    )
    return Evaluation(dataclasses.replace(origin, **changes), values)


def three(**options):
    """Given in another order than the table's."""
    return [evaluation(stage, **options) for stage in ("fusion", "lung", "entire")]


def as_text(evaluations):
    return table_one.text(table_one.TableOne.of(evaluations))


def write_csv(path, evaluations):
    table_one.write(path, table_one.TableOne.of(evaluations))


def draw_roc(path, evaluations):
    roc_curves.draw(path, table_one.TableOne.of(evaluations))


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_papers_table_is_copied_right():
    # The paper's own last row: the mean of the 14 rows above it.
    for stage, mean in {"entire": 0.802, "lung": 0.804, "fusion": 0.815}.items():
        assert len(published.TABLE_ONE[stage]) == len(FINDINGS)
        assert round(np.mean(published.TABLE_ONE[stage]), 3) == mean
    by_name = dict(zip(FINDINGS, published.TABLE_ONE["fusion"], strict=True))
    assert (by_name["Pneumothorax"], by_name["Emphysema"], by_name["Hernia"]) == (0.866, 0.921, 0.911)


def test_the_columns_it_compares_itself_with_have_their_published_means():
    for name, mean in {"Wang": 0.745, "Yao": 0.761, "Gündel": 0.807}.items():
        assert len(published.OTHERS[name]) == len(FINDINGS)
        assert round(np.mean(published.OTHERS[name]), 3) == mean


def test_table_one_has_the_papers_rows_and_columns():
    evaluations = three()
    lines = as_text(evaluations).splitlines()
    head = next(index for index, line in enumerate(lines) if line.startswith("AUC"))
    assert lines[head].split()[-5:] == ["SDFN", "paper", "Wang", "Yao", "Gündel"]
    assert lines[head].index("Entire CXR") < lines[head].index("Lung region") < lines[head].index("SDFN")
    rows = lines[head + 2 : head + 16]
    assert [row[: len("Pleural thickening")].strip() for row in rows] == [display_name(name) for name in FINDINGS]
    by_stage = {each.origin.stage: each.predictions for each in evaluations}
    for finding, row in enumerate(rows):
        *_, positives, entire, paper_entire, lung, paper_lung, fusion, paper_fusion = row.split()[:-3]
        assert [float(cell) for cell in row.split()[-3:]] == [each[finding] for each in published.OTHERS.values()]
        assert int(positives) == by_stage["fusion"].labels[:, finding].sum()
        for stage, cell in (("entire", entire), ("lung", lung), ("fusion", fusion)):
            values = by_stage[stage]
            expected = roc_auc_score(values.labels[:, finding], values.probabilities[:, finding])
            assert cell == f"{expected:.3f}"
        papers = [published.TABLE_ONE[stage][finding] for stage in ("entire", "lung", "fusion")]
        assert [float(cell) for cell in (paper_entire, paper_lung, paper_fusion)] == papers
    assert lines[head + 17].startswith("Mean of 14 findings")
    assert lines[head + 17].split()[-8:-3:2] == ["0.802", "0.804", "0.815"]
    assert lines[head + 17].split()[-3:] == ["0.745", "0.761", "0.807"]
    assert max(map(len, lines)) <= 114


def test_table_one_ends_with_the_papers_paired_t_test():
    lines = as_text(three()).splitlines()
    aucs = table_one.TableOne.of(three()).aucs
    expected = ttest_rel(aucs["fusion"], aucs["entire"])
    (line,) = [line for line in lines if line.startswith("SDFN less Entire CXR: ")]
    assert f"{np.mean(aucs['fusion']) - np.mean(aucs['entire']):+.3f}; paired t-test over findings: " in line
    significant = "below" if expected.pvalue < 0.01 else "not below"
    assert line.endswith(f"t = {expected.statistic:.2f}, p = {expected.pvalue:.3f}, {significant} the paper's 0.01")
    assert [line.partition(":")[0] for line in lines if "t-test" in line] == [
        *("SDFN less Lung region", "SDFN less Entire CXR", "Lung region less Entire CXR"),
    ]


def test_table_one_says_what_it_was_measured_on():
    text = as_text(three())
    for part in (
        "300 radiographs of 100 patients",
        "split test",
        "labels 2017",
        "seed 7",
        "chestxray14/size224",
        "checkpoints c0f",
    ):
        assert part in text
    assert "NOTE" not in text


def test_synthetic_radiographs_and_small_samples_are_never_taken_for_a_result(tmp_path):
    text = " ".join(as_text(three(drawings=True, count=40)).split())
    assert "40 synthetic radiographs" in text
    assert "SYNTHETIC radiographs, not films of patients" in text
    assert "SMALL SAMPLE: among 40 images" in text
    assert "nothing about AUC on patients" in text
    write_csv(tmp_path / "table.csv", three(drawings=True, count=40))
    assert {row["data"] for row in read(tmp_path / "table.csv")} == {"drawings"}


def test_an_absent_finding_is_undefined_and_out_of_the_mean(tmp_path):
    evaluations = three(rare=13)
    text = as_text(evaluations)
    (hernia,) = [line for line in text.splitlines() if line.startswith("Hernia")]
    assert hernia.split()[:8] == ["Hernia", "0", *("undefined", "0.902", "undefined", "0.912", "undefined", "0.911")]
    assert "Mean of 13 findings" in text
    write_csv(tmp_path / "table.csv", evaluations)
    *_, hernia, mean = read(tmp_path / "table.csv")
    assert (hernia["positives"], hernia["fusion"], hernia["paper_fusion"]) == ("0", "", "0.911")
    assert mean["finding"] == "Mean of 13 findings"
    assert float(mean["paper_fusion"]) == pytest.approx(np.mean(published.TABLE_ONE["fusion"][:13]), abs=5e-4)


def test_the_csv_holds_the_papers_columns_beside_ours(tmp_path):
    evaluations = three()
    write_csv(tmp_path / "out" / "table.csv", evaluations)
    rows = read(tmp_path / "out" / "table.csv")
    assert [row["finding"] for row in rows] == [*FINDINGS, "Mean of 14 findings"]
    assert list(rows[0])[:11] == [
        *("finding", "positives", "entire", "lung", "fusion", "paper_entire", "paper_lung", "paper_fusion"),
        *("paper_Wang", "paper_Yao", "paper_Gündel"),
    ]
    values = evaluations[0].predictions
    expected = [roc_auc_score(values.labels[:, index], values.probabilities[:, index]) for index in range(14)]
    np.testing.assert_allclose([float(row["fusion"]) for row in rows], [*expected, np.mean(expected)], atol=1e-6)
    assert [row["paper_lung"] for row in rows[:2]] == ["0.773", "0.868"]
    assert (rows[-1]["paper_entire"], rows[-1]["paper_Gündel"]) == ("0.802", "0.807")
    assert all((row["images"], row["patients"], row["label_version"]) == ("300", "100", "2017") for row in rows)
    assert all((row["checkpoint_entire"], len(row["image_list_sha256"])) == ("c0ffee", 64) for row in rows)


def test_one_network_alone_has_a_table_of_one_column(tmp_path):
    text = as_text([evaluation("lung")])
    assert "Lung region" in text
    assert "SDFN" not in text
    write_csv(tmp_path / "table.csv", [evaluation("lung")])
    assert "entire" not in read(tmp_path / "table.csv")[0]


def test_the_order_of_the_images_does_not_matter():
    fusion, lung, entire = three()
    order = np.random.default_rng(5).permutation(300)
    values = fusion.predictions
    turned = Predictions(
        tuple(values.images[index] for index in order),
        values.patients[order],
        values.probabilities[order],
        values.labels[order],
    )
    shuffled = dataclasses.replace(fusion, predictions=turned)
    assert as_text([shuffled, lung, entire]) == as_text([fusion, lung, entire])


@pytest.mark.parametrize(
    ("evaluations", "message"),
    [
        ([], "no evaluation"),
        ([evaluation("lung"), evaluation("lung")], "2 evaluations of stage 'lung'"),
        ([evaluation("lung", stage="lrg")], "unknown stage 'lrg'"),
        ([evaluation("lung"), evaluation("entire", label_version="v2020")], "differ in label_version: v2020 and 2017"),
        ([evaluation("lung"), evaluation("entire", split="validation")], "differ in split"),
        ([evaluation("lung"), evaluation("entire", drawings=True)], "differ in drawings"),
        (
            [evaluation("lung"), evaluation("fusion", count=298)],
            "different images; 2 are in one only, such as 00000298_000.png, 00000299_000.png",
        ),
        ([evaluation("lung"), evaluation("fusion", rare=3)], "different labels for .* such as 0000"),
    ],
)
def test_evaluations_that_cannot_be_compared_are_refused(evaluations, message):
    with pytest.raises(ValueError, match=message):
        table_one.TableOne.of(evaluations)


def test_roc_figure_is_a_picture_with_every_curve(tmp_path):
    draw_roc(tmp_path / "roc.png", three(drawings=True, rare=13))
    with Image.open(tmp_path / "roc.png") as image:
        assert image.format == "PNG"
        assert image.size == (1800, 1200)
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0, 0, 0), (0xA0, 0, 0)):  # three curves and the warning
        assert (pixels == colour).all(axis=1).sum() > 500
    assert sorted(path.name for path in tmp_path.iterdir()) == ["roc.png", "roc.svg"]


def test_roc_figure_as_text_names_findings_counts_and_areas(tmp_path):
    draw_roc(tmp_path / "roc.png", three(rare=13))
    # Matplotlib draws letters as shapes, and leaves each text as a comment before them.
    text = (tmp_path / "roc.svg").read_text()
    evaluations = three(rare=13)
    positives = evaluations[0].predictions.labels.sum(axis=0)
    for name, count in zip(FINDINGS, positives, strict=True):
        assert f"<!-- {display_name(name)} ({count} positive) -->" in text
    values = evaluations[0].predictions
    assert f"<!-- SDFN {roc_auc_score(values.labels[:, 0], values.probabilities[:, 0]):.3f} -->" in text
    assert "one class is absent" in text


def test_results_are_read_without_jax_and_without_drawing():
    code = (
        "import sys; import sdfn_jax.report, sdfn_jax.metrics.evaluation, sdfn_jax.heatmaps.cam; "
        "import sdfn_jax.heatmaps.figures; "
        "import sdfn_jax.inference.film_page; "
        "print([name for name in ('jax', 'flax', 'matplotlib', 'tensorflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
