"""Stage 3, the fusion network (paper B.4, B.5), with everything it needs: LRG, box table, data set, both extractors.

python -m sdfn_jax.main --config=configs/fusion.py
python -m sdfn_jax.main --config=configs/fusion.py:montgomery              (lungs learned from open data)
python -m sdfn_jax.main --config=configs/fusion.py:shipped_lungs           (lungs by the network of the package)
python -m sdfn_jax.main --config=configs/fusion.py:small                   (real films, smaller images, few epochs)
python -m sdfn_jax.main --config=configs/fusion.py:size512                 (the same recipe on 512 x 512 pixels)
python -m sdfn_jax.main --config=configs/fusion.py:modern                  (what came after the paper: AdamW, EMA, ...)
python -m sdfn_jax.main --config=configs/fusion.py:own --config.data.table=films.csv   (your own films and findings)
python -m sdfn_jax.main --config=configs/fusion.py:convnext_tiny           (another network, from ImageNet weights)
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
    words = _words.read(argument, "configs/fusion.py", *_words.GROUPS)
    demo, runs, folder = "demo" in words, FieldReference(_words.runs(words)), _words.folder(words)
    config = ConfigDict()
    config.stage = "fusion"
    config.runs = runs  # the folder of all stages' runs: name another for another try
    config.workdir = runs + f"{folder}/fusion"
    config.seed = 0
    config.branches = ("entire", "lung")
    config.frozen = True  # both extractors stay as stage 2 left them: weights and BatchNorm statistics
    # True: each image's features are computed once and kept in <workdir>/features, and the head is trained on them;
    # False: the whole network runs at every step. Both train the same head.
    config.cache_features = True
    config.backbone = "densenet"  # the extractors': the same network
    config.model = classifier.densenet(demo)
    config.preprocessing = classifier.imagenet_preprocessing()
    config.flip = True  # both images of a radiograph together
    config.augmentation = classifier.no_augmentation()
    classifier.training(config)
    if demo:
        config.num_epochs = 12
        config.learning_rate = 3e-3

    config.data = classifier.data_set(_words.data(words), demo, runs)
    classifier.labels(config)
    config.lrg = lungs.of_job(_words.lungs(words), runs)
    config.entire = classifier.recipe("entire", demo, runs, folder)
    config.lung = classifier.recipe("lung", demo, runs, folder)
    # Of both extractors, unless one has its own: what it starts from (classifier.py), whether its head alone trains.
    config.extractors = ConfigDict({name: config.entire[name] for name in ("pretrained", "frozen")})
    for stage in (config.entire, config.lung):
        for name in config.extractors:
            stage[name] = config.extractors.get_ref(name).identity()
    if demo:
        config.synthetic = lrg.synthetic(runs)
    classifier.vary(config, words)
    return config
