"""Stage 2, a feature extractor (paper B.3): DenseNet-121 from ImageNet weights, on entire films or on lung regions.

python -m sdfn_jax.main --config=configs/classifier.py:entire
python -m sdfn_jax.main --config=configs/classifier.py:lung
python -m sdfn_jax.main --config=configs/classifier.py:entire,size512      (the same recipe on 512 x 512 pixels)
python -m sdfn_jax.main --config=configs/classifier.py:entire,modern       (what came after the paper: AdamW, EMA, ...)
python -m sdfn_jax.main --config=configs/classifier.py:entire,convnext_tiny    (another network, from ImageNet)
python -m sdfn_jax.main --config=configs/classifier.py:entire,demo         (a tiny network on synthetic radiographs)

The words after the colon: configs/_words.py.

Expected on the official test list after the full recipe, from the paper's Table I: mean AUC 0.802 (entire), 0.804
(lung).
"""

import collections
import os
from collections.abc import Collection, Sequence

from ml_collections import ConfigDict, FieldReference, config_dict

from configs import _words, lrg, lungs
from tfds_builders import registry

# What FieldReference applies to a path when it is read.
_FOLDER = collections.namedtuple("Operation", ("fn", "args"))(lambda path: os.path.dirname(path) or ".", ())


def get_config(argument: str = "entire") -> ConfigDict:
    """Returns the stage's config, with the data set and the LRG it needs.

    Args:
      argument: `entire` or `lung`, and words of `_words`.
    """
    words = _words.read(argument, "configs/classifier.py", ("entire", "lung"), *_words.GROUPS)
    if not words or words[0] not in ("entire", "lung"):
        raise ValueError(f"configs/classifier.py needs a branch, entire or lung, among its words; not {argument!r}")
    branch, demo, runs = words[0], "demo" in words, FieldReference(_words.runs(words))
    config = recipe(branch, demo, runs, _words.folder(words))
    config.runs = runs  # the folder of all stages' runs
    config.seeds = 1  # trainings, with seeds from `seed` on; more than one: also their ensemble
    config.data = data_set(_words.data(words), demo, runs)
    labels(config)
    config.lrg = lungs.of_job(_words.lungs(words), runs)
    if demo:
        config.synthetic = lrg.synthetic(runs)
    vary(config, words)
    return config


def vary(config: ConfigDict, words: Collection[str]) -> None:
    """Changes a job of stage 2 or 3, and the stages inside it, as its words say."""
    stages = _stages(config)
    for word, size in _words.SIZES.items():
        if word in words:
            config.data.size = size
    for backbone in _words.BACKBONES:
        if backbone in words:
            for stage in stages:
                stage.backbone, stage.model = backbone, convnext(backbone, demo="demo" in words)
    if "modern" in words:
        if not {"demo", *_words.SIZES} & {*words}:
            config.data.size = 512  # enough: arXiv 2510.07191; 0.8025 -> 0.8158: NightRaven-0/CNN, as below
        for stage in stages:
            _modernise(stage, demo="demo" in words)
    if "small" in words:
        _make_small(config, stages)


def _stages(config: ConfigDict) -> list[ConfigDict]:
    """Returns the classifiers inside a config, and itself last."""
    inside = (config[name] for name in ("entire", "lung", "fusion") if name in config)
    return [*(each for stage in inside for each in _stages(stage)), config]


