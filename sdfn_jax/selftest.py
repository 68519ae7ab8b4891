"""Is this installation right? Compares it with golden outputs.

python -m sdfn_jax.selftest
"""

import sys
from collections.abc import Sequence

from sdfn_jax.core import errors
from sdfn_jax.core.arguments import Parser


def main(arguments: Sequence[str] | None = None, prog: str = "python -m sdfn_jax.selftest") -> None:
    """Prints the comparison; the exit status is 0 if all of it passed, otherwise 1."""
    Parser(prog, description="Compares this installation with golden outputs, in seconds.").parse_args(arguments)

    from sdfn_jax.core import jit_cache  # here and below, so that --help needs no JAX
    from sdfn_jax.inference import selftest

    jit_cache.use_cache()
    found = selftest.run()
    print(selftest.table(found))
    sys.exit(0 if all(each.passed for each in found) else 1)


if __name__ == "__main__":
    errors.run_as_process(main)
