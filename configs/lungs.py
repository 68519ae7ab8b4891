"""The lung region generator that the package ships (`sdfn lungs` and `sdfn_jax.load_lungs()` without a checkpoint).

python -m sdfn_jax.main --config=configs/lungs.py                        (on Montgomery, open data)
python -m sdfn_jax.main --config=configs/lungs.py --mode=cross_validate  (five folds)

The paper's stage is `configs/lrg.py`. This one is made for films of hospitals that it never saw: a narrow and deeper
U-Net, whose bottom sees the whole film, trained on radiographs that are changed more widely than in [21].

Five folds on Montgomery: Dice 0.976 (sd 0.015), IoU 0.953 (0.027). [21] has 0.972 and 0.956 there; its recipe loses
lungs on films of other hospitals (`docs/lungs.md`).

In the main job: --config=configs/fusion.py:shipped_lungs takes the shipped network instead of training one.
"""

from ml_collections import ConfigDict, FieldReference

from configs import lrg


def get_config(argument: str = "montgomery", runs: FieldReference | None = None) -> ConfigDict:
    """Returns the stage's config.

    Args:
      argument: name of a data set with lung masks.
      runs: `config.runs` of the job that this stage is part of; None if it is the job.
    """
    config = lrg.get_config(argument, runs)
    config.workdir = (config.get_ref("runs") if runs is None else runs) + "/lungs"
    config.data.size = 256
    config.model.filters = (8, 16, 16, 32, 64, 96, 128)
    config.model.initial = "kaiming_uniform"  # trains in two thirds of the steps that Keras's takes on this depth

    config.augmentation.rotation = 25.0
    config.wide_augmentation = ConfigDict()  # training/wide_augmentation.py; probabilities, unless said otherwise
    config.wide_augmentation.quarter_turns = 0.15
    config.wide_augmentation.mirrored = 0.5
    config.wide_augmentation.inverted = 0.1
    config.wide_augmentation.whitened = 0.5
    config.wide_augmentation.gas = 0.3
    config.wide_augmentation.collimated = 0.3
    config.wide_augmentation.foreign = 0.3
    config.wide_augmentation.shading = 0.1  # standard deviation
    config.wide_augmentation.gamma = 0.4  # a power of 0.67 to 1.5
    config.wide_augmentation.blur = 1.0  # share
    config.wide_augmentation.noise = 0.08  # standard deviation

    config.mirrored_too = True  # a probability is the mean of the radiograph's and its mirror image's
    config.least_confidence = 0.94
    config.batch_size = 4
    config.num_epochs = 300
    config.learning_rate = 2e-3
    config.learning_rate_decay = 1e-3
    config.adam.b2 = 0.99
    return config


def of_job(argument: str, runs: FieldReference) -> ConfigDict:
    """Returns the config of the lung region generator in the main job.

    Args:
      argument: `shipped_lungs` for the network of the package, which is not trained; or that of `configs/lrg.py`.
      runs: `config.runs` of the job.
    """
    if argument != "shipped_lungs":
        return lrg.get_config(argument, runs)
    config = get_config("own_lungs", runs)
    config.shipped = True
    return config
