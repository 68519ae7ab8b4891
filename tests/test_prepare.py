"""What holds for every data set: TFDS's conventions, and a set that is whole or not there."""

import importlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import official_files as official
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from PIL import Image

from sdfn_jax.core.errors import UserError, run_command
from tfds_builders import base, prepare, registry
from tfds_builders.record_shards import RecordShard

NUMBERS = (1, 2, 3, 6, 17)


@pytest.fixture
def download(tmp_path):
    return official.write_montgomery(tmp_path / "download", NUMBERS)


@pytest.fixture
def data_dir(tmp_path):
    return tmp_path / "data"


def run(download, data_dir, **options):
    return prepare.prepare("montgomery", manual_dir=download, data_dir=data_dir, size=16, **options)


def names(folder):
    sources = tfds.builder_from_directory(folder).as_data_source()
    return sorted(example["name"].decode() for source in sources.values() for example in source)


def left_behind(data_dir):
    """Returns what stands in the folder besides prepared sets and the empty lock file."""
    return [path.name for path in data_dir.iterdir() if path.is_dir() and path.name.startswith(".")]


ALL = [f"MCUCXR_{number:04}_0" for number in NUMBERS]


def test_the_same_inputs_are_not_prepared_twice(download, data_dir, capsys):
    folder = run(download, data_dir)
    assert folder == prepare.prepared_dir("montgomery", data_dir, 16)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    capsys.readouterr()
    assert run(download, data_dir) == folder
    assert "already prepared" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_other_inputs_replace_the_set(download, data_dir):
    folder = run(download, data_dir)
    official.write_montgomery(download, [18])
    assert run(download, data_dir) == folder
    assert names(folder) == [*ALL, "MCUCXR_0018_0"]
    assert not left_behind(data_dir)


def test_other_options_replace_the_set(tmp_path, data_dir):
    download = official.write_chestxray14(tmp_path / "films")
    tests = []
    for share in (0.0, 0.9):
        options = {"manual_dir": download, "data_dir": data_dir, "size": 8, "validation_share": share}
        info = tfds.builder_from_directory(prepare.prepare("chestxray14", **options)).info
        tests.append({split: info.splits[split].num_examples for split in info.splits})
        assert info.metadata["validation_share"] == share
    assert tests[0] == {"train": 4, "test": 2}
    assert tests[1].get("validation", 0) > 0


def test_a_damaged_set_is_prepared_anew(download, data_dir):
    folder = run(download, data_dir)
    (folder / "metadata.json").write_text("{")
    assert names(run(download, data_dir)) == ALL


def test_a_failed_prepare_leaves_the_older_version_and_nothing_else(download, data_dir):
    folder = run(download, data_dir)
    official.write_montgomery(download, [18])
    (download / "MontgomerySet/CXR_png/MCUCXR_0017_0.png").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"MCUCXR_0017_0.png: cannot be decoded"):
        run(download, data_dir)
    assert names(folder) == ALL
    assert not left_behind(data_dir)


def test_a_prepare_that_dies_while_swapping_brings_the_older_version_back(download, data_dir, monkeypatch):
    folder = run(download, data_dir)
    official.write_montgomery(download, [18])
    replace = os.replace

    def replace_once(source, target):
        if ".preparing_" in str(source) and target == folder:
            raise OSError("no more")
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_once)
    with pytest.raises(OSError, match="no more"):
        run(download, data_dir)
    assert names(folder) == ALL
    assert not left_behind(data_dir)


# The command, held at a film until a file appears.
HELD = """
import sys, time
from pathlib import Path
from sdfn_jax.core import errors
from sdfn_jax.radiographs import reader
from tfds_builders import prepare

read = reader.read_radiograph

def held(path):
    while path.name == "MCUCXR_0017_0.png" and not Path(sys.argv[1]).exists():
        time.sleep(0.02)
    return read(path)

reader.read_radiograph = held
errors.run_as_process(lambda: prepare.main(sys.argv[2:]))
"""


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_prepare_leaves_the_older_version_usable(download, data_dir, ending):
    """The process is held in the midst of its work, at a film, and killed there."""
    folder = run(download, data_dir)
    other = official.write_montgomery(download.parent / "other", NUMBERS)
    films = download / "MontgomerySet" / "CXR_png"
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(films / "MCUCXR_0017_0.png")  # so that there is work to do
    release = download.parent / "release"
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", HELD, str(release), "montgomery"),
            *(f"--manual_dir={download}", f"--data_dir={data_dir}", "--size=16"),
        ],
        stderr=subprocess.PIPE,
    )
    try:
        scratch = data_dir / ".preparing_montgomery"
        deadline = time.monotonic() + 60
        while not list(scratch.glob("montgomery/size16/*incomplete*/*.array_record*")):
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert names(folder) == ALL
        with pytest.raises(UserError, match="montgomery in .* is being written by another command; wait"):
            run(other, data_dir)
    finally:
        process.send_signal(ending)
        release.touch()  # threads end with their film
        process.communicate()
    assert bool(left_behind(data_dir)) == (ending == signal.SIGKILL)
    assert names(folder) == ALL

    official.write_montgomery(download, [17, 18])
    assert names(run(download, data_dir)) == [*ALL, "MCUCXR_0018_0"]
    assert not left_behind(data_dir)


