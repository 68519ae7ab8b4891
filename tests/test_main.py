"""The main job on a few synthetic radiographs, from nothing to Table I, through the real builders."""

import csv
import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import official_files as official
import other_process
import pytest
from PIL import Image
from small import fusion_config

from sdfn_jax import localize as localize_command
from sdfn_jax import main as main_command
from sdfn_jax import report as report_command
from sdfn_jax.core import checkpoint, errors, job_record, run_folders, sealed
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.faults import Faults
from sdfn_jax.core.files import file_digest
from sdfn_jax.heatmaps import detections, over_split
from sdfn_jax.inference import trained_run
from sdfn_jax.lungs import box_table, lung_boxes, segmenter
from sdfn_jax.metrics import calibration, people
from sdfn_jax.metrics.evaluation import read_evaluation
from sdfn_jax.radiographs import nih_tables, synthetic_dataset
from sdfn_jax.radiographs.findings import FINDINGS
from sdfn_jax.reporting import runs
from sdfn_jax.training import evaluate, evaluate_lungs, tasks
from sdfn_jax.training.input_pipeline import Examples
from sdfn_jax.training.metrics_log import MetricsLog
from sdfn_jax.workflow import evaluations, modes, plan, planning, results, stages
from tfds_builders import prepared

ROOT = Path(__file__).parent.parent
STAGES = ("lrg", "entire", "lung", "fusion")


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The finished job: (its folder, what it printed)."""
    folder = tmp_path_factory.mktemp("job")
    return folder, printed_by_training(fusion_config(folder))


def printed_by_training(config) -> str:
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
        patch.setattr(results, "_HEATMAPS", 2)  # each takes a second
        modes.run(config, "train", "test")
    return "\n".join(lines)


def states(steps: list[plan.Step]) -> dict[str, str]:
    return {step.name: step.state for step in steps}


def data_of(folder) -> Path:
    return prepared.prepared_directory(fusion_config(folder).data)


class TestMainJob:
    def test_the_plan_comes_first_then_the_stages_in_the_order_of_b5(self, job):
        _, printed = job
        names = [
            "synthetic radiographs",
            "data set jsrt",
            "lung region generator",
            "lung boxes",
            "data set chestxray14",
        ]
        names += ["extractor, entire branch", "extractor, lung branch", "fusion network", "evaluation on test"]
        places = [printed.index(f"[{number}/9] {name}\n") for number, name in enumerate(names, start=1)]
        assert places == sorted(places)
        assert printed.startswith("Plan for ")
        assert printed.index("evaluation on test") < places[0]

    def test_it_ends_with_table_one_and_what_there_is_to_look_at(self, job):
        folder, printed = job
        table = printed[printed.index("AUC  ") :]
        assert table.split("\n")[0].split()[:2] == ["AUC", "positives"]
        assert all(column in table for column in ("Entire CXR", "Lung region", "SDFN"))
        results = folder / "fusion" / "results"
        for name in ("roc_curves", "lung_boxes_smallest", "lung_regions_rules", "heatmaps", "figure_9"):
            Image.open(results / "figures" / f"{name}.png").verify()
        assert [str(path.relative_to(results)) for path in results.rglob("table_1.csv")] == ["table_1.csv"]
        assert "SYNTHETIC" in printed
        page, read, view = printed.splitlines()[-3:]
        film = read_evaluation(folder / "fusion" / "evaluation" / "test").predictions.images[0]
        assert page == f"open this page:  {results / 'index.html'}"
        assert read == (
            f"read films:      python -m sdfn_jax.predict {folder}/synthetic/chestxray14/images/{film} "
            f"--checkpoint={folder}/fusion --output=findings"
        )
        assert view == f"in a browser:    python -m sdfn_jax.viewer --checkpoint={folder}/fusion"

    def test_it_records_how_long_its_steps_took(self, job):
        steps = job_record.read(job[0] / "fusion")
        assert [step.name for step in steps][-2:] == ["fusion network", "evaluation on test"]
        assert len(steps) == 9 and all(step.finished and step.seconds > 0 for step in steps)

    def test_its_report_has_every_section_that_its_files_allow(self, job):
        page = (job[0] / "fusion" / "results" / "index.html").read_text()
        assert "Nothing can be concluded: these are synthetic radiographs." in page
        for name in ("against_the_paper", "learning_curves", "subgroups", "heatmaps", "lung_boxes_smallest"):
            assert f'id="figure-{name}"' in page
        assert "lung region generator" in page and "CPU cores" in page  # of the table of steps

    def test_the_table_on_disk_is_the_one_of_the_predictions(self, job):
        folder, _ = job
        with (folder / "fusion" / "results" / "table_1.csv").open() as file:
            rows = list(csv.DictReader(file))
        evaluation = read_evaluation(folder / "fusion" / "evaluation" / "test")
        written = json.loads((folder / "fusion" / "evaluation" / "test" / "evaluation.json").read_text())
        assert len(rows) == 15
        assert written["checkpoint"] == checkpoint.best_metadata(folder / "fusion")["digest"]
        assert evaluation.origin.drawings

    def test_predictions_are_those_of_the_best_checkpoint_for_every_test_film(self, job):
        folder, _ = job
        config = fusion_config(folder)
        for stage in plan.classifiers(config):
            found = read_evaluation(folder / stage.stage / "evaluation" / "test").predictions
            examples = Examples(data_of(folder), ["test"])
            variables, _ = checkpoint.read_best(stage.workdir)
            task = tasks.classification(stage)
            rows = [task.select(example) for example in examples]
            images, labels = task.prepare({name: np.stack([row[name] for row in rows]) for name in rows[0]}, None)
            logits, _ = task.apply(variables, images, False)
            assert found.images == tuple(example["name"] for example in examples)
            np.testing.assert_allclose(
                found.probabilities, 1 / (1 + np.exp(-np.asarray(logits, np.float64))), atol=1e-6
            )
            np.testing.assert_array_equal(found.labels, labels)

    def test_streamed_heatmaps_explain_the_logit_of_every_test_film(self, job):
        folder, _ = job
        for stage in plan.classifiers(fusion_config(folder)):
            found = read_evaluation(folder / stage.stage / "evaluation" / "test").predictions.probabilities
            variables, _ = checkpoint.read_best(stage.workdir)
            maps = list(over_split.stream(stage, variables, Examples(data_of(folder), ["test"])))
            means = np.stack([sum(each.mean(axis=(0, 1)) for each in film.values()) for film in maps])
            logits = np.log(found / (1 - found))
            np.testing.assert_allclose(means + variables["params"]["head"]["bias"], logits, rtol=1e-4, atol=1e-4)
            assert all(set(film) == set(stage.branches) for film in maps)

    def test_heatmaps_are_checked_by_one_command(self, job, tmp_path, capsys):
        folder, _ = job
        localize_command.main([f"--run={folder / 'fusion'}", "--checks", f"--output={tmp_path}"])
        assert {path.name for path in tmp_path.glob("[!.]*")} == {"heatmap_checks.json", "heatmap_checks.png"}
        record = json.loads((tmp_path / "heatmap_checks.json").read_text())
        assert list(record["rules"]) == ["mean", "minimum", "zero"]
        films = Examples(data_of(folder), ["test"])
        assert record["cases"] == len(
            {(film["name"], int(finding)) for film in films for finding in film["reference_boxes"]["finding"]}
        )
        # Nothing deleted is everything inserted, and the other way round.
        for deletion, insertion in zip(*record["curves"].values(), strict=True):
            assert deletion[0] == pytest.approx(insertion[-1], abs=1e-6)
            assert deletion[-1] == pytest.approx(insertion[0], abs=1e-6)
        assert "The paper does not say" in capsys.readouterr().out

    def test_the_report_of_the_whole_job(self, job):
        folder, _ = job
        for stage in ("entire", "lung", "fusion"):
            localize_command.main([f"--run={folder / stage}"])
        films = Examples(data_of(folder), ["test"])
        boxed = {
            (film["name"], FINDINGS[finding]): film for film in films for finding in film["reference_boxes"]["finding"]
        }
        cases, origin = detections.read(folder / "fusion" / "evaluation" / "test")
        assert {(case.image, case.finding) for case in cases} == set(boxed)
        assert all(case.patient == boxed[case.image, case.finding]["patient"] for case in cases)
        assert origin["drawings"]
        tables = folder / "synthetic" / "chestxray14"
        runs = [str(folder / stage) for stage in ("entire", "lung", "fusion", "lrg")]
        report_command.main([*runs, f"--output={folder / 'report'}", f"--tables={tables}", "--replicates=10"])
        text = (folder / "report" / "index.html").read_text()
        assert "SYNTHETIC" in text
        for name in ("figure_9", "heatmaps", "lung_boxes_smallest", "localization_size"):
            assert f'id="figure-{name}"' in text
        with (folder / "report" / "tables" / "model_card.csv").open() as file:
            card = {row["Item"]: row["value"] for row in csv.DictReader(file)}
        assert card["SDFN: checkpoint"] == checkpoint.best_metadata(folder / "fusion")["digest"]
        assert "learning_rate 0.003" in card["SDFN: recipe"]

    def test_labels_and_splits_are_those_of_the_drawn_tables(self, job):
        folder, _ = job
        settings = fusion_config(folder).synthetic
        records = synthetic_dataset.chestxray14_films(settings.chestxray14_films, settings.seed, settings.test_share)
        expected = {f"{record.name}.png": record for record in records if record.test}
        found = read_evaluation(folder / "entire" / "evaluation" / "test").predictions
        assert set(found.images) == set(expected)
        for name, labels in zip(found.images, found.labels, strict=True):
            named = tuple(finding for finding, label in zip(FINDINGS, labels, strict=True) if label)
            assert named == expected[name].labels_2017

    def test_stage_3_took_over_both_extractors_bit_for_bit(self, job):
        folder, _ = job
        fusion, metadata = checkpoint.read_best(folder / "fusion")
        for branch in ("entire", "lung"):
            extractor, its_metadata = checkpoint.read_best(folder / branch)
            assert metadata["inputs"][branch] == its_metadata["digest"]
            for kind in ("params", "batch_stats"):
                assert checkpoint.tree_digest(fusion[kind][branch]) == checkpoint.tree_digest(extractor[kind][branch])

    def test_stage_3_trained_on_features_of_these_extractors_and_data(self, job):
        folder, _ = job
        _, metadata = checkpoint.read_best(folder / "fusion")
        for split in ("train", "validation"):
            origin = json.loads((folder / "fusion" / "features" / f"{split}.jsonl").read_text().splitlines()[0])
            assert {name: origin[name] for name in ("data", "films", "entire", "lung")} == metadata["inputs"]
            table = np.load(folder / "fusion" / "features" / f"{split}.npy")
            np.testing.assert_array_equal(
                table["labels"], [film["labels"] for film in Examples(data_of(folder), [split])]
            )

    def test_stage_3_without_kept_features_trains_the_same_head(self, job, tmp_path):
        folder, _ = job
        config = fusion_config(folder)
        config.workdir = str(tmp_path)
        config.cache_features = False
        stages.train_classifier(config, data_of(folder))
        assert not (tmp_path / "features").exists()
        (mine, _), (theirs, _) = (checkpoint.read_best(run) for run in (tmp_path, folder / "fusion"))
        for name, leaf in checkpoint.flatten(mine).items():
            np.testing.assert_allclose(leaf, checkpoint.flatten(theirs)[name], atol=1e-5, err_msg=name)

    def test_the_lrg_keeps_the_statistics_it_normalises_by(self, job):
        folder, _ = job
        _, metadata = checkpoint.read_best(folder / "lrg")
        assert 0.2 < metadata["normalisation"]["mean"] < 0.8
        assert 0.1 < metadata["normalisation"]["std"] < 0.5

    def test_the_box_table_has_every_film_and_cut_the_data_set(self, job):
        folder, _ = job
        boxes = folder / "lrg" / "lung_boxes.csv"
        rows = box_table.read_box_table(boxes)
        assert len(rows) == fusion_config(folder).synthetic.chestxray14_films
        assert prepared.data_metadata(data_of(folder))["box_table_digest"] == file_digest(boxes)
        for example in Examples(data_of(folder), ["test"]):
            assert tuple(example["lung_box"]) == rows[example["name"]].box

    def test_asked_again_nothing_is_run_and_the_table_is_shown(self, job, capsys):
        folder, printed = job
        config = fusion_config(folder)
        assert set(states(plan.make_plan(config)).values()) == {"there"}
        modes.run(config, "train", "test")
        again = capsys.readouterr().out
        assert "[1/9]" not in again
        assert again[again.index("AUC  ") :].strip() == printed[printed.index("AUC  ") :].strip()


class TestPlan:
    @pytest.fixture
    def copy(self, job, tmp_path):
        shutil.copytree(job[0], tmp_path / "job")
        return tmp_path / "job"

    def test_two_commands_do_not_train_into_one_folder(self, job):
        config = fusion_config(job[0])
        with (
            other_process.holding(job[0] / "fusion" / ".lock"),
            pytest.raises(UserError, match="fusion is being written by another command"),
        ):
            stages.train_classifier(config, data_of(job[0]))

    def test_another_recipe_is_refused_by_name(self, job):
        config = fusion_config(job[0])
        config.lung.learning_rate = 0.5
        with pytest.raises(UserError, match=r"lung holds a run with other.*learning_rate is 0.003 there, but 0.5"):
            plan.make_plan(config)

    def test_other_synthetic_radiographs_are_not_taken_for_those_asked_for(self, job):
        config = fusion_config(job[0])
        config.synthetic.chestxray14_films += 8
        with pytest.raises(
            UserError, match=r"chestxray14 holds synthetic radiographs with films = 32, but 40 was requested"
        ):
            plan.make_plan(config)

    def test_an_extractor_trained_again_makes_the_fusion_stale(self, copy):
        config = fusion_config(copy)
        shutil.rmtree(copy / "entire")
        config.entire.seed = 7
        stages.train_classifier(plan.classifiers(config)[0], data_of(copy))
        with pytest.raises(UserError, match="fusion holds a run with other .* its entire has changed"):
            plan.make_plan(config)

    def test_another_box_table_is_not_used_silently(self, copy):
        table = copy / "lrg" / "lung_boxes.csv"
        rows = list(box_table.read_box_table(table).values())
        box_table.write_box_table(table, [dataclasses.replace(rows[0], left=rows[0].left + 1), *rows[1:]])
        with pytest.raises(UserError, match="was prepared with other lung boxes than .*lung_boxes.csv holds now"):
            plan.make_plan(fusion_config(copy))

    def test_a_box_table_of_another_lrg_is_not_used_silently(self, copy):
        table = copy / "lrg" / "lung_boxes.csv"
        rows = box_table.read_box_table(table).values()
        box_table.write_box_table(table, [dataclasses.replace(row, checkpoint="0" * 64) for row in rows])
        shutil.rmtree(copy / "tfds" / "chestxray14")
        with pytest.raises(UserError, match="made by another LRG"):
            plan.make_plan(fusion_config(copy))

    def test_with_a_table_of_ones_own_no_lrg_is_needed(self, copy):
        config = fusion_config(copy)
        config.data.boxes = str(shutil.move(copy / "lrg" / "lung_boxes.csv", copy / "mine.csv"))
        shutil.rmtree(copy / "lrg")
        found = states(plan.make_plan(config))
        assert "lung region generator" not in found
        assert set(found.values()) == {"there"}

    def test_a_prepared_data_set_needs_neither_lrg_nor_box_table(self, copy):
        shutil.rmtree(copy / "lrg")
        shutil.rmtree(copy / "tfds" / "jsrt")
        found = states(plan.make_plan(fusion_config(copy)))
        assert {found[name] for name in ("data set jsrt", "lung region generator", "lung boxes")} == {"not needed"}

    def test_a_retrained_extractor_is_evaluated_again(self, copy):
        shutil.rmtree(copy / "fusion" / "evaluation")
        found = states(plan.make_plan(fusion_config(copy)))
        assert [name for name, state in found.items() if state != "there"] == ["evaluation on test"]

    def test_a_run_evaluated_before_there_was_calibration_gets_it_from_its_predictions(self, copy, monkeypatch):
        made = {stage: calibration.read(copy / stage) for stage in ("entire", "lung", "fusion")}
        for stage in ("entire", "fusion"):
            (copy / stage / calibration.CALIBRATION_FILE).unlink()
        steps = plan.make_plan(fusion_config(copy))
        assert [step.name for step in steps if not step.there] == ["calibration"]
        with monkeypatch.context() as patch:
            patch.setattr(results.evaluate, "evaluate_classifier", None)  # the network does not run
            steps[-1].run()
        assert {stage: calibration.read(copy / stage) for stage in made} == made
        assert all(step.there for step in plan.make_plan(fusion_config(copy)))
        # One of another checkpoint does not count; without predictions the network makes them.
        stale = dataclasses.replace(made["fusion"], checkpoint="c0ffee")
        calibration.write(copy / "fusion", stale)
        shutil.rmtree(copy / "fusion" / "evaluation" / "validation")
        steps = plan.make_plan(fusion_config(copy))
        assert [step.name for step in steps if not step.there] == ["calibration"]
        steps[-1].run()
        assert calibration.read(copy / "fusion").checkpoint == made["fusion"].checkpoint

    def test_results_from_before_they_had_a_report_get_one_and_nothing_is_evaluated(self, copy, monkeypatch):
        where = copy / "fusion" / "results"
        shutil.move(where / "figures" / "heatmaps.png", where / "heatmaps.png")
        for name in ("tables", "figures"):
            shutil.rmtree(where / name)
        (where / "index.html").unlink()
        steps = plan.make_plan(fusion_config(copy))
        assert [step.name for step in steps if not step.there] == ["report"]
        monkeypatch.setattr(results.evaluate, "evaluate_classifier", None)  # the network does not run
        steps[-1].run()
        assert 'id="figure-heatmaps"' in (where / "index.html").read_text()
        assert all(step.there for step in plan.make_plan(fusion_config(copy)))

    def test_real_films_are_not_taken_for_the_synthetic_ones(self, copy, tmp_path):
        config = fusion_config(copy)
        config.data.manual_dir = str(official.write_chestxray14(tmp_path / "films"))
        with pytest.raises(UserError, match=r"is not what would be prepared from .*films now: .* started with it"):
            plan.make_plan(config)

    def test_the_plan_says_where_films_come_from_and_how_many_there_are(self, copy):
        notes = {step.name: step.notes for step in plan.make_plan(fusion_config(copy))}
        (source,) = notes["data set jsrt"]  # the copy holds the same films: no difference, nothing to say
        assert source.endswith("jsrt: 10 films (fold_0 1, fold_1 3, fold_2 2, fold_3 2, fold_4 2)")

    def test_with_the_films_deleted_the_tables_are_written_and_the_pictures_left_out(self, copy, capsys):
        config = fusion_config(copy)
        del config.synthetic
        where = copy / "fusion" / "results"
        table = (where / "table_1.csv").read_bytes()
        for stage in STAGES[1:]:
            shutil.rmtree(copy / stage / "evaluation")
        shutil.rmtree(copy / "synthetic" / "chestxray14" / "images")
        modes.run(config, "train", "test")
        printed = capsys.readouterr().out
        assert "no film is in" in printed and "used as it was prepared" in printed
        assert "left out: pictures of films: no image file named in" in printed
        assert {path.name for path in where.iterdir()} == {
            *("table_1.csv", "made_from.json", "index.html", "tables", "figures"),
        }
        assert not list(where.glob("figures/lung_boxes*")) and not (where / "figures" / "heatmaps.png").exists()
        assert (where / "table_1.csv").read_bytes() == table

    def test_a_film_that_cannot_be_drawn_is_left_out_by_name(self, copy, monkeypatch):
        def full_disk(*_):
            raise OSError("no space")

        monkeypatch.setattr(results, "write_report", full_disk)
        config = fusion_config(copy)
        del config.synthetic
        shown = plan.classifiers(config)
        films = copy / "synthetic" / "chestxray14" / "images"
        first, second, *_ = read_evaluation(copy / "fusion" / "evaluation" / "test").predictions.images
        (films / first).unlink()
        (films / second).write_bytes(b"torn")
        results.make(config, shown, data_of(copy))
        left_out = json.loads((copy / "fusion" / "results" / "made_from.json").read_text())["left_out"]
        assert left_out[0].startswith("1 of ") and "test films are not in" in left_out[0]
        assert any(second in line and line.startswith("lung_boxes_smallest.png") for line in left_out[1:])
        assert left_out[-1] == "index.html: no space"
        assert (copy / "fusion" / "results" / "figures" / "heatmaps.png").is_file()

    def test_synthetic_radiographs_that_are_not_all_there_are_drawn_again(self, copy):
        next((copy / "synthetic" / "jsrt").glob("*.IMG")).unlink()
        found = states(plan.make_plan(fusion_config(copy)))
        assert found["synthetic radiographs"] == "to do"

    def test_an_evaluation_of_other_data_does_not_count(self, copy):
        metadata = prepared.data_metadata(data_of(copy))
        assert evaluations.is_fresh(plan.classifiers(fusion_config(copy))[0], data_of(copy), "test")
        assert evaluations.is_calibrated(plan.classifiers(fusion_config(copy))[0], data_of(copy))
        metadata["content_digest"] = "0" * 64
        sealed.write(data_of(copy) / "metadata.json", metadata)
        assert not evaluations.is_fresh(plan.classifiers(fusion_config(copy))[0], data_of(copy), "test")
        assert not evaluations.is_calibrated(plan.classifiers(fusion_config(copy))[0], data_of(copy))

    def test_boxes_are_made_again_for_other_postprocessing_unless_a_run_began_with_them(self, copy):
        config = fusion_config(copy)
        config.lrg.postprocessing.margin_top = 0
        with pytest.raises(
            UserError, match="would be made differently now: postprocessing had other settings.* started"
        ):
            plan.make_plan(config)
        for stage in STAGES[1:]:
            shutil.rmtree(copy / stage)
        found = states(plan.make_plan(config))
        assert (found["lung boxes"], found["data set chestxray14"]) == ("to do", "to do")

    def test_a_generator_trained_on_synthetic_radiographs_on_other_films_says_so(self, copy, tmp_path):
        config = fusion_config(copy)
        assert not any(segmenter.TRAINED_ON_SYNTHETIC in step.notes for step in plan.make_plan(config))
        for stage in STAGES[1:]:
            shutil.rmtree(copy / stage)
        shutil.rmtree(copy / "tfds" / "chestxray14")
        config.data.manual_dir = str(official.write_chestxray14(tmp_path / "films"))
        config.data.validation_seed = 4
        for stage in (config, config.entire, config.lung):
            stage.batch_size = 2
        (copy / "lrg" / "lung_boxes.csv").unlink()
        (boxes,) = (step for step in plan.make_plan(config) if step.name == "lung boxes")
        assert boxes.state == planning.TO_DO and segmenter.TRAINED_ON_SYNTHETIC in boxes.notes

    @pytest.mark.parametrize("name", ["evaluation.json", "probabilities.csv"])
    @pytest.mark.parametrize("harm", ["empty", "half", "zeros"])
    def test_a_damaged_evaluation_is_made_again_and_that_is_said(self, copy, capsys, name, harm):
        path = copy / "fusion" / "evaluation" / "test" / name
        whole = path.read_bytes()
        path.write_bytes({"empty": b"", "half": whole[: len(whole) // 2], "zeros": bytes(len(whole))}[harm])
        steps = plan.make_plan(fusion_config(copy))
        assert [step.name for step in steps if not step.there] == ["evaluation on test"]
        assert str(path) in capsys.readouterr().err

    def test_a_damaged_calibration_is_made_again_from_the_predictions(self, copy, capsys):
        path = copy / "lung" / calibration.CALIBRATION_FILE
        whole = path.read_bytes()
        path.write_bytes(whole.replace(b'"checkpoint"', b'"checkpoinx"'))
        steps = plan.make_plan(fusion_config(copy))
        assert [step.name for step in steps if not step.there] == ["calibration"]
        assert f"{path}: not the calibration of a run (changed since it was written" in capsys.readouterr().err
        steps[-1].run()
        assert path.read_bytes() == whole

    def test_results_of_other_evaluations_are_made_again(self, copy):
        config = fusion_config(copy)
        record = copy / "fusion" / "results" / "made_from.json"
        made_from = json.loads(record.read_text())
        digest = checkpoint.best_metadata(copy / "entire")["digest"]
        made_from["stages"]["entire"]["checkpoint"] = "0" * 64
        for stale in (made_from, json.loads(record.read_text()) | {"complete": False}):
            sealed.write(record, {key: value for key, value in stale.items() if key != "sha256"})
            assert [step.name for step in plan.make_plan(config) if not step.there] == ["evaluation on test"]
        record.unlink()  # as earlier versions left it: the table itself says of which checkpoints it is
        assert set(states(plan.make_plan(config)).values()) == {"there"}
        table = copy / "fusion" / "results" / "table_1.csv"
        table.write_text(table.read_text().replace(digest, "0" * 64))
        assert states(plan.make_plan(config))["evaluation on test"] == "to do"

    def test_everything_that_cannot_be_made_is_said_at_once_with_its_flag(self, tmp_path):
        config = fusion_config(tmp_path)
        del config.synthetic
        config.entire.pretrained = str(tmp_path / "weights.safetensors")
        with pytest.raises(UserError) as error:
            plan.make_plan(config)
        message = str(error.value)
        for flag in ("--config.data.manual_dir", "--config.lrg.data.manual_dir", "--config.entire.pretrained"):
            assert flag in message
        assert "--config.lung.pretrained" not in message  # random weights, asked for by name
        assert list(tmp_path.iterdir()) == []

    def test_a_broken_weights_file_is_said_before_anything_is_made(self, tmp_path):
        config = fusion_config(tmp_path)
        config.lung.pretrained = str(tmp_path / "weights.safetensors")
        Path(config.lung.pretrained).write_text("<html>404</html>")
        with pytest.raises(UserError, match="--config.lung.pretrained: .*weights.safetensors"):
            plan.make_plan(config)

    def test_a_fusion_of_other_networks_is_refused(self, tmp_path):
        config = fusion_config(tmp_path)
        config.model = {**config.model.to_dict(), "growth_rate": 5}
        with pytest.raises(UserError, match="config.model differs from config.entire.model"):
            plan.make_plan(config)


class TestEvaluate:
    def test_any_split_can_be_evaluated(self, job, capsys):
        folder, _ = job
        modes.run(fusion_config(folder), "evaluate", "validation")
        printed = capsys.readouterr().out
        assert "split validation" in printed
        found = read_evaluation(folder / "fusion" / "evaluation" / "validation")
        assert len(found.predictions.images) == len(Examples(data_of(folder), ["validation"]))
        for stage in ("entire", "lung", "fusion"):
            record = calibration.read(folder / stage)
            assert record.checkpoint == checkpoint.best_metadata(folder / stage)["digest"]
            assert record == calibration.make(read_evaluation(folder / stage / "evaluation" / "validation"))

    def test_into_a_folder_of_its_own_it_leaves_the_runs_alone(self, job, tmp_path, capsys):
        folder, _ = job
        kept = {path: path.read_bytes() for path in folder.glob("*/evaluation/*/*")}
        kept |= {path: path.read_bytes() for path in folder.glob("*/calibration.json")}
        modes.run(fusion_config(folder), "evaluate", "validation", tmp_path)
        assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "fusion")
        assert {path: path.read_bytes() for path in kept} == kept
        found, own = (
            read_evaluation(each) for each in (tmp_path / "fusion", folder / "fusion" / "evaluation" / "validation")
        )
        np.testing.assert_array_equal(found.predictions.probabilities, own.predictions.probabilities)
        said = people.read(tmp_path / "fusion", found.predictions.images)
        entries = nih_tables.read_entries(
            folder / "synthetic/chestxray14/Data_Entry_2017.csv", "2017", Faults(skip=False)
        )
        rows = [entries[image] for image in found.predictions.images]
        assert said.sexes == [row.sex for row in rows] and said.views == [row.view_position for row in rows]
        np.testing.assert_allclose(said.ages, [row.age for row in rows], rtol=1e-6)

    def test_without_a_trained_checkpoint_it_refuses(self, job, tmp_path):
        config = fusion_config(job[0])
        config.entire.workdir = str(tmp_path / "nothing")
        with pytest.raises(UserError, match="holds no trained checkpoint"):
            modes.run(config, "evaluate", "test")
        assert not (tmp_path / "nothing").exists()

    def test_a_data_set_of_other_films_is_not_evaluated(self, job, tmp_path):
        config = fusion_config(job[0])
        config.data.manual_dir = str(official.write_chestxray14(tmp_path / "films"))
        with pytest.raises(UserError, match="is not what would be prepared from .* prepare it again: python -m tfds"):
            modes.run(config, "evaluate", "test")

    def test_without_the_data_set_it_says_how_to_make_it(self, tmp_path):
        with pytest.raises(UserError, match="python -m tfds_builders.prepare chestxray14"):
            modes.run(fusion_config(tmp_path), "evaluate", "test")


class TestLrgCommand:
    @pytest.mark.long
    def test_cross_validation_scores_every_film_by_an_lrg_that_has_not_seen_it(self, job, tmp_path, capsys):
        config = fusion_config(job[0]).lrg
        config.workdir = str(tmp_path / "lrg")
        config.num_epochs = 1
        config.model.filters = (2, 2)  # each fold is compiled on its own
        modes.run(config, "cross_validate", "test")
        printed = capsys.readouterr().out
        assert "These films are synthetic" in printed
        with (tmp_path / "lrg" / "cross_validation" / "segmentation.csv").open() as file:
            rows = list(csv.DictReader(file))
        names = {example["name"] for example in Examples(prepared.prepared_directory(config.data), fold_names(config))}
        assert {row["image"] for row in rows} == names
        assert len(rows) == len(names)
        assert all(float(row["surface_distance"]) >= 0 or row["dice"] == "0.0" for row in rows)
        for fold in range(5):
            Image.open(tmp_path / "lrg" / "cross_validation" / f"worst_fold_{fold}.png").verify()
        trained = {checkpoint.best_metadata(tmp_path / "lrg" / f"fold_{fold}")["digest"] for fold in range(5)}
        assert len(trained) == 5

    def test_films_train_or_choose_the_epoch_and_those_of_the_test_fold_do_neither(self, job, tmp_path, monkeypatch):
        config = fusion_config(job[0]).lrg
        config.workdir = str(tmp_path / "lrg")
        config.test_fold = 2
        config.validation_share = 0.3
        used = {}
        monkeypatch.setattr(stages, "train", lambda *_, **given: used.update(given))
        data = prepared.prepared_directory(config.data)
        stages.train_lrg(config, data)
        training, validation = ({film["name"] for film in used[name]} for name in ("training", "validation"))
        held_out = {film["name"] for film in Examples(data, ["fold_2"])}
        everyone = {film["name"] for film in Examples(data, fold_names(config))}
        assert not training & validation
        assert training | validation == everyone - held_out
        assert len(validation) == round(0.3 * len(everyone - held_out))

    def test_cross_validation_of_a_set_without_one_fold_is_refused_before_training(self, job, tmp_path):
        config = fusion_config(job[0]).lrg
        config.workdir = str(tmp_path / "lrg")
        directory = prepared.prepared_directory(config.data)
        data = shutil.copytree(directory, tmp_path.joinpath(*directory.parts[-3:]))
        metadata = prepared.data_metadata(data)
        del metadata["splits"]["fold_2"]
        sealed.write(data / "metadata.json", metadata)
        with pytest.raises(UserError, match="no films in fold_2 .*official number modulo 5"):
            stages.cross_validate(config, data)
        assert not (tmp_path / "lrg").exists()

    def test_an_lrg_trained_on_all_films_is_not_evaluated(self, job):
        with pytest.raises(UserError, match="none is left for evaluation"):
            modes.run(fusion_config(job[0]).lrg, "evaluate", "test")

    def test_cross_validation_is_for_the_lrg(self, job):
        with pytest.raises(UserError, match="cross_validate is for --config=configs/lrg.py"):
            modes.run(fusion_config(job[0]), "cross_validate", "test")


def fold_names(config) -> list[str]:
    return list(prepared.data_metadata(prepared.prepared_directory(config.data))["splits"])


def test_scores_of_a_film_are_those_of_its_masks():
    truth = np.zeros((64, 64), np.uint8)
    truth[16:48, 8:28] = truth[16:48, 36:56] = 255
    enlarged = np.kron(truth, np.ones((2, 2), np.uint8))
    film = {"name": "film", "mask": truth, "mask_original": png(enlarged)}
    found = np.where(truth > 0, 0.9, 0.1).astype(np.float32)
    found[16:48, 8:18] = 0.2  # half of one lung is missed: 32 x 30 of 32 x 40 pixels are found
    score = evaluate_lungs.score_film(film, found, 3, lung_boxes.PostProcessing())
    assert score.dice == pytest.approx(2 * 30 / (30 + 40))
    assert score.iou == pytest.approx(30 / 40)
    assert score.dice_original == pytest.approx(score.dice, abs=0.02)
    # The box begins 15 / 256 of the width left of what was found, at 18: 14.25 is rounded outwards to half a pixel.
    assert score.lung_recall == pytest.approx(1 - (14 - 8) * 32 / (32 * 40), abs=0.02)
    assert (score.rule, score.fold) == ("none", 3)


def png(array) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


CONFIG_FILE = """
import pathlib
from small import fusion_config

