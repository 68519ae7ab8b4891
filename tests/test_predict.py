"""The command: drawn films in folders -> tables, pictures and pages, by the golden networks."""

import base64
import csv
import dataclasses
import errno
import hashlib
import json
import logging
import os
import re
import threading
from pathlib import Path

import dicom_files
import numpy as np
import other_process
import pytest
from commands import predict as command
from PIL import Image
from pydicom import uid
from test_platt import evaluation

from sdfn_jax import cli
from sdfn_jax import predict as predict_command
from sdfn_jax.core import checkpoint, csv_table
from sdfn_jax.heatmaps import cam, localization
from sdfn_jax.inference import batch, film_page, outputs, selftest
from sdfn_jax.inference.predictor import Predictor
from sdfn_jax.lungs import segmenter
from sdfn_jax.metrics import calibration
from sdfn_jax.radiographs import reader
from sdfn_jax.radiographs.findings import FINDINGS
from sdfn_jax.radiographs.flags import FLAGS
from sdfn_jax.radiographs.opening import ImageFile
from sdfn_jax.radiographs.synthetic_film import draw

NAMES = ["1.png", "2.png", "3.png", "deep/1.png", "deep/5.png", "deep/6.png"]
BAD = "3.png"


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A folder of five drawn films in two folders, two of the same name, and a file that is none."""
    folder = tmp_path_factory.mktemp("films")
    (folder / "deep").mkdir()
    for number, name in enumerate(NAMES):
        radiograph = Image.fromarray(draw(np.random.default_rng(number), ("Effusion", "Mass")).image)
        radiograph.resize((300 + 20 * number, 320)).save(folder / name)
    (folder / BAD).write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a calibration."""
    run = selftest.unpack(tmp_path_factory.mktemp("runs"))
    digest = checkpoint.best_metadata(run)["digest"]
    calibration.write(run, calibration.make(evaluation(stage="fusion", checkpoint=digest)))
    return run


@pytest.fixture(scope="module")
def done(run, films, tmp_path_factory):
    """The finished output folder; the status is checked here, as a fixture runs once."""
    output = tmp_path_factory.mktemp("done") / "output"
    assert command(films, f"--checkpoint={run}", f"--output={output}", "--batch_size=2") == 1
    return output


