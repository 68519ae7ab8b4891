"""A prepared set is used only for the films, tables and settings that it was made from."""

import contextlib
import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import official_files as official
import pytest
from small import fusion_config

from sdfn_jax.core import checkpoint, run_identity, sealed, sources
from sdfn_jax.core.errors import UserError
from sdfn_jax.workflow import plan, planning, stages
from tfds_builders import prepare
from tfds_builders import prepared as prepared_command

NUMBERS = (1, 2, 3, 4, 5, 6, 7, 8)
TABLE = "Data_Entry_2017.csv"


@pytest.fixture
def chest(tmp_path):
    return official.write_chestxray14(tmp_path / "films")


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "tfds"


def asked(chest, data_dir, **options):
    return {"manual_dir": chest, "data_dir": data_dir, "size": 8, "validation_share": 0.4, **options}


def differences(chest, data_dir, **options):
    return " ".join(prepare.look("chestxray14", **asked(chest, data_dir, **options)).prepared.differences)


def prepared(chest, data_dir, **options):
    return prepare.prepare("chestxray14", **asked(chest, data_dir, **options))


def newer(path, content=None):
    """Gives a file another time of modification, and another content if there is one."""
    status = path.stat()
    if content is not None:
        path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))


class TestDifferences:
    def test_what_was_just_prepared_is_current(self, chest, data_dir):
        prepared(chest, data_dir)
        look = prepare.look("chestxray14", **asked(chest, data_dir))
        assert (look.prepared.differences, look.prepared.notes, look.problem) == ((), (), None)
        assert sum(look.counts.values()) == len(official.NAMES)
        assert look.counts["test"] == len(official.TEST)

    def test_nothing_prepared_is_no_difference(self, chest, data_dir):
        assert prepare.look("chestxray14", **asked(chest, data_dir)).prepared is None
        assert not data_dir.exists()

    def test_added_films_are_named(self, chest, data_dir):
        later = chest / "images" / official.NAMES[2]
        aside = shutil.move(later, chest / "aside")
        prepared(chest, data_dir)
        shutil.move(aside, later)
        assert differences(chest, data_dir) == f"1 file added ({official.NAMES[2]})"

    def test_deleted_films_are_named(self, chest, data_dir):
        prepared(chest, data_dir)
        (chest / "images" / official.NAMES[2]).unlink()
        assert differences(chest, data_dir) == f"1 file gone ({official.NAMES[2]})"

    def test_a_mended_film_of_the_same_size_is_noticed(self, chest, data_dir):
        prepared(chest, data_dir)
        film = chest / "images" / official.NAMES[2]
        content = bytearray(film.read_bytes())
        content[-1] ^= 1
        newer(film, bytes(content))
        assert differences(chest, data_dir) == f"1 file changed ({official.NAMES[2]})"

    def test_a_changed_table_is_noticed(self, chest, data_dir):
        prepared(chest, data_dir)
        table = chest / TABLE
        newer(table, table.read_bytes().replace(b"Hernia", b"Edema"))
        assert differences(chest, data_dir) == f"1 file changed ({TABLE})"

    def test_a_table_that_has_become_unreadable_is_a_difference(self, chest, data_dir):
        prepared(chest, data_dir)
        newer(chest / TABLE, b"nonsense\n")
        assert TABLE in differences(chest, data_dir)

    def test_another_validation_split_and_other_lung_boxes_are_noticed(self, chest, data_dir):
        prepared(chest, data_dir)
        assert "validation_share = 0.4, but 0.2 was requested" in differences(chest, data_dir, validation_share=0.2)
        boxes = official.write_boxes(chest / "mine.csv", official.NAMES[:1])
        assert f"other lung boxes than {boxes} holds" in differences(chest, data_dir, boxes=boxes)

    def test_missing_films_count_only_if_all_are_required(self, chest, data_dir):
        (chest / "images" / official.NAMES[2]).unlink()
        prepared(chest, data_dir)
        assert differences(chest, data_dir) == ""
        assert "lacks 1 official images" in differences(chest, data_dir, require_complete=True)

    def test_an_unknown_picture_next_to_the_films_is_no_difference(self, chest, data_dir):
        prepared(chest, data_dir)
        shutil.copy(chest / "images" / official.NAMES[0], chest / "images" / "figure.png")
        assert differences(chest, data_dir) == ""


