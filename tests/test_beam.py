"""TFDS's own `beam_runner` (the extra `tfds`): the same set, in memory and by several processes."""

import json
from pathlib import Path

import official_files as official
import pytest
import tensorflow_datasets as tfds

from sdfn_jax.core import sources
from tfds_builders import base, prepare

beam = pytest.importorskip("apache_beam")
# TFDS asks for it with the protobuf that Beam brings.
pytestmark = pytest.mark.filterwarnings(r"ignore:label\(\) is deprecated:DeprecationWarning")
NUMBERS = range(1, 61)  # twelve films a fold, a shard each: over ten shards


def prepared(download, data_dir, **config):
    builder = prepare.make_builder("montgomery", data_dir, "the download", 16, skip_bad_files=True)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=download, **config))
    return Path(builder.data_dir)


@pytest.mark.parametrize("mode", ["in_memory", "multi_processing"])
def test_beam_prepares_the_same_set(mode, tmp_path, monkeypatch):
    monkeypatch.setattr(base, "_SHARD_BYTES", 1)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    download = official.write_montgomery(tmp_path / "download", NUMBERS)
    (download / "MontgomerySet/CXR_png/MCUCXR_0007_0.png").write_bytes(b"torn")
    options = beam.options.pipeline_options.PipelineOptions([f"--direct_running_mode={mode}", "--direct_num_workers=2"])
    there = prepared(download, tmp_path / "beam", beam_runner=beam.runners.DirectRunner(), beam_options=options)
    here = prepared(download, tmp_path / "here")
    assert sorted(path.name for path in there.iterdir()) == sorted(path.name for path in here.iterdir())
    for name in (base.SKIPPED_LIST, base.MISSING_LIST, "metadata.json"):
        assert (there / name).read_bytes() == (here / name).read_bytes()
    assert sources.read(there / sources.SOURCES_FILE) == sources.read(here / sources.SOURCES_FILE)
    lengths = [json.loads((folder / "dataset_info.json").read_text())["splits"] for folder in (there, here)]
    assert [split["shardLengths"] for split in lengths[0]] == [split["shardLengths"] for split in lengths[1]]
    for split in tfds.builder_from_directory(here).info.splits:
        records = [tfds.builder_from_directory(folder).as_data_source(split) for folder in (there, here)]
        assert [film["name"] for film in records[0]] == [film["name"] for film in records[1]]
        assert all((a["image"] == b["image"]).all() for a, b in zip(*records, strict=True))