@pytest.fixture(scope="module")
def readings(run, films):
    predictor = Predictor.load(run, batch_size=2)
    return list(predictor.readings(ImageFile(name, films / name) for name in NAMES if name != BAD))


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def content(folder):
    """{file: digest} of everything in a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class TestFiles:
    def test_what_there_is(self, done):
        assert sorted(content(done)) == sorted(
            [
                *("boxes.csv", "errors.csv", "index.html", "predictions.csv", "predictions.jsonl", "provenance.json"),
                *(f"overlays/{name}.png" for name in NAMES if name != BAD),
            ]
        )

    def test_the_table_holds_the_readings(self, done, run, readings):
        rows, record = table(done / "predictions.csv"), calibration.read(run)
        assert [row["image"] for row in rows] == [reading.name for reading in readings]
        for row, reading in zip(rows, readings, strict=True):
            assert (int(row["height"]), int(row["width"])) == reading.radiograph.shape
            assert tuple(int(row[f"lung_{edge}"]) for edge in ("left", "top", "right", "bottom")) == reading.lung_box
            assert (row["rule"], row["flags"], row["fixes"]) == (reading.rule, "+".join(reading.flags), "")
            calibrated = record.apply(np.array([*reading.probabilities.values()]))
            assert (float(row["confidence"]), float(row["lung_area"])) == (reading.confidence, reading.lung_area)
            for index, name in enumerate(FINDINGS):
                assert float(row[f"probability_{name}"]) == reading.probabilities[name]
                expected = "" if np.isnan(calibrated[index]) else str(calibrated[index])
                assert row[f"calibrated_{name}"] == expected
                point = record.findings[name].threshold
                called = "undecided"
                if point is not None:
                    called = "positive" if reading.probabilities[name] >= point.probability else "negative"
                assert row[f"decision_{name}"] == called

    def test_a_column_is_what_differs_between_images_and_has_a_meaning(self, done):
        columns = list(table(done / "predictions.csv")[0])
        explained = json.loads((done / "provenance.json").read_text())["columns"]
        assert all(explained.values())
        of_images = [name for name in explained if not name.endswith("_X")]
        kinds = [name.removesuffix("_X") for name in explained if name.endswith("_X")]
        assert of_images[:4] == ["image", "width", "height", "flags"]
        assert kinds == ["probability", "calibrated", "decision"]
        assert columns == of_images + [f"{kind}_{finding}" for finding in FINDINGS for kind in kinds]

    def test_the_lines_say_the_same_and_hold_the_boxes(self, done, readings):
        lines = [json.loads(line) for line in (done / "predictions.jsonl").read_text().splitlines()]
        boxes = table(done / "boxes.csv")
        for row, line, reading in zip(table(done / "predictions.csv"), lines, readings, strict=True):
            assert line["image"] == row["image"]
            assert list(line["probabilities"]) == list(FINDINGS)
            assert line["probabilities"]["Mass"] == float(row["probability_Mass"])
            called = {name for name, each in line["decisions"].items() if each["positive"]}
            assert [*line["decisions"], *line["undecided"]] == list(FINDINGS)
            assert row["decision_Hernia"] == "undecided"
            assert set(line["boxes"]) == called | {line["top"]}
            for name, found in line["boxes"].items():
                maps = {branch: each[..., FINDINGS.index(name)] for branch, each in reading.maps.items()}
                heatmap = cam.rescale(cam.on_radiograph(maps, reading.lung_box, reading.radiograph.shape))
                for threshold in (60, 180):
                    expected = localization.find_boxes(heatmap, threshold).tolist()
                    assert found[str(threshold)] == expected
                    written = [
                        [float(each[edge]) for edge in ("left", "top", "right", "bottom")]
                        for each in boxes
                        if (each["image"], each["finding"], each["threshold"]) == (line["image"], name, str(threshold))
                    ]
                    assert written == expected

    def test_what_could_not_be_read_is_listed(self, done, films):
        (row,) = table(done / "errors.csv")
        assert row["image"] == BAD
        assert row["problem"].startswith(f"{films / BAD}: cannot be decoded")
        assert BAD not in {line["image"] for line in table(done / "predictions.csv")}

    def test_provenance(self, done, run):
        record = json.loads((done / "provenance.json").read_text())
        assert record["checkpoint"] == checkpoint.best_metadata(run)["digest"]
        assert (record["films"], record["not_read"], record["drawings"]) == (5, 1, True)
        assert record["note"] == batch.RESEARCH
        assert list(record["thresholds"]) == list(FINDINGS[:11])
        assert list(record["undecided"]) == list(FINDINGS[11:])
        assert record["undecided"]["Hernia"] == "0 positives and 400 negatives in validation; it takes 20 of each"
        made = calibration.read(run).findings["Mass"]
        assert record["validation"]["Mass"]["auc"] == {
            "value": made.auc.value,
            "low": made.auc.low,
            "high": made.auc.high,
        }

    def test_the_page_holds_every_film_and_says_which_one_was_not_read(self, done):
        page = (done / "index.html").read_text()
        for name in NAMES:
            assert (json.dumps({"name": name})[1:-1].replace(" ", "") in page) == (name != BAD)
        assert f"<bdi>{BAD}</bdi>" in page and "1 file was not read" in page

    def test_over_500_films_there_are_more_pages(self, done, tmp_path, run, monkeypatch):
        monkeypatch.setattr(outputs, "FILMS_A_PAGE", 2)
        lines = [json.loads(line) for line in (done / "predictions.jsonl").read_text().splitlines()]
        written = []
        monkeypatch.setattr(
            film_page, "write", lambda path, _, *rest: written.append((path.name, list(rest[0]), rest[1]))
        )
        pieces = {line["image"]: {"row": line, "entry": line["image"]} for line in lines}
        provenance = Predictor.load(run).provenance
        outputs.assemble(tmp_path, list(pieces), [], pieces.__getitem__, provenance, {}, False)
        names = list(pieces)
        files = ("index.html", "index_2.html", "index_3.html")
        assert written == [
            (files[0], names[:2], film_page.Pager(files, 0, 1, 2, 5)),
            (files[1], names[2:4], film_page.Pager(files, 1, 3, 2, 5)),
            (files[2], names[4:], film_page.Pager(files, 2, 5, 1, 5)),
        ]
        assert not (tmp_path / "errors.csv").exists()


class TestGoingOn:
    @pytest.mark.parametrize("films_before", [2, 4])
    def test_interrupted_it_goes_on_to_the_same_bits(
        self, run, films, done, tmp_path, monkeypatch, capsys, films_before
    ):
        arguments = films, f"--checkpoint={run}", f"--output={tmp_path / 'output'}", "--batch_size=2"
        drawn = []
        write = outputs.write_overlay

        def stopping(folder, reading, *rest):
            drawn.append(reading.name)
            if len(drawn) > films_before:
                raise KeyboardInterrupt
            write(folder, reading, *rest)

        monkeypatch.setattr(outputs, "write_overlay", stopping)
        assert command(*arguments) == 130
        assert "stopped; the same command" in capsys.readouterr().err
        assert "index.html" not in content(tmp_path / "output")
        drawn.clear()
        monkeypatch.setattr(outputs, "write_overlay", lambda *given: (drawn.append(given[1].name), write(*given)))
        assert command(*arguments) == 1
        assert content(tmp_path / "output") == content(done)
        assert len(drawn) < 5

    def test_in_shards_one_of_them_killed_it_ends_with_the_same_bits(
        self, run, films, done, tmp_path, monkeypatch, capsys
    ):
        arguments = films, f"--checkpoint={run}", f"--output={tmp_path / 'output'}", "--batch_size=2"
        with monkeypatch.context() as patch:
            patch.setattr(outputs, "write_overlay", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            assert command(*arguments, "--shard=1/2") == 130
        assert command(*arguments, "--shard=2/2") == 0
        assert "shard 2/2 is finished. Not finished: 1/2. The shard that finishes last" in capsys.readouterr().out
        with pytest.raises(batch.UserError, match="journal.jsonl.1_of_2 was started with other networks or settings"):
            predict_command.main([*map(str, arguments), "--shard=1/2", "--fix=inverted"])
        assert command(*arguments, "--shard=1/2") == 1  # the one that writes errors.csv
        assert content(tmp_path / "output") == content(done)

    def test_a_film_that_changed_is_read_again(self, run, films, tmp_path, monkeypatch):
        for name in NAMES[:2]:
            (tmp_path / name).write_bytes((films / name).read_bytes())
        arguments = tmp_path, f"--checkpoint={run}", f"--output={tmp_path / 'output'}", "--batch_size=2"
        with monkeypatch.context() as patch:
            patch.setattr(outputs, "assemble", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            assert command(*arguments) == 130
        (tmp_path / NAMES[0]).write_bytes((films / NAMES[4]).read_bytes())
        assert command(*arguments) == 0
        first, _ = table(tmp_path / "output" / "predictions.csv")
        assert first["width"] == "380"  # of the film whose content it has now

    def test_a_journal_of_other_settings_is_refused(self, run, films, tmp_path, monkeypatch, capsys):
        output = tmp_path / "output"
        monkeypatch.setattr(outputs, "assemble", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        arguments = films / "1.png", f"--checkpoint={run}", f"--output={output}"
        assert command(*arguments) == 130
        before = content(output)
        with pytest.raises(batch.UserError, match="started with other networks or settings"):
            predict_command.main([*map(str, arguments), "--keep_identifiers"])
        assert content(output) == before

    def test_a_journal_of_a_version_with_other_rows_is_refused(self, run, films, tmp_path, monkeypatch):
        arguments = [str(films / "1.png"), f"--checkpoint={run}", f"--output={tmp_path / 'output'}"]
        monkeypatch.setattr(outputs, "assemble", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with monkeypatch.context() as patch:
            patch.setattr(batch, "_FORMAT", 1)
            assert command(*arguments) == 130
        with pytest.raises(batch.UserError, match='"format": 1.*started|started.*"format": 1'):
            predict_command.main(arguments)

    def test_a_finished_prediction_is_not_written_over(self, run, films, done):
        before = content(done)
        with pytest.raises(batch.UserError, match="holds a finished prediction; give another folder, or delete it"):
            predict_command.main([str(films), f"--checkpoint={run}", f"--output={done}"])
        assert content(done) == before

    def test_output_inside_the_folder_of_films_is_not_read(self, run, films, tmp_path):
        (tmp_path / "1.png").write_bytes((films / "1.png").read_bytes())
        (tmp_path / "output").mkdir()
        (tmp_path / "output" / "old.png").write_bytes((films / "1.png").read_bytes())
        assert command(tmp_path, f"--checkpoint={run}", f"--output={tmp_path / 'output'}") == 0
        assert [row["image"] for row in table(tmp_path / "output" / "predictions.csv")] == ["1.png"]


def test_requested_fixes_are_applied_and_reported(run, films, tmp_path, capsys):
    Image.fromarray(255 - np.asarray(Image.open(films / "1.png").convert("L"))).save(tmp_path / "dark.png")
    arguments = tmp_path / "dark.png", films / "1.png", f"--checkpoint={run}"
    assert command(*arguments, f"--output={tmp_path / 'as_it_is'}") == 0
    assert "flagged inverted: 1. Looks inverted" in capsys.readouterr().out
    first, _ = table(tmp_path / "as_it_is" / "predictions.csv")
    assert (first["flags"].split("+")[0], first["fixes"]) == ("inverted", "")
    assert command(*arguments, f"--output={tmp_path / 'fixed'}", "--fix=inverted") == 0
    assert "flagged inverted" not in capsys.readouterr().out
    first, second = table(tmp_path / "fixed" / "predictions.csv")
    assert (first["fixes"], second["fixes"]) == ("inverted", "")
    assert float(first["probability_Mass"]) == pytest.approx(float(second["probability_Mass"]), abs=1e-6)


@pytest.fixture(scope="module")
def lungs(run, films, tmp_path_factory):
    """The finished output folder, by the golden lung region generator in the place of the package's own."""
    output = tmp_path_factory.mktemp("lungs") / "output"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmenter, "SHIPPED", run.parent / "lrg")
        assert command(films, f"--output={output}", "--batch_size=2") == 1
    return output


