"""The command line of `prepare`. Imports neither TFDS nor a builder, so that --help is immediate."""

import argparse
import contextlib
from collections.abc import Sequence
from typing import Any

from sdfn_jax.core.arguments import LARGEST_SIZE, Parser, add_division, seed, whole_number_in
from tfds_builders import registry

AGAIN = "the same command starts again, or resumes if it had --shard or --engine; prepared sets are unchanged"


def parse_arguments(arguments: Sequence[str] | None, prog: str) -> dict[str, Any]:
    """Returns the arguments of `prepare.prepare` that a command line names; its defaults apply to the others.

    Args:
      arguments: the command line; that of this process if None.
      prog: what --help calls the command.
    """
    parser = Parser(
        prog,
        description="Prepares a data set from your own download, for training.",
        examples="examples:\n  %(prog)s montgomery --manual_dir=data/montgomery\n"
        "  %(prog)s chestxray14 --manual_dir=data/chestxray14 --boxes=lung_boxes.csv",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("name", choices=registry.DATA_SETS, metavar="NAME", help=", ".join(registry.DATA_SETS))
    parser.add_argument("--manual_dir", required=True, help="the folder of your download")
    parser.add_argument(
        "--data_dir", default="data/tfds", help="the folder of all prepared sets (default: %(default)s)"
    )
    parser.add_argument(
        "--size", type=whole_number_in(1, LARGEST_SIZE), help="height and width of the images, in pixels"
    )
    parser.add_argument("--require_complete", action="store_true", help="a missing official file is an error")
    parser.add_argument("--skip_bad_files", action="store_true", help="list bad files and leave them out")
    add_division(parser)
    labelled = parser.add_argument_group("sets with findings only")
    labelled.add_argument("--boxes", help="the table of lung boxes (default: lung_boxes.csv in manual_dir)")
    labelled.add_argument("--label_version", choices=("2017", "v2020"), help="which official labels (default: 2017)")
    labelled.add_argument("--validation_share", type=_share, help="expected share of the patients of train_val, 0 to 1")
    labelled.add_argument("--validation_seed", type=seed, help="which patients these are")
    labelled.add_argument("--test_share", type=_share, help="the same of test, where no table names the test films")
    labelled.add_argument(
        "--labeler", choices=("chexpert", "negbio"), help="mimic_cxr: whose labels (default: chexpert)"
    )
    labelled.add_argument("--table", help="own: the table of films (default: films.csv in manual_dir)")
    options = vars(parser.parse_args(arguments))
    for action in labelled._group_actions:
        owners = [name for name, data_set in registry.DATA_SETS.items() if action.dest in data_set.settings]
        if action.dest in options and options["name"] not in owners:
            parser.error(f"--{action.dest} is for {', '.join(owners)}; leave it out")
    return options


def _share(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 <= (share := float(text)) < 1:
            return share
    raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 up to, not including, 1")
