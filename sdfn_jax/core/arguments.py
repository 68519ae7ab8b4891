"""Command lines: one parser for every command, numbers with their bounds, defaults that --help shows.

Imports nothing slow, so that --help and a misspelt flag need no JAX.
"""

import argparse
import difflib
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from sdfn_jax.core import shards

# XLA and TFDS keep shapes and counts in signed 32 bits; JAX and Grain keep seeds in unsigned 32 bits and would truncate
# a longer one silently.
LARGEST_COUNT, LARGEST_SEED = 2**31 - 1, 2**32 - 1
# A radiograph of a prepared data set is one record of two images, and a protocol buffer holds at most 2 GiB.
LARGEST_SIZE = 16384
BATCH_SIZE = 8  # images that a network takes at a time when it reads one's own files
REPORT_REPLICATES = 2000  # of the bootstrap
HOST, PORT = "127.0.0.1", 8000  # of the viewer


class Parser(argparse.ArgumentParser):
    """An `argparse` parser that takes no abbreviations and names the flag that was probably meant."""

    def __init__(self, prog: str | None = None, description: str = "", examples: str = "", **options: Any) -> None:
        """Sets up the parser.

        Args:
          prog: how the command is called, such as `sdfn predict`; in texts, `%(prog)s` stands for it.
          description: what it does.
          examples: lines that --help prints as they are, below the flags.
          **options: of `argparse.ArgumentParser`.
        """
        super().__init__(
            prog,
            description=textwrap.fill(description, 79),
            epilog=examples,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,
        )

    def parse_args(self, arguments: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parses a command line; an unknown flag ends the process with status 2 and the nearest known flag."""
        arguments = sys.argv[1:] if arguments is None else arguments
        known = list(_flags(self))
        for argument in arguments:
            if argument == "--":
                break
            flag = argument.partition("=")[0]
            if flag.startswith("--") and flag not in known:
                self.error(f"unknown flag {flag}{nearest(flag, known)}")
        return super().parse_args(arguments, namespace)

    def error(self, message: str) -> NoReturn:
        """Ends the process with status 2 and a sentence on standard error."""
        self.exit(2, f"error: {message} ({self.prog} --help lists the flags)\n")


def nearest(word: str, known: Sequence[str]) -> str:
    """Returns `; did you mean X?` for a misspelt word, or nothing if no known word resembles it."""
    found = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {found[0]}?" if found else ""


def whole_number_in(lowest: int, highest: int) -> Callable[[str], int]:
    """Returns the `argparse` type of a whole number from `lowest` to `highest`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or not lowest <= number <= highest:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {lowest} to {highest}")
        return number

    return parse


positive, seed = whole_number_in(1, LARGEST_COUNT), whole_number_in(0, LARGEST_SEED)


def add_division(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that divide the work of a command among processes and machines."""
    parser.add_argument(
        "--shard",
        type=_shard,
        default=shards.UNDIVIDED,
        metavar="I/N",
        help="do part I of N: several machines, one folder",
    )
    parser.add_argument(
        "--engine",
        type=_engine,
        default=None,
        metavar="ray",
        help="or ray://HOST:PORT: workers of a Ray cluster",
    )


def _shard(text: str) -> shards.Shard:
    number, slash, count = text.partition("/")
    if slash and number.isascii() and number.isdigit() and count.isascii() and count.isdigit():
        found = shards.Shard(int(number), int(count))
        if 1 <= found.number <= found.count <= LARGEST_COUNT:
            return found
    raise argparse.ArgumentTypeError(f"{text!r} is not I/N, with I from 1 to N, such as 1/8")


def _engine(text: str) -> str:
    if text == "ray" or text.startswith("ray://"):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is neither ray nor ray://HOST:PORT")


def _flags(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yields the flags of a parser and of the parsers below it."""
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _flags(below)
