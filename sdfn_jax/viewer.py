"""A page on one's own machine: drop a film, see what the networks say of it.

python -m sdfn_jax.viewer --checkpoint=runs/fusion

Films are held in memory while they are read and never written; their names stay in the browser. A film that takes its
decoder too long, or crashes it, is refused and stops no other (`decoding`), nor does a request that never ends
(`connections`). The page is reached under the address that the command prints and, so that no other web page can reach
it, under no other name.
"""

from sdfn_jax.core import errors

if __name__ == "__main__":
    errors.begin_command()

import argparse
from collections.abc import Sequence

from sdfn_jax.core import jit_cache
from sdfn_jax.core.errors import run_command
from sdfn_jax.inference.server import HOST, PORT, serve


def main(arguments: Sequence[str] | None = None) -> None:
    """Shows what a trained network says of films dropped on a page, on this machine."""
    parser = argparse.ArgumentParser(prog="python -m sdfn_jax.viewer", description=main.__doc__)
    parser.add_argument("--checkpoint", required=True, help="run folder of a trained stage: entire, lung or fusion")
    parser.add_argument(
        "--lrg", help="run folder of the lung region generator, where the run's own is not in its place"
    )
    parser.add_argument("--host", default=HOST, help="address to listen on; others can reach any but %(default)s")
    parser.add_argument("--port", type=int, default=PORT, help="default %(default)s; 0 takes any free one")
    given = parser.parse_args(arguments)
    if not 0 <= given.port < 2**16:
        parser.error(f"--port is {given.port}; it must be from 0 to {2**16 - 1}")
    jit_cache.use_cache()
    serve(given.checkpoint, given.lrg, given.host, given.port)


if __name__ == "__main__":
    run_command(main)
