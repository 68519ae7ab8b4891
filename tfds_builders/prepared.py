"""A prepared data set: where a config's is, and what its metadata say."""

from pathlib import Path

from ml_collections import ConfigDict

from tfds_builders import prepare
from tfds_builders.base import read_metadata as data_metadata

__all__ = ["data_metadata", "data_version", "prepared_directory"]


def prepared_directory(data: ConfigDict) -> Path:
    """Returns where the prepared data set of a config lies."""
    version = {"label_version": data.label_version} if data.name == "chestxray14" else {}
    return prepare.prepared_dir(data.name, data.data_dir, data.size, **version)


def data_version(data: Path) -> str:
    """Returns a data set's full name as TFDS writes it: `chestxray14/size224_labels2017/1.0.0`."""
    return "/".join(data.parts[-3:])
