"""Progress of long work: done / total, rate, time left."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tqdm import tqdm

from sdfn_jax.core import processes

_SCREEN_INTERVAL = 0.2  # seconds between two states of a bar
# Seconds between two lines of a log: at first, and at most. In between it is a tenth of the time that has passed, so
# that days of work make hundreds of lines, not thousands.
_LOG_INTERVAL, _LONGEST_LOG_INTERVAL = 10.0, 600.0
_estimate: Callable[[float, float], str] = lambda whole, left: ""  # noqa: E731  of `estimating`


class Lines:
    """The progress of work whose output is no terminal: plain lines on standard error. It is used like a `tqdm`."""

    def __init__(self, iterable: Iterable | None, what: str, unit: str, total: int | None, initial: int, stays: bool):
        """Starts the clock. The arguments are those of `bar`."""
        self._iterable, self._what, self._unit, self._stays = iterable, what, unit, stays
        self._total = len(iterable) if total is None and hasattr(iterable, "__len__") else total  # type: ignore[arg-type]
        self._done = initial
        self._start = self._last = time.monotonic()
        # Time and count after the first step, which may compile: the rate is that of the others.
        self._first: tuple[float, int] | None = None
        self._said: int | None = None  # how much was done in the last line

    def __iter__(self) -> Iterator[Any]:
        """Yields the items, and counts them."""
        with self:
            for item in self._iterable or ():
                yield item
                self.update()

    def __enter__(self) -> "Lines":
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the work."""
        self.close()

    def update(self, done: int = 1) -> None:
        """Counts so many more as done; prints a line when one is due."""
        self._done += done
        now = time.monotonic()
        self._first = self._first or (now, self._done)
        interval = min(max(_LOG_INTERVAL, (now - self._start) / 10), _LONGEST_LOG_INTERVAL)
        if now - self._last >= interval:
            self._print(now)

    def write(self, line: str) -> None:
        """Prints a line on standard output."""
        print(line, flush=True)

    def close(self) -> None:
        """Prints the last line, if lines were printed before."""
        if self._stays and self._said not in (None, self._done):
            self._print(time.monotonic())

    def _print(self, now: float) -> None:
        begun, before = self._first
        passed, done = now - begun, self._done - before
        count = f"{self._done:,}" if self._total is None else f"{self._done:,}/{self._total:,}"
        parts = [f"{self._what}: {count} {self._unit}s"]
        if done and passed:
            parts.append(_rate(done / passed, self._unit))
        if self._total is not None and done and self._done < self._total:
            parts.append(f"{clock((self._total - self._done) * passed / done)} left")
        print(", ".join(parts), file=sys.stderr, flush=True)
        self._last, self._said = now, self._done


def bar(
    iterable: Iterable | None = None,
    *,
    what: str,
    unit: str,
    total: int | None = None,
    initial: int = 0,
    stays: bool = True,
) -> "tqdm | Lines":
    """Returns a progress bar on standard error; if that is no terminal, it is plain lines, at first every ten seconds.

    Work that ends before the first line is due prints nothing. In a run of several processes only process 0 prints.

    Args:
      iterable: the items to iterate over; None for a bar that `update` advances.
      what: name of the work, shown to the user.
      unit: one step of it (`image`, `step`).
      total: number of steps, if `iterable` has no length.
      initial: steps done before an interruption.
      stays: whether the bar stays on the screen when the work is done.
    """
    silent = not processes.is_first()
    if not silent and not sys.stderr.isatty():
        return Lines(iterable, what, unit, total, initial, stays)
    return tqdm(
        iterable,
        desc=what,
        unit=f" {unit}s",
        total=total,
        initial=initial,
        mininterval=_SCREEN_INTERVAL,
        maxinterval=_SCREEN_INTERVAL,
        delay=_SCREEN_INTERVAL,
        leave=stays,
        dynamic_ncols=True,
        file=sys.stderr,
        disable=silent,
    )


def note(shown: "tqdm | Lines", line: str) -> None:
    """Prints a line on standard error, above the bar if one is visible."""
    if isinstance(shown, Lines) or shown.disable or shown.last_print_t < shown.start_t + shown.delay:
        print(line, file=sys.stderr)  # `write` would draw the bar and leave its line unfinished
    else:
        shown.write(line, file=sys.stderr)


@contextlib.contextmanager
def estimating(estimate: Callable[[float, float], str]) -> Iterator[None]:
    """Within the block, `time_left` returns what a function of its arguments returns."""
    global _estimate
    before, _estimate = _estimate, estimate
    try:
        yield
    finally:
        _estimate = before


def time_left(whole: float, left: float) -> str:
    """Returns a line about the time that the whole job still takes; empty if nobody estimates it.

    Args:
      whole: seconds that this training takes from beginning to end.
      left: seconds that are left of it.
    """
    return _estimate(whole, left)


def roughly(seconds: float) -> str:
    """Returns a time as one would say it: `40 s`, `12 min`, `3.5 h`, `9 days`."""
    for size, name in ((172_800, "days"), (5_400, "h"), (90, "min")):
        if seconds >= size:
            count = seconds / {"days": 86_400, "h": 3_600, "min": 60}[name]
            return f"{count:.1f} {name}" if count < 10 and name != "min" else f"{count:.0f} {name}"
    return f"{seconds:.0f} s"


def clock(seconds: float) -> str:
    """Returns a time as `0:07`, `12:34`, `1:02:03` or `2 d 03 h`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24:02d} h"
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _rate(per_second: float, unit: str) -> str:
    return f"{per_second:,.1f} {unit}s/s" if per_second >= 1 else f"{1 / per_second:.1f} s/{unit}"
