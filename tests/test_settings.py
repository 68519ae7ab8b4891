"""The configs that ship pass; what is out of range is named by its flag."""

import math

import pytest
from ml_collections import ConfigDict

from configs import classifier, fusion, lrg, lungs
from sdfn_jax.core import config_flag
from sdfn_jax.core.errors import UserError
from sdfn_jax.workflow import checks

SHIPPED = [
    *((lrg, argument) for argument in ("jsrt", "montgomery", "demo")),
    *((classifier, argument) for argument in ("entire", "lung", "entire,demo", "lung,demo", "small,entire")),
    *((classifier, argument) for argument in ("entire,size448", "lung,size512", "montgomery,lung")),
    *((fusion, argument) for argument in ("", "montgomery", "demo", "small", "small,montgomery", "size448", "size512")),
]


@pytest.mark.parametrize(("module", "argument"), SHIPPED)
def test_the_shipped_configs_pass(module, argument):
    checks.check(module.get_config(argument))


@pytest.mark.parametrize("module", [lrg, classifier, fusion])
@pytest.mark.parametrize(
    "argument", ["dmeo", "demo,demo", "entire,dmeo", "demo,montgomery", "size448,size512", "entire,lung"]
)
def test_an_unknown_config_argument_is_refused(module, argument):
    with pytest.raises(ValueError, match=argument.partition(",")[0]):
        module.get_config(argument)


def test_the_papers_numbers():
    """Of B.2, B.3 and B.5."""
    config = fusion.get_config()
    for stage in (config, config.entire, config.lung):
        assert (stage.batch_size, stage.num_epochs) == (16, 100)
        assert (stage.learning_rate, stage.learning_rate_decay) == (1e-4, 1e-5)
        assert stage.plateau.factor == 0.1
        assert stage.plateau.patience == 5
    assert config.data.size == 224
    assert config.lrg.data.size == 256
    assert (config.frozen, config.entire.frozen, config.lung.frozen) == (True, False, False)


@pytest.mark.parametrize(("module", "argument"), SHIPPED)
def test_one_setting_moves_everything_that_a_job_writes_but_real_data(module, argument):
    config = module.get_config(argument)
    config.runs = "elsewhere"
    made = [value for name, value in strings(config) if "/" in value and not value.startswith("data/")]
    assert len(made) >= 1 and all(value.startswith("elsewhere/") for value in made)
    config.workdir = "mine"  # one stage alone
    config.runs = "again"
    assert config.workdir == "mine"


def strings(config, path=""):
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from strings(value, f"{path}{name}.")
        elif isinstance(value, str):
            yield f"{path}{name}", value


def test_the_variants_of_the_fusion_are_of_the_films_they_name():
    paper, small = fusion.get_config(), fusion.get_config("small,montgomery")
    assert (paper.lrg.data.name, fusion.get_config("montgomery").lrg.data.name) == ("jsrt", "montgomery")
    assert (small.lrg.data.manual_dir, small.workdir, small.data.data_dir) == (
        *("data/montgomery", "runs/small/fusion", "data/tfds"),
    )
    assert small.model.to_dict() == paper.model.to_dict()  # the published network, from ImageNet weights
    assert (small.entire.pretrained, small.data.size) == ("imagenet", 128)


def test_the_words_of_a_config_are_taken_in_any_order():
    one, other = (fusion.get_config(argument) for argument in ("small,montgomery", "montgomery,small"))
    assert one.to_dict() == other.to_dict()
    with pytest.raises(ValueError, match="needs a branch, entire or lung"):
        classifier.get_config("size512")


@pytest.mark.parametrize(("word", "size"), [("size448", 448), ("size512", 512)])
@pytest.mark.parametrize(("module", "branch"), [(classifier, "entire"), (classifier, "lung"), (fusion, "")])
def test_the_control_differs_from_the_paper_by_its_size_and_folder_alone(module, branch, word, size):
    paper, control = (
        flat(module.get_config(argument)) for argument in (branch or "", ",".join(filter(None, (branch, word))))
    )
    assert paper.keys() == control.keys()
    changed = {name: control[name] for name in paper if control[name] != paper[name]}
    stages = {paper[name].removeprefix("runs/"): name for name in paper if name.split(".")[-1] == "workdir"}
    assert changed.pop("data.size") == size
    assert changed == {name: f"runs/{word}/{stage}" for stage, name in stages.items() if stage != "lrg"}