def test_a_version_lost_between_the_renames_of_a_killed_run_comes_back(download, data_dir):
    folder = run(download, data_dir)
    folder.rename(folder.with_name(f".{folder.name}.former"))  # as a run killed right here leaves it
    (download / "MontgomerySet/CXR_png/MCUCXR_0017_0.png").write_bytes(b"torn")
    with pytest.raises(UserError, match="cannot be decoded"):
        run(download, data_dir)
    assert names(folder) == ALL


def test_nothing_is_left_in_the_temporary_folder_nor_asked_over_the_network(download, data_dir, tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    monkeypatch.setattr("tensorflow_datasets.core.utils.gcs_utils.gcs_dataset_info_files", pytest.fail)
    run(download, data_dir)
    assert list(temporary.iterdir()) == []


def test_a_full_disk_is_said_beforehand(download, data_dir, monkeypatch):
    almost_full = shutil.disk_usage(download)._replace(free=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: almost_full)
    with pytest.raises(UserError, match=r"GiB are needed, .*another --data_dir"):
        run(download, data_dir)


def test_shards_hold_all_films_in_order(download, data_dir, monkeypatch):
    monkeypatch.setattr(base, "_SHARD_BYTES", 2 * 16**2)  # one film a shard
    folder = run(download, data_dir)
    source = tfds.builder_from_directory(folder).as_data_source("fold_1")
    assert [example["name"].decode() for example in source] == ["MCUCXR_0001_0", "MCUCXR_0006_0"]
    assert len(list(folder.glob("*fold_1*"))) == 2


def test_shards_are_not_compressed_and_each_example_is_read_by_itself(download, data_dir):
    (shard,) = run(download, data_dir).glob("*fold_1*")
    options = array_record_module.ArrayRecordReader(str(shard)).writer_options_string().split(",")
    assert {"uncompressed", "group_size:1"} <= set(options)


@pytest.mark.parametrize("name", [name for name in registry.DATA_SETS if not name.startswith("own")])
def test_the_folders_follow_tfdss_convention(name, tmp_path):
    module = importlib.import_module(f"tfds_builders.{name}.{name}_dataset_builder")
    assert tfds.core.community.builder_cls_from_module(module.__name__) is module.Builder
    builder = module.Builder(data_dir=tmp_path)
    assert builder.name == name
    assert builder.info.description.lower().replace("-", "")[:4] == name[:4]
    assert builder.info.citation.lstrip().startswith("@")
    tags = builder.get_metadata().tags
    assert tags and set(tags) <= set(tfds.core.dataset_metadata.valid_tags())
    assert builder.info.file_format == tfds.core.FileFormat.ARRAY_RECORD


def test_tfds_alone_prepares_a_set(tmp_path):
    """As `tfds build` does: a builder made of its configuration, and manual_dir."""
    download = official.write_chestxray14(tmp_path / "films")
    cls = tfds.core.community.builder_cls_from_module("tfds_builders.chestxray14.chestxray14_dataset_builder")
    builder = cls(data_dir=tmp_path / "data", config="size224_labelsv2020", file_format=None)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=download))
    folder = prepare.prepared_dir("chestxray14", tmp_path / "data", label_version="v2020")
    assert names(folder) == sorted(official.NAMES)
    info = tfds.builder_from_directory(folder).info
    assert info.metadata["label_version"] == "v2020"
    assert info.metadata["splits"]["test"] == {"images": 2, "patients": 2}
    assert (folder / base.MISSING_LIST).is_file()


def command(*arguments):
    run_command(lambda: prepare.main([str(argument) for argument in arguments]))


def test_the_command_prepares_and_sums_up(download, data_dir, capsys, monkeypatch):
    monkeypatch.setattr("sdfn_jax.core.progress._LOG_INTERVAL", 0.0)
    command("montgomery", f"--manual_dir={download}", f"--data_dir={data_dir}", "--size=16")
    captured = capsys.readouterr()
    assert str(prepare.prepared_dir("montgomery", data_dir, 16)) in captured.out
    assert f"missing         {138 - len(NUMBERS)} images" in captured.out
    assert "5/5" in captured.err and "Generating" not in captured.err and "Downloading" not in captured.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["montgomery", "--manual_dir=/nowhere"], "--manual_dir=/nowhere is not a folder"),
        (["montgomery"], "--manual_dir"),
        (["mnist", "--manual_dir=."], "invalid choice: 'mnist'"),
        (["montgomery", "--manual_dir=.", "--boxes=a.csv"], "--boxes is for chestxray14, chexpert, "),
        (["montgomery", "--manual_dir=.", "--size=0"], "'0' is not a whole number from 1 to 16384"),
        (["chestxray14", "--manual_dir=.", "--validation_share=10"], "'10' is not a share"),
        (["montgomery", "--manual_dir=.", "--size=\u00b2"], "is not a whole number from 1"),
        (["chestxray14", "--manual_dir=.", f"--validation_seed={10**20}"], f"'{10**20}' is not a whole number from 0"),
        (["chestxray14", "--manual_dir=.", "--label_version=2020"], "invalid choice: '2020'"),
        (["chestxray14", "--manual_dir=.", "--require"], "unknown flag --require; did you mean --require_complete?"),
    ],
)
def test_a_users_mistake_is_one_message(arguments, message, capsys):
    with pytest.raises(SystemExit) as e:
        command(*arguments)
    assert e.value.code == 2
    assert message in capsys.readouterr().err


