"""Stage 2, a feature extractor (paper B.3): DenseNet-121 from ImageNet weights, on entire films or on lung regions.

python -m sdfn_jax.main --config=configs/classifier.py:entire
python -m sdfn_jax.main --config=configs/classifier.py:lung
python -m sdfn_jax.main --config=configs/classifier.py:entire,size512      (the same recipe on 512 x 512 pixels)
python -m sdfn_jax.main --config=configs/classifier.py:entire,demo         (a tiny network on synthetic radiographs)

The words after the colon: configs/_words.py.

Expected on the official test list after the full recipe, from the paper's Table I: mean AUC 0.802 (entire), 0.804
(lung).
"""

from collections.abc import Collection, Sequence

from ml_collections import ConfigDict, FieldReference, config_dict

from configs import _words, lrg, lungs


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
    config.data = chestxray14(demo, runs)
    config.lrg = lungs.of_job(_words.lungs(words), runs)
    if demo:
        config.synthetic = lrg.synthetic(runs)
    vary(config, words)
    return config


def vary(config: ConfigDict, words: Collection[str]) -> None:
    """Changes a job of stage 2 or 3, and the stages inside it, as its words say."""
    stages = [config[name] for name in ("entire", "lung") if name in config] + [config]
    for word, size in _words.SIZES.items():
        if word in words:
            config.data.size = size
    if "small" in words:
        _make_small(config, stages)


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
    config.frozen = False
    # "imagenet" (torchvision's, downloaded once), a weights file of any source that docs/weights.md lists, or "random"
    # (then nothing pretrained is used, as the demo does).
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


def chestxray14(demo: bool, runs: FieldReference) -> ConfigDict:
    """Returns the data set of stages 2 and 3."""
    data = ConfigDict()
    data.name = "chestxray14"
    # where the download is; by default a folder of the data set's name
    data.manual_dir = (runs + "/synthetic/" if demo else "data/") + data.get_ref("name")
    data.data_dir = runs + "/tfds" if demo else "data/tfds"  # where prepared data sets go
    data.size = 96 if demo else 224  # pixels, height and width of both images (B.3)
    data.label_version = "2017"  # the paper's; or v2020, with 188 labels added in the test list
    data.boxes = config_dict.placeholder(str)  # your own box table; without it the LRG's is made and used
    data.validation_share = 0.2 if demo else 0.1  # of the official train_val patients. The paper does not say how many.
    data.validation_seed = 0
    data.require_complete = False  # True: every image the official tables name must be there
    data.skip_bad_files = False  # True: list unreadable files and continue
    return data
