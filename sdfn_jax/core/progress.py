"""Progress of long work: done / total, rate, time left."""

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

    Work that ends before the first line is due prints nothing. In a run of several processes only process 0 prints.

    Args:
      iterable: the items to iterate over; None for a bar that `update` advances.
      what: name of the work, shown to the user.
      unit: one step of it (`image`, `step`).
      total: number of steps, if `iterable` has no length.
      initial: steps done before an interruption.
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
    """Prints a line on standard error, above the bar if one is visible."""
    if shown.disable or shown.last_print_t < shown.start_t + shown.delay:
        print(line, file=sys.stderr)  # `write` would draw the bar and leave its line unfinished
    else:
        shown.write(line, file=sys.stderr)
