"""The report from run folders: what is in it, what is refused; the real predictions; a real browser."""

import base64
import csv
import dataclasses
import html.parser
import io
import json
import re
import shutil
import subprocess
import sys
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from sdfn_jax import report as report_command
from sdfn_jax.core import job_record, sealed
from sdfn_jax.core.errors import UserError, run_command
from sdfn_jax.heatmaps import check_results, detections, localization
from sdfn_jax.metrics import operating_points, platt, published, reliability
from sdfn_jax.metrics.evaluation import Evaluation, Origin, write_evaluation
from sdfn_jax.metrics.predictions import Predictions
from sdfn_jax.radiographs.findings import FINDINGS
from sdfn_jax.reporting import material, report, table_one, verdict
from sdfn_jax.reporting.sections import provenance
from tests import other_process
from tests.browser import chromium
from tests.official_files import HEADER_2017

SECTIONS = [
    *(
        "reproduced",
        "training",
        "measured",
        "table-one",
        "seeds",
        "roc",
        "differences",
        "calibration",
        "operating-points",
        "subgroups",
        "label-versions",
        "expert-labels",
        "other-data-sets",
    ),
    *("localization", "heatmaps", "heatmap-checks", "lung-regions", "segmentation", "model-card"),
]
COUNT = 120
STAGES = ("entire", "lung", "fusion")
CHANGED = 3


def names(split):
    first = 0 if split == "test" else 40900  # of patients that NIH has not, as its labels tell versions apart
    return [f"{first + index // 2:08d}_{index % 2:03d}.png" for index in range(COUNT)]


def labels_of(split):
    labels = (np.random.default_rng(len(split)).random((COUNT, 14)) < 0.4).astype(np.uint8)
    labels[:, 13] = 0  # no Hernia
    labels[:5, 12] = 1
    labels[5:, 12] = 0  # few of Pleural thickening
    return labels


def evaluation(stage, split="test", **origin):
    labels = labels_of(split)
    noise = np.random.default_rng(STAGES.index(stage)).random((COUNT, 14))
    values = Predictions(
        tuple(names(split)),
        np.array([int(name[:8]) for name in names(split)]),
        np.clip(0.7 * noise + (0.1 + 0.1 * STAGES.index(stage)) * labels, 0, 1),
        labels,
    )
    said = Origin(stage, f"{stage}-digest", "chestxray14/size224_labels2017/1.0.0", "2017", split, False, 3)
    return Evaluation(dataclasses.replace(said, **origin), values)


def turned_over(said):
    """The same images in another order, as another run may have them."""
    values = said.predictions
    turned = Predictions(values.images[::-1], values.patients[::-1], values.probabilities[::-1], values.labels[::-1])
    return dataclasses.replace(said, predictions=turned)


