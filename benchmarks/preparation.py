"""Preparing chestxray14 from a given box table, next to decoding alone: all cores, the same files, the same run.

python -m benchmarks.preparation --output=preparation.json

Films are those of $SDFN_DATA/chestxray14, or drawings in the same format, 1024 x 1024. Decoding alone is Pillow on as
many threads as there are cores, and keeps nothing. Both sides take turns, after one round that does not count; the
files are in the page cache.
"""

import argparse
import contextlib
import io
import itertools
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import films, record
from sdfn_jax.core import parallel
from sdfn_jax.lungs import box_table
from tfds_builders import prepare

ALL = 112_120  # images of ChestX-ray14


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=324)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few films: shows that it runs")
    parser.add_argument("--output", default="preparation.json")
    options = parser.parse_args()
    if options.quick:
        options.films, options.rounds = 8, 1
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        source, kind = films.chestxray14(folder / "chestxray14", options.films)
        paths = films.paths(source, options.films)
        boxes = folder / "lung_boxes.csv"
        box_table.write_box_table(boxes, [some_box(path) for path in paths])
        numbers = itertools.count()

        def prepared():
            with contextlib.redirect_stdout(io.StringIO()):
                prepare.prepare("chestxray14", manual_dir=source, data_dir=folder / f"{next(numbers)}", boxes=boxes)

        def decoded():
            with ThreadPoolExecutor(parallel.usable_cores()) as pool:
                for _ in pool.map(decode, paths):
                    pass

        taken = record.medians({"prepared": prepared, "decoded": decoded}, options.rounds)
    rates = {name: len(paths) / seconds for name, seconds in taken.items()}
    rows = record.rate("prepare chestxray14", rates["prepared"], "images/s", {"decoding": rates["decoded"]}, goal=0.8)
    rows.append(record.amount(f"the same for all {ALL:,} images", ALL / rates["prepared"] / 60, "min"))
    record.write(options.output, rows, ["numpy", "pillow", "tensorflow-datasets"], films=f"{len(paths)} {kind}")


def decode(path):
    with Image.open(path) as image:
        np.asarray(image)


def some_box(path):
    """Returns a box of the usual size: three quarters of the image's width and height."""
    with Image.open(path) as image:
        width, height = image.size
    return box_table.BoxRow(
        path.name, width, height, width // 8, height // 8, width * 7 // 8, height * 7 // 8, "none", 0.3, "benchmark"
    )


if __name__ == "__main__":
    main()
