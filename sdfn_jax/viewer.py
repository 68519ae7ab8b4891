"""A page on one's own machine: drop a radiograph, see what the networks say about it.

python -m sdfn_jax.viewer --checkpoint=runs/fusion
python -m sdfn_jax.viewer                             (the lungs alone, no findings)

Radiographs stay in memory and are never written; their names stay in the browser. A file that crashes its decoder or
takes it too long is refused and stops no other (`decoding`), nor does a request that never ends (`connections`). The
page is reached only under the address that the command prints, so that no other web page can reach it.
"""

from collections.abc import Sequence

from sdfn_jax.core import errors
from sdfn_jax.core.arguments import HOST, PORT, Parser


def main(arguments: Sequence[str] | None = None, prog: str = "python -m sdfn_jax.viewer") -> None:
    """Serves the page until Ctrl-C."""
    parser = Parser(
        prog,
        description="Serves a page, to this machine alone, that shows what a trained network says about a radiograph "
        "dropped on it. For research, not for diagnosis.",
        examples="example:\n  %(prog)s --checkpoint=runs/fusion",
    )
    parser.add_argument(
        "--checkpoint",
        help="folder of a trained classifier (runs/fusion), or of runs, or its .zip of sdfn export; without it only "
        "the lungs are read, and there are no findings",
    )
    parser.add_argument(
        "--lrg",
        help="run folder of the lung region generator: of the classifier's, if it has been moved; without a classifier "
        "the package's own by default",
    )
    parser.add_argument("--host", default=HOST, help="address to listen on; others can reach any but %(default)s")
    parser.add_argument("--port", type=int, default=PORT, help="default %(default)s; 0 takes any free one")
    options = parser.parse_args(arguments)
    if not 0 <= options.port < 2**16:
        parser.error(f"--port is {options.port}; it must be from 0 to {2**16 - 1}")

    from sdfn_jax.core import jit_cache  # here and below, so that --help needs no JAX
    from sdfn_jax.inference import server

    jit_cache.use_cache()
    server.serve(options.checkpoint, options.lrg, options.host, options.port)


if __name__ == "__main__":
    errors.run_as_process(main)