def write_tables(folder):
    """The official tables, of our images; version v2020 adds a label to three of them."""
    folder.mkdir()
    added = np.flatnonzero(labels_of("test")[:, 0] == 0)[:CHANGED]
    for version, name in (("2017", "Data_Entry_2017.csv"), ("v2020", "Data_Entry_2017_v2020.csv")):
        rows = [HEADER_2017]
        for split in ("test", "validation"):
            for index, (image, labels) in enumerate(zip(names(split), labels_of(split), strict=True)):
                labels = labels.copy()
                if version == "v2020" and split == "test" and index in added:
                    labels[0] = 1
                said = "|".join(np.array(FINDINGS)[labels == 1]) or "No Finding"
                age = 20 + index % 50
                age = f"{age:03}Y" if version == "2017" else age
                sex, view = "MF"[index // 2 % 2], ("PA", "AP")[index % 3 == 0]
                rows.append(f"{image},{said},0,{int(image[:8])},{age},{sex},{view},2500,2048,0.1,0.1")
        (folder / name).write_text("\n".join(rows))
    (folder / "BBox_List_2017.csv").write_text("Image Index,Finding Label,Bbox [x,y,w,h],,,\n")
    (folder / "test_list.txt").write_text("\n".join(names("test")))
    (folder / "train_val_list.txt").write_text("\n".join(names("validation")))
    return folder


def cases_of(stage):
    rng = np.random.default_rng(STAGES.index(stage))
    cases = []
    for index in range(40):
        boxes = np.array([[10, 10, 30, 40], [20, 5, 50, 30]][index % 2 : index % 2 + 1])
        maps = np.kron(rng.random((8, 8)), np.ones((8, 8)))
        maps = 255 * (maps - maps.min()) / np.ptp(maps)
        name = names("test")[index]
        cases.append(localization.locate(name, int(name[:8]), FINDINGS[index % 2], boxes, maps))
    return cases


_CHECKED = {"outside": "mean", "drawings": False}


def checks():
    one = check_results.CaseMean(0.25, 0.125, 0.5)
    return check_results.Checks(
        cases=40,
        rules={"mean": (one, one)},
        randomised={"head": one},
        curves=dict.fromkeys(check_results.CURVES, np.tile(np.linspace(0, 1, 11), (2, 1))),
        areas=dict.fromkeys(check_results.CURVES, (one, one, one)),
    )


def write_runs(folder):
    """Three networks and an LRG, with everything a run can leave."""
    for stage in STAGES:
        where = folder / stage / "evaluation"
        for split in ("test", "validation"):
            said = evaluation(stage, split)
            write_evaluation(where / split, turned_over(said) if stage == "lung" else said)
        recipe = {"config": {"num_epochs": 100, "batch_size": 16, "learning_rate": 1e-4}}
        (where / "test" / "recipe.json").write_text(json.dumps(recipe))
        origin = {"method": stage, "checkpoint": f"{stage}-digest", "drawings": False}
        detections.write(where / "test", cases_of(stage), origin)
    check_results.write(folder / "fusion/evaluation/test", checks(), {"checkpoint": "fusion-digest", **_CHECKED})
    results = folder / "fusion" / "results"
    results.mkdir()
    for name in ("figure_9", "heatmaps", "lung_boxes_smallest", "lung_boxes_mirror", "lung_regions_ordinary"):
        Image.new("RGB", (400, 300), "grey").save(results / f"{name}.png")
    for stage, score in (("fusion", "validation_mean_auc"), ("lrg", "validation_dice")):
        (folder / stage).mkdir(exist_ok=True)
        epochs = [
            {"epoch": n, "step": n, "train_loss": 1 / n, "validation_loss": 1 / n, score: 0.5, "best_epoch": 2}
            for n in (1, 2, 3)
        ]
        (folder / stage / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in epochs))
    for seconds in (60.0, 30.0):
        job_record.add(folder / "fusion", job_record.StepTime("fusion network", seconds, "1 GPU", seconds < 60))
    lrg = folder / "lrg"
    (lrg / "cross_validation").mkdir()
    boxes = [f"{n}.png,100,100,5,5,95,95,{'none' if n < 95 else 'drop_small+mirror'},0.3,digest" for n in range(100)]
    head = "image,width,height,left,top,right,bottom,rule,lung_area,checkpoint"
    (lrg / "lung_boxes.csv").write_text("\n".join([head, *boxes, ""]))
    rows = [
        f"f{n}.png,{n % 5},{0.9 + n / 1000},{0.8 + n / 1000},0.95,0.9,{n / 10},{0.9 + 0.002 * n},none"
        for n in range(50)
    ]
    head = "image,fold,dice,iou,dice_original,iou_original,surface_distance,lung_recall,rule"
    (lrg / "cross_validation" / "segmentation.csv").write_text("\n".join([head, *rows, ""]))
    Image.new("RGB", (400, 300), "grey").save(lrg / "cross_validation" / "worst_fold_0.png")
    return [folder / stage for stage in (*STAGES, "lrg")]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A report with every section filled."""
    folder = tmp_path_factory.mktemp("report")
    runs = write_runs(folder / "runs")
    tables = write_tables(folder / "tables")
    detections.write(folder / "theirs", cases_of("entire"), {"method": "theirs"})
    options = [f"--output={folder / 'out'}", f"--tables={tables}", f"--localization={folder / 'theirs'}"]
    report_command.main([*map(str, runs), *options, "--replicates=60"])
    return folder / "out"


def rows(folder, name):
    return read(folder / "tables" / f"{name}.csv")


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def all(self, tag):
        return [attributes for found, attributes in self.tags if found == tag]


class TestPage:
    def test_every_section_is_there_and_linked(self, made):
        page = Page((made / "index.html").read_text())
        assert [each["id"] for each in page.all("section")] == SECTIONS
        links = [each["href"] for each in page.all("a")]
        assert links[: len(SECTIONS)] == [f"#{name}" for name in SECTIONS]
        files = {unquote(link) for link in links[len(SECTIONS) :]}
        written = {str(path.relative_to(made)) for path in made.rglob("*.*")} - {"index.html"}
        assert files == written  # a file's name is the link to it

    def test_it_needs_nothing_else(self, made):
        text = (made / "index.html").read_text()
        page = Page(text)
        assert not page.all("script")
        assert [each["href"] for each in page.all("link")] == ["data:,"]
        assert "http:" not in text
        assert "https:" not in text
        for image in page.all("img"):
            kind, content = image["src"].split(",", 1)
            assert kind == "data:image/png;base64"
            with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
                assert picture.width >= 400
            assert image["alt"]

    def test_every_table_and_figure_is_a_file_too(self, made):
        page = Page((made / "index.html").read_text())
        tables = {each["id"].removeprefix("table-") for each in page.all("table")}
        assert {path.stem for path in (made / "tables").glob("*.csv")} == tables
        figures = {each["id"].removeprefix("figure-") for each in page.all("figure")}
        assert {path.stem for path in (made / "figures").glob("*.png")} == figures
        drawn = {path.stem for path in (made / "figures").glob("*.svg")}
        copied = {"figure_9", "heatmaps", "lung_boxes_smallest", "lung_boxes_mirror", "lung_regions_ordinary"}
        copied |= {"worst_fold_0"}
        assert figures - drawn == copied
        assert not any(path.name.startswith(".") for path in made.rglob("*"))

    def test_without_its_input_a_section_says_what_makes_it_and_names_are_text(self, tmp_path):
        said = evaluation("lung", data_version="<script>alert(1)</script>/&")
        write_evaluation(tmp_path / "run/evaluation/test", said)
        report_command.main([str(tmp_path / "run"), f"--output={tmp_path / 'out'}", "--replicates=5"])
        text = (tmp_path / "out" / "index.html").read_text()
        page = Page(text)
        assert [each["id"] for each in page.all("section")] == SECTIONS
        for hint in (
            "--split=validation",
            "--tables=FOLDER",
            "--expert_labels=FOLDER",
            "--external=FOLDER",
            "sdfn_jax.localize",
            "cross_validate",
            "nothing to comp",
        ):
            assert hint in text
        assert not page.all("script")
        assert "&lt;script&gt;" in text

    def test_no_jax(self, made):
        code = (
            "import sys; from sdfn_jax.reporting import estimates, material, page, report, table_one; "
            "print([name for name in ('jax', 'flax', 'tensorflow', 'matplotlib') if name in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"


class TestFirstScreen:
    def judged(self, tmp_path, monkeypatch, images=COUNT, **origin):
        monkeypatch.setattr(published, "TEST_IMAGES", images)
        for stage in STAGES:
            write_evaluation(tmp_path / stage / "evaluation/test", evaluation(stage, **origin))
        return verdict.judge(material.gather([tmp_path], None, (), 60))

    def test_of_synthetic_radiographs_nothing_can_be_concluded(self, tmp_path, monkeypatch):
        said = self.judged(tmp_path, monkeypatch, drawings=True)
        assert said.answer == "Nothing can be concluded: these are synthetic radiographs."
        assert not any("holds" in reason or "within" in reason for reason in said.reasons)
        monkeypatch.setattr(report.page, "_picture", lambda *_: "")
        page = report.write_report([tmp_path], tmp_path / "out", None, (), 5).read_text()
        assert "<title>SDFN on synthetic radiographs: a demo</title>" in page and said.answer in page

    def test_other_images_than_the_papers_are_not_compared(self, tmp_path, monkeypatch):
        said = self.judged(tmp_path, monkeypatch, images=25_596)
        assert said.answer.startswith("Not comparable with the paper: 120 images of split test under labels 2017")
        assert said.reasons[0].startswith("For orientation only, SDFN: mean AUC 0.")

    @pytest.mark.parametrize(
        ("paper", "answer"),
        [
            (None, "Yes: the paper's mean AUC of 0.{} is within the 95 % interval of ours, "),
            (0.6, "Yes, and better: our mean AUC is "),
            (0.999, "No: our mean AUC is "),
        ],
    )
    def test_on_the_papers_images_the_interval_decides(self, tmp_path, monkeypatch, paper, answer):
        values = evaluation("fusion").predictions
        ours = [
            roc_auc_score(values.labels[:, index], values.probabilities[:, index]) if index < 13 else 0.9
            for index in range(14)
        ]
        figures = {stage: tuple(ours) if paper is None else (paper,) * 14 for stage in STAGES}
        monkeypatch.setattr(published, "TABLE_ONE", figures)
        said = self.judged(tmp_path, monkeypatch)
        assert said.answer.startswith(answer.format(f"{np.mean(ours[:13]):.3f}"[2:]))
        inside = {None: 13, 0.999: 0}.get(paper)
        if inside is not None:
            assert any(f"our interval for {inside} of 13 findings" in reason for reason in said.reasons)
        (gain,) = [reason for reason in said.reasons if reason.startswith("That fusion beats Entire CXR")]
        assert gain.startswith("That fusion beats Entire CXR holds: +0.")
        assert any("One training (seed 3)" in reason for reason in said.reasons)

    def test_another_recipe_is_named(self, tmp_path, monkeypatch):
        recipe = {"config": {"num_epochs": 5, "batch_size": 16, "learning_rate": 1e-4, "data": {"size": 128}}}
        monkeypatch.setattr(published, "TEST_IMAGES", COUNT)
        write_evaluation(tmp_path / "lung/evaluation/test", evaluation("lung"))
        sealed.write(tmp_path / "lung/evaluation/test/recipe.json", recipe)
        said = verdict.judge(material.gather([tmp_path / "lung"], None, (), 60))
        assert "than the paper's: size 128 (the paper's: 224), num_epochs 5 (the paper's: 100)." in " ".join(
            said.reasons
        )
        assert any("this is about Lung region alone" in reason for reason in said.reasons)

    def test_means_are_next_to_the_papers_with_their_difference(self, made):
        found = {row["Network"]: row for row in rows(made, "means")}
        mean = {row["Finding"]: row for row in rows(made, "table_1_intervals")}["Mean of 13"]
        for name in ("Entire CXR", "SDFN"):
            assert (found[name]["ours"], found[name]["ours_low"]) == (mean[name], mean[f"{name}_low"])
            assert float(found[name]["ours less paper"]) == pytest.approx(
                float(mean[name]) - float(found[name]["paper"])
            )

    def test_the_time_of_an_interrupted_step_counts(self, made):
        assert [(row["Step"], row["time"], row["on"]) for row in rows(made, "durations")] == [
            *(("fusion network", "1:30", "1 GPU"), ("all", "1:30", "")),
        ]
        assert re.search(r"<td>\+0\.0\d\d <small>\[\+0\.", (made / "index.html").read_text())  # a difference has a sign
        assert 'id="figure-learning_curves"' in (made / "index.html").read_text()

    def test_a_folder_of_runs_is_the_runs_in_it(self, tmp_path):
        runs = write_runs(tmp_path)
        found = material.gather([tmp_path], None, (), 5)
        assert ([run.folder for run in found.runs], found.generators) == (runs[:3], runs[3:])
        shutil.copytree(tmp_path / "lung", tmp_path / "lung_again")
        with pytest.raises(UserError, match="2 runs of the stage lung: .*lung, .*lung_again; name the one you mean"):
            material.gather([tmp_path], None, (), 5)


class TestNumbers:
    def test_table_one_has_our_aucs_their_intervals_and_the_papers(self, made):
        found = rows(made, "table_1_intervals")
        for stage, name in zip(STAGES, ("Entire CXR", "Lung region", "SDFN"), strict=True):
            values = evaluation(stage).predictions
            expected = roc_auc_score(values.labels[:, :13], values.probabilities[:, :13], average=None)
            np.testing.assert_allclose([float(row[name]) for row in found[:13]], expected)
            assert all(float(row[f"{name}_low"]) < float(row[name]) < float(row[f"{name}_high"]) for row in found[:13])
            assert float(found[14][name]) == pytest.approx(expected.mean())
            assert found[13][name] == ""  # Hernia is undefined, and not 0
            assert "few" in found[12][f"{name}_few"]
            assert found[0][f"{name}_few"] == ""
        assert found[0]["SDFN, paper"] == "0.781"
        assert found[14]["Finding"] == "Mean of 13"
        assert '<td class="nothing">undefined</td>' in (made / "index.html").read_text()

    def test_table_one_is_the_file_of_the_main_job(self, made, tmp_path):
        table = table_one.TableOne.of([evaluation(stage) for stage in STAGES])
        table_one.write(tmp_path / "main_job.csv", table)
        assert (made / "table_1.csv").read_bytes() == (tmp_path / "main_job.csv").read_bytes()
        for row, shown in zip(read(made / "table_1.csv"), rows(made, "table_1_intervals"), strict=True):
            assert row["fusion"] == (f"{float(shown['SDFN']):.6f}" if shown["SDFN"] else "")
            assert row["positives"] == shown["positives"]

    def test_heatmap_checks_are_those_of_the_record(self, made):
        (row,) = rows(made, "heatmap_rules_fusion")
        assert (row["Rule"], row["pointing game"], row["pointing game_low"]) == ("mean", "0.25", "0.125")
        assert [row["wanted"] for row in rows(made, "heatmap_areas_fusion")] == [
            *("below 0: better than chance", "above 0: better than chance"),
        ]

    def test_precision_recall(self, made):
        found = rows(made, "precision_recall")
        values = evaluation("fusion").predictions
        expected = average_precision_score(values.labels[:, :13], values.probabilities[:, :13], average=None)
        np.testing.assert_allclose([float(row["SDFN"]) for row in found[:13]], expected)
        assert "few" in found[12]["SDFN_few"]
        assert float(found[0]["prevalence"]) == pytest.approx(values.labels[:, 0].mean())
        assert found[13]["SDFN"] == ""

    def test_differences_are_of_the_larger_less_the_smaller_network(self, made):
        found = {row["Networks"]: row for row in rows(made, "differences")}
        assert list(found) == ["SDFN less Lung region", "SDFN less Entire CXR", "Lung region less Entire CXR"]
        value = float(found["SDFN less Entire CXR"]["difference of the mean AUC"])
        means = {row["Finding"]: row for row in rows(made, "table_1_intervals")}["Mean of 13"]
        assert value == pytest.approx(float(means["SDFN"]) - float(means["Entire CXR"]))
        assert value > 0.05
        assert float(found["SDFN less Entire CXR"]["p"]) < 0.05

    def test_thresholds_are_those_of_validation_never_of_test(self, made):
        first = rows(made, "operating_points")[0]
        chosen = evaluation("entire", "validation").predictions
        tested = evaluation("entire", "test").predictions
        expected = operating_points.youden(chosen.labels[:, 0], chosen.probabilities[:, 0])
        assert float(first["threshold"]) == expected
        assert expected != operating_points.youden(tested.labels[:, 0], tested.probabilities[:, 0])
        called = tested.probabilities[:, 0] >= expected
        assert float(first["sensitivity"]) == called[tested.labels[:, 0] == 1].mean()
        assert float(first["specificity"]) == (~called)[tested.labels[:, 0] == 0].mean()
        hernia = [row for row in rows(made, "operating_points") if row["Finding"] == "Hernia"]
        assert {(row["rule"], row["threshold"], row["called"]) for row in hernia} == {("none", "", "")}
        assert all(row["why no decision"].endswith("in validation; it takes 20 of each") for row in hernia)
        assert len(hernia) == 3  # one for each network

    def test_platt_scaling_is_fitted_on_validation_and_measured_on_both(self, made):
        found = rows(made, "platt_scaling")
        assert len(found) == 3 * 14
        first, chosen, tested = found[0], *(evaluation("entire", split).predictions for split in ("validation", "test"))
        scaling = platt.fit(chosen.labels[:, 0], chosen.probabilities[:, 0])
        assert float(first["slope"]) == scaling.slope
        assert float(first["Brier, test, before"]) == reliability.brier(tested.labels[:, 0], tested.probabilities[:, 0])
        after = reliability.brier(tested.labels[:, 0], scaling(tested.probabilities[:, 0]))
        assert float(first["Brier, test, after"]) == after
        apart = platt.cross_fit(chosen.labels[:, 0], chosen.probabilities[:, 0], chosen.patients)
        error = reliability.curve(chosen.labels[:, 0], apart).error
        assert float(first["error, validation, after"]) == error
        few = {row["Finding"]: row["why not"] for row in found if row["slope"] == ""}
        assert few["Hernia"] == "0 positives and 120 negatives in validation; it takes 20 of each"
        assert "Atelectasis" not in few

    def test_subgroups_are_counted_and_scored(self, made):
        found = {row["Group"]: row for row in rows(made, "subgroups")}
        assert list(found) == [
            *("sex: female", "sex: male", "age: 18-39", "age: 40-59", "age: 60-79", "view: PA", "view: AP")
        ]
        assert (found["view: AP"]["images"], found["sex: male"]["patients"]) == ("40", "30")
        values = evaluation("fusion").predictions
        male = np.arange(COUNT) // 2 % 2 == 0
        kept = [c for c in range(14) if 0 < values.labels[male, c].sum() < male.sum()]
        expected = roc_auc_score(values.labels[male][:, kept], values.probabilities[male][:, kept])
        assert float(found["sex: male"]["SDFN"]) == pytest.approx(expected)

    def test_within_view_is_over_pairs_of_one_view(self, made):
        values = evaluation("fusion").predictions
        labels, scores, ap = values.labels[:, 0], values.probabilities[:, 0], np.arange(COUNT) % 3 == 0
        pairs = [scores[view & (labels == 1)][:, None] > scores[view & (labels == 0)][None] for view in (ap, ~ap)]
        expected = sum(each.sum() for each in pairs) / sum(each.size for each in pairs)
        first = rows(made, "within_view")[0]
        assert float(first["SDFN: within view"]) == pytest.approx(expected)
        assert float(first["SDFN: pooled"]) == pytest.approx(roc_auc_score(labels, scores))

    def test_label_versions_stand_side_by_side(self, made):
        first = rows(made, "label_versions")[0]
        assert int(first["positives, v2020"]) - int(first["positives, 2017"]) == CHANGED
        values = evaluation("fusion").predictions
        labels = values.labels[:, 0].copy()
        labels[np.flatnonzero(labels == 0)[:CHANGED]] = 1
        assert float(first["SDFN, v2020"]) == pytest.approx(roc_auc_score(labels, values.probabilities[:, 0]))
        text = (made / "index.html").read_text()
        assert f"differ in the labels of {CHANGED} images, {CHANGED} of them" in text

    def test_localization_is_next_to_its_floors(self, made):
        found = {row["Level"]: row for row in rows(made, "localization")}
        assert float(found["IoU > 0.1"]["median box"]) == 1  # every reference box of a finding is the same here
        assert 0 < float(found["IoU > 0.1"]["random box"]) < 1
        assert float(found["IoU > 0.7"]["SDFN"]) < 1
        assert all(row["theirs"] == row["Entire CXR"] for row in found.values())  # another method, by the same rules
        by_finding = {(row["Finding"], row["method"]): row for row in rows(made, "localization_findings")}
        assert by_finding["Atelectasis", "Wang et al."]["IoBB > 0.1"] == "0.7277"
        assert by_finding["Mean", "theirs"]["IoU > 0.1"] == by_finding["Mean", "Entire CXR"]["IoU > 0.1"]

    def test_lung_rules_and_segmentation(self, made):
        rules = {row["Rule"]: row for row in rows(made, "lung_rules")}
        assert (rules["no rule needed"]["share"], rules["no rule needed"]["paper (112,120 images)"]) == (
            "0.95",
            "0.9584",
        )
        assert rules["of these: drop_small+mirror"]["images"] == "5"
        films = {row["Films"]: row for row in rows(made, "segmentation_cross_validation")}
        dice = 0.9 + np.arange(50) / 1000
        assert float(films["all films"]["Dice"]) == pytest.approx(dice.mean())
        assert float(films["all films"]["Dice, sd"]) == pytest.approx(dice.std())
        assert float(films["fold 2"]["Dice"]) == pytest.approx(dice[2::5].mean())
        assert "few" in films["fold 2"]["Dice_few"]
        low, high = float(films["all films"]["Dice_low"]), float(films["all films"]["Dice_high"])
        assert high - low == pytest.approx(2 * 1.96 * dice.std() / 50**0.5, rel=0.3)

    def test_the_model_card_is_filled(self, made):
        card = {row["Item"]: row["value"] for row in rows(made, "model_card")}
        assert "Research" in card["Intended use"]
        assert (card["Label version"], card["SDFN: checkpoint"], card["SDFN: seed"]) == ("2017", "fusion-digest", "3")
        assert "num_epochs 100; batch_size 16" in card["SDFN: recipe"]
        assert len(card["SHA-256 of the image list"]) == 64


class TestRefused:
    """Bad input is named before anything is written."""

    def refused(self, tmp_path, runs, message, tables=None, others=()):
        with pytest.raises(UserError, match=message):
            report.write_report(runs, tmp_path / "out", tables, others, 5)
        assert not (tmp_path / "out").exists()

    def run(self, tmp_path, stage="lung", **origin):
        folder = tmp_path / f"run_{stage}"
        write_evaluation(folder / "evaluation/test", evaluation(stage, **origin))
        return folder

    def test_folders_that_are_no_runs(self, tmp_path):
        self.refused(tmp_path, [tmp_path / "nothing"], "nothing: no evaluation/test/evaluation.json")
        (tmp_path / "lrg").mkdir()
        (tmp_path / "lrg/lung_boxes.csv").write_text("")
        self.refused(tmp_path, [tmp_path / "lrg"], "no run of a classifier")

    def test_the_same_stage_twice_and_another_list(self, tmp_path):
        run = self.run(tmp_path)
        self.refused(tmp_path, [run, run], "2 evaluations of stage 'lung'")
        said = evaluation("fusion")
        fewer = dataclasses.replace(
            said.predictions,
            images=said.predictions.images[1:],
            **{name: getattr(said.predictions, name)[1:] for name in ("patients", "probabilities", "labels")},
        )
        write_evaluation(tmp_path / "other/evaluation/test", dataclasses.replace(said, predictions=fewer))
        self.refused(
            tmp_path, [run, tmp_path / "other"], "different images; 1 are in one only, such as 00000000_000.png"
        )

    def test_labels_that_disagree_with_their_version(self, tmp_path):
        tables = write_tables(tmp_path / "tables")
        self.refused(
            tmp_path,
            [self.run(tmp_path, label_version="v2020")],
            f"{CHANGED} of the evaluated images are labelled otherwise by version v2020.*such as 0000",
            tables,
        )

    def test_images_the_tables_do_not_have(self, tmp_path):
        tables = write_tables(tmp_path / "tables")
        run = self.run(tmp_path)
        path = tables / "test_list.txt"
        path.write_text("\n".join(names("test")[2:]))
        self.refused(
            tmp_path, [run], "2 of the evaluated images are not in test_list.txt, such as 00000000_000", tables
        )
        path.write_text("\n".join(names("test")))
        table = tables / "Data_Entry_2017.csv"
        table.write_text(table.read_text().replace("00000000_001.png,", "x.png,"))
        self.refused(tmp_path, [run], "1 of the evaluated images are not in Data_Entry_2017.csv, such as 0", tables)
        self.refused(tmp_path, [run], "Data_Entry_2017.csv is missing", tmp_path)

    def test_a_patient_of_another_number(self, tmp_path):
        tables = write_tables(tmp_path / "tables")
        table = tables / "Data_Entry_2017.csv"
        table.write_text(table.read_text().replace(",0,7,", ",0,77,"))
        self.refused(tmp_path, [self.run(tmp_path)], "2 of the evaluated images are of another patient", tables)

    def test_validation_that_is_anothers_or_is_test(self, tmp_path):
        run = self.run(tmp_path)
        write_evaluation(run / "evaluation/validation", evaluation("lung", "validation", checkpoint="other"))
        self.refused(tmp_path, [run], "differ in checkpoint: lung-digest and other")
        write_evaluation(run / "evaluation/validation", evaluation("lung", "test"))
        self.refused(tmp_path, [run], "60 patients are in validation and in test, such as .0, 1, 2.")

    def test_boxes_of_another_checkpoint_or_of_other_images(self, tmp_path):
        run = self.run(tmp_path)
        detections.write(run / "evaluation/test", cases_of("lung"), {"method": "lung", "checkpoint": "older"})
        self.refused(tmp_path, [run], "of another checkpoint than the predictions next to it; localize again: .*--run=")
        detections.write(run / "evaluation/test", cases_of("lung"), {"method": "lung", "checkpoint": "lung-digest"})
        detections.write(tmp_path / "theirs", cases_of("lung")[1:], {"method": "theirs"})
        self.refused(
            tmp_path, [run], "'theirs' are of different boxes; 1 images differ, such as 00000000_000", None,
            [tmp_path / "theirs"],
        )  # fmt: skip

    def test_heatmap_checks_of_another_checkpoint(self, tmp_path):
        run = self.run(tmp_path)
        check_results.write(run / "evaluation/test", checks(), {"checkpoint": "older", **_CHECKED})
        self.refused(tmp_path, [run], "heatmap_checks.json is of another checkpoint .*; check again: .* --checks")

    def test_damaged_files(self, tmp_path):
        run = self.run(tmp_path)
        (run / "evaluation/test/recipe.json").write_text("{}")
        self.refused(tmp_path, [run], "recipe.json: not the record of a training run .config is missing")
        (run / "evaluation/test/recipe.json").unlink()
        path = tmp_path / "lrg/cross_validation/segmentation.csv"
        path.parent.mkdir(parents=True)
        path.write_text("fold,dice,iou\n0,1,1\n")
        self.refused(tmp_path, [run, tmp_path / "lrg"], "segmentation.csv: no column dice_original, iou_original")
        path.write_text("fold,dice,iou,dice_original,iou_original,lung_recall\n0,1,1,1,x,1\n")
        self.refused(tmp_path, [run, tmp_path / "lrg"], "segmentation.csv, row 2: could not convert")
        path.with_suffix(".json").write_text('{"segmentation_sha256": "0"}')
        self.refused(tmp_path, [run, tmp_path / "lrg"], "segmentation.csv: not the file that segmentation.json next")
        path.with_suffix(".json").write_text("[" * 9999)
        self.refused(tmp_path, [run, tmp_path / "lrg"], "segmentation.json: not the record of a .*nested too deeply")
        path.with_suffix(".json").unlink()
        path.write_bytes(b"\xff\xfe")
        self.refused(tmp_path, [run, tmp_path / "lrg"], "segmentation.csv: not a table of UTF-8 text")
        with pytest.raises(UserError, match="--replicates=0: at least one"):
            report.write_report([run], tmp_path / "out", None, (), 0)

    @pytest.mark.parametrize("name", ["evaluation.json", "probabilities.csv"])
    @pytest.mark.parametrize("harm", ["empty", "cut", "zeros", "gone"])
    @pytest.mark.parametrize("split", ["test", "validation"])
    def test_a_damaged_evaluation_is_named_with_the_command_that_makes_it_again(self, tmp_path, name, harm, split):
        run = self.run(tmp_path)
        write_evaluation(run / "evaluation" / "validation", evaluation("lung", "validation"))
        path = run / "evaluation" / split / name
        whole = path.read_bytes()
        path.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "zeros": bytes(len(whole)), "gone": b""}[harm])
        if harm == "gone":
            path.unlink()
        if (harm, name, split) == ("gone", "evaluation.json", "test"):
            self.refused(tmp_path, [run], "no evaluation/test/evaluation.json")
            return
        command = rf"--config=configs/STAGE.py --config.workdir={run} --mode=evaluate --split={split}"
        self.refused(tmp_path, [run], rf"{split}/{name}.*; evaluate again: python -m sdfn_jax.main {command}")
        sealed.write(run / "evaluation" / split / "recipe.json", {"config": {"stage": "lung", "phantom": {}}})
        self.refused(
            tmp_path, [run], "evaluate again: python -m sdfn_jax.main --config=configs/classifier.py:lung,demo "
        )

    def test_a_folder_that_another_command_writes_to(self, tmp_path, monkeypatch):
        monkeypatch.setattr(report.page, "_picture", lambda *_: "")
        with other_process.holding(tmp_path / ".out.lock"):
            self.refused(tmp_path, [self.run(tmp_path)], "out is being written by another command")
        report.write_report([self.run(tmp_path)], tmp_path / "out", None, (), 5)
        assert not (tmp_path / ".out.lock").exists()

    def test_a_message_and_no_traceback(self, tmp_path, capsys):
        with pytest.raises(SystemExit) as stop:
            run_command(lambda: report_command.main([str(tmp_path), f"--output={tmp_path / 'out'}"]))
        assert stop.value.code == 2
        assert "error: " in capsys.readouterr().err


def test_images_of_the_test_list_that_were_not_evaluated_are_counted(tmp_path):
    tables = write_tables(tmp_path / "tables")
    with (tables / "test_list.txt").open("a") as file:
        file.write("\nabsent_1.png\nabsent_2.png")
    write_evaluation(tmp_path / "run/evaluation/test", evaluation("lung"))
    section = provenance.measured(material.gather([tmp_path / "run"], tables, (), 5))
    text = " ".join(section.text)
    assert "2 images of the official test list were not evaluated, such as absent_1.png" in text
    assert "120 images under labels 2017, not the paper's 25,596" in text


@pytest.fixture(params=["desktop", "phone", "dark"])
def browser(request):
    with chromium(request.param) as driver:
        yield request.param, driver


def test_the_page_in_a_real_browser(made, browser):
    kind, driver = browser
    driver.get((made / "index.html").as_uri())
    measured = "return document.documentElement.scrollHeight"
    assert driver.execute_script(measured) < 4 * driver.execute_script("return window.innerHeight")
    assert driver.execute_script("return document.querySelectorAll('section.first').length") == 2
    driver.execute_script("location.hash = 'calibration'")  # a link opens what it leads to
    assert driver.execute_script("return document.getElementById('calibration').closest('details').open")
    driver.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")
    if kind == "desktop":
        cut = "return [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth).length"
        assert driver.execute_script(cut) == 0
    shown = driver.execute_script(
        "const box = e => e.getBoundingClientRect();"
        "return {sections: [...document.querySelectorAll('section')].filter(e => box(e).height > 40).map(e => e.id),"
        " images: [...document.images].map(e => e.complete && e.naturalWidth > 0 && box(e).width > 100),"
        " requests: performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length,"
        " page: document.documentElement.scrollWidth, window: window.innerWidth,"
        " text: Math.min(...[...document.querySelectorAll('p, td')].map(e => parseFloat(getComputedStyle(e).fontSize)))"
        ","
        " ink: getComputedStyle(document.body).color, paper: getComputedStyle(document.body).backgroundColor}"
    )
    assert shown["sections"] == SECTIONS
    assert all(shown["images"])
    assert len(shown["images"]) == len(list((made / "figures").glob("*.png")))
    assert shown["requests"] == 0
    assert shown["page"] == shown["window"]  # wide tables scroll within themselves, the page does not
    assert shown["text"] >= 12
    brightness = [sum(map(float, colour[4:-1].split(","))) / 3 for colour in (shown["ink"], shown["paper"])]
    assert (brightness[0] > 200 and brightness[1] < 60) if kind == "dark" else (brightness[0] < 60 < brightness[1])
    assert driver.get_log("browser") == []
    if kind == "desktop":
        driver.execute_script("document.querySelectorAll('details').forEach(each => each.open = false)")
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        seen = "return [...document.querySelectorAll('{}')].filter(e => e.checkVisibility()).length"
        assert driver.execute_script(seen.format("section")) == len(SECTIONS)  # on paper every section is open,
        assert driver.execute_script(seen.format("details details table")) == 0  # what is folded within one is not
        assert driver.execute_script(seen.format("nav")) == 0
    printed = driver.print_page()
    assert base64.b64decode(printed)[:4] == b"%PDF"


@pytest.mark.real
def test_the_report_over_real_predictions(real_data, tmp_path):
    from sdfn_jax.core.faults import Faults
    from sdfn_jax.radiographs import nih_tables

    tables = real_data / "chestxray14"
    entries = nih_tables.read_entries(tables / "Data_Entry_2017_v2020.csv", "v2020", Faults(skip=False))
    with (real_data / "predictions/preds.csv").open(newline="") as file:
        _, *found = csv.reader(file)
    images = tuple(row[0] for row in found)
    values = Predictions(
        images,
        np.array([entries[image].patient for image in images]),
        np.array([[float(value) for value in row[1:]] for row in found]),
        np.stack([entries[image].labels for image in images]),
    )
    origin = Origin("entire", "published", "chestxray14/reproduce-chexnet", "v2020", "published", False, 0)
    write_evaluation(tmp_path / "run/evaluation/test", Evaluation(origin, values))
    report.write_report([tmp_path / "run"], tmp_path / "out", tables, (), 10)
    with (real_data / "predictions/aucs.csv").open(newline="") as file:
        published = [float(row["auc"]) for row in csv.DictReader(file)]
    ours = rows(tmp_path / "out", "table_1_intervals")
    np.testing.assert_allclose([float(row["Entire CXR"]) for row in ours[:14]], published, atol=1e-12)
    text = (tmp_path / "out/index.html").read_text()
    assert "differ in the labels of 181 images, 36 of them among the 22,433 evaluated here" in text
    views = {row["Group"]: int(row["images"]) for row in rows(tmp_path / "out", "subgroups")}
    assert views["view: PA"] + views["view: AP"] == views["sex: female"] + views["sex: male"] == 22_433
    within = {row["Finding"]: row for row in rows(tmp_path / "out", "within_view")}
    # The view is a shortcut: what sicker, bedside patients have loses most within a view.
    for finding in ("Edema", "Consolidation", "Infiltration"):
        assert float(within[finding]["Entire CXR: pooled"]) > float(within[finding]["Entire CXR: within view"]) + 0.015
