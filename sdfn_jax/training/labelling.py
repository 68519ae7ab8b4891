"""Which labels of a data set a classifier learns and is scored on, and what they count as."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sdfn_jax.core import run_identity
from sdfn_jax.core.errors import UserError
from sdfn_jax.radiographs import findings as radiographs_findings
from sdfn_jax.radiographs import labels
from sdfn_jax.training.input_pipeline import Examples


@dataclasses.dataclass(frozen=True, eq=False)
class Labelling:
    """The labels of a run on a data set.

    Attributes:
      findings: the K findings of the run, in the order of the network's outputs.
      available: those of the data set, in the order of its labels.
      table: (K, 4) float32, `labels.target_table`; None if every label is present or absent, and is its own target.
    """

    findings: tuple[str, ...] = radiographs_findings.FINDINGS
    available: tuple[str, ...] = radiographs_findings.FINDINGS
    table: np.ndarray | None = None

    def codes(self, of_data: np.ndarray) -> np.ndarray:
        """Returns the run's labels, (..., K) uint8 codes, from the data set's."""
        return labels.arrange(of_data, self.available, self.findings)

    def targets(self, codes: jax.Array) -> jax.Array:
        """Returns what the loss compares with: (B, K) float32, 0 to 1; NaN is ignored, if there is a table."""
        if self.table is None:
            return codes.astype(jnp.float32)
        return jnp.asarray(self.table)[jnp.arange(len(self.findings)), codes]


def of_training(
    config: ConfigDict, data_metadata: Mapping[str, Any], training: Examples, validation: Examples
) -> Labelling:
    """Returns the labels of a training.

    Args:
      config: of an extractor or the fusion network.
      data_metadata: of the data set.
      training: training split.
      validation: validation split.

    Raises:
      UserError: for findings or rules that do not fit the data set; or if there is no finding that training can learn,
        or none by which validation could choose an epoch.
    """
    available = radiographs_findings.named_in(data_metadata)
    found = labels.choose(available, tuple(run_identity.setting(config, "findings")))
    table = labels.target_table(found, run_identity.setting(config, "uncertain"))
    plain = Labelling(found, available)
    splits = {"training": _codes(plain, training), "validation": _codes(plain, validation)}
    _check_training(found, splits["training"])
    _check_validation(splits["validation"])
    return plain if all(labels.known(each).all() for each in splits.values()) else Labelling(found, available, table)


def of_evaluation(of_run: Sequence[str], data_metadata: Mapping[str, Any], data: str) -> Labelling:
    """Returns the labels that a trained network is scored on; prints which of its findings the data set never labels.

    Args:
      of_run: the network's findings.
      data_metadata: of the data set.
      data: its name, for messages.

    Raises:
      UserError: if the data set labels none of them.
    """
    available = radiographs_findings.named_in(data_metadata)
    absent = [name for name in of_run if name not in available]
    if len(absent) == len(of_run):
        raise UserError(
            f"{data} labels none of the network's findings: it labels {', '.join(available)}; the network finds "
            f"{', '.join(of_run)}"
        )
    if absent:
        print(f"NOTE: {data} does not label {', '.join(absent)}: unknown there, and not scored")
    return Labelling(tuple(of_run), available)


def _codes(labelling: Labelling, examples: Examples) -> np.ndarray:
    """Returns the labels of a split, (N, K) uint8."""
    return labelling.codes(np.stack([example["labels"] for example in examples.fields("labels")]))


def _check_training(findings: Sequence[str], codes: np.ndarray) -> None:
    counts = {code: (codes == code).sum(axis=0) for code in (labels.PRESENT, labels.ABSENT)}
    one_sided = {
        name: "with" if present == 0 else "without"
        for name, present, absent in zip(findings, counts[labels.PRESENT], counts[labels.ABSENT], strict=True)
        if 0 in (present, absent)
    }
    if not one_sided:
        return
    said = "; ".join(f"{name}: no film is known to be {kind} it" for name, kind in one_sided.items())
    said = f"among the {len(codes):,} training films, {said}"
    if len(one_sided) == len(findings):
        raise UserError(f"nothing can be learned: {said}. Bring films of both kinds, or choose other --config.findings")
    print(f"NOTE: {said}. What cannot be learned can be left out: --config.findings")


def _check_validation(codes: np.ndarray) -> None:
    both = (codes == labels.PRESENT).any(axis=0) & (codes == labels.ABSENT).any(axis=0)
    if not both.any():
        of = "the finding does not have" if len(both) == 1 else f"none of the {len(both)} findings has"
        raise UserError(
            f"{of} both positives and negatives among the {len(codes)} validation images: the best epoch cannot be "
            "chosen. Bring more images, or set aside a larger --config.data.validation_share."
        )
