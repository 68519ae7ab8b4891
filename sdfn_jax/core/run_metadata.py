"""The provenance of a network in its checkpoint's metadata, written and read here for every stage.

A network that was trained here names its data. For one imported from a weights file the data are unknown:
None, never a guess from the config that it was imported with.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from sdfn_jax.core import run_identity

_IMPORTED, _IMPORTED_BRANCHES = "imported", "imported_branches"


@dataclasses.dataclass(frozen=True)
class Imported:
    """The weights file from which a network that was trained elsewhere was imported.

    Attributes:
      file: its name.
      sha256: of its content, hexadecimal.
      source: the program that wrote it, recognised from its content.
    """

    file: str
    sha256: str
    source: str

    def describe(self) -> str:
        """Returns a line for the reader."""
        return f"imported from {self.file} ({self.source}; SHA-256 {self.sha256})"


@dataclasses.dataclass(frozen=True)
class Training:
    """What a network was trained on.

    Attributes:
      data_version: full name of the data set; None if unknown.
      label_version: of its labels: `2017` or `v2020`, or what another data set calls them (its table's name); None if
        unknown, or the stage has no labels.
      drawings: whether it was trained on synthetic radiographs; None if that is unknown.
      imported: {branch: weights file}, for the branches that were not trained here.
    """

    data_version: str | None
    label_version: str | None
    drawings: bool | None
    imported: Mapping[str, Imported]


def make(
    config: ConfigDict, inputs: Mapping[str, str], *, data_version: str | None, drawings: bool | None, **of_stage: Any
) -> dict[str, Any]:
    """Makes the metadata of a stage's checkpoint.

    Args:
      config: of the stage.
      inputs: {input that it was made from: digest}.
      data_version: as in `Training`.
      drawings: as in `Training`.
      **of_stage: the stage's own entries: `normalisation` of an LRG, the result of `of_import` for an imported network.
    """
    return {
        "stage": config.stage,
        "config": run_identity.as_json(config),
        "inputs": dict(inputs),
        "data_version": data_version,
        "drawings": drawings,
        **of_stage,
    }


def of_import(imported: Imported) -> dict[str, Any]:
    """Returns the metadata entries of an imported network."""
    return {_IMPORTED: dataclasses.asdict(imported)}


def of_fusion(extractors: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the metadata entries of a fusion network that say which of its branches were imported.

    Args:
      extractors: {branch: metadata of its extractor}.
    """
    found = {branch: read(metadata).imported.get(branch) for branch, metadata in extractors.items()}
    imported = {branch: dataclasses.asdict(each) for branch, each in found.items() if each is not None}
    return {_IMPORTED_BRANCHES: imported} if imported else {}


def is_imported(metadata: Mapping[str, Any]) -> bool:
    """Returns whether the whole network was imported."""
    return _IMPORTED in metadata


def read(metadata: Mapping[str, Any]) -> Training:
    """Reads a network's training from its checkpoint's metadata."""
    config = metadata["config"]
    if is_imported(metadata):
        # The first versions stored the SHA-256 of an imported file only among the inputs.
        found = {"sha256": metadata["inputs"]["pretrained"], **metadata[_IMPORTED]}
        imported = {branch: _imported(found) for branch in config["branches"]}
        return Training(None, None, None, imported)
    return Training(
        data_version=metadata.get("data_version"),
        label_version=metadata.get("label_version", config.get("data", {}).get("label_version")),
        # The first versions did not store this, but their config implies it.
        drawings=metadata.get("drawings", "synthetic" in config),
        imported={branch: _imported(each) for branch, each in metadata.get(_IMPORTED_BRANCHES, {}).items()},
    )


def _imported(found: Mapping[str, Any]) -> Imported:
    return Imported(**{field.name: found[field.name] for field in dataclasses.fields(Imported)})
