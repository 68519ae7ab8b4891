"""The paper's Table I and Figure 8 from prediction files; no JAX, no checkpoint. As a command, the whole report.

python -m sdfn_jax.report runs/entire runs/lung runs/fusion runs/lrg --tables=data/chestxray14 --output=report/

RUN is the folder of an evaluated network, or of the lung region generator. It writes report/index.html, which needs no
other file and no network, every table as CSV and every figure as PNG and SVG. Sex, age, view and both label versions
come from the official tables; sections that lack their input say what makes it.

Every result carries what it was measured on: data, split, label version, seed, images, patients, positives, and the
caveats that go with them.
"""

from sdfn_jax.core import errors

if __name__ == "__main__":
    errors.begin_command()

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sdfn_jax.core.arguments import positive
from sdfn_jax.core.errors import run_command

if TYPE_CHECKING:
    pass
from sdfn_jax.reporting.report import write_report


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        "python -m sdfn_jax.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--output", type=Path, required=True, help="folder of the report")
    parser.add_argument("--tables", type=Path, help="folder of the official tables")
    parser.add_argument(
        "--localization", nargs="+", type=Path, default=[], help="folders that sdfn_jax.localize --heatmaps wrote"
    )
    parser.add_argument("--replicates", type=positive, default=2000, help="of the bootstrap")
    options = parser.parse_args(arguments)
    print(write_report(options.runs, options.output, options.tables, options.localization, options.replicates))


if __name__ == "__main__":
    run_command(main)