def get_config():
    config = fusion_config(pathlib.Path(__file__).parent)
    for stage in (config, config.entire, config.lung, config.lrg):
        stage.checkpoint_minutes = 1e-6
    return config
"""


def command_in(folder: Path) -> tuple[list[str], dict[str, str]]:
    """The command on a config in a folder, and its environment."""
    (folder / "config.py").write_text(CONFIG_FILE)
    tests = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])}
    return [sys.executable, "-m", "sdfn_jax.main", f"--config={folder / 'config.py'}"], environment


def start(folder: Path) -> subprocess.Popen:
    command, environment = command_in(folder)
    with (folder / "log.txt").open("a") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def wait_for(folder: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not folder.exists():
        assert process.poll() is None, "the process ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.long
@pytest.mark.parametrize(("mode", "first_lock"), [("train", "fusion/.lock"), ("evaluate", "entire/.lock")])
def test_of_two_evaluations_at_a_time_one_ends_and_the_other_says_who_writes(job, tmp_path, mode, first_lock):
    folder = shutil.copytree(job[0], tmp_path / "job")
    for stage in STAGES[1:]:
        shutil.rmtree(folder / stage / "evaluation")
    (folder / first_lock).unlink(missing_ok=True)  # which a killed command leaves
    command, environment = command_in(folder)
    command.append(f"--mode={mode}")
    with other_process.stopped_when(folder / first_lock, command, env=environment, stdout=subprocess.DEVNULL) as first:
        second = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert second.returncode == 2
    assert f"{folder / Path(first_lock).parent} is being written by another command" in second.stderr
    assert "Traceback" not in second.stderr
    assert first.returncode == 0
    for stage in STAGES[1:]:
        found, expected = (
            read_evaluation(each / stage / "evaluation" / "test").predictions.probabilities for each in (folder, job[0])
        )
        np.testing.assert_array_equal(found, expected)


@pytest.mark.long
def test_killed_in_two_stages_the_same_command_gives_the_same_bits(job, tmp_path):
    for stage, step in (("lrg", "1"), ("entire", "2")):
        process = start(tmp_path)
        wait_for(tmp_path / stage / "latest" / step, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not checkpoint.latest_metadata(tmp_path / stage)["finished"]
    assert start(tmp_path).wait() == 0, (tmp_path / "log.txt").read_text()
    for stage in STAGES:
        mine, theirs = checkpoint.best_metadata(tmp_path / stage), checkpoint.best_metadata(job[0] / stage)
        assert mine["digest"] == theirs["digest"], stage
        assert MetricsLog.read(tmp_path / stage) == MetricsLog.read(job[0] / stage)
    scores = [
        read_evaluation(folder / "fusion" / "evaluation" / "test").predictions.probabilities
        for folder in (tmp_path, job[0])
    ]
    np.testing.assert_array_equal(*scores)


def test_a_config_is_found_from_any_folder_and_its_neighbours_with_it(tmp_path):
    (tmp_path / "configs").mkdir()  # another's, of the same name
    (tmp_path / "configs" / "__init__.py").touch()
    file = ROOT / "configs" / "fusion.py"
    result = command(f"--config={file}:demo", "--mode=evaluate", cwd=tmp_path)
    assert result.returncode == 2
    assert "runs/demo/tfds/chestxray14/size96_labels2017/1.0.0 is missing; make it" in result.stderr
    result = command("--config", str(file), "--config.batch_size=0", cwd=tmp_path)
    assert "--config.batch_size=0: expected" in result.stderr


def test_a_config_that_cannot_be_loaded_is_a_message(tmp_path, capsys):
    (tmp_path / "alone.py").write_text("from configs_of_mine import lrg\n")
    (tmp_path / "broken.py").write_text("def get_config(:\n")
    (tmp_path / "empty.py").write_text("from ml_collections import ConfigDict\nget_config = ConfigDict\n")
    for name, said in (
        ("alone.py", "it imports configs_of_mine, which was not found"),
        ("broken.py", "not Python: invalid syntax (broken.py, line 1)"),
        ("empty.py", "it does not configure a stage"),
    ):
        assert said in refused(capsys, f"--config={tmp_path / name}")


def command(*arguments, cwd):
    words = [sys.executable, "-m", "sdfn_jax.main", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=environment)


def refused(capsys, *arguments) -> str:
    """Runs the command in this process, as a mistake is noticed before the work; returns what it says."""
    with pytest.raises(SystemExit) as end:
        errors.run_command(lambda: main_command.main(arguments))
    assert end.value.code == errors.NOT_DONE
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--config=configs/fusion.py", "--config.batchsize=4"], "did you mean --config.batch_size?"),
        (
            ["--config=configs/fusion.py", "--config.lung.num_epochs=0"],
            "--config.lung.num_epochs=0: expected 1 to 2147483647",
        ),
        (["--config=configs/none.py"], "configs/none.py"),
        (["--config=configs/fusion.py", "extra"], "unrecognized arguments: extra"),
        (["--config=configs/fusion.py", "--split=validation"], "--split is for evaluating a classifier"),
        (["--config=configs/lrg.py", "--mode=evaluate", "--split=test"], "--split is for evaluating a classifier"),
        (["--config=configs/fusion.py", "--output=elsewhere"], "--output is for evaluating a classifier"),
        (["--config=configs/fusion.py", "--expert_labels=google"], "--expert_labels is for evaluating a classifier"),
        (["--config=configs/lrg.py:none"], "configs/lrg.py takes jsrt, montgomery, own_lungs or demo, not 'none'"),
        (["--config=configs/lrg.py", "--config.batch_size=1.5"], "--config.batch_size=1.5"),
        (["--config=configs/lrg.py", "--mode=none"], "--mode: invalid choice: 'none'"),
        (["--config=configs/lrg.py:demo", f"--config.seed={10**20}"], f"--config.seed={10**20}: expected 0 to"),
        (["--none"], "unknown flag --none; did you mean --mode?"),
    ],
)
def test_a_mistake_on_the_command_line_is_a_message(arguments, said, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert said in refused(capsys, *arguments)


def seeds_config(folder):
    """The job's extractor of the entire radiograph, with two seeds."""
    job_config = fusion_config(folder)
    config = job_config.entire.copy_and_resolve_references()
    with config.unlocked():
        for name in ("data", "lrg", "synthetic"):
            config[name] = job_config[name]
        config.seeds = 2
    return config


