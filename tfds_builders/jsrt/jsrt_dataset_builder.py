"""JSRT radiographs with the lung masks of SCR."""

import tensorflow_datasets as tfds

from tfds_builders import lung_masks


class Builder(lung_masks.LungMaskBuilder):
    """DatasetBuilder for `jsrt`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    HOMEPAGE = "http://db.jsrt.or.jp/eng.php"
    MANUAL_DOWNLOAD_INSTRUCTIONS = """\
manual_dir holds, in any folders below it, the radiographs (JPCLN001.IMG ... JPCNN093.IMG of the JSRT database, or PNG
copies of the same names) and the masks of the SCR database in its own folders, such as
scratch/fold1/masks/left lung/JPCLN001.gif and scratch/fold1/masks/right lung/JPCLN001.gif; or a mask of both lungs for
each radiograph, masks/JPCLN001.png."""
    NAME = r"JPC[LN]N\d{3}"
    OFFICIAL_SUFFIXES = (".img", ".gif")  # radiographs, SCR's masks
    OFFICIAL_NAMES = tuple(
        [f"JPCLN{number:03}" for number in range(1, 155)] + [f"JPCNN{number:03}" for number in range(1, 94)]
    )

    @staticmethod
    def _number(name: str) -> int:
        return int(name[-3:])

    @staticmethod
    def _fits(mask: tuple[int, int], radiograph: tuple[int, int]) -> bool:
        # SCR's masks have half the radiograph's size, copies other shares of it; radiographs and masks are square.
        return abs(mask[0] * radiograph[1] - mask[1] * radiograph[0]) <= max(radiograph)
