"""Stage 3, the fusion network (paper B.4, B.5), with everything it needs: LRG, box table, data set, both extractors.

python -m sdfn_jax.main --config=configs/fusion.py
python -m sdfn_jax.main --config=configs/fusion.py:montgomery              (lungs learned from open data)
python -m sdfn_jax.main --config=configs/fusion.py:small                   (real films, smaller images, few epochs)
python -m sdfn_jax.main --config=configs/fusion.py:demo                    (tiny networks, synthetic films, minutes)
python -m sdfn_jax.main --config=configs/fusion.py --mode=evaluate

Expected on the official test list after the full recipe, from the paper's Table I: mean AUC 0.815.
Every stage's numbers can be set from here: --config.batch_size=4, --config.entire.num_epochs=20, --config.lrg.seed=1.
"""

from ml_collections import ConfigDict, FieldReference

from configs import classifier, lrg

# {argument: (the folder of all stages' runs, argument of configs/lrg.py)}
VARIANTS = {
    "": ("runs", "jsrt"),
    "montgomery": ("runs", "montgomery"),
    "small": ("runs/small", "jsrt"),
    "small,montgomery": ("runs/small", "montgomery"),
    "demo": ("runs/demo", "demo"),
}


def get_config(argument: str = "") -> ConfigDict:
    """Returns the stage's config, with those of the stages before it.

    Args:
      argument: empty for the paper's recipe; `demo`; `small`, a quick run on real films; `montgomery`, with the LRG
        trained on open data instead of JSRT; `small,montgomery`.
    """
    if argument not in VARIANTS:
        known = "; ".join(name for name in VARIANTS if name)
        raise ValueError(f"configs/fusion.py takes nothing, or one of {known}; not {argument!r}")
    folder, lungs = VARIANTS[argument]
    demo, runs = argument == "demo", FieldReference(folder)
    config = ConfigDict()
    config.stage = "fusion"
    config.runs = runs  # the folder of all stages' runs: name another for another try
    config.workdir = runs + "/fusion"
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
    classifier.training(config)
    if demo:
        config.num_epochs = 12
        config.learning_rate = 3e-3

    config.data = classifier.chestxray14(demo, runs)
    config.lrg = lrg.get_config(lungs, runs)
    config.entire = classifier.recipe("entire", demo, runs)
    config.lung = classifier.recipe("lung", demo, runs)
    if demo:
        config.synthetic = lrg.synthetic(runs)
    if argument.startswith("small"):
        _make_small(config)
    return config


def _make_small(config: ConfigDict) -> None:
    """Cuts the recipe down: a third of the pixels, a narrow U-Net, few epochs. Expect AUCs below the paper's."""
    config.data.size = 128  # pixels
    config.data.validation_share = 0.2
    config.entire.num_epochs = config.lung.num_epochs = 5
    config.num_epochs = 20  # of the head alone, on features that are kept
    config.lrg.model.filters = (8, 16, 16, 32, 64)
    config.lrg.num_epochs = 20
    config.lrg.learning_rate = 2e-3
