"""The whole chain on real films in a short form: it shows that the pipeline runs, nothing about AUC."""

import csv

import numpy as np
import pytest
from small import fusion_config

from sdfn_jax.lungs import box_table
from sdfn_jax.metrics.evaluation import read_evaluation
from sdfn_jax.training.input_pipeline import Examples
from sdfn_jax.workflow import modes, results
from tfds_builders import prepared

# 00000100_000.png is one of the five RGBA files.
RGBA = "00000100_000.png"


@pytest.mark.long
@pytest.mark.real
def test_from_real_films_to_table_one(real_data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(results, "_HEATMAPS", 2)  # each takes a second
    config = fusion_config(tmp_path)
    del config.synthetic
    config.data.manual_dir = str(real_data / "chestxray14")
    config.data.size = 32
    config.data.validation_share = 0.2
    config.lrg.data.name = "montgomery"
    config.lrg.data.manual_dir = str(real_data / "montgomery")
    config.lrg.data.size = 64
    config.lrg.model.filters = (4, 8, 8, 16)
    config.lrg.num_epochs = 8
    config.lrg.learning_rate = 5e-3
    for stage in (config, config.entire, config.lung):
        stage.batch_size = 16
        stage.num_epochs = 1
    modes.run(config, "train", "test")

    printed = capsys.readouterr().out
    assert "47 radiographs of " in printed
    assert "SMALL SAMPLE" in printed
    assert "SYNTHETIC" not in printed
    pictures = (f"figures/{name}.png" for name in ("roc_curves", "lung_boxes_smallest", "heatmaps"))
    for path in ("table_1.csv", "index.html", *pictures):
        assert (tmp_path / "fusion" / "results" / path).is_file()

    rows = box_table.read_box_table(tmp_path / "lrg" / "lung_boxes.csv")
    assert len(rows) == 324
    # Eight epochs of a tiny network already find lungs on most films of another hospital.
    assert np.mean([row.rule != "whole_image" for row in rows.values()]) > 0.8

    data = prepared.prepared_directory(config.data)
    metadata = prepared.data_metadata(data)
    assert (metadata["missing"], metadata["skipped"], metadata["drawings"]) == (112_120 - 324, 0, False)
    with (data / "missing_files.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 112_120 - 324
    splits = {split: [example["name"] for example in Examples(data, [split])] for split in metadata["splits"]}
    assert {split: len(names) for split, names in splits.items()}["test"] == 47
    assert RGBA in sum(splits.values(), [])

    official = set((real_data / "chestxray14" / "test_list.txt").read_text().split())
    for stage in ("entire", "lung", "fusion"):
        found = read_evaluation(tmp_path / stage / "evaluation" / "test").predictions
        assert len(found.images) == 47 and set(found.images) <= official
        assert found.probabilities.std(axis=0).min() > 0
