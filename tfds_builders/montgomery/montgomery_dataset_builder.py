"""Montgomery County radiographs with lung masks."""

import re
from pathlib import Path

import tensorflow_datasets as tfds

from tfds_builders import lung_masks

_NAME = re.compile(r"MCUCXR_(\d{4})_[01]")
_FOLDERS = {
    "CXR_png": lung_masks.RADIOGRAPH,
    "ManualMask/leftMask": lung_masks.LEFT,
    "ManualMask/rightMask": lung_masks.RIGHT,
}


class Builder(lung_masks.LungMaskBuilder):
    """DatasetBuilder for `montgomery`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    BUILDER_CONFIGS = [lung_masks.config(lung_masks.DEFAULT_SIZE)]
    HOMEPAGE = "https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-X-ray-Datasets/"
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
manual_dir is the folder MontgomerySet of the NLM's download, or the one it stands in; MontgomerySet holds CXR_png,
ManualMask/leftMask and ManualMask/rightMask with PNG files of the same names (MCUCXR_0001_0.png)."""
    OFFICIAL_NAMES = tuple(Path(__file__).with_name("official_names.txt").read_text(encoding="utf-8").split())

    def _find_files(self, manual_dir: Path) -> tuple[dict[tuple[str, str], Path], str]:
        inner = manual_dir / "MontgomerySet"
        root = inner if inner.is_dir() else manual_dir
        found = {
            (path.stem, part): path
            for folder, part in _FOLDERS.items()
            for path in sorted((root / folder).glob("*.png"))
            if _NAME.fullmatch(path.stem)
        }
        return found, ", ".join(str(root / folder) for folder in _FOLDERS)

    @staticmethod
    def _number(name: str) -> int:
        return int(_NAME.fullmatch(name)[1])

    @staticmethod
    def _fits(mask: tuple[int, int], radiograph: tuple[int, int]) -> bool:
        return mask == radiograph
