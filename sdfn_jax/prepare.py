"""Prepares a data set from the user's own download.

python -m sdfn_jax.prepare chestxray14 --manual_dir=data/chestxray14           (also: python -m tfds_builders.prepare)
"""

from collections.abc import Sequence

from sdfn_jax.core import errors
from tfds_builders.arguments import AGAIN, parse_arguments


def main(arguments: Sequence[str] | None = None, prog: str = "python -m sdfn_jax.prepare") -> None:
    """Prepares the data set, unless it is there already, and prints a summary."""
    options = parse_arguments(arguments, prog)

    from tfds_builders.prepare import run  # here, so that --help needs no TFDS

    run(options)


if __name__ == "__main__":
    errors.run_as_process(main, AGAIN)
