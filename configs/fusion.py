"""Stage 3, the fusion network (paper B.4, B.5), with everything it needs: LRG, box table, data set, both extractors.

python -m sdfn_jax.main --config=configs/fusion.py
python -m sdfn_jax.main --config=configs/fusion.py:montgomery              (lungs learned from open data)
python -m sdfn_jax.main --config=configs/fusion.py:shipped_lungs           (lungs by the network of the package)
python -m sdfn_jax.main --config=configs/fusion.py:small                   (real films, smaller images, few epochs)
python -m sdfn_jax.main --config=configs/fusion.py:size512                 (the same recipe on 512 x 512 pixels)
python -m sdfn_jax.main --config=configs/fusion.py:modern                  (what came after the paper: AdamW, EMA, ...)
python -m sdfn_jax.main --config=configs/fusion.py:own --config.data.table=films.csv   (your own films and findings)
python -m sdfn_jax.main --config=configs/fusion.py:convnext_tiny           (another network, from ImageNet weights)
python -m sdfn_jax.main --config=configs/fusion.py:finetuned               (after it, everything trained on together)
python -m sdfn_jax.main --config=configs/fusion.py:demo                    (tiny networks, synthetic films, minutes)
python -m sdfn_jax.main --config=configs/fusion.py --mode=evaluate

The words after the colon: configs/_words.py.

Expected on the official test list after the full recipe, from the paper's Table I: mean AUC 0.815.
Every stage's numbers can be set from here: --config.batch_size=4, --config.entire.num_epochs=20, --config.lrg.seed=1.
"""

from ml_collections import ConfigDict, FieldReference

from configs import _words, classifier, lrg, lungs


def get_config(argument: str = "") -> ConfigDict:
    """Returns the stage's config, with those of the stages before it.

    Args:
      argument: empty for the paper's recipe, or words of `_words`.
    """
    words = _words.read(argument, "configs/fusion.py", *_words.GROUPS, ("finetuned",))
    demo, runs, folder = "demo" in words, FieldReference(_words.runs(words)), _words.folder(words)
    config = _network("fusion", demo, runs, folder)
    config.frozen = True  # both extractors stay as stage 2 left them: weights and BatchNorm statistics
    # True: each image's features are computed once and kept in <workdir>/features, and the head is trained on them;
    # False: the whole network runs at every step. Both train the same head.
    config.cache_features = True
    config.entire = classifier.recipe("entire", demo, runs, folder)
    config.lung = classifier.recipe("lung", demo, runs, folder)
    # Of both extractors, unless one has its own: what it starts from (classifier.py), whether its head alone trains.
    config.extractors = ConfigDict({name: config.entire[name] for name in ("pretrained", "frozen")})
    for stage in (config.entire, config.lung):
        for name in config.extractors:
            stage[name] = config.extractors.get_ref(name).identity()
    if demo:
        config.num_epochs = 12
        config.learning_rate = 3e-3
    if "finetuned" in words:
        config = _finetuned(config, demo, runs, folder)
    config.runs = runs  # the folder of all stages' runs: name another for another try
    config.seeds = 1  # trainings of all classifiers, with seeds from `seed` on; more than one: also their ensembles
    config.data = classifier.data_set(_words.data(words), demo, runs)
    classifier.labels(config)
    config.lrg = lungs.of_job(_words.lungs(words), runs)
    if demo:
        config.synthetic = lrg.synthetic(runs)
    classifier.vary(config, words)
    return config


def _network(stage: str, demo: bool, runs: FieldReference, folder: str) -> ConfigDict:
    """Returns what the fusion network and the fine-tuned one share."""
    config = ConfigDict()
    config.stage = stage
    config.workdir = runs + f"{folder}/{stage}"
    config.seed = 0
    config.branches = ("entire", "lung")
    config.backbone = "densenet"  # the extractors': the same network
    config.model = classifier.densenet(demo)
    config.preprocessing = classifier.imagenet_preprocessing()
    config.flip = True  # both images of a radiograph together
    config.augmentation = classifier.no_augmentation()
    classifier.training(config)
    return config


def _finetuned(fusion: ConfigDict, demo: bool, runs: FieldReference, folder: str) -> ConfigDict:
    """Returns the stage after the fusion network, which the paper has not: everything is trained on, from its weights.

    Args:
      fusion: the config of the fusion network, without data.
      demo: as in `_network`.
      runs: as in `_network`.
      folder: as in `_network`.
    """
    config = _network("finetuned", demo, runs, folder)
    config.fusion = fusion
    config.frozen = False
    config.learning_rate = 3e-4 if demo else 1e-5  # ours: a tenth of before, as all of it has been trained
    config.num_epochs = 2 if demo else 10  # ours
    return config
