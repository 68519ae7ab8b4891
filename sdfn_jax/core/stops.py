"""Requests to stop: Ctrl-C or SIGTERM."""

import signal


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended the work at a point from which it resumes; the message names that point."""


class StopWish:
    """Within the block, records Ctrl-C and SIGTERM, for work that has to save something before it stops.

    A second Ctrl-C stops at once.

    Attributes:
      came: whether a signal has arrived.
    """

    def __init__(self):
        self.came = False

    def __enter__(self):
        self._before = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number, _):
        if self.came and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.came = True
