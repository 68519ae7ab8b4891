"""A trained network and the test images of its data set that have reference boxes."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from sdfn_jax.core import networks
from sdfn_jax.core.errors import UserError
from sdfn_jax.radiographs.findings import FINDINGS, named_in
from sdfn_jax.training.input_pipeline import Examples
from tfds_builders import prepared


@dataclasses.dataclass(frozen=True)
class BoxedRun:
    """What heatmaps are computed from, and compared with.

    Attributes:
      config: of the extractor or the fusion network.
      members: the variables of its best checkpoint, or of each network of an ensemble.
      examples: of the test split, those with a reference box of a finding that the network looks for.
      origin: `checkpoint` (its digest), `data_version`, `drawings` (whether the images are synthetic).
      findings: of the network, in the order of its maps.
      available: of the data set, in the order that its reference boxes number.
    """

    config: ConfigDict
    members: list[dict]
    examples: Examples
    origin: dict
    findings: tuple[str, ...] = FINDINGS
    available: tuple[str, ...] = FINDINGS

    def boxes_of(self, example: dict) -> dict[str, np.ndarray]:
        """Returns {finding: (R, 4) its reference boxes} of an example, for the findings of the network."""
        return _boxes(example, self.findings, self.available)

    def described(self) -> Iterator[dict]:
        """Yields `name`, `patient`, `image_size`, `lung_box` and `reference_boxes` of each example."""
        for example in self.examples.fields("name", "patient", "image_size", "lung_box", "reference_boxes"):
            patient = example["patient"]
            yield example | {"patient": patient if isinstance(patient, str) else int(patient)}


def load(run: Path) -> BoxedRun:
    """Reads a run's network and opens its data set.

    Args:
      run: folder of the stage, `runs/fusion`.

    Raises:
      UserError: without a checkpoint, its data set, or a test image with a reference box.
    """
    members, metadata = networks.read(run)
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
    described = prepared.data_metadata(data)
    of_run, of_data = named_in(metadata), named_in(described)
    has_boxes = examples.has("reference_boxes")
    described_boxes = examples.fields("reference_boxes") if has_boxes else ()
    boxed = [index for index, example in enumerate(described_boxes) if _boxes(example, of_run, of_data)]
    if not boxed:
        raise UserError(f"--run={run}: no image of the test split of {data} has a reference box of its findings")
    origin = {
        "checkpoint": metadata["digest"],
        "data_version": prepared.data_version(data),
        "drawings": bool(described["drawings"]),
    }
    return BoxedRun(config, members, examples.take(np.array(boxed)), origin, of_run, of_data)


def _boxes(example: dict, findings: Sequence[str], available: Sequence[str]) -> dict[str, np.ndarray]:
    numbers, boxes = (np.asarray(example["reference_boxes"][name]) for name in ("finding", "box"))
    named = {available[number]: boxes[numbers == number] for number in np.unique(numbers)}
    return {name: each for name, each in named.items() if name in findings}
