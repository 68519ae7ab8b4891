"""Which changes of a config make another network."""

import json

import pytest

from configs import classifier, fusion, lrg
from sdfn_jax.core import run_identity
from sdfn_jax.core.errors import UserError

CONFIGS = {
    "lrg": lambda: lrg.get_config("demo"),
    "entire": lambda: classifier.get_config("entire"),
    "fusion": lambda: fusion.get_config(),
}


def stored(config, **inputs):
    """Metadata as read from a checkpoint."""
    return json.loads(json.dumps({"config": run_identity.as_json(config), "inputs": inputs}))


@pytest.mark.parametrize("stage", CONFIGS)
def test_a_config_is_the_same_after_storing(stage):
    config = CONFIGS[stage]()
    run_identity.check_same_run("runs/x", stored(config, data="a1"), CONFIGS[stage](), {"data": "a1"})


@pytest.mark.parametrize("stage", CONFIGS)
def test_a_run_from_before_the_folder_of_all_runs_could_be_set_has_the_same_recipe(stage):
    then = stored(CONFIGS[stage]())
    assert then["config"].pop("runs").startswith("runs")
    run_identity.check_same_run("runs/x", then, CONFIGS[stage](), {})


def test_a_stored_config_is_whole():
    config = fusion.get_config("demo")
    found = run_identity.as_json(config)
    assert found["branches"] == ["entire", "lung"]
    assert found["data"]["boxes"] is None
    assert found["entire"]["adam"] == {"b1": 0.9, "b2": 0.999, "epsilon": 1e-8}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def changed(stage, name, value):
    config = CONFIGS[stage]()
    config.update_from_flattened_dict({name: value})
    return config


@pytest.mark.parametrize(
    ("stage", "name", "value"),
    [
        ("entire", "workdir", "elsewhere"),
        ("entire", "runs", "elsewhere"),
        ("fusion", "runs", "elsewhere"),
        ("entire", "data.manual_dir", "elsewhere"),
        ("entire", "data.data_dir", "elsewhere"),
        ("entire", "data.boxes", "my_boxes.csv"),
        ("entire", "data.require_complete", True),
        ("entire", "data.skip_bad_files", True),
        ("entire", "evaluation_batch_size", 1),
        ("entire", "checkpoint_minutes", 1.0),
        ("entire", "tensorboard", True),
        ("entire", "remat", True),
        ("fusion", "remat", True),
        ("entire", "pretrained", "elsewhere/densenet121.safetensors"),
        ("entire", "lrg.learning_rate", 1.0),
        ("fusion", "entire.learning_rate", 1.0),
        ("fusion", "lung.workdir", "elsewhere"),
        ("fusion", "cache_features", False),
        ("lrg", "postprocessing.margin_top", 0),
        ("lrg", "synthetic.seed", 7),
    ],
)
def test_places_and_other_stages_are_no_part_of_a_recipe(stage, name, value):
    run_identity.check_same_run("runs/x", stored(CONFIGS[stage]()), changed(stage, name, value), {})


@pytest.mark.parametrize(
    ("stage", "name", "value", "said"),
    [
        ("entire", "learning_rate", 1e-3, "learning_rate is 0.0001 there, but 0.001 was requested"),
        ("entire", "num_epochs", 101, "num_epochs is 100 there, but 101 was requested"),
        ("entire", "batch_size", 4, "batch_size is 16 there, but 4 was requested"),
        ("entire", "seed", 1, "seed is 0 there, but 1 was requested"),
        ("entire", "flip", False, "flip is true there, but false was requested"),
        ("entire", "plateau.patience", 6, "plateau.patience is 5 there, but 6 was requested"),
        ("entire", "adam.b1", 0.8, "adam.b1 is 0.9 there, but 0.8 was requested"),
        ("entire", "pretrained", "random", 'pretrained is "file" there, but "random" was requested'),
        ("entire", "branches", ("lung",), r'branches is \["entire"\] there, but \["lung"\] was requested'),
        ("entire", "data.size", 448, "data.size is 224 there, but 448 was requested"),
        ("entire", "data.label_version", "v2020", 'data.label_version is "2017" there, but "v2020" was requested'),
        ("entire", "data.validation_share", 0.2, "data.validation_share is 0.1 there, but 0.2 was requested"),
        ("fusion", "frozen", False, "frozen is true there, but false was requested"),
        ("fusion", "model.growth_rate", 8, "model.growth_rate is 32 there, but 8 was requested"),
        ("entire", "dtype", "bfloat16", 'dtype is "float32" there, but "bfloat16" was requested'),
        ("lrg", "test_fold", 0, "test_fold is null there, but 0 was requested"),
        ("lrg", "augmentation.zoom", 0.1, "augmentation.zoom is 0.2 there, but 0.1 was requested"),
        ("lrg", "contrast", "equalize", "contrast is .* there, but .* was requested"),
    ],
)
def test_a_change_of_the_recipe_is_named(stage, name, value, said):
    with pytest.raises(
        UserError,
        match="runs/x holds a run with other settings or inputs: "
        + said
        + r"\. Train in other folders \(--config.runs=FOLDER",
    ) as e:
        run_identity.check_same_run("runs/x", stored(CONFIGS[stage]()), changed(stage, name, value), {})
    assert "--config.workdir=" in str(e.value) and "delete" not in str(e.value)