class TestWithoutAClassifier:
    def test_the_lungs_are_those_that_a_classifier_gets(self, lungs, done, run):
        rows, with_classifier = (table(folder / "predictions.csv") for folder in (lungs, done))
        for row, other in zip(rows, with_classifier, strict=True):
            for name in (
                "image",
                "width",
                "height",
                "flags",
                "lung_left",
                "lung_top",
                "lung_right",
                "lung_bottom",
                "rule",
            ):
                assert row[name] == other[name]
            assert float(row["confidence"]) == pytest.approx(float(other["confidence"]), abs=1e-5)
        assert (
            json.loads((lungs / "provenance.json").read_text())["lrg_checkpoint"]
            == (checkpoint.best_metadata(run.parent / "lrg")["digest"])
        )

    def test_table_page_and_record_say_that_there_are_no_findings(self, lungs):
        for row in table(lungs / "predictions.csv"):
            assert row["findings"] == "none: no classifier was given"
            assert not any(name.endswith("Mass") for name in row)
        assert film_page.NO_CLASSIFIER in (lungs / "index.html").read_text()
        assert json.loads((lungs / "provenance.json").read_text())["no_findings"] == film_page.NO_CLASSIFIER
        assert "boxes.csv" not in content(lungs)
        assert {f"overlays/{name}.png" for name in NAMES if name != BAD} <= content(lungs).keys()

    def test_the_screen_says_how_to_get_a_classifier(self, run, films, tmp_path, capsys):
        assert command(films / "1.png", f"--lrg={run.parent / 'lrg'}", f"--output={tmp_path / 'output'}") == 0
        printed = capsys.readouterr().out
        assert "no classifier" in printed.splitlines()[0]
        assert printed.count(film_page.NO_CLASSIFIER) == 1

    def test_each_named_command_exists(self):
        for name in re.findall("sdfn ([a-z]+)", film_page.NO_CLASSIFIER):
            assert name in cli.COMMANDS


