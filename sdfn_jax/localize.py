"""Heatmaps to boxes over all images that have reference boxes.

python -m sdfn_jax.localize --run=runs/fusion                              a trained network, on its prepared data set
python -m sdfn_jax.localize --heatmaps=FOLDER --tables=data/chestxray14 --output=FOLDER    another method's heatmaps

It writes detections.csv and localization.json, which the report scores, and prints the table. Heatmap files are
<image without .png>_<finding>.npy (00000001_000_Mass.npy), (h, w) of any range, covering the whole image.
"""

from sdfn_jax.core import errors

if __name__ == "__main__":
    errors.begin_command()

import argparse
from collections.abc import Sequence
from pathlib import Path

from sdfn_jax.core.errors import UserError, run_command
from sdfn_jax.heatmaps import detections
from sdfn_jax.heatmaps.localize import of_files, of_network, table


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        "python -m sdfn_jax.localize", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", type=Path, help="folder of a trained extractor or fusion network")
    source.add_argument("--heatmaps", type=Path, help="folder of another method's heatmaps")
    parser.add_argument("--tables", type=Path, help="folder of the official tables, for --heatmaps")
    parser.add_argument("--output", type=Path, help="where the files go; of a run, its evaluation/test unless named")
    options = parser.parse_args(arguments)
    _run(options)


def _run(options: argparse.Namespace) -> None:
    if options.heatmaps is not None and (options.tables is None or options.output is None):
        raise UserError("--heatmaps needs --tables=FOLDER (the official tables) and --output=FOLDER")
    if options.run is not None and options.tables is not None:
        raise UserError("--tables is for --heatmaps; a run brings the boxes of its data set with it: leave it out")
    if options.run is not None:
        from sdfn_jax.core import jit_cache  # here: heatmaps from files need no jax

        jit_cache.use_cache()
        cases, origin = of_network(options.run)
    else:
        cases, origin = of_files(options.heatmaps, options.tables)
    folder = options.output or options.run / "evaluation" / "test"
    detections.write(folder, cases, origin)
    print(table(cases, origin["method"]))
    print(folder / detections.DETECTIONS_FILE)


if __name__ == "__main__":
    run_command(main)
