"""The report: Table I, ROC curves and all other results, from evaluated runs; no JAX, no checkpoint.

python -m sdfn_jax.report runs --tables=data/chestxray14
python -m sdfn_jax.report runs/entire runs/fusion runs/lrg --tables=data/chestxray14 --output=FOLDER

RUN is the folder of an evaluated network, of the lung region generator, or of several runs. It writes index.html, which
needs no other file and no network, every table as CSV and every figure as PNG and SVG. Sex, age, view and both label
versions come from the official tables. A section without its input names the command that makes it. The main job ends
with this report.

Every result carries what it was measured on: data, split, label version, seed, images, patients, positives, and the
caveats that apply.
"""

from collections.abc import Sequence
from pathlib import Path

from sdfn_jax.core import errors
from sdfn_jax.core.arguments import REPORT_REPLICATES, Parser, positive


def main(arguments: Sequence[str] | None = None, prog: str = "python -m sdfn_jax.report") -> None:
    """Writes the report, and prints its path."""
    parser = Parser(
        prog,
        description="Writes all results of evaluated runs as one page (OUTPUT/index.html), with every table as CSV and "
        "every figure as PNG and SVG.",
        examples="examples:\n  %(prog)s runs --tables=data/chestxray14\n  %(prog)s runs/entire runs/fusion runs/lrg "
        "--tables=data/chestxray14 --output=FOLDER",
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of an evaluated run, or of several")
    parser.add_argument(
        "--output", type=Path, help="folder of the report (default: that of the main job, results in the last run)"
    )
    parser.add_argument(
        "--tables", type=Path, help="folder of the official tables: sex, age, view, both label versions"
    )
    parser.add_argument(
        "--localization", nargs="+", type=Path, default=[], help="folders that localize --heatmaps wrote"
    )
    parser.add_argument(
        "--expert_labels",
        type=Path,
        metavar="PATH",
        help="Google's expert labels on films of ChestX-ray14 (test_labels.csv or its folder): a second reference",
    )
    parser.add_argument(
        "--external",
        nargs="+",
        type=Path,
        default=[],
        metavar="FOLDER",
        help="evaluations of the same networks on other data sets (sdfn evaluate --output=FOLDER)",
    )
    parser.add_argument("--replicates", type=positive, default=REPORT_REPLICATES, help="of the bootstrap (%(default)s)")
    options = parser.parse_args(arguments)

    from sdfn_jax.reporting.report import write_report  # here, so that --help needs no Matplotlib

    print(
        write_report(
            options.runs,
            options.output,
            options.tables,
            options.localization,
            options.replicates,
            options.expert_labels,
            options.external,
        )
    )


if __name__ == "__main__":
    errors.run_as_process(main)
