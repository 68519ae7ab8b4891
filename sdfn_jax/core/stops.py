"""A stop that is asked for from outside: Ctrl-C or SIGTERM."""

import signal


class Stopped(KeyboardInterrupt):
    """Ctrl-C or SIGTERM has ended the work at a place to resume from; the message says which."""


class StopWish:
    """Within the block, turns Ctrl-C and SIGTERM into a wish, for work that has to save something first.

    A second Ctrl-C ends at once.

    Attributes:
      came: whether a signal has come.
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