class TestScreen:
    def test_it_says_what_it_is_for_once_and_that_it_was_trained_on_synthetic_radiographs(
        self, run, films, tmp_path, capsys
    ):
        output = tmp_path / "output"
        assert command(films / BAD, films / "1.png", f"--checkpoint={run}", f"--output={output}") == 1
        printed = capsys.readouterr()
        assert (printed.out + printed.err).count("not for diagnosis") == 1
        assert "trained on synthetic radiographs" in printed.out
        assert f"not read: {films / BAD}: cannot be decoded" in printed.err
        assert "1 film read, 1 not" in printed.out
        assert str(output / "errors.csv") in printed.out
        assert "calibration.json" not in printed.out
        (line,) = (line for line in printed.out.splitlines() if "Hernia" in line)
        assert "(fewer than 20 positives or negatives in validation): Pleural thickening, Hernia" in line
        assert printed.out.count("no decision") == line.count("no decision") == 2

    def test_without_a_calibration_the_command_that_makes_one_is_named(self, films, tmp_path, capsys):
        run = selftest.unpack(tmp_path / "runs")
        assert command(films / "1.png", f"--checkpoint={run}", f"--output={tmp_path / 'output'}") == 0
        assert "--mode=evaluate --split=validation" in capsys.readouterr().out
        (row,) = table(tmp_path / "output" / "predictions.csv")
        assert {value for name, value in row.items() if name.startswith("calibrated")} == {""}
        assert {value for name, value in row.items() if name.startswith("decision")} == {"undecided"}
        record = json.loads((tmp_path / "output" / "provenance.json").read_text())
        assert record["undecided"] == dict.fromkeys(FINDINGS, "the checkpoint carries no operating points")
        assert "--split=validation" in record["uncalibrated"]

    def test_a_network_that_guesses_decides_nothing_and_says_so(self, films, tmp_path, capsys):
        run = selftest.unpack(tmp_path / "runs")
        given = evaluation(stage="fusion", checkpoint=checkpoint.best_metadata(run)["digest"], images=2000)
        guesses = np.random.default_rng(3).random(given.predictions.probabilities.shape)
        guessed = dataclasses.replace(given, predictions=dataclasses.replace(given.predictions, probabilities=guesses))
        calibration.write(run, calibration.make(guessed))
        assert command(films / "1.png", f"--checkpoint={run}", f"--output={tmp_path / 'output'}") == 0
        sentence = "Validation does not show this network to be better than chance: mean AUC 0.5"
        assert capsys.readouterr().out.count(sentence) == 1
        assert (tmp_path / "output" / "index.html").read_text().split("</header>")[0].count(sentence) == 1
        (row,) = table(tmp_path / "output" / "predictions.csv")
        assert row["decision_Infiltration"] == "undecided"
        record = json.loads((tmp_path / "output" / "provenance.json").read_text())
        assert record["undecided"]["Infiltration"].startswith("no better than chance on validation: AUC 0.")
        assert record["no_better_than_chance"].startswith(sentence)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["a.png", "--selftest"], "its own films and networks; leave out FILES"),
            (["--selftest", "--lrg=x", "--fix=inverted"], "leave out --lrg, --fix"),
            ([], "--output is missing"),
            (["--checkpoint=x"], "--output is missing"),
            (["--checkpoint=x", "--output=y"], "no FILES"),
            (["films", "--checkpoint=x", "--output=y", "--fix=brightness"], "choose from"),
            (["films", "--checkpoint=x", "--output=y", "--batch_size=0"], "'0' is not a whole number from 1 to"),
        ],
    )
    def test_what_is_missing_is_said(self, arguments, message, capsys):
        assert command(*arguments) == 2
        assert message in capsys.readouterr().err

    def test_nothing_is_written_where_nothing_can_be_read(self, run, tmp_path):
        for places, checkpoint_folder in (([tmp_path], run), ([tmp_path / "no.png"], run), ([__file__], tmp_path)):
            with pytest.raises(batch.UserError):
                predict_command.main(
                    [*map(str, places), f"--checkpoint={checkpoint_folder}", f"--output={tmp_path / 'output'}"]
                )
            assert list(tmp_path.iterdir()) == []


