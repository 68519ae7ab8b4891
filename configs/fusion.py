"""Stage 3, the fusion network (paper B.4, B.5), with everything it needs: LRG, box table, data set, both extractors.

python -m sdfn_jax.main --config=configs/fusion.py
python -m sdfn_jax.main --config=configs/fusion.py:demo                    (tiny networks, synthetic films, minutes)
python -m sdfn_jax.main --config=configs/fusion.py --mode=evaluate

Expected on the official test list after the full recipe, from the paper's Table I: mean AUC 0.815.
Every stage's numbers can be set from here: --config.batch_size=4, --config.entire.num_epochs=20, --config.lrg.seed=1.
"""

from ml_collections import ConfigDict

from configs import classifier, lrg


def get_config(argument: str = "") -> ConfigDict:
    """Returns the stage's config, with those of the stages before it.

    Args:
      argument: empty, or `demo`.
    """
    if argument not in ("", "demo"):
        raise ValueError(f"configs/fusion.py takes nothing or demo, not {argument!r}")
    demo = argument == "demo"
    config = ConfigDict()
    config.stage = "fusion"
    config.workdir = "runs/demo/fusion" if demo else "runs/fusion"
    config.seed = 0
    config.branches = ("entire", "lung")
    config.frozen = True  # both extractors stay as stage 2 left them: weights and BatchNorm statistics
    # True: each image's features are computed once and kept in <workdir>/features, and the head is trained on them;
    # False: the whole network runs at every step. Both train the same head.
    config.cache_features = True
    config.model = classifier.densenet(demo)
    config.preprocessing = classifier.imagenet_preprocessing()
    config.flip = True  # both images of a radiograph together
    classifier.training(config)
    if demo:
        config.num_epochs = 12
        config.learning_rate = 3e-3

    config.data = classifier.chestxray14(demo)
    config.lrg = lrg.get_config("demo" if demo else "jsrt")
    config.entire = classifier.recipe("entire", demo)
    config.lung = classifier.recipe("lung", demo)
    if demo:
        config.synthetic = lrg.synthetic()
    return config