MODERN = [(classifier, "entire"), (classifier, "lung"), (fusion, "")]


@pytest.mark.parametrize(("module", "branch"), MODERN)
@pytest.mark.parametrize("word", ["modern", "demo,modern", "small,modern", "modern,size448"])
def test_modern_goes_with_every_size_and_is_the_same_recipe_in_each(module, branch, word):
    config = module.get_config(",".join(filter(None, (branch, word))))
    checks.check(config)
    assert config.data.size == {"demo,modern": 96, "small,modern": 128, "modern,size448": 448}.get(word, 512)
    assert "/modern" in config.workdir and "modern" not in config.lrg.workdir
    for stage in [config] if branch else [config.entire, config.lung, config]:
        recipe = (stage.optimizer, stage.learning_rate_rule, stage.ema_decay, stage.test_time_flip, stage.dtype)
        assert recipe == ("adamw", "cosine", 0.9999, True, "bfloat16")
        assert (stage.augmentation.crop < 1) == (stage.stage != "fusion")
        stage.num_epochs += 3
        assert stage.plateau.patience == stage.num_epochs  # never acts


def flat(config):
    return dict(config_flag._leaves(config))


def set_in(config, name, value):
    config.update_from_flattened_dict({name: value})
    return config


def message(config, flag="--config"):
    with pytest.raises(UserError) as caught:
        checks.check(config, flag)
    return str(caught.value)


CLASSIFIER_FAULTS = [
    ("seeds", 0, "1 to 100"),
    ("findings", ("Mass", "Mass"), "each name once"),
    ("uncertain", "maybe", "ignore, zero, one, or a number between 0 and 1"),
    ("seed", -1, "0 to 4294967295"),
    ("batch_size", 0, "1 to 2147483647"),
    ("evaluation_batch_size", -4, "1 to 2147483647"),
    ("num_epochs", 0, "1 to 2147483647"),
    ("learning_rate", 0.0, "more than 0"),
    ("learning_rate", float("nan"), "more than 0"),
    ("learning_rate_decay", -1e-5, "0 or more"),
    ("learning_rate_rule", "cosines", "one of inverse_time, cosine"),
    ("warmup_share", 1.0, "0 or more and under 1"),
    ("optimizer", "sgd", "one of adam, adamw"),
    ("weight_decay", -0.1, "0 or more"),
    ("ema_decay", 1.0, "0 or more and under 1"),
    ("loss", "hinge", "one of bce, weighted, focal, asymmetric"),
    ("augmentation.crop", 0.0, "more than 0, at most 1"),
    ("augmentation.rotation", -1.0, "0 or more"),
    ("augmentation.brightness", 1.5, "0 to 1"),
    ("augmentation.contrast", -0.5, "0 to 1"),
    ("checkpoint_minutes", 0.0, "more than 0"),
    ("dtype", "float16", "one of float32, bfloat16"),
    ("plateau.factor", 1.0, "between 0 and 1"),
    ("plateau.factor", 0.0, "between 0 and 1"),
    ("plateau.patience", 0, "1 to 2147483647"),
    ("plateau.minimum_fall", 0.0, "more than 0"),
    ("data.size", 0, "32 to 16384"),
    ("data.size", 1, "32 to 16384"),
    ("data.size", 10**20, "32 to 16384"),
    ("seed", 10**20, "0 to 4294967295"),
    ("seed", 2**32, "0 to 4294967295"),
    ("num_epochs", 2**31, "1 to 2147483647"),
    ("learning_rate", 1e-50, "more than 0, as a float32"),
    ("learning_rate", math.inf, "more than 0, as a float32"),
    ("learning_rate", math.nan, "more than 0, as a float32"),
    ("learning_rate_decay", math.inf, "0 or more, and finite"),
    ("adam.b1", 1.0, "0 or more and under 1"),
    ("adam.b2", -0.1, "0 or more and under 1"),
    ("adam.epsilon", 0.0, "more than 0, as a float32"),
    ("model.growth_rate", 0, "1 to "),
    ("model.init_features", -1, "1 to "),
    ("model.bottleneck", 0, "1 to "),
    ("model.block_sizes", (), "one or more whole numbers"),
    ("model.block_sizes", (6, 0), "one or more whole numbers"),
    ("data.validation_seed", -1, "0 to 4294967295"),
    ("data.validation_share", 1.0, "between 0 and 1"),
    ("data.label_version", "v2017", "one of 2017, v2020"),
    ("data.name", "jsrt", "one of chestxray14"),
]
CONVNEXT_FAULTS = [("model.drop_path", 1.0, "0 or more and under 1")]
OWN_FAULTS = [("data.test_share", 1.0, "between 0 and 1")]
MIMIC_FAULTS = [("data.labeler", "me", "one of chexpert, negbio")]
LRG_FAULTS = [
    ("contrast", "equalise", "one of "),
    ("model.filters", (4, 0), "one or more whole numbers"),
    ("postprocessing.minimum_area", -0.1, "0 to 1"),
    ("postprocessing.small_lung", 2.0, "0 to 1"),
    ("postprocessing.smallest_side", math.nan, "0 to 1"),
    *((f"postprocessing.margin_{side}", -1, "0 to 256") for side in ("top", "left", "right", "bottom")),
    ("synthetic.seed", 10**20, "0 to "),
    ("synthetic.jsrt_films", 0, "1 to "),
    ("synthetic.chestxray14_films", 0, "1 to "),
    ("synthetic.test_share", 1.0, "between 0 and 1"),
    ("validation_share", 0.0, "between 0 and 1"),
    ("validation_share", 10.0, "between 0 and 1"),
    ("test_fold", 5, "0 to 4, or left out"),
    ("test_fold", -1, "0 to 4, or left out"),
    ("augmentation.rotation", -10.0, "0 or more"),
    ("augmentation.shift", -0.1, "0 or more"),
    ("augmentation.zoom", 1.0, "0 or more and under 1"),
    ("augmentation.zoom", -0.1, "0 or more and under 1"),
    ("data.size", 250, "a multiple of 16"),
    ("data.size", 0, "a multiple of 16"),
    ("data.name", "chestxray14", "one of jsrt, montgomery"),
]
LUNGS_FAULTS = [
    ("model.initial", "zeros", "one of glorot_uniform, kaiming_uniform"),
    ("least_confidence", 1.5, "0 to 1"),
    *(
        (f"wide_augmentation.{name}", 1.5, "0 to 1")
        for name in ("quarter_turns", "mirrored", "inverted", "whitened", "gas", "collimated", "foreign")
    ),
    *((f"wide_augmentation.{name}", -0.1, "0 or more") for name in ("shading", "gamma", "blur", "noise")),
]


