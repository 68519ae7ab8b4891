"""The viewer's connections: silent ones are closed, and a new one always finds room.

uvicorn waits forever for the rest of a request, and answers 503 to everyone once it has as many connections as it
accepts; a few dozen half-open ones, from a broken or hostile program, would block the viewer.
"""

import asyncio
from typing import cast

from uvicorn.protocols.http.h11_impl import H11Protocol

# At a time, so that memory is bounded. A browser keeps several open for each of its windows.
MOST = 32
# Seconds that a request's head may take in total, that an upload may pause, and that an answer may wait to be read.
PATIENCE = 10.0


class Connection(H11Protocol):
    """A connection that is closed when the other side keeps it waiting, or when its slot is needed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Accepts a connection; if there are too many, closes the one with the most reason to go."""
        super().connection_made(cast(asyncio.Transport, transport))
        self._since = self._heard = self.loop.time()
        self._received = 0
        self._stuck_since: float | None = None
        self._timer = self.loop.call_later(PATIENCE / 10, self._look)
        if sum(not each.transport.is_closing() for each in self._connections) > MOST:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Takes what the other side sends."""
        self._heard = self.loop.time()
        self._received += len(data)
        super().data_received(data)

    def on_response_complete(self) -> None:
        """Begins to wait for the next request."""
        self._since, self._received = self.loop.time(), 0
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Notes since when the other side has not read what it is sent."""
        self._stuck_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Notes that it has."""
        self._stuck_since = None
        super().resume_writing()

    @property
    def _connections(self) -> set["Connection"]:
        return cast(set["Connection"], self.connections)

    @property
    def _idle(self) -> bool:
        """Whether no request has begun, or its head is incomplete."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def _uploading(self) -> bool:
        return not self._idle and self.cycle.more_body

    def _look(self) -> None:
        now = self.loop.time()
        waiting_since = self._since if self._idle else self._heard if self._uploading else self._stuck_since
        if waiting_since is not None and now - waiting_since > PATIENCE:
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(PATIENCE / 10, self._look)

    def _make_room(self) -> None:
        """Closes the connection that has been idle longest, else the slowest upload, else this one."""
        now = self.loop.time()
        others = [each for each in self._connections - {self} if not each.transport.is_closing()]
        idle = [each for each in others if each._idle]
        uploading = [each for each in others if each._uploading]
        leaving = self
        if idle:
            leaving = min(idle, key=lambda each: each._since)
        elif uploading:
            leaving = min(uploading, key=lambda each: each._received / (now - each._since + 1e-3))
        leaving.transport.abort()