def test_a_data_dir_that_cannot_be_made_is_one_message(download, tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        command("montgomery", f"--manual_dir={download}", f"--data_dir={tmp_path / 'file'}")
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_neither_jax_nor_tensorflow_is_imported(download, data_dir):
    """Preparing and reading, in a fresh process."""
    script = f"""
import sys
import tensorflow_datasets as tfds
from PIL import Image
from tfds_builders import prepare
folder = prepare.prepare("montgomery", manual_dir={str(download)!r}, data_dir={str(data_dir)!r}, size=16)
decoders = {{"mask_original": tfds.decode.SkipDecoding()}}
source = tfds.builder_from_directory(folder).as_data_source("fold_1", decoders=decoders)
assert source[0]["image"].shape == (16, 16)
assert not {{"jax", "tensorflow", "cv2", "flax"}} & set(sys.modules), "imported"
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_the_digest_is_of_the_files_and_not_of_their_place(download, data_dir, tmp_path):
    first = run(download, data_dir)
    second = run(official.write_montgomery(tmp_path / "elsewhere", NUMBERS), tmp_path / "other_data")
    third = run(official.write_montgomery(tmp_path / "more", [*NUMBERS, 18]), tmp_path / "third_data")
    digests = [tfds.builder_from_directory(folder).info.metadata["inputs_digest"] for folder in (first, second, third)]
    assert digests[0] == digests[1] != digests[2]
    assert np.unique(digests).size == 2


class TestTfdsInterface:
    """`tfds build`, `beam_runner` and `tfds.load` go through these; the test with Beam is `test_beam.py`."""

    def test_a_pickled_shard_makes_the_same_examples_elsewhere(self, download, tmp_path):
        (download / "MontgomerySet/CXR_png/MCUCXR_0001_0.png").write_bytes(b"torn")
        builder = prepare.make_builder("montgomery", tmp_path / "here", None, 16, skip_bad_files=True)
        items = builder.inputs(download).splits["fold_1"]
        shard = RecordShard(builder, items, tmp_path / "note.json")
        elsewhere = pickle.loads(pickle.dumps(shard))
        assert elsewhere.builder.builder_config is builder.builder_config
        np.testing.assert_equal(list(elsewhere()), list(shard()))
        outcome = elsewhere.outcome()
        assert [item.name for item in outcome.made] == ["MCUCXR_0006_0"]
        assert list(outcome.bad) == ["MCUCXR_0001_0"] and len(outcome.looked_at) == 6
        assert not (tmp_path / "note.json").exists()

    def test_a_pickled_builder_has_all_of_its_arguments(self, tmp_path):
        builder = prepare.make_builder("own", tmp_path, None, 48, table="a.csv", test_share=0.3, skip_bad_files=True)
        assert pickle.loads(pickle.dumps(builder)).__getstate__() == builder.__getstate__()

    def test_one_configuration_is_built_unless_another_is_named(self):
        for name in registry.DATA_SETS:
            builder = registry.builder(name)
            assert len(builder.BUILDER_CONFIGS) == 1
        builder = registry.builder("chestxray14")
        assert builder.get_builder_config("size300_labelsv2020").label_version == "v2020"
        assert builder.get_builder_config("size300_labels2021") is None

    def test_the_format_of_a_set_that_is_there_is_kept(self, download, data_dir):
        folder = run(download, data_dir)
        info = folder / "dataset_info.json"
        info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
        builder = registry.builder("montgomery")(data_dir=data_dir, config="size16")
        assert builder.info.file_format == tfds.core.FileFormat.TFRECORD

    def test_tfds_build_ends_in_a_message(self, tmp_path, monkeypatch):
        download = official.write_chestxray14(tmp_path / "films")
        (download / "Data_Entry_2017.csv").unlink()
        builder = registry.builder("chestxray14")(data_dir=tmp_path / "data")
        monkeypatch.setattr(sys, "argv", ["/usr/bin/tfds", "build"])
        with pytest.raises(SystemExit, match=r"^error: .*Data_Entry_2017.csv is missing, but .*v2020.csv is there: "):
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=download))