class TestNames:
    def test_whatever_a_file_is_called(self, run, films, tmp_path, capsys):
        folder = tmp_path / "films"
        folder.mkdir()
        names = ["l" * 251 + ".png", "l" * 250 + "m.png", "bad\udcff.png", "new\nline.png", '<b>",ü.png']
        for name in names:
            (folder / name).write_bytes((films / "1.png").read_bytes())
        (folder / "\x1b[31m\nbroken.png").write_bytes(b"")
        output = tmp_path / "output"
        assert command(folder, f"--checkpoint={run}", f"--output={output}") == 1
        (line,) = [line for line in capsys.readouterr().err.split("\n") if "broken" in line]
        assert line.startswith(f"not read: {folder}/\\x1b[31m\\nbroken.png: ")
        rows = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
        assert {row["image"] for row in rows} == set(names)
        assert len({row["overlay"] for row in rows}) == len(names)
        assert all((output / row["overlay"]).is_file() for row in rows)
        header, *lines = csv_table.read(output / "predictions.csv")
        assert {line[header.index("image")] for line in lines} == set(names)
        (error,) = table(output / "errors.csv")
        assert "\n" not in error["problem"]


class TestPlaces:
    def test_a_place_without_films_does_not_stop_the_others(self, run, films, tmp_path, capsys):
        (tmp_path / "empty").mkdir()
        (tmp_path / "list.txt").write_text(f"{films / '1.png'}\n{tmp_path / 'gone.png'}\n")
        output = tmp_path / "output"
        arguments = tmp_path / "empty", f"--list={tmp_path / 'list.txt'}", f"--checkpoint={run}", f"--output={output}"
        assert command(*arguments) == 1
        printed = capsys.readouterr()
        assert f"not read: {tmp_path / 'gone.png'}: no such file or folder\n" in printed.err
        assert "1 film read, 2 not" in printed.out
        assert [row["image"] for row in table(output / "predictions.csv")] == ["1.png"]
        rows = table(output / "errors.csv")
        assert [row["image"] for row in rows] == [str(tmp_path / "empty"), str(tmp_path / "gone.png")]
        assert rows[0]["problem"].startswith(f"no radiograph in {tmp_path / 'empty'}")
        assert json.loads((output / "provenance.json").read_text())["not_read"] == 2


