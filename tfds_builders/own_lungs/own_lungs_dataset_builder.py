"""Anybody's radiographs with lung masks."""

import hashlib

import tensorflow_datasets as tfds

from tfds_builders import lung_masks


class Builder(lung_masks.LungMaskBuilder):
    """DatasetBuilder for `own_lungs`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    HOMEPAGE = ""
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
manual_dir is a folder with a folder `images` of radiographs, and a folder `masks` with the mask of both lungs of each,
under the same name (images/film1.png, masks/film1.png; any format that radiographs are read from). Instead of one mask
for both lungs there may be one for each, in the folders `left lung` and `right lung`."""
    NAME = r".+?"
    OFFICIAL_NAMES = ()

    @staticmethod
    def _number(name: str) -> int:
        """A number of the name alone: a film's fold stays when others are added."""
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")

    @staticmethod
    def _fits(mask: tuple[int, int], radiograph: tuple[int, int]) -> bool:
        return mask == radiograph