@pytest.mark.parametrize(("name", "value", "expected"), LUNGS_FAULTS)
def test_a_setting_of_the_shipped_lungs_out_of_range_is_named(name, value, expected):
    config = set_in(lungs.get_config(), name, value)
    (fault,) = message(config).splitlines()[1:]
    assert fault.startswith(f"  * --config.{name}={value}: expected {expected}")


@pytest.mark.parametrize(("name", "value", "expected"), CLASSIFIER_FAULTS)
def test_a_classifiers_setting_out_of_range_is_named(name, value, expected):
    config = set_in(classifier.get_config("entire"), name, value)
    (fault,) = message(config).splitlines()[1:]
    assert fault.startswith(f"  * --config.{name}={value}: expected {expected}")


@pytest.mark.parametrize(
    ("word", "name", "value", "expected"),
    [("own", *fault) for fault in OWN_FAULTS] + [("mimic_cxr", *fault) for fault in MIMIC_FAULTS],
)
def test_a_setting_of_another_data_set_out_of_range_is_named(word, name, value, expected):
    config = set_in(classifier.get_config(f"entire,{word}"), name, value)
    (fault,) = message(config).splitlines()[1:]
    assert fault.startswith(f"  * --config.{name}={value}: expected {expected}")


@pytest.mark.parametrize(("name", "value", "expected"), CONVNEXT_FAULTS)
def test_a_convnexts_setting_out_of_range_is_named(name, value, expected):
    config = set_in(classifier.get_config("entire,convnext_tiny"), name, value)
    (fault,) = message(config).splitlines()[1:]
    assert fault.startswith(f"  * --config.{name}={value}: expected {expected}")


