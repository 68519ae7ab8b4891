"""Stage 1, the lung region generator (paper B.2): a U-Net that finds the lungs, and the box table made with it.

python -m sdfn_jax.main --config=configs/lrg.py                            (on JSRT, as the paper)
python -m sdfn_jax.main --config=configs/lrg.py:montgomery                 (on open data, no registration)
python -m sdfn_jax.main --config=configs/lrg.py --mode=cross_validate      (five folds)
python -m sdfn_jax.main --config=configs/lrg.py:demo                       (a narrow network on synthetic radiographs)

Expected on JSRT, five folds, from the paper: Dice 0.98, IoU 0.97. [21], the U-Net's own authors, have 0.985 / 0.971
on JSRT and 0.972 / 0.956 on Montgomery.
"""

from ml_collections import ConfigDict, FieldReference, config_dict

from tfds_builders import registry


def get_config(argument: str = "jsrt", runs: FieldReference | None = None) -> ConfigDict:
    """Returns the stage's config.

    Args:
      argument: name of the data set (`jsrt` is the paper's), or `demo`.
      runs: `config.runs` of the job that this stage is part of; None if it is the job.
    """
    names = registry.serving("lrg")
    if argument not in (*names, "demo"):
        raise ValueError(f"configs/lrg.py takes {', '.join(names)} or demo, not {argument!r}")
    demo = argument == "demo"
    name = "jsrt" if demo else argument

    config = ConfigDict()
    config.stage = "lrg"
    if runs is None:
        runs = config.runs = FieldReference("runs/demo" if demo else "runs")  # the folder of all stages' runs
    config.workdir = runs + "/lrg"
    config.seed = 0

    config.data = ConfigDict()
    config.data.name = name
    # where the download is; by default a folder of the data set's name
    config.data.manual_dir = (runs + "/synthetic/" if demo else "data/") + config.data.get_ref("name")
    config.data.data_dir = runs + "/tfds" if demo else "data/tfds"  # where prepared data sets go
    config.data.size = 256  # pixels, height and width (B.2.1)
    config.data.require_complete = False  # True: every official file must be there
    config.data.skip_bad_files = False  # True: list unreadable files and continue

    # Of the films that are not in the test fold this share chooses the best epoch. The paper does not say how many.
    config.validation_share = 0.1
    config.test_fold = config_dict.placeholder(int)  # 0-4: held out of training; none in the LRG that makes the boxes

    config.model = ConfigDict()
    config.model.filters = (4, 8, 8, 16, 32) if demo else (32, 64, 64, 128, 256)  # [21]
    # Histogram equalisation of each film as in [21] (`equalize`), with clipped counts, so that a black margin takes up
    # no contrast: on Montgomery, whose films have such margins, Dice 0.950 instead of 0.932 (narrow network, 64 px).
    config.contrast = "equalize_clipped"

    config.augmentation = ConfigDict()  # B.2.1 "rotation, shift, zoom"; ranges of [21]
    config.augmentation.rotation = 10.0  # degrees, either way
    config.augmentation.shift = 0.1  # share of the side, either way
    config.augmentation.zoom = 0.2  # 0.8 to 1.2, each axis on its own

    config.batch_size = 4 if demo else 8
    config.evaluation_batch_size = 8
    config.num_epochs = 16 if demo else 100
    config.learning_rate = 3e-3 if demo else 1e-3
    config.learning_rate_rule = "inverse_time"  # the rules: training/optimizer.py
    config.learning_rate_decay = 0.0  # per update
    config.adam = ConfigDict(dict(b1=0.9, b2=0.999, epsilon=1e-8))
    # The paper names no plateau rule for this stage: with as much patience as there are epochs it never acts.
    config.plateau = ConfigDict(dict(factor=0.1, patience=100, minimum_fall=1e-4))

    config.postprocessing = ConfigDict()  # B.2.2
    config.postprocessing.minimum_area = 0.02  # share of the image: smaller specks and holes are cleaned ([21])
    config.postprocessing.small_lung = 1 / 3  # of the larger lung's area: a smaller second region is dropped
    config.postprocessing.margin_top = 15  # pixels of a 256 x 256 mask
    config.postprocessing.margin_left = 15
    config.postprocessing.margin_right = 15
    config.postprocessing.margin_bottom = 20
    config.postprocessing.smallest_side = 0.2  # share of the image: a narrower box holds no lungs, all of it is taken

    config.dtype = "float32"  # of activations; "bfloat16" suits GPUs and TPUs. Weights and loss are float32
    config.checkpoint_minutes = 10.0  # between saves within an epoch
    config.tensorboard = False  # True: events in <workdir>/tensorboard, needs the extra of that name
    if demo:
        config.synthetic = synthetic(runs)
    return config


def synthetic(runs: FieldReference) -> ConfigDict:
    """Returns what the demo draws, in the official formats of JSRT and ChestX-ray14."""
    return ConfigDict(dict(folder=runs + "/synthetic", jsrt_films=40, chestxray14_films=480, test_share=0.3, seed=0))
