"""A lung region generator at work (paper B.2): radiographs -> lung masks -> lung boxes -> the box table.

python -m sdfn_jax.lrg FOLDER --output=lung_boxes.csv                          (with the generator of the package)
python -m sdfn_jax.lrg FOLDER --output=lung_boxes.csv --checkpoint=runs/lrg    (with one's own)

Interrupted at any moment, the same command resumes.
"""

from collections.abc import Sequence
from pathlib import Path

from sdfn_jax.core import errors, ray_engine
from sdfn_jax.core.arguments import BATCH_SIZE, Parser, add_division, positive

AGAIN = "the same command resumes from here"


def main(arguments: Sequence[str] | None = None, prog: str = "python -m sdfn_jax.lrg") -> None:
    """Writes the box table of a folder of radiographs, and prints how often each rule was needed."""
    parser = Parser(
        prog,
        description="Finds the lungs in every radiograph of a folder, and writes their boxes into a table. "
        "For research, not for diagnosis.",
        examples=_EXAMPLES,
    )
    parser.add_argument("radiographs", metavar="FOLDER", help="a folder of radiographs, with all folders below it")
    parser.add_argument("--checkpoint", help="run folder of a lung region generator; by default the package's own")
    parser.add_argument("--output", type=Path, required=True, help="the box table to write, such as lung_boxes.csv")
    parser.add_argument("--masks", type=Path, help="a folder for a mask (PNG) of each radiograph's lungs")
    parser.add_argument(
        "--batch_size", type=positive, default=BATCH_SIZE, help="images at a time (default: %(default)s)"
    )
    parser.add_argument("--skip_bad_files", action="store_true", help="leave out, and list, files that cannot be read")
    add_division(parser)
    options = parser.parse_args(arguments)

    from sdfn_jax.core import jit_cache  # here and below, so that --help needs no JAX
    from sdfn_jax.lungs import box_table, contact_sheet, shipped
    from sdfn_jax.lungs.finder import LungFinder, Lungs
    from sdfn_jax.lungs.make_box_table import find_radiographs, make_box_table, report_left_out
    from sdfn_jax.lungs.segmenter import TRAINED_ON_SYNTHETIC
    from sdfn_jax.radiographs.opening import ImageFile

    found = find_radiographs(options.radiographs)
    jit_cache.use_cache()
    # Ray starts processes, which must come before JAX starts threads.
    with ray_engine.engine(options.engine, jit_cache.use_cache) as engine:
        finder = LungFinder.load(options.checkpoint, options.batch_size)
        network = finder.segmenter
        maker = f"checkpoint {network.digest[:12]}" if options.checkpoint else shipped.describe()
        print(f"{len(found.films):,} radiographs in {options.radiographs}, {maker}", flush=True)
        if network.drawings:
            print(f"NOTE: {TRAINED_ON_SYNTHETIC}", flush=True)
        rows = make_box_table(
            network,
            found.films,
            options.output,
            network.postprocessing,
            options.skip_bad_files,
            options.masks,
            shard=options.shard,
            engine=engine,
        )
    if rows is None:
        return
    print(
        f"{options.output}: {len(rows):,} lung boxes\n\n{box_table.rule_counts(rows)}\n\n{box_table.flag_counts(rows)}"
    )
    sheet = options.output.with_suffix(".png")
    least = {row.image for row in sorted(rows, key=lambda row: row.confidence)[: contact_sheet.SHEET_FILMS]}
    lungs = finder.stream(ImageFile(path.name, path) for path in found.films if path.name in least)
    shown = [each for each in lungs if isinstance(each, Lungs)]
    contact_sheet.lung_box_page(shown, sheet, drawings=network.drawings)
    print(f"{sheet}: the {len(shown)} least certain, to look at")
    report_left_out(found, options.output)


_EXAMPLES = """\
examples:
  %(prog)s FOLDER --output=lung_boxes.csv
  %(prog)s FOLDER --output=lung_boxes.csv --masks=lung_masks --checkpoint=runs/lrg

lung_boxes.csv has for each radiograph: its size, the box (left, top, right, bottom, in its pixels), the
rules of the post-processing that were needed, the share of the film that is lung, the confidence
(the Dice coefficient that the mask is expected to have) and flags of what looks wrong.
lung_boxes.png shows the radiographs of the lowest confidence."""

if __name__ == "__main__":
    errors.run_as_process(main, AGAIN)
