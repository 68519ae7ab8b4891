"""Anybody's films and table: what is read, what is refused, and the main job from it."""

import shutil
from pathlib import Path

import numpy as np
import official_files as official
import pytest
import tensorflow_datasets as tfds
from ml_collections import ConfigDict
from PIL import Image
from small import DENSENET

from configs import fusion
from sdfn_jax.core import checkpoint, sealed
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.shards import Shard
from sdfn_jax.inference.predictor import Predictor
from sdfn_jax.lungs import box_table, shipped
from sdfn_jax.metrics.evaluation import read_evaluation
from sdfn_jax.radiographs import pixels
from sdfn_jax.radiographs.labels import ABSENT, PRESENT, UNCERTAIN, UNKNOWN
from sdfn_jax.workflow import modes, plan, results, stages
from tfds_builders import base, prepare, prepared

SIZE = 16
HEADER = "image,Tuberculosis,Old scar,patient,split,sex,age,view"
ROWS = (
    "a/one.png,1,,p1,train,F,58,PA",
    "a/two.png,0,u,p1,train,F,058Y,AP",
    "b/one.png,0,1,p2,train,,,",
    "b/two.png,1,-1,p3,validation,m,6M,pa",
    "b/three.png,0.0,0,p4,test,U,81.5,PA",
    "b/four.png,1,1.0,p5,test,M,30,PA",
    "b/five.png,1,1,p5,test,M,30,L",
    "c/one.png,1,0,p6,train,,,",
    "c/two.png,0,1,p7,train,,,",
)
NAMES = tuple(row.split(",")[0] for row in ROWS)


def write(folder, rows=ROWS, header=HEADER):
    for index, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(official.picture(index)).save(folder / name)
    (folder / "films.csv").write_text("\n".join([header, *rows, ""]), encoding="utf-8")
    official.write_boxes(folder / "lung_boxes.csv", NAMES)
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "films")


def run(folder, **options):
    return prepare.prepare("own", manual_dir=folder, data_dir=folder.parent / "data", size=SIZE, **options)


def read(directory):
    sources = tfds.builder_from_directory(directory).as_data_source()
    return {split: {film["name"].decode(): film for film in source} for split, source in sources.items()}


