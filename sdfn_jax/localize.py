"""Heatmaps to boxes over all images that have reference boxes.

python -m sdfn_jax.localize --run=runs/fusion                              a trained network, on its prepared data set
python -m sdfn_jax.localize --run=runs/fusion --checks                     are its heatmaps about the network?
python -m sdfn_jax.localize --heatmaps=FOLDER --tables=data/chestxray14 --output=FOLDER    another method's heatmaps

It writes detections.csv and localization.json, which the report scores, and prints the table; with --checks,
heatmap_checks.json and heatmap_checks.png. Heatmap files are
<image without .png>_<finding>.npy (00000001_000_Mass.npy), (h, w) of any range, covering the whole image.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from sdfn_jax.core import errors
from sdfn_jax.core.arguments import Parser
from sdfn_jax.heatmaps import cam


def main(arguments: Sequence[str] | None = None, prog: str = "python -m sdfn_jax.localize") -> None:
    """Writes the boxes, and prints how they compare with the reference boxes."""
    _run(_parse(arguments, prog))


def _parse(arguments: Sequence[str] | None, prog: str) -> argparse.Namespace:
    parser = Parser(
        prog,
        description="Compares boxes from heatmaps with the reference boxes. Writes detections.csv and "
        "localization.json, which the report reads.",
        examples="examples:\n  %(prog)s --run=runs/fusion\n  %(prog)s --run=runs/fusion --checks\n"
        "  %(prog)s --heatmaps=FOLDER --tables=data/chestxray14 --output=FOLDER\n\n"
        "heatmap files: <image without .png>_<finding>.npy (00000001_000_Mass.npy), (h, w) of any "
        "range, of the\nwhole image",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", type=Path, help="run folder of a trained extractor or fusion network")
    source.add_argument("--heatmaps", type=Path, help="folder of another method's heatmaps")
    parser.add_argument(
        "--method",
        default=cam.DEFAULT_METHOD,
        metavar="NAME",
        help=f"how a run's heatmaps are computed: {', '.join(cam.METHODS)} (default: %(default)s)",
    )
    parser.add_argument(
        "--outside",
        default=cam.DEFAULT_OUTSIDE,
        metavar="RULE",
        help=f"what the lung region's map counts as outside the lung box, where the paper is silent: "
        f"{', '.join(cam.OUTSIDE)} (default: %(default)s)",
    )
    parser.add_argument(
        "--checks",
        action="store_true",
        help="check a run's heatmaps instead: each rule's peaks, random weights, deletion and insertion",
    )
    parser.add_argument("--tables", type=Path, help="folder of the official tables, for --heatmaps")
    parser.add_argument("--output", type=Path, help="folder to write into (default: the run's evaluation/test)")
    options = parser.parse_args(arguments)
    if options.heatmaps is not None and (options.tables is None or options.output is None):
        raise errors.UserError("--heatmaps needs --tables=FOLDER (the official tables) and --output=FOLDER")
    if options.run is not None and options.tables is not None:
        raise errors.UserError("--tables is for --heatmaps; a run brings the boxes of its data set: leave it out")
    if options.run is None and options.checks:
        raise errors.UserError("--checks is for --run: it needs the network, not only its heatmaps")
    return options


def _run(options: argparse.Namespace) -> None:
    from sdfn_jax.heatmaps import localize  # here, so that --help needs no JAX

    if options.run is None:
        localize.localize_files(options.heatmaps, options.tables, options.output)
    else:
        command = localize.check_network if options.checks else localize.localize_network
        command(options.run, options.method, options.outside, options.output)


if __name__ == "__main__":
    errors.run_as_process(main)