def test_changed_inputs_are_named():
    config = CONFIGS["fusion"]()
    then = stored(config, data="a" * 64, entire="b" * 64)
    run_identity.check_same_run("runs/x", then, config, {})  # nothing is known of them yet
    run_identity.check_same_run("runs/x", then, config, {"data": "a" * 64})
    with pytest.raises(UserError) as e:
        run_identity.check_same_run("runs/x", then, config, {"data": "a" * 64, "entire": "c" * 64, "lung": "d" * 64})
    assert f"its entire has changed since (digest {'b' * 12} then, {'c' * 12} now)" in str(e.value)
    assert f"its lung has changed since (digest none then, {'d' * 12} now)" in str(e.value)
    assert "its data" not in str(e.value)


def test_a_setting_of_one_version_only_is_a_difference():
    config = CONFIGS["entire"]()
    then = stored(config)
    then["config"]["label_smoothing"] = 0.1
    del then["config"]["flip"]
    with pytest.raises(UserError, match="flip is null there, but true.*label_smoothing is 0.1 there, but null"):
        run_identity.check_same_run("runs/x", then, config, {})


@pytest.mark.parametrize(
    ("name", "then", "now"),
    [
        ("learning_rate_rule", "inverse_time", "cosine"),
        ("warmup_share", 0.0, 0.1),
        ("dtype", "float32", "bfloat16"),
        ("optimizer", "adam", "adamw"),
        ("weight_decay", 0.0, 0.1),
        ("loss", "bce", "focal"),
        ("ema_decay", 0.0, 0.99),
        ("test_time_flip", False, True),
    ],
)
@pytest.mark.parametrize("stage", CONFIGS)
def test_a_run_from_before_a_setting_was_trained_as_the_paper(stage, name, then, now):
    before = stored(CONFIGS[stage]())
    before["config"].pop(name, None)
    run_identity.check_same_run("runs/x", before, CONFIGS[stage](), {})
    asked = CONFIGS[stage]()
    asked[name] = now
    said = f"{name} is {json.dumps(then)} there, but {json.dumps(now)} was requested"
    with pytest.raises(UserError, match=said):
        run_identity.check_same_run("runs/x", before, asked, {})


@pytest.mark.parametrize("stage", ["entire", "fusion"])
def test_a_run_from_before_the_classifiers_were_augmented_was_trained_with_flips_alone(stage):
    before = stored(CONFIGS[stage]())
    del before["config"]["augmentation"]
    run_identity.check_same_run("runs/x", before, CONFIGS[stage](), {})
    with pytest.raises(UserError, match=r"augmentation.crop is 1.0 there, but 0.5 was requested"):
        run_identity.check_same_run("runs/x", before, changed(stage, "augmentation.crop", 0.5), {})


@pytest.mark.parametrize("stage", ["entire", "fusion"])
def test_a_run_from_before_branches_had_their_name_has_the_recipe_of_one_after(stage):
    then = json.loads(json.dumps(stored(CONFIGS[stage]())).replace('"branches"', '"views"'))
    run_identity.check_same_run("runs/x", run_identity.under_present_names(then), CONFIGS[stage](), {})


def test_a_demo_from_before_synthetic_radiographs_had_their_name_has_the_recipe_of_one_after():
    then = stored(CONFIGS["lrg"]())
    then["config"]["phantom"] = then["config"].pop("synthetic")
    found = run_identity.under_present_names(then)
    assert found == stored(CONFIGS["lrg"]())


def test_many_differences_are_cut_short():
    config = CONFIGS["entire"]()
    then = stored(config)
    for name in ("seed", "batch_size", "num_epochs", "learning_rate", "learning_rate_decay", "flip", "frozen"):
        then["config"][name] = 77
    with pytest.raises(UserError) as e:
        run_identity.check_same_run("runs/x", then, config, {})
    assert str(e.value).count("77 there") == 5