def _modernise(config: ConfigDict, demo: bool) -> None:
    """Trains a classifier as those that came after the paper do; nobody has measured this recipe as a whole yet.

    Sources: "medical_mae", the DenseNet-121 of Xiao et al., WACV 2023, on ChestX-ray14 (its FINETUNE.md; EVA-X's
    DenseNet-121 has the same); "CXR-LT", the model card of the first of CXR-LT 2026's task 1; "ours", a choice of ours.
    """
    config.optimizer = "adamw"  # medical_mae
    config.weight_decay = 0.05  # medical_mae
    config.learning_rate_rule = "cosine"  # medical_mae
    config.warmup_share = 1 / 15  # medical_mae: 5 of 75 epochs
    config.plateau.patience = config.get_ref("num_epochs")  # of the epochs, so that it never acts: the cosine does
    config.ema_decay = 0.9999  # CXR-LT
    config.test_time_flip = True  # ours: of no network on the official split do we know what it gives
    config.dtype = "bfloat16"  # ours, for speed: weights, statistics, average and loss are float32
    if config.stage != "fusion":  # whose head trains on features that are computed once, with flips alone
        config.augmentation.crop = 0.5  # ours: half of the area or more, so that no finding is often cut away
        config.augmentation.rotation = 10.0  # degrees; as of the lung region generator ([21])
        config.augmentation.brightness = 0.2  # ours
        config.augmentation.contrast = 0.2  # ours
    if not demo:
        config.batch_size = 64  # ours: what bfloat16 at 512 pixels leaves room for on one GPU
        # The paper's 1e-4 at a batch of 16, times the square root of 4: Adam's rule in Malladi et al., NeurIPS 2022.
        config.learning_rate = 2e-4 if config.stage != "finetuned" else 2e-5  # then a tenth
        if config.stage in ("entire", "lung"):
            config.num_epochs = 30  # ours: six times the updates of medical_mae's 75 epochs of 1,024 images a batch


def _make_small(config: ConfigDict, stages: Sequence[ConfigDict]) -> None:
    """Cuts the recipe down: few epochs and a narrow U-Net. Expect AUCs below the paper's."""
    config.data.validation_share = 0.2
    for stage in stages:
        stage.num_epochs = 20 if stage.stage == "fusion" else 5  # of the head alone, on features that are kept
    if "shipped" not in config.lrg:
        config.lrg.model.filters = (8, 16, 16, 32, 64)
        config.lrg.num_epochs = 20
        config.lrg.learning_rate = 2e-3


def recipe(branch: str, demo: bool, runs: FieldReference, folder: str = "") -> ConfigDict:
    """Returns the network and the training of one extractor, without its data.

    Args:
      branch: `entire` or `lung`.
      demo: whether the network is the demo's tiny one.
      runs: the folder of all stages' runs.
      folder: between `runs` and the stage's own, of `_words.folder`.
    """
    config = ConfigDict()
    config.stage = branch
    config.workdir = runs + f"{folder}/{branch}"
    config.seed = 0
    config.branches = (branch,)
    config.frozen = False  # True: the branch stays as it starts (weights, BatchNorm statistics); its head alone trains
    # "imagenet" (torchvision's, downloaded once), a weights file of any source that docs/weights.md lists, the folder
    # of another run (whose head stays behind), or "random" (then nothing pretrained is used, as the demo does).
    config.pretrained = "random" if demo else "imagenet"
    config.backbone = "densenet"  # a name of models/backbones.py; config.model is its shape
    config.model = densenet(demo)
    config.preprocessing = imagenet_preprocessing()
    config.flip = True  # random horizontal flip
    config.augmentation = no_augmentation()
    training(config)
    if demo:
        config.num_epochs = 24
        config.learning_rate = 3e-3
    return config


def densenet(demo: bool) -> ConfigDict:
    """Returns the extractor's shape: DenseNet-121, or a tiny one for the demo."""
    if demo:
        return ConfigDict(dict(growth_rate=8, block_sizes=(2, 2, 2), init_features=16, bottleneck=2))
    return ConfigDict(dict(growth_rate=32, block_sizes=(6, 12, 24, 16), init_features=64, bottleneck=4))


def convnext(backbone: str, demo: bool) -> ConfigDict:
    """Returns the shape of a ConvNeXt as Liu et al., CVPR 2022, train it on ImageNet, or a tiny one for the demo."""
    if demo:
        return ConfigDict(dict(depths=(1, 1, 2), widths=(8, 16, 32), drop_path=0.1))
    if backbone == "convnext_tiny":
        return ConfigDict(dict(depths=(3, 3, 9, 3), widths=(96, 192, 384, 768), drop_path=0.1))
    return ConfigDict(dict(depths=(3, 3, 27, 3), widths=(128, 256, 512, 1024), drop_path=0.5))