class TestWhatIsPrepared:
    def test_every_field_is_what_the_table_says(self, folder):
        directory = run(folder)
        splits = read(directory)
        assert {split: set(films) for split, films in splits.items()} == {
            "train": {*NAMES[:3], *NAMES[7:]},
            "validation": {NAMES[3]},
            "test": set(NAMES[4:6]),
        }
        films = {name: film for split in splits.values() for name, film in split.items()}
        assert [films[name]["labels"].tolist() for name in NAMES[:6]] == [
            [PRESENT, UNKNOWN],
            [ABSENT, UNCERTAIN],
            [ABSENT, PRESENT],
            [PRESENT, UNCERTAIN],
            [ABSENT, ABSENT],
            [PRESENT, PRESENT],
        ]
        first = films[NAMES[0]]
        np.testing.assert_array_equal(first["entire"], pixels.resize(official.picture(0), (SIZE, SIZE)))
        left, top, right, bottom = official.BOX
        lungs = official.picture(0)[top:bottom, left:right]
        np.testing.assert_array_equal(first["lung"], pixels.resize(lungs, (SIZE, SIZE)))
        assert [films[name]["patient"].decode() for name in NAMES[:3]] == ["p1", "p1", "p2"]
        assert [films[name]["sex"].decode() for name in NAMES[:6]] == ["F", "F", "", "M", "", "M"]
        assert [films[name]["view_position"].decode() for name in NAMES[:4]] == ["PA", "AP", "", "PA"]
        ages = [float(films[name]["age"]) for name in NAMES[:5]]
        np.testing.assert_allclose(ages, [58, 58, np.nan, 0.5, 81.5])
        metadata = prepared.data_metadata(directory)
        assert metadata["findings"] == ["Tuberculosis", "Old scar"]
        assert metadata["labels"]["Old scar"] == {"absent": 2, "present": 3, "uncertain": 2, "unknown": 1}
        assert metadata["label_version"] == "films.csv"

    def test_lateral_films_and_films_that_the_table_does_not_name_are_counted_and_listed(self, folder, capsys):
        Image.fromarray(official.picture(9)).save(folder / "b" / "other.png")
        directory = run(folder)
        listed = {row["path"]: row["reason"] for row in official.read_list(directory / base.LEFT_OUT_LIST)}
        assert listed == {str(folder / NAMES[6]): "a lateral view", str(folder / "b/other.png"): "not in the table"}
        said = capsys.readouterr().out
        assert "left out, a lateral view: 1, first" in said
        assert "present" in said and "4 films with Tuberculosis (4 absent)" in said

    def test_a_table_elsewhere_with_semicolons_and_other_letters(self, folder, tmp_path, capsys):
        table = tmp_path / "Befund.csv"
        table.write_text("Image;肺结核;Übergröße\n" + "".join(f"{name};{i % 2};0\n" for i, name in enumerate(NAMES)))
        with pytest.raises(UserError, match="no training film has Übergröße = 1 .present."):
            run(folder, table=table)
        table.write_text(
            "Image;肺结核;Übergröße\n" + "".join(f"{name};{i % 2};{i // 2 % 2}\n" for i, name in enumerate(NAMES))
        )
        metadata = prepared.data_metadata(run(folder, table=table, validation_seed=1))
        assert "no column patient: each film counts as a patient's only one" in capsys.readouterr().out
        assert metadata["findings"] == ["肺结核", "Übergröße"]
        assert sum(split["patients"] for split in metadata["splits"].values()) == len(NAMES)

    def test_without_a_split_whole_patients_are_drawn_and_stay_when_others_are_added(self, folder):
        rows = [f"{name},{index % 2},{index // 2}" for index, name in enumerate(NAMES)]
        draws = {"validation_seed": 2, "test_share": 0.3, "validation_share": 0.3}
        sides = []
        for count in (len(rows), 6):
            (folder / "films.csv").write_text("\n".join(["image,TB,patient", *rows[:count]]))
            splits = read(run(folder, **draws))
            sides.append({name: split for split, films in splits.items() for name in films})
        assert sides[1] == {name: sides[0][name] for name in NAMES[:6]}
        assert {*sides[0].values()} == {"train", "validation", "test"}
        assert all(sides[0][NAMES[place]] == sides[0][NAMES[place + 1]] for place in (0, 2, 4, 6))

    def test_a_table_of_train_and_test_alone_has_its_validation_drawn_from_train(self, folder):
        rows = [f"{name},{index % 2},{'test' if index > 6 else 'train'}" for index, name in enumerate(NAMES)]
        (folder / "films.csv").write_text("\n".join(["image,TB,split", *rows]))
        splits = read(run(folder, validation_share=0.4))
        assert set(splits["test"]) == set(NAMES[7:])
        assert len(splits["train"]) + len(splits["validation"]) == 7

    def test_boxes_may_name_files_alone_if_these_are_different(self, folder):
        rows = []
        for number, row in enumerate(ROWS):
            name = row.split(",")[0]
            (folder / name).rename(folder / name.replace("/", f"/{number}"))
            rows.append(row.replace("/", f"/{number}"))
        (folder / "films.csv").write_text("\n".join([HEADER, *rows]))
        official.write_boxes(folder / "lung_boxes.csv", [row.split(",")[0].split("/")[1] for row in rows])
        assert len(read(run(folder))["test"]) == 2

    def test_deleted_to_save_space_the_set_is_used_as_it_is(self, folder):
        run(folder)
        for name in "abc":
            shutil.rmtree(folder / name)
        options = {"manual_dir": folder, "data_dir": folder.parent / "data", "size": SIZE}
        assert prepare.look("own", **options).prepared.differences == ()
        (folder / "films.csv").unlink()
        assert prepare.look("own", **options).prepared.differences == ()

    def test_it_is_prepared_once_and_again_when_the_table_changes(self, folder, capsys):
        run(folder)
        run(folder)
        assert "already prepared" in capsys.readouterr().out
        table = folder / "films.csv"
        table.write_text(table.read_text().replace("a/one.png,1,,", "a/one.png,1,0,"))
        assert read(run(folder))["train"]["a/one.png"]["labels"].tolist() == [PRESENT, ABSENT]


def change(old, new):
    def damage(folder):
        table = folder / "films.csv"
        text = table.read_text()
        assert old in text
        table.write_text(text.replace(old, new, 1))

    return damage