def test_a_file_that_may_not_be_opened_is_said(run, films, tmp_path, monkeypatch, capsys):
    opener = reader._open_at_once

    def denied(path, flags):
        if Path(path).name == "2.png":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opener(path, flags)

    monkeypatch.setattr(reader, "_open_at_once", denied)  # root may open every file
    arguments = films / "1.png", films / "2.png", f"--checkpoint={run}", f"--output={tmp_path / 'output'}"
    assert command(*arguments) == 1
    assert f"not read: {films / '2.png'}: Permission denied\n" in capsys.readouterr().err


class TestOutput:
    @pytest.mark.parametrize("below", ["", "below"])
    def test_one_that_is_a_file_is_refused(self, run, films, tmp_path, below, capsys):
        (tmp_path / "file").write_text("mine")
        output = tmp_path / "file" / below
        assert command(films / "1.png", f"--checkpoint={run}", f"--output={output}") == 2
        assert f"error: {tmp_path / 'file'}" in capsys.readouterr().err
        assert (tmp_path / "file").read_text() == "mine"

    def test_a_full_disk_is_said_and_gone_on_from(self, run, films, done, tmp_path, monkeypatch, capsys):
        arguments = films, f"--checkpoint={run}", f"--output={tmp_path / 'output'}", "--batch_size=2"
        save, write_overlay = Image.Image.save, outputs.write_overlay
        at_work = threading.local()

        def named(folder, reading):
            at_work.film = reading.name
            write_overlay(folder, reading)

        def full(picture, path, kind, **given):
            if kind == "PNG" and at_work.film == "deep/5.png":
                path.write_bytes(b"begun")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            save(picture, path, kind, **given)

        with monkeypatch.context() as patch:
            patch.setattr(outputs, "write_overlay", named)
            patch.setattr(Image.Image, "save", full)
            assert command(*arguments) == 2
        assert re.search(r"error: .*5.png.*: No space left on device; free some space there", capsys.readouterr().err)
        left = content(tmp_path / "output")
        assert "journal.jsonl" in left
        assert not any("5.png" in name or name.endswith((".html", ".csv")) for name in left)
        assert command(*arguments) == 1
        assert content(tmp_path / "output") == content(done)

    def test_a_second_command_is_kept_out(self, run, films, tmp_path):
        arguments = [str(films / "1.png"), f"--checkpoint={run}", f"--output={tmp_path / 'output'}"]
        with (
            other_process.holding(tmp_path / "output" / ".journal.jsonl.lock"),
            pytest.raises(batch.UserError, match="another command"),
        ):
            predict_command.main(arguments)


