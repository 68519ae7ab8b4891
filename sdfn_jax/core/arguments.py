"""Numbers on a command line, with their bounds."""

import argparse
from collections.abc import Callable

# Shapes and counts of XLA and TFDS have 32 bits with a sign; seeds of jax and Grain have 32 without, and a longer one
# would be cut to another without a word.
LARGEST_COUNT, LARGEST_SEED = 2**31 - 1, 2**32 - 1
# A film of a prepared data set is one record, of two images, and protocol buffers have at most 2 GiB.
LARGEST_SIZE = 16384


def whole_number(lowest: int, highest: int) -> Callable[[str], int]:
    """Returns the type, for `argparse`, of a whole number from `lowest` to `highest`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or not lowest <= number <= highest:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {lowest} to {highest}")
        return number

    return parse


positive, seed = whole_number(1, LARGEST_COUNT), whole_number(0, LARGEST_SEED)