BAD_ROWS = {
    "label": (change("a/two.png,0,", "a/two.png,yes,"), r"films.csv, row 3: Tuberculosis is 'yes'; expected 1"),
    "path": (change("b/two.png", "b/zwei.png"), r"films.csv, row 5: no file .*b/zwei.png"),
    "twice": (change("b/two.png,1", "b/one.png,1"), r"films.csv, row 5: a second row for b/one.png"),
    "split": (change("p3,validation", "p3,valuation"), r"films.csv, row 5: split is 'valuation'; expected train, val"),
    "no patient": (change("p3,", ","), r"films.csv, row 5: no patient"),
    "no image": (change("b/two.png", ""), r"films.csv, row 5: no image"),
    "age": (change("6M", "young"), r"films.csv, row 5: age is 'young'; expected years"),
    "sex": (change("validation,m", "validation,x"), r"films.csv, row 5: sex is 'x'; expected M, F, or nothing"),
    "view": (change("6M,pa", "6M,side"), r"films.csv, row 5: view is 'side'; expected PA, AP, L"),
    "short": (change(",p3,validation,m,6M,pa", ""), r"films.csv, row 5: too short: no patient, split, sex, age, view"),
    "film": (lambda folder: (folder / "b/two.png").write_text("404"), r"two.png: cannot be decoded"),
}


@pytest.mark.parametrize("fault", BAD_ROWS)
def test_a_bad_row_is_one_sentence_or_listed_and_left_out(folder, fault):
    damage, message = BAD_ROWS[fault]
    damage(folder)
    with pytest.raises(UserError, match=message) as error:
        run(folder)
    assert "--skip_bad_files" in str(error.value)
    directory = run(folder, skip_bad_files=True)
    (skipped,) = official.read_list(directory / base.SKIPPED_LIST)
    other_names = {"label": "a/two.png", "path": "b/zwei.png", "twice": "b/one.png", "no image": "row 5"}
    assert skipped["image"] == other_names.get(fault, "b/two.png")
    assert sum(map(len, read(directory).values())) == (6 if fault == "twice" else 7)


WRONG_TABLES = {
    "none": (lambda folder: (folder / "films.csv").unlink(), r"no table .*films.csv: write one .*--config.data.table"),
    "no findings": (change("Tuberculosis,Old scar,", "sex,age,"), r"more than one column sex|no column of a finding"),
    "no image": (change("image,", "picture,"), r"films.csv: no column image in its first row"),
    "double": (change("Old scar", "tuberculosis"), r"films.csv: more than one column Tuberculosis"),
    "only the header": (lambda folder: (folder / "films.csv").write_text(HEADER), r"no films, only the header"),
    "two splits": (
        change("p1,train", "p1,test"),
        r"films.csv, row 3: patient p1 is in two splits: a/two.png in train, a/one.png .*row 2. in test",
    ),
    "no positive": (
        lambda folder: [change(f"{name},1", f"{name},0")(folder) for name in ("a/one.png", "c/one.png")],
        r"films.csv: no training film has Tuberculosis = 1 .present., so that it cannot be learned",
    ),
    "none there": (
        lambda folder: [shutil.rmtree(folder / name) for name in "abc"],
        r"none of the 9 films that .*films.csv names was found in .*films, such as a/one.png",
    ),
}


@pytest.mark.parametrize("fault", WRONG_TABLES)
def test_a_wrong_table_is_one_sentence(folder, fault):
    damage, message = WRONG_TABLES[fault]
    damage(folder)
    with pytest.raises(UserError, match=message):
        run(folder)