SECRETS = {
    "PatientName": "Doe^Jane Secret",
    "PatientID": "ID-SECRET-4711",
    "PatientBirthDate": "19601224",
    "OtherPatientIDs": "OTHER-SECRET-1",
    "PatientAddress": "Secret Street 9",
    "InstitutionName": "Secret Hospital",
    "ReferringPhysicianName": "Secret^Doctor",
    "AccessionNumber": "ACC-SECRET",
    "StudyDescription": "Secret study",
    "ImageComments": "Jane Secret, bed 9",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.4711",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.4712",
    "SOPInstanceUID": "1.2.826.0.1.3680043.8.498.4713",
}


def leaks(data: bytes, names=tuple(SECRETS)) -> list[str]:
    """Which secrets stand in a file, as text or in base64 within it."""
    # Base64 begins anew wherever a string does; what is none of it decodes to nonsense.
    packed = b"".join(
        base64.b64decode(found[: len(found) // 4 * 4]) for found in re.findall(rb"[A-Za-z0-9+/]{40,}", data)
    )
    parts = {part for secret in map(SECRETS.get, names) for part in (secret, *secret.split("^")) if len(part) > 5}
    return sorted(part for part in parts if part.encode() in data + packed)


@pytest.fixture(scope="module")
def dicom_films(films, tmp_path_factory):
    """A DICOM film, one cut off, and one that is none; all with names all over."""
    folder = tmp_path_factory.mktemp("dicom")
    pixels = np.asarray(Image.open(films / "1.png").convert("L"))
    dicom_files.write(folder / "good.dcm", pixels, **SECRETS)
    dicom_files.write(folder / "bad.dcm", pixels, **SECRETS, NumberOfFrames="3")
    content = (folder / "good.dcm").read_bytes()
    (folder / "cut.dcm").write_bytes(content[: len(content) // 2])
    assert leaks(content) == leaks(base64.b64encode(content)) != []
    return folder


class TestPatientData:
    def test_nothing_of_a_header_gets_out(self, run, dicom_films, tmp_path, monkeypatch, caplog, capfd):
        caplog.set_level(logging.DEBUG)
        arguments = dicom_films, f"--checkpoint={run}", f"--output={tmp_path / 'output'}"
        with monkeypatch.context() as patch:
            patch.setattr(outputs, "assemble", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            assert command(*arguments) == 130
        assert leaks((tmp_path / "output" / "journal.jsonl").read_bytes()) == []
        assert command(*arguments) == 1
        printed = capfd.readouterr()
        assert leaks((printed.out + printed.err + caplog.text).encode()) == []
        files = [path for path in (tmp_path / "output").rglob("*") if path.is_file()]
        assert {path.suffix for path in files} == {".csv", ".jsonl", ".json", ".html", ".png"}
        assert {path.name: leaks(path.read_bytes()) for path in files} == {path.name: [] for path in files}
        with Image.open(tmp_path / "output" / "overlays" / "good.dcm.png") as picture:
            assert picture.info == {}
        assert len(table(tmp_path / "output" / "errors.csv")) == 2

    def test_three_identifiers_are_kept_where_asked_for(self, run, dicom_films, films, tmp_path):
        output = tmp_path / "output"
        arguments = dicom_films / "good.dcm", films / "1.png", f"--checkpoint={run}", f"--output={output}"
        assert command(*arguments, "--keep_identifiers") == 0
        kept = ("PatientID", "StudyInstanceUID", "SOPInstanceUID")
        first, second = table(output / "predictions.csv")
        assert [first[name] for name in kept] == [SECRETS[name] for name in kept]
        assert [second[name] for name in kept] == ["", "", ""]
        line = json.loads((output / "predictions.jsonl").read_text().splitlines()[0])
        assert [line[name] for name in kept] == [SECRETS[name] for name in kept]
        others = [name for name in SECRETS if name not in kept]
        for path in (path for path in output.rglob("*") if path.is_file()):
            told = leaks(path.read_bytes(), others if path.stem == "predictions" else SECRETS)
            assert told == [], path

    def test_identifiers_that_cannot_be_read_are_empty_and_listed_and_work_goes_on(self, run, films, tmp_path, capsys):
        pixels = np.asarray(Image.open(films / "1.png").convert("L"))
        (tmp_path / "films").mkdir()
        for name in ("good.dcm", "no_vr.dcm", "three_bytes.dcm"):
            dicom_files.write(tmp_path / "films" / name, pixels, **SECRETS)
        dicom_files.garble(tmp_path / "films" / "no_vr.dcm", "PatientID", b"1234", "ZZ")
        dicom_files.garble(tmp_path / "films" / "three_bytes.dcm", "PatientID", b"123", "US")
        output = tmp_path / "output"
        assert command(tmp_path / "films", f"--checkpoint={run}", f"--output={output}", "--keep_identifiers") == 0
        good, *others = table(output / "predictions.csv")
        assert good["PatientID"] == SECRETS["PatientID"] and "dicom" not in good["flags"]
        assert [each["PatientID"] for each in others] == ["", ""]
        for each in others:
            assert each["SOPInstanceUID"] == good["SOPInstanceUID"]
            assert each["flags"].split("+")[-1] == "dicom_identifiers"
        assert f"flagged dicom_identifiers: 2. {FLAGS['dicom_identifiers']}" in capsys.readouterr().out

    def test_one_film_in_every_coding_has_the_same_probabilities(self, run, films, tmp_path):
        pixels = np.asarray(Image.open(films / "1.png").convert("L"))
        wide = pixels.astype(np.uint16) * 257
        (tmp_path / "films").mkdir()
        Image.fromarray(pixels).save(tmp_path / "films" / "8.png")
        Image.fromarray(wide).save(tmp_path / "films" / "16.png")
        dicom_files.write(tmp_path / "films" / "m1.dcm", 65535 - wide, photometric="MONOCHROME1")
        dicom_files.write(tmp_path / "films" / "m2.dcm", wide)
        for syntax in (uid.RLELossless, uid.JPEG2000Lossless, uid.JPEGLossless):
            dicom_files.write(tmp_path / "films" / f"{syntax.keyword}.dcm", wide, syntax=syntax)
        output = tmp_path / "output"
        assert command(tmp_path / "films", f"--checkpoint={run}", f"--output={output}") == 0
        rows = table(output / "predictions.csv")
        assert len(rows) == 7
        found = np.array([[float(row[f"probability_{name}"]) for name in FINDINGS] for row in rows])
        np.testing.assert_allclose(found, found[:1].repeat(7, axis=0), atol=1e-3)


class TestSelftest:
    def test_this_installation_passes(self, capsys):
        assert command("--selftest") == 0
        printed = capsys.readouterr().out
        assert printed.count("pass ") + printed.count("pass\n") >= 4
        assert "passed: largest difference" in printed

    def test_another_resize_fails(self, capsys, monkeypatch):
        nearest = lambda image, size: np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.NEAREST))  # noqa: E731
        monkeypatch.setattr("sdfn_jax.radiographs.pixels.resize", nearest)
        assert command("--selftest") == 1
        assert "FAILED: largest difference" in capsys.readouterr().out

    def test_weights_that_are_not_those_that_were_packed_are_refused(self, tmp_path, monkeypatch):
        for path in selftest._GOLDEN.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        content = bytearray((tmp_path / "lrg.safetensors").read_bytes())
        content[-5] ^= 1
        (tmp_path / "lrg.safetensors").write_bytes(content)
        monkeypatch.setattr(selftest, "_GOLDEN", tmp_path)
        with pytest.raises(batch.UserError, match=r"lrg.safetensors is damaged; install the package again"):
            selftest.unpack(tmp_path / "runs")
