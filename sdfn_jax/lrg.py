"""The trained lung region generator at work (paper B.2): radiographs -> lung masks -> lung boxes -> the box table.

python -m sdfn_jax.lrg FOLDER --checkpoint=runs/lrg --output=lung_boxes.csv

Interrupted at any moment, the same command resumes.
"""

from collections.abc import Sequence

from sdfn_jax.core import errors
from sdfn_jax.core.arguments import BATCH_SIZE, Parser, positive

AGAIN = "the same command resumes from here"


def main(arguments: Sequence[str] | None = None, prog: str = "python -m sdfn_jax.lrg") -> None:
    """Writes the box table of a folder of radiographs, and prints how often each rule was needed."""
    parser = Parser(
        prog,
        description="Finds the lungs in every radiograph of a folder, and writes their boxes into a table.",
        examples="example:\n  %(prog)s FOLDER --checkpoint=runs/lrg --output=lung_boxes.csv",
    )
    parser.add_argument("radiographs", metavar="FOLDER", help="a folder of radiographs, with all folders below it")
    parser.add_argument("--checkpoint", required=True, help="run folder of a lung region generator, such as runs/lrg")
    parser.add_argument("--output", required=True, help="the box table to write, such as lung_boxes.csv")
    parser.add_argument(
        "--batch_size", type=positive, default=BATCH_SIZE, help="images at a time (default: %(default)s)"
    )
    parser.add_argument("--skip_bad_files", action="store_true", help="leave out, and list, files that cannot be read")
    options = parser.parse_args(arguments)

    from sdfn_jax.core import jit_cache  # here and below, so that --help needs no JAX
    from sdfn_jax.lungs import box_table, segmenter
    from sdfn_jax.lungs.make_box_table import find_radiographs, make_box_table, report_left_out

    found = find_radiographs(options.radiographs)
    jit_cache.use_cache()
    network = segmenter.Segmenter.load(options.checkpoint, options.batch_size)
    print(f"{len(found.films):,} radiographs in {options.radiographs}, checkpoint {network.digest[:12]}", flush=True)
    if network.drawings:
        print(f"NOTE: {segmenter.TRAINED_ON_SYNTHETIC}", flush=True)
    rows = make_box_table(network, found.films, options.output, network.postprocessing, options.skip_bad_files)
    print(f"{options.output}: {len(rows):,} lung boxes\n\n{box_table.rule_counts(rows)}")
    report_left_out(found, options.output)


if __name__ == "__main__":
    errors.run_as_process(main, AGAIN)
