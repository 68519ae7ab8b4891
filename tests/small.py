"""Small stand-ins: examples in memory, and configs whose networks compile in seconds."""

import numpy as np
from ml_collections import ConfigDict, FieldReference

from configs import classifier, fusion, lrg
from sdfn_jax.core import run_metadata
from sdfn_jax.models.initial import initial_variables
from sdfn_jax.training import tasks, train

DENSENET = {"growth_rate": 4, "block_sizes": (1, 1), "init_features": 4, "bottleneck": 2}
SIZE = 16


class InMemory(list):
    """Examples as the trainer sees them; `take` as of `input_pipeline.Examples`."""

    def take(self, indices):
        return InMemory(self[index] for index in indices)


def two_branch_examples(count: int, seed: int) -> InMemory:
    """Films whose brightness tells the labels, so that there is something to learn."""
    generator = np.random.default_rng(seed)
    examples = InMemory()
    for number in range(count):
        labels = generator.integers(0, 2, 14).astype(np.uint8)
        images = {}
        for branch in ("entire", "lung"):
            noise = generator.integers(0, 120, (SIZE, SIZE))
            noise[: SIZE // 2] += 100 * labels[0]
            images[branch] = noise.astype(np.uint8)
        examples.append({"name": f"{number}.png", **images, "labels": labels})
    return examples


def shrink(config: ConfigDict, workdir: str) -> ConfigDict:
    """Makes a stage's config small."""
    config.workdir = str(workdir)
    config.batch_size = 4
    config.evaluation_batch_size = 4
    config.num_epochs = 2
    return config


def extractor_config(branch: str, workdir: str) -> ConfigDict:
    config = shrink(classifier.recipe(branch, True, FieldReference("runs/demo")), workdir)
    config.model = ConfigDict(DENSENET)
    config.data = classifier.data_set("chestxray14", True, FieldReference("runs/demo"))
    config.data.size = SIZE
    return config


def fusion_config(folder, words: str = "demo") -> ConfigDict:
    """The demo's fusion config with networks, data and epochs cut down, everything below `folder`."""
    config = fusion.get_config(words)
    inner = config.get("fusion", config)  # of a fine-tuned network
    for stage in (inner.entire, inner.lung, inner, config, config.lrg):
        shrink(stage, folder / stage.stage)
    for stage in (inner.entire, inner.lung, inner, config):
        stage.model = ConfigDict(DENSENET)
    config.lrg.model.filters = (2, 2, 2)
    config.lrg.data.size = 32
    config.lrg.postprocessing.smallest_side = 0.0
    config.data.size = SIZE
    for data in (config.data, config.lrg.data):
        data.data_dir = str(folder / "tfds")
    config.synthetic.folder = str(folder / "synthetic")
    config.data.manual_dir = str(folder / "synthetic" / "chestxray14")
    config.lrg.data.manual_dir = str(folder / "synthetic" / "jsrt")
    config.synthetic.jsrt_films = 10
    config.synthetic.chestxray14_films = 32
    config.data.validation_share = 0.4
    return config


def lrg_config(workdir) -> ConfigDict:
    config = shrink(lrg.get_config("demo"), workdir)
    config.model.filters = (2, 2, 2)
    config.data.size = 32
    return config


def train_classifier(config: ConfigDict, training: InMemory, validation: InMemory, start=None) -> None:
    """Trains in `config.workdir`, from drawn variables, or from what `start` returns."""
    task = tasks.classification(config)
    train.train(
        task,
        config,
        training=training,
        validation=validation,
        initial_variables=start or (lambda: initial_variables(task.model, config.seed, task.inputs, train=False)),
        metadata=run_metadata.make(config, {}, data_version="in memory", drawings=True),
    )
