"""How far long work has come: done / total, rate, time left."""

import sys
from collections.abc import Iterable

from tqdm import tqdm

from sdfn_jax.core import processes

_SCREEN_INTERVAL, _LOG_INTERVAL = 0.2, 10.0  # seconds between lines


def bar(
    iterable: Iterable | None = None,
    *,
    what: str,
    unit: str,
    total: int | None = None,
    initial: int = 0,
    stays: bool = True,
) -> tqdm:
    """Returns a progress bar on standard error; in a log file it prints a line every ten seconds instead.

    Work that is over before the first line is due shows none, and of several processes only the first shows any.

    Args:
      iterable: what to go through; None for a bar moved by `update`.
      what: the work, as a reader would name it.
      unit: one step of it (`image`, `step`).
      total: number of steps where `iterable` has no length.
      initial: steps done by an earlier run.
      stays: whether the bar stays on the screen when the work is done.
    """
    interval = _SCREEN_INTERVAL if sys.stderr.isatty() else _LOG_INTERVAL
    return tqdm(
        iterable,
        desc=what,
        unit=f" {unit}s",
        total=total,
        initial=initial,
        mininterval=interval,
        maxinterval=interval,
        delay=interval,
        leave=stays,
        dynamic_ncols=True,
        file=sys.stderr,
        disable=not processes.is_first(),
    )


def note(shown: tqdm, line: str) -> None:
    """Prints a line on standard error, above a bar where one is to be seen."""
    if shown.disable or shown.last_print_t < shown.start_t + shown.delay:
        print(line, file=sys.stderr)  # `write` would draw the bar, and leave it without an end of its line
    else:
        shown.write(line, file=sys.stderr)
