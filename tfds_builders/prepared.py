"""A prepared data set: where a config's is, and its metadata."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from tfds_builders import base, prepare, registry


def prepared_directory(data: ConfigDict) -> Path:
    """Returns where the prepared data set of a config is, or would be."""
    settings = {name: data[name] for name in registry.builder(data.name).CONFIG_SETTINGS}
    return prepare.prepared_dir(data.name, data.data_dir, data.size, **settings)


def data_metadata(directory: Path) -> dict[str, Any]:
    """Reads the `metadata.json` of a prepared data set; raises as `base.read_metadata`."""
    return base.read_metadata(directory, registry.builder_of(directory).METADATA)


def data_version(data: Path) -> str:
    """Returns a data set's full name as TFDS writes it: `chestxray14/size224_labels2017/1.0.0`."""
    return "/".join(data.parts[-3:])
