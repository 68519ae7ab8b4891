"""A trained network and the test images of its data set that have reference boxes."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from sdfn_jax.core import checkpoint
from sdfn_jax.core.errors import UserError
from sdfn_jax.training.input_pipeline import Examples
from tfds_builders import prepared


@dataclasses.dataclass(frozen=True)
class BoxedRun:
    """What heatmaps are computed from, and compared with.

    Attributes:
      config: of the extractor or the fusion network.
      variables: of its best checkpoint.
      examples: of the test split, those with a reference box.
      origin: `checkpoint` (its digest), `data_version`, `drawings` (whether the images are synthetic).
    """

    config: ConfigDict
    variables: dict
    examples: Examples
    origin: dict

    def described(self) -> Iterator[dict]:
        """Yields `name`, `patient`, `image_size`, `lung_box` and `reference_boxes` of each example."""
        return self.examples.fields("name", "patient", "image_size", "lung_box", "reference_boxes")


def load(run: Path) -> BoxedRun:
    """Reads a run's network and opens its data set.

    Args:
      run: folder of the stage, `runs/fusion`.

    Raises:
      UserError: without a checkpoint, its data set, or a test image with a reference box.
    """
    variables, metadata = checkpoint.read_best(run)
    config = ConfigDict(metadata["config"])
    if config.stage == "lrg":
        raise UserError(f"--run={run}: a lung region generator; give the run of an extractor or of the fusion network")
    data = prepared.prepared_directory(config.data)
    if not data.is_dir():
        raise UserError(
            f"--run={run}: the data set that its config names, {data}, is missing; run from the "
            "folder that it was trained in"
        )
    examples = Examples(data, ["test"])
    boxes = (example["reference_boxes"] for example in examples.fields("reference_boxes"))
    boxed = [index for index, found in enumerate(boxes) if len(found["finding"])]
    if not boxed:
        raise UserError(f"--run={run}: no image of the test split of {data} has a reference box")
    origin = {
        "checkpoint": metadata["digest"],
        "data_version": prepared.data_version(data),
        "drawings": bool(prepared.data_metadata(data)["drawings"]),
    }
    return BoxedRun(config, variables, examples.take(np.array(boxed)), origin)