@pytest.fixture(scope="module")
def two(job, tmp_path_factory):
    """A job with a second seed, asked for after the first had finished: (its folder, what it printed)."""
    folder = shutil.copytree(job[0], tmp_path_factory.mktemp("seeds") / "job")
    return folder, printed_by_training(seeds_config(folder))


@pytest.mark.long
class TestSeeds:
    def test_the_first_seeds_run_is_used_and_the_second_is_that_of_its_seed_alone(self, job, two, tmp_path):
        folder, printed = two
        assert "extractor, entire branch, seed 1: done" in printed and "seed 0: done" not in printed
        digests = [checkpoint.best_metadata(folder / run)["digest"] for run in ("entire", "seed_1/entire")]
        assert digests[0] == checkpoint.best_metadata(job[0] / "entire")["digest"] != digests[1]
        alone = seeds_config(folder)
        alone.seeds, alone.seed, alone.workdir = 1, 1, str(tmp_path)
        stages.train_classifier(alone, data_of(folder))
        assert checkpoint.best_metadata(tmp_path)["digest"] == digests[1]

    def test_the_report_draws_the_learning_curves_of_each_seed(self, two):
        folder, _ = two
        logs = runs.read(folder / "ensemble" / "entire").logs
        assert logs == [MetricsLog.read(folder / run) for run in ("entire", "seed_1/entire")]
        assert logs[0] != logs[1]

    @pytest.mark.parametrize("split", ["validation", "test"])
    def test_the_ensembles_probabilities_are_the_means_of_both_evaluations(self, two, split):
        folder, _ = two
        whole, *each = (
            read_evaluation(folder / run / "evaluation" / split)
            for run in ("ensemble/entire", "entire", "seed_1/entire")
        )
        expected = (each[0].predictions.probabilities + each[1].predictions.probabilities) / 2
        np.testing.assert_array_equal(whole.predictions.probabilities, expected)
        assert [one.origin.seed for one in each] == [0, 1]
        if split == "validation":
            made = calibration.make(whole)
            assert calibration.read(folder / "ensemble" / "entire") == made
            assert made != dataclasses.replace(calibration.make(each[0]), checkpoint=made.checkpoint)

    def test_it_ends_with_each_seed_their_mean_and_their_ensemble(self, two):
        folder, printed = two
        assert "(seed 0), " in printed and "(seed 1); ensemble of 2: " in printed
        where = folder / "ensemble" / "entire" / "results"
        assert f"--checkpoint={folder}/ensemble/entire --output=findings" in printed
        page = (where / "index.html").read_text()
        assert 'id="table-seeds"' in page and 'id="table-seeds_entire"' in page
        with (where / "tables" / "seeds.csv").open() as file:
            rows = {row["of"]: float(row["mean AUC"]) for row in csv.DictReader(file)}
        each = [rows["seed 0"], rows["seed 1"]]
        assert rows["mean"] == pytest.approx(np.mean(each))
        assert rows["sd"] == pytest.approx(abs(each[0] - each[1]) / np.sqrt(2))

    def test_asked_again_nothing_is_run(self, two, capsys):
        config = seeds_config(two[0])
        assert set(states(plan.make_plan(config)).values()) == {"there"}

    def test_after_an_interruption_only_what_is_missing_is_made(self, two, tmp_path, monkeypatch):
        folder = shutil.copytree(two[0], tmp_path / "job")
        before = (folder / "ensemble" / "entire" / "evaluation" / "test" / "probabilities.csv").read_bytes()
        shutil.rmtree(folder / "ensemble")
        shutil.rmtree(folder / "seed_1" / "entire" / "evaluation" / "test")
        steps = plan.make_plan(seeds_config(folder))
        assert [step.name for step in steps if not step.there] == ["ensembles of 2 seeds", "evaluation on test"]
        run, asked = evaluate.evaluate_classifier, []
        monkeypatch.setattr(
            evaluate, "evaluate_classifier", lambda *given: asked.append((given[0].workdir, given[3])) or run(*given)
        )
        monkeypatch.setattr(results, "write_report", lambda *_: None)
        for step in steps[-2:]:
            step.run()
        assert asked == [(str(folder / "seed_1" / "entire"), "test")]
        assert (folder / "ensemble" / "entire" / "evaluation" / "test" / "probabilities.csv").read_bytes() == before

    def test_a_member_trained_again_makes_the_ensemble_stale(self, two, tmp_path):
        folder = shutil.copytree(two[0], tmp_path / "job")
        alone = seeds_config(folder)
        alone.seeds, alone.seed, alone.workdir = 1, 3, str(folder / "other")
        stages.train_classifier(alone, data_of(folder))
        shutil.rmtree(folder / "seed_1" / "entire" / "best")
        shutil.copytree(folder / "other" / "best", folder / "seed_1" / "entire" / "best")
        found = states(plan.make_plan(seeds_config(folder)))
        assert found["ensembles of 2 seeds"] == found["evaluation on test"] == "to do"


