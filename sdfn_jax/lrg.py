"""The lung region generator at work (B.2): films -> lung masks -> lung boxes -> the box table.

python -m sdfn_jax.lrg FOLDER_OF_RADIOGRAPHS --checkpoint=runs/lrg --output=lung_boxes.csv

Stopped at any moment, the same command goes on where it was. Everything that turns a film into the network's input
stands here, once, for training, cross-validation and the box table alike.
"""

from sdfn_jax.core import errors

if __name__ == "__main__":
    errors.begin_command()

import argparse
from collections.abc import Sequence

from sdfn_jax.core import jit_cache
from sdfn_jax.core.arguments import positive
from sdfn_jax.core.errors import run_command
from sdfn_jax.lungs import box_table
from sdfn_jax.lungs.make_box_table import find_radiographs, make_box_table, report_left_out
from sdfn_jax.lungs.segmenter import DRAWINGS, Segmenter


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: a folder of radiographs -> the box table, and how often each rule fired."""
    parser = argparse.ArgumentParser(prog="python -m sdfn_jax.lrg", description=main.__doc__)
    parser.add_argument("radiographs", metavar="IMAGES", help="a folder of radiographs, searched with all below it")
    parser.add_argument("--checkpoint", required=True, help="working directory of a trained LRG, such as runs/lrg")
    parser.add_argument("--output", required=True, help="the box table to write, such as lung_boxes.csv")
    parser.add_argument("--batch_size", type=positive, default=8, help="films the network takes at a time (default: 8)")
    parser.add_argument("--skip_bad_files", action="store_true", help="leave out, and list, files that cannot be read")
    flags = parser.parse_args(arguments)
    found = find_radiographs(flags.radiographs)
    jit_cache.use_cache()
    segmenter = Segmenter.load(flags.checkpoint, flags.batch_size)
    print(f"{len(found.films):,} radiographs in {flags.radiographs}, checkpoint {segmenter.digest[:12]}", flush=True)
    if segmenter.drawings:
        print(f"NOTE: {DRAWINGS}", flush=True)
    rows = make_box_table(segmenter, found.films, flags.output, segmenter.postprocessing, flags.skip_bad_files)
    print(f"{flags.output}: {len(rows):,} lung boxes\n\n{box_table.rule_counts(rows)}")
    report_left_out(found, flags.output)


if __name__ == "__main__":
    run_command(main, "the same command resumes from here")
