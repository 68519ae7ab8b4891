"""What a checkpoint's metadata say of where its network comes from: written here for every stage, and read here.

A network that was trained here names its data. Of one that was imported from a weights file they are not known: None,
never a guess from the config that it was imported with.
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
      sha256: of its content, in hexadecimal.
      source: who wrote it, as recognised from its content.
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
      data_version: full name of the data set; None if it is not known.
      label_version: of its labels, `2017` or `v2020`; None if it is not known, or the stage has no labels.
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
      inputs: {what it was made from: digest}.
      data_version: as in `Training`.
      drawings: as in `Training`.
      of_stage: what the stage adds: an LRG its `normalisation`, an imported network what `of_import` returns.
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
    """Returns what an imported network adds to its metadata."""
    return {_IMPORTED: dataclasses.asdict(imported)}


def of_fusion(extractors: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns what a fusion network adds to its metadata: which of its branches were imported.

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
    """Reads what a checkpoint's metadata say of its training."""
    config = metadata["config"]
    if is_imported(metadata):
        # Networks that were imported by the first versions have the SHA-256 among their inputs only.
        found = {"sha256": metadata["inputs"]["pretrained"], **metadata[_IMPORTED]}
        imported = {branch: _imported(found) for branch in config["branches"]}
        return Training(None, None, None, imported)
    return Training(
        data_version=metadata.get("data_version"),
        label_version=config.get("data", {}).get("label_version"),
        # The first runs do not say it themselves, but their config does.
        drawings=metadata.get("drawings", "synthetic" in config),
        imported={branch: _imported(each) for branch, each in metadata.get(_IMPORTED_BRANCHES, {}).items()},
    )


def _imported(found: Mapping[str, Any]) -> Imported:
    return Imported(**{field.name: found[field.name] for field in dataclasses.fields(Imported)})