@pytest.fixture(scope="module")
def tuned(job, tmp_path_factory):
    """The finished job, and everything trained on together after it: (its folder, what it printed)."""
    folder = shutil.copytree(job[0], tmp_path_factory.mktemp("finetuned") / "job")
    return folder, printed_by_training(fusion_config(folder, "demo,finetuned"))


@pytest.mark.long
class TestFinetuned:
    def test_the_papers_networks_stay_and_everything_after_them_has_changed(self, job, tuned):
        folder, printed = tuned
        assert "fusion network, fine-tuned: done" in printed and "fusion network: done" not in printed
        for stage in STAGES:
            assert checkpoint.best_metadata(folder / stage) == checkpoint.best_metadata(job[0] / stage)
        before, _ = checkpoint.read_best(folder / "fusion")
        after, metadata = checkpoint.read_best(folder / "finetuned")
        assert metadata["inputs"]["fusion"] == checkpoint.best_metadata(folder / "fusion")["digest"]
        old = checkpoint.flatten(before)
        assert checkpoint.flatten(after).keys() == old.keys()
        for name, leaf in checkpoint.flatten(after).items():
            assert (leaf != old[name]).any(), name

    def test_it_starts_from_the_trained_fusion(self, tuned, tmp_path):
        folder, _ = tuned
        config = fusion_config(folder, "demo,finetuned")
        config.workdir, config.learning_rate, config.num_epochs = str(tmp_path), 1e-30, 1  # no weight moves
        stages.train_classifier(config, data_of(folder))
        (found, _), (start, _) = (checkpoint.read_best(run) for run in (tmp_path, folder / "fusion"))
        assert checkpoint.tree_digest(found["params"]) == checkpoint.tree_digest(start["params"])
        assert checkpoint.tree_digest(found["batch_stats"]) != checkpoint.tree_digest(start["batch_stats"])

    def test_it_is_next_to_the_sdfn_in_table_one_and_the_report(self, job, tuned):
        folder, printed = tuned
        heads = next(line for line in printed.splitlines() if line.startswith("AUC  "))
        assert heads.split("paper")[-1].split() == ["fine-tuned", "Wang", "Yao", "G\u00fcndel"]
        where = folder / "finetuned" / "results"
        with (where / "table_1.csv").open() as mine, (job[0] / "fusion" / "results" / "table_1.csv").open() as papers:
            for row, other in zip(csv.DictReader(mine), csv.DictReader(papers), strict=True):
                assert {name: row[name] for name in ("entire", "lung", "fusion", "paper_fusion")} == {
                    name: other[name] for name in ("entire", "lung", "fusion", "paper_fusion")
                }
                assert "finetuned" in row and "paper_finetuned" not in row
        with (where / "tables" / "means.csv").open() as file:
            rows = {row["Network"]: row for row in csv.DictReader(file)}
        assert rows["SDFN, fine-tuned"]["paper"] == "" and rows["SDFN"]["paper"] != ""
        assert "SDFN: AUC with its 95 % interval over patients" in (where / "index.html").read_text()

    def test_the_folder_of_all_runs_still_stands_for_the_fusion(self, tuned):
        assert run_folders.network(tuned[0], trained_run.stage_of) == tuned[0] / "fusion"

    def test_asked_again_nothing_is_run(self, tuned):
        assert set(states(plan.make_plan(fusion_config(tuned[0], "demo,finetuned"))).values()) == {"there"}