def test_another_data_set_is_a_word_after_the_config():
    config = set_in(classifier.get_config("entire"), "data.name", "own")
    (fault,) = message(config).splitlines()[1:]
    assert "--config.data.name=own: this config lacks its settings test_share, table" in fault and ":own" in fault


@pytest.mark.parametrize(("name", "value", "expected"), LRG_FAULTS)
def test_an_lrgs_setting_out_of_range_is_named(name, value, expected):
    config = set_in(lrg.get_config("demo"), name, value)
    (fault,) = message(config).splitlines()[1:]
    assert fault.startswith(f"  * --config.{name}={value}: expected {expected}")


def test_every_rule_is_tried():
    names = {
        name
        for name, _, _ in CLASSIFIER_FAULTS + CONVNEXT_FAULTS + OWN_FAULTS + MIMIC_FAULTS + LRG_FAULTS + LUNGS_FAULTS
    }
    shapes = {f"model.{name}" for config in (classifier.get_config(), lrg.get_config()) for name in config.model}
    assert names == {*checks._RULES, *shapes, "data.name"}


def test_every_number_of_the_shipped_configs_has_a_rule():
    # preprocessing: checked where it is read, with the checkpoint's; model: every number is one of layers or maps
    elsewhere = {"preprocessing", "model"}
    jobs = (classifier.get_config("entire,demo"), lrg.get_config("demo"), fusion.get_config("demo"), lungs.get_config())
    for config in jobs:
        flat = {".".join(path): value for path, value in numbers(config)}
        unruled = {name for name in flat if name not in checks._RULES and name.split(".")[0] not in elsewhere}
        assert unruled == set()


def numbers(config, path=()):
    for name, value in config.items():
        if name in ("lrg", "entire", "lung") and not path:
            continue  # a stage, checked by its own rules
        if isinstance(value, ConfigDict):
            yield from numbers(value, (*path, name))
        elif isinstance(value, int | float | tuple) and not isinstance(value, bool) and name != "branches":
            yield (*path, name), value


def test_stages_within_a_stage_are_checked_by_their_own_flags():
    config = fusion.get_config()
    for name, value in (
        ("batch_size", 0),
        ("entire.learning_rate", -1.0),
        ("lung.plateau.factor", 2.0),
        ("lrg.data.size", 100),
    ):
        set_in(config, name, value)
    assert [fault.partition("=")[0] for fault in message(config).splitlines()[1:]] == [
        "  * --config.batch_size",
        "  * --config.lrg.data.size",
        "  * --config.entire.learning_rate",
        "  * --config.lung.plateau.factor",
    ]


@pytest.mark.parametrize("size", [16, 48, 1024])
def test_an_lrgs_size_halves_as_often_as_its_network_pools(size):
    checks.check(set_in(lrg.get_config(), "data.size", size))
    config = set_in(lrg.get_config(), "model.filters", (4, 8))
    checks.check(set_in(config, "data.size", size + 2))
    assert f"--config.data.size={size + 1}: expected a multiple of 2" in message(set_in(config, "data.size", size + 1))


def test_features_of_extractors_that_train_are_not_kept():
    config = set_in(fusion.get_config(), "frozen", False)
    assert "--config.cache_features=True: expected False, as --config.frozen=False trains" in message(config)
    checks.check(set_in(config, "cache_features", False))


def test_features_of_images_that_change_at_every_step_are_not_kept():
    config = set_in(fusion.get_config(), "augmentation.crop", 0.5)
    assert "--config.augmentation.crop=0.5: expected 1, as --config.cache_features=True" in message(config)
    checks.check(set_in(config, "cache_features", False))


def test_the_folder_of_the_films_follows_the_name_of_their_data_set_unless_it_is_said():
    config = fusion.get_config()
    assert config.lrg.data.manual_dir == "data/jsrt"
    config.lrg.data.name = "montgomery"
    assert config.lrg.data.manual_dir == "data/montgomery"
    assert config.copy_and_resolve_references().to_dict()["lrg"]["data"]["manual_dir"] == "data/montgomery"
    config.lrg.data.manual_dir = "elsewhere"
    config.lrg.data.name = "jsrt"
    assert config.lrg.data.manual_dir == "elsewhere"
