"""JSRT radiographs with the lung masks of SCR."""

import os
import re
from pathlib import Path

import tensorflow_datasets as tfds

from sdfn_jax import images
from tfds_builders import lung_masks

_NAME = re.compile(r"(JPC[LN]N\d{3})(msk)?", re.IGNORECASE)
# The folder a mask stands in; SCR has `left lung`, copies `left_lung`. Masks of both lungs stand in `masks`.
_PARTS = {
    "leftlung": lung_masks.LEFT,
    "rightlung": lung_masks.RIGHT,
    "mask": lung_masks.BOTH,
    "masks": lung_masks.BOTH,
}
_OTHER_STRUCTURES = ("heart", "leftclavicle", "rightclavicle")


class Builder(lung_masks.LungMaskBuilder):
    """DatasetBuilder for `jsrt`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    BUILDER_CONFIGS = [lung_masks.config(lung_masks.DEFAULT_SIZE)]
    HOMEPAGE = "http://db.jsrt.or.jp/eng.php"
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
manual_dir holds, in any folders below it, the radiographs (JPCLN001.IMG ... JPCNN093.IMG of the JSRT database, or PNG
copies of the same names) and the masks of the SCR database in its own folders, such as
scratch/fold1/masks/left lung/JPCLN001.gif and scratch/fold1/masks/right lung/JPCLN001.gif."""
    OFFICIAL_NAMES = tuple(
        [f"JPCLN{number:03}" for number in range(1, 155)] + [f"JPCNN{number:03}" for number in range(1, 94)]
    )

    def _find_files(self, manual_dir: Path) -> tuple[dict[tuple[str, str], Path], str]:
        found = {}
        for folder, folders, names in os.walk(manual_dir):
            folders.sort()
            part = re.sub(r"[ _-]", "", Path(folder).name.lower())
            if part in _OTHER_STRUCTURES:
                continue
            for file_name in sorted(names):
                path = Path(folder, file_name)
                match = _NAME.fullmatch(path.stem)
                if match is None or path.suffix.lower() not in images.SUFFIXES:
                    continue
                name = match[1].upper()
                key = name, lung_masks.BOTH if match[2] else _PARTS.get(part, lung_masks.RADIOGRAPH)
                if key in found:
                    self._faults.report(name, f"{path}: a second {key[1]} of {name}, beside {found[key]}; keep one")
                found[key] = path
        return found, f"{manual_dir} and all folders below it"

    @staticmethod
    def _number(name: str) -> int:
        return int(name[-3:])

    @staticmethod
    def _fits(mask: tuple[int, int], radiograph: tuple[int, int]) -> bool:
        # SCR's masks have half the radiograph's size, copies other shares of it; radiographs and masks are square.
        return abs(mask[0] * radiograph[1] - mask[1] * radiograph[0]) <= max(radiograph)