def imagenet_preprocessing() -> ConfigDict:
    """Returns what the ImageNet weights expect: black 0, white 1, in three channels, standardised by these."""
    return ConfigDict(dict(low=0.0, high=1.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)))


def no_augmentation() -> ConfigDict:
    """Returns the random changes of training images besides the flip, none of which the paper has.

    Their ranges: training/augmentation.py. The fusion stage takes them only with `cache_features=False`.
    """
    return ConfigDict(dict(crop=1.0, rotation=0.0, brightness=0.0, contrast=0.0))


def training(config: ConfigDict) -> None:
    """Adds the recipe that stages 2 and 3 share (B.3, B.5)."""
    config.batch_size = 16
    config.evaluation_batch_size = 32
    config.num_epochs = 100
    # The moving average of weights and statistics, per update, that is validated and saved; 0.0: there is none.
    config.ema_decay = 0.0
    config.test_time_flip = (
        False  # True: logits, except in training, are the means of an image's and its mirror image's
    )
    config.loss = "bce"  # eq. 2; the others: training/losses.py
    config.learning_rate = 1e-4
    # inverse_time: lr / (1 + decay * updates); cosine: up to lr, then down to 0. The rules: training/optimizer.py
    config.learning_rate_rule = "inverse_time"
    config.learning_rate_decay = 1e-5  # per update, of inverse_time
    config.warmup_share = 0.0  # of all updates, of cosine
    config.optimizer = "adam"  # or adamw: training/optimizer.py
    config.weight_decay = 0.0  # of adamw
    config.adam = ConfigDict(dict(b1=0.9, b2=0.999, epsilon=1e-8))
    # lr times `factor` when the validation loss has not fallen by `minimum_fall` for `patience` epochs
    config.plateau = ConfigDict(dict(factor=0.1, patience=5, minimum_fall=1e-4))
    config.checkpoint_minutes = 10.0  # between saves within an epoch
    config.dtype = "float32"  # of activations; "bfloat16" suits GPUs and TPUs. Weights, statistics and loss: float32
    # True: the backward pass recomputes activations instead of keeping them, a fraction of a GPU's memory for a third
    # more arithmetic. A CPU always does. The trained network is the same.
    config.remat = False
    config.tensorboard = False  # True: events in <workdir>/tensorboard, needs the extra of that name


def labels(config: ConfigDict) -> None:
    """Adds which findings of the data set all stages of a job learn, and what uncertain labels of it count as."""
    config.findings = ()  # their names, such as ("Edema", "Mass"); empty for all that the data set labels
    # ignore, zero, one, or a number between 0 and 1; a finding's own rule follows: ignore,Edema=one,Mass=0.5.
    # ChestX-ray14 has no uncertain labels. Labels that are unknown never count.
    config.uncertain = "ignore"


def data_set(name: str, demo: bool, runs: FieldReference) -> ConfigDict:
    """Returns the data set of stages 2 and 3: the paper's, `chestxray14`, or another of `tfds_builders/registry.py`."""
    data = ConfigDict()
    data.name = name
    # where the download is; by default a folder of the data set's name
    data.manual_dir = (runs + "/synthetic/" if demo else "data/") + data.get_ref("name")
    data.data_dir = runs + "/tfds" if demo else "data/tfds"  # where prepared data sets go
    data.size = 96 if demo else 224  # pixels, height and width of both images (B.3)
    for setting, default in registry.DATA_SETS[name].settings.items():  # registry.py says what each is
        data[setting] = config_dict.placeholder(str) if default is None else default
    if demo:
        data.validation_share = 0.2
    if name == "own":
        data.table = "data/own/films.csv"
        # What the table's paths of films are relative to: its own folder.
        data.manual_dir = FieldReference(data.get_ref("table"), op=_FOLDER)
        data.data_dir = runs + "/tfds"  # each try with another table in its own config.runs
    data.require_complete = False  # True: every image the official tables name must be there
    data.skip_bad_files = False  # True: list unreadable files and continue
    return data
