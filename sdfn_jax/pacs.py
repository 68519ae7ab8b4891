"""An archive (PACS) in the loop: reads its chest films and stores the results in it, each film once.

python -m sdfn_jax.pacs --from=https://HOST/dicom-web --folder=FOLDER --checkpoint=runs/fusion

Interrupted at any moment, the same command resumes. The exit status is 0; 1 if some films are to be tried again; 2 if
nothing could be done, and the message says why; 130 or 143 if it was stopped.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sdfn_jax.core import errors
from sdfn_jax.core.arguments import Parser, positive

AGAIN = "the same command resumes from here"


def main(arguments: Sequence[str] | None = None, prog: str = "python -m sdfn_jax.pacs") -> None:
    """Reads the films of an archive, once or until Ctrl-C."""
    parser = Parser(
        prog,
        description="Reads the frontal chest films of an archive over DICOMweb, and stores the results in their "
        "studies: reports, lung segmentations and pictures. For research, not for diagnosis.",
        examples=_EXAMPLES,
    )
    parser.add_argument("--from", dest="source", metavar="URL", required=True, help="DICOMweb address of the films")
    parser.add_argument("--to", dest="target", metavar="URL", help="where results go (default: --from)")
    parser.add_argument("--folder", type=Path, required=True, help="keeps which films are done, by their identifiers")
    parser.add_argument(
        "--checkpoint", help="folder of a trained classifier (runs/fusion), or of runs; without it there is no report"
    )
    parser.add_argument(
        "--lrg",
        help="run folder of the lung region generator: of the classifier's, if it has been moved; without a classifier "
        "the package's own by default",
    )
    parser.add_argument("--modality", action="append", help="of the films; may be repeated (default: CR and DX)")
    parser.add_argument(
        "--body_part",
        action="append",
        help="a word of the body part or, where an archive lists none, of the descriptions; may be repeated (default: "
        "CHEST and THORAX)",
    )
    parser.add_argument("--dates", default="", help="of the studies: 20260101-20260131, either end open (default: all)")
    parser.add_argument("--every", type=positive, metavar="SECONDS", help="look again after so long (default: once)")
    sys.exit(1 if _run(parser.parse_args(arguments)) else 0)


def _run(options: argparse.Namespace) -> int:
    from sdfn_jax.core import jit_cache  # here and below, so that --help needs no JAX
    from sdfn_jax.hospital import rounds
    from sdfn_jax.hospital.chest_films import Query

    jit_cache.use_cache()
    chosen = {"modalities": options.modality, "body_parts": options.body_part, "dates": options.dates}
    query = Query(**{name: value for name, value in chosen.items() if value})
    return rounds.run(
        options.source, options.target, query, options.folder, options.checkpoint, options.lrg, options.every
    )


_EXAMPLES = """\
examples:
  %(prog)s --from=https://pacs.example/dicom-web --folder=read --checkpoint=runs/fusion --dates=20260101- --every=60
  %(prog)s --from=http://127.0.0.1:8042/dicom-web --folder=read        (lungs and pictures, no report)

credentials, never on the command line: the environment variables SDFN_FROM_USER and SDFN_FROM_PASSWORD, or
SDFN_FROM_TOKEN; SDFN_TO_... for --to; or ~/.netrc. Certificates are always checked; REQUESTS_CA_BUNDLE=FILE names a
hospital's own authority."""

if __name__ == "__main__":
    errors.run_as_process(main, AGAIN)