def test_a_divided_preparation_gives_the_same_set(folder):
    whole = read(run(folder))
    for number in (1, 2):
        divided = prepare.prepare(
            "own", manual_dir=folder, data_dir=folder.parent / "shards", size=SIZE, shard=Shard(number, 2)
        )
    for split, films in read(divided).items():
        np.testing.assert_equal(films, whole[split])


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The main job on 40 pictures of noise with one finding, by the shipped lungs and tiny networks: its folder."""
    folder = tmp_path_factory.mktemp("own_job")
    rows = ["image,Tuberculosis,patient"]
    for number in range(40):
        (folder / f"clinic_{number % 3}").mkdir(exist_ok=True)
        film = official.picture(number) // 2 + 100 * np.uint8(number % 2)
        Image.fromarray(film).save(folder / f"clinic_{number % 3}" / f"{number}.png")
        rows.append(f"clinic_{number % 3}/{number}.png,{number % 2},p{number}")
    (folder / "films.csv").write_text("\n".join(rows))
    with pytest.MonkeyPatch.context() as patch:  # of what takes seconds
        patch.setattr(results, "_HEATMAPS", 1)
        patch.setattr(results, "REPORT_REPLICATES", 10)
        modes.run(job_config(folder), "train", "test")
    return folder


def job_config(folder):
    config = fusion.get_config("own,small")
    config.data.table, config.runs = str(folder / "films.csv"), str(folder / "runs")
    config.extractors.pretrained = "random"
    config.data.size, config.data.test_share, config.data.validation_share = 32, 0.3, 0.3
    for stage in (config, config.entire, config.lung):
        stage.model = ConfigDict(DENSENET)
        stage.num_epochs, stage.batch_size, stage.evaluation_batch_size = 1, 4, 8
    return config


def test_a_mistake_in_the_table_is_said_by_the_plan_before_anything_is_made(folder):
    change("a/two.png,0,", "a/two.png,yes,")(folder)
    with pytest.raises(UserError, match=r"your data: .*films.csv, row 3: Tuberculosis is 'yes'; expected 1 .present."):
        plan.make_plan(job_config(folder))
    assert not (folder / "runs").exists()


@pytest.mark.long
def test_the_main_job_ends_with_a_report_and_predictions_under_their_own_names(job):
    runs = job / "runs"
    results_folder = runs / "fusion" / "results"
    page = (results_folder / "index.html").read_text()
    assert sealed.read(results_folder / "made_from.json", {}, "a record", "")["left_out"] == []
    assert (results_folder / "figures" / "heatmaps.png").is_file()
    assert "Tuberculosis" in page and "Atelectasis" not in page and "films.csv" in page
    for stage in ("entire", "lung", "fusion"):
        found = read_evaluation(runs / stage / "evaluation" / "test").predictions
        assert found.findings == ("Tuberculosis",)
        assert found.labels[:, 0].tolist() == [int(Path(name).stem) % 2 for name in found.images]
    reading = Predictor.load(runs)(job / "clinic_1" / "1.png")
    assert list(reading.probabilities) == ["Tuberculosis"]
    boxes = box_table.read_box_table(runs / "lungs" / "lung_boxes.csv")
    assert {row.checkpoint for row in boxes.values()} == {shipped.digest()}


def test_findings_that_the_table_lacks_are_refused_once_before_anything_is_made(folder):
    config = job_config(folder)
    config.findings, config.uncertain = ("tuberculosis", "Old scar"), "one"
    with pytest.raises(UserError, match="which the data set does not label; did you mean Tuberculosis") as error:
        plan.make_plan(config)
    assert str(error.value).count("'tuberculosis'") == 1
    config.findings, config.uncertain = ("Old scar",), "one,Tuberculosis=zero"
    with pytest.raises(UserError, match="a rule for 'Tuberculosis', which is no finding of this run; it has Old scar"):
        plan.make_plan(config)


@pytest.mark.long
def test_another_table_is_learned_from_its_run_with_a_new_head_on_frozen_branches(job, tmp_path):
    sides = ["train"] * 30 + ["validation"] * 10
    rows = [
        f"{job}/clinic_{number % 3}/{number}.png,{number % 2},{number // 2 % 2},{side}"
        for number, side in enumerate(sides)
    ]
    (tmp_path / "films.csv").write_text("\n".join(["image,A,B,split", *rows]))
    config = job_config(tmp_path)
    config.extractors.pretrained, config.extractors.frozen = str(job / "runs"), True
    data = prepare.prepare(
        "own", manual_dir=tmp_path, data_dir=tmp_path / "data", size=32, boxes=job / "runs" / "lungs" / "lung_boxes.csv"
    )
    entire = plan.classifiers(config)[0]
    stages.train_classifier(entire, data)
    before, _ = checkpoint.read_best(job / "runs" / "fusion")
    after, metadata = checkpoint.read_best(entire.workdir)
    for kind in ("params", "batch_stats"):
        assert checkpoint.tree_digest(before[kind]["entire"]) == checkpoint.tree_digest(after[kind]["entire"])
    assert after["params"]["head"]["bias"].shape == (2,) and np.any(after["params"]["head"]["bias"])
    assert metadata["pretrained"]["file"] == str(job / "runs" / "fusion")
