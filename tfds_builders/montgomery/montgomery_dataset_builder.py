"""Montgomery County radiographs with lung masks."""

from pathlib import Path

import tensorflow_datasets as tfds

from tfds_builders import lung_masks


class Builder(lung_masks.LungMaskBuilder):
    """DatasetBuilder for `montgomery`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    HOMEPAGE = "https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-X-ray-Datasets/"
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
manual_dir is the folder MontgomerySet of the NLM's download, or a folder that contains it; MontgomerySet holds CXR_png,
ManualMask/leftMask and ManualMask/rightMask with PNG files of the same names (MCUCXR_0001_0.png). Copies with a mask of
both lungs for each radiograph, masks/MCUCXR_0001_0.png, work as well."""
    NAME = r"MCUCXR_\d{4}_[01]"
    OFFICIAL_NAMES = tuple(Path(__file__).with_name("official_names.txt").read_text(encoding="utf-8").split())

    @staticmethod
    def _number(name: str) -> int:
        return int(name.split("_")[1])

    @staticmethod
    def _fits(mask: tuple[int, int], radiograph: tuple[int, int]) -> bool:
        return mask == radiograph