class TestDamage:
    @pytest.mark.parametrize("harm", [b"", b"[]", b"{}", b"[" * 9999, b"\xff", b'{"missing": NaN}', "half", "changed"])
    def test_a_set_whose_metadata_are_damaged_is_prepared_again_and_that_is_said(self, chest, data_dir, harm, capsys):
        folder = prepared(chest, data_dir)
        path = folder / "metadata.json"
        whole = path.read_bytes()
        harms = {"half": whole[: len(whole) // 2], "changed": whole.replace(b'"2017"', b'"2016"')}
        path.write_bytes(harms[harm] if isinstance(harm, str) else harm)
        sealed.say.cache_clear()
        with pytest.raises(
            UserError, match=r"metadata.json: not the metadata of a prepared data set .*delete .* prepared"
        ):
            prepared_command.data_metadata(folder)
        assert prepare.look("chestxray14", **asked(chest, data_dir)).prepared is None
        assert f"note: {path}: not the metadata of a prepared data set" in capsys.readouterr().err
        prepared(chest, data_dir)
        assert path.read_bytes() == whole

    def test_no_flipped_bit_changes_its_metadata_in_silence(self, chest, data_dir, capsys):
        folder = prepared(chest, data_dir)
        path = folder / "metadata.json"
        whole, metadata = path.read_bytes(), prepared_command.data_metadata(folder)
        for place in np.random.default_rng(0).choice(len(whole) * 8, 400, replace=False).tolist():
            flipped = bytearray(whole)
            flipped[place // 8] ^= 1 << place % 8
            path.write_bytes(flipped)
            sealed.say.cache_clear()
            with contextlib.suppress(sealed.DamagedError):
                found = prepared_command.data_metadata(folder)
                assert found == metadata or "without a digest" in capsys.readouterr().err


class TestPlaces:
    def test_copied_films_are_the_same_and_are_read_once(self, chest, data_dir, tmp_path, monkeypatch):
        folder = prepared(chest, data_dir)
        copy = shutil.copytree(chest, tmp_path / "copy", copy_function=shutil.copyfile)
        read = []
        look_at = sources.look_at
        monkeypatch.setattr(sources, "look_at", lambda path: read.append(path) or look_at(path))
        before = folder.joinpath("metadata.json").read_bytes()
        assert differences(copy, data_dir) == ""
        assert len(read) == len(official.NAMES) + 4
        read.clear()
        assert differences(copy, data_dir) == ""
        assert read == []
        assert folder.joinpath("metadata.json").read_bytes() == before

    def test_a_record_that_cannot_be_renewed_is_no_error(self, chest, data_dir, monkeypatch):
        prepared(chest, data_dir)
        newer(chest / TABLE)

        def refuse(*_):
            raise PermissionError("read-only")

        monkeypatch.setattr(sources, "write", refuse)
        assert differences(chest, data_dir) == ""

    def test_deleted_to_save_space_the_set_is_used_and_that_is_said(self, chest, data_dir):
        prepared(chest, data_dir)
        shutil.rmtree(chest / "images")
        look = prepare.look("chestxray14", **asked(chest, data_dir))
        assert (look.prepared.differences, look.prepared.notes) == (
            (),
            (f"no film is in {chest} now: used as it was prepared",),
        )
        shutil.rmtree(chest)
        assert differences(chest, data_dir) == ""

    def test_without_films_a_changed_table_still_counts(self, chest, data_dir):
        prepared(chest, data_dir)
        shutil.rmtree(chest / "images")
        table = chest / TABLE
        newer(table, table.read_bytes().replace(b"Hernia", b"Edema"))
        assert differences(chest, data_dir) == f"1 file changed ({TABLE})"

    def test_another_folder_without_films_is_not_taken_for_the_one_they_came_from(self, chest, data_dir, tmp_path):
        prepared(chest, data_dir)
        moved = shutil.copytree(chest, tmp_path / "moved", ignore=shutil.ignore_patterns("images"))
        assert differences(moved, data_dir) == ""  # told by its tables
        elsewhere = tmp_path / "elsewhere"
        assert differences(elsewhere, data_dir) == f"it was prepared from {chest}, but no film is in {elsewhere}"

    def test_prepare_and_the_plan_agree(self, chest, data_dir, capsys):
        prepared(chest, data_dir)
        prepared(chest, data_dir)
        assert "already prepared" in capsys.readouterr().out
        table = chest / TABLE
        newer(table, table.read_bytes().replace(b"Hernia", b"Edema"))
        prepared(chest, data_dir)
        assert "already prepared" not in capsys.readouterr().out
        assert differences(chest, data_dir) == ""


class TestEarlierVersions:
    @pytest.fixture
    def folder(self, chest, data_dir):
        """A set as it was prepared before there was a record of its files."""
        folder = prepared(chest, data_dir)
        (folder / sources.SOURCES_FILE).unlink()
        metadata = json.loads((folder / "metadata.json").read_text())
        del metadata["content_digest"], metadata["source"], metadata["sha256"]
        (folder / "metadata.json").write_text(json.dumps(metadata))
        return folder

    def test_their_sets_are_read_and_what_is_not_known_is_said(self, folder, chest, data_dir):
        prepared = prepare.look("chestxray14", **asked(chest, data_dir)).prepared
        assert not prepared.differences
        assert prepared.notes == (
            "prepared by an earlier version, which kept no record of its files: only their names and sizes could be "
            "compared",
        )
        assert stages.data_inputs(folder) == {"data": prepared.metadata["inputs_digest"]}

    def test_files_of_other_names_or_sizes_are_noticed(self, folder, chest, data_dir):
        (chest / "images" / official.NAMES[2]).unlink()
        assert "other names or sizes" in differences(chest, data_dir)
        (chest / "lung_boxes.csv").unlink()
        assert differences(chest, data_dir) == f"it has 6 films, but {chest} holds 5"

    def test_a_run_that_does_not_know_its_films_goes_on(self):
        config = fusion_config(Path("runs"))
        stored = {"config": run_identity.as_json(config), "inputs": {"data": "a"}}
        run_identity.check_same_run("runs/x", stored, config, {"data": "a", "films": "b"})
        stored["inputs"]["films"] = "c"
        with pytest.raises(UserError, match="its films has changed"):
            run_identity.check_same_run("runs/x", stored, config, {"data": "a", "films": "b"})


def test_lung_masks_of_the_same_size_are_distinguished(tmp_path):
    download = official.write_montgomery(tmp_path / "films", NUMBERS)
    options = {"manual_dir": download, "data_dir": tmp_path / "tfds", "size": 16}
    before = stages.data_inputs(prepare.prepare("montgomery", **options))
    mask = download / "MontgomerySet" / "ManualMask" / "leftMask" / "MCUCXR_0003_0.png"
    content = mask.read_bytes()
    newer(mask, content[:-1] + bytes([content[-1] ^ 1]))
    assert prepare.look("montgomery", **options).prepared.differences == (
        "1 file changed (MCUCXR_0003_0 left lung mask)",
    )
    after = stages.data_inputs(prepare.prepare("montgomery", **options))
    assert before["data"] == after["data"] and before["films"] != after["films"]


def test_a_record_holds_every_film_mask_and_table(tmp_path, chest, data_dir):
    folder = prepared(chest, data_dir)
    with (folder / sources.SOURCES_FILE).open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    lists = {TABLE, "BBox_List_2017.csv", "train_val_list.txt", "test_list.txt"}
    assert rows.keys() == {*official.NAMES, *lists}
    assert int(rows[TABLE]["bytes"]) == (chest / TABLE).stat().st_size


class TestPlan:
    @pytest.fixture
    def config(self, tmp_path, chest, data_dir):
        """The main job on a few films, with both data sets prepared and nothing trained."""
        config = fusion_config(tmp_path)
        del config.synthetic
        config.lrg.data.name = "montgomery"
        config.lrg.data.manual_dir = str(official.write_montgomery(tmp_path / "montgomery", NUMBERS))
        config.data.manual_dir = str(chest)
        config.data.boxes = str(chest / "lung_boxes.csv")
        config.data.validation_seed = 4  # one of the three patients who are not in test
        for stage in (config, config.entire, config.lung, config.lrg):
            stage.batch_size = 2
        prepare.prepare("montgomery", manual_dir=config.lrg.data.manual_dir, data_dir=data_dir, size=32)
        self.prepare(config)
        return config

    @staticmethod
    def prepare(config):
        options = {name: config.data[name] for name in ("manual_dir", "data_dir", "size", "boxes")}
        options |= {name: config.data[name] for name in ("validation_share", "validation_seed")}
        return prepare.prepare("chestxray14", **options)

    @staticmethod
    def train(config):
        """Leaves what a trained extractor leaves, but for its network."""
        data = prepared_command.prepared_directory(config.data)
        stage = plan.classifiers(config)[0]
        metadata = {"config": run_identity.as_json(stage), "inputs": stages.data_inputs(data), "finished": True}
        checkpoint.save_latest(Path(stage.workdir), 1, {"weights": np.zeros(1, np.float32)}, metadata)

    @staticmethod
    def data_step(config):
        return next(step for step in plan.make_plan(config) if step.name == "data set chestxray14")

    def test_the_source_and_its_counts_are_shown(self, config, chest, capsys):
        step = self.data_step(config)
        assert step.there
        counts = ", ".join(
            f"{split} {count['images']}"
            for split, count in prepared_command.data_metadata(step.writes)["splits"].items()
        )
        assert step.notes == (f"from {chest}: 6 films ({counts})",)
        plan.follow([step], "runs/x")
        assert step.notes[0] in capsys.readouterr().out

    def test_other_films_are_prepared_again_if_nothing_was_trained(self, config, chest):
        (chest / "images" / official.NAMES[0]).unlink()
        step = self.data_step(config)
        assert step.state == planning.TO_DO
        assert step.notes[-1] == f"prepared again: 1 file gone ({official.NAMES[0]})"
        step.run()
        assert self.data_step(config).there

    def test_other_films_than_a_run_was_trained_on_are_refused(self, config, chest):
        self.train(config)
        assert self.data_step(config).there
        (chest / "images" / official.NAMES[0]).unlink()
        with pytest.raises(UserError) as error:
            plan.make_plan(config)
        for part in (official.NAMES[0], config.entire.workdir, "--config.data.manual_dir", "--config.data.data_dir"):
            assert part in str(error.value)

    def test_another_folder_is_noticed(self, config, tmp_path):
        self.train(config)
        config.data.manual_dir = str(official.write_chestxray14(tmp_path / "other", present=official.NAMES[1:]))
        with pytest.raises(UserError, match=f"1 file gone .{official.NAMES[0]}"):
            plan.make_plan(config)
        config.data.manual_dir = str(tmp_path / "nowhere")
        with pytest.raises(UserError, match="prepared from .*films, but no film is in .*nowhere"):
            plan.make_plan(config)

    def test_a_split_without_films_is_said_before_anything_is_made(self, config, chest, data_dir):
        for name in official.TEST:
            (chest / "images" / name).unlink()
        with pytest.raises(UserError, match=r"no film of test_list.txt is in .*films: the evaluation on test needs"):
            plan.make_plan(config)
        shutil.rmtree(data_dir / "chestxray14")  # the same before the first preparation
        config.data.validation_seed = 0
        with pytest.raises(UserError) as error:
            plan.make_plan(config)
        assert "no film of test_list.txt" in str(error.value)
        assert "no film of train_val_list.txt" in str(error.value) and "goes to validation" in str(error.value)

    def test_too_few_films_for_a_batch_are_said_before_anything_is_made(self, config):
        config.lung.batch_size = 5
        config.lrg.batch_size = 8
        config.data.boxes = None
        shutil.rmtree(prepared_command.prepared_directory(config.data))
        with pytest.raises(UserError) as error:
            plan.make_plan(config)
        assert "--config.lung.batch_size=5: more than the 3 films of train" in str(error.value)
        assert "--config.lrg.batch_size=8: more than the 7 films that are left for training" in str(error.value)
        assert "--config.entire.batch_size" not in str(error.value)
