"""Counts a server's connections and decides which of them stay open."""

from __future__ import annotations

from typing import Protocol

MAX_REFUSED = 64
"""Connections above the limit that still get an answer; further ones are closed unread."""


class Connection(Protocol):
    """What the limiter needs of a connection."""

    def evict(self) -> None:
        """Close: a new connection needs the slot."""
        ...


class ConnectionLimiter:
    """All connections of a server: in a request, waiting to send one (longest first), or accepted only to be refused.

    When `max_connections` are open, the one that waits longest without a complete request is evicted for a new one. Where every
    connection is in a request, the new one is refused.
    """

    def __init__(self, max_connections: int) -> None:
        self._max_connections = max_connections
        self._in_request: set[Connection] = set()
        self._waiting: dict[Connection, None] = {}
        self._refused: set[Connection] = set()

    def add(self, connection: Connection) -> bool:
        """Count a new connection; another may be evicted for it. False: it must be refused."""
        if len(self._in_request) + len(self._waiting) >= self._max_connections:
            if not self._waiting:
                self._refused.add(connection)
                return False
            longest = next(iter(self._waiting))
            self.remove(longest)
            longest.evict()
        self._waiting[connection] = None
        return True

    def request_started(self, connection: Connection) -> None:
        """The headers of a request are complete."""
        if connection in self._waiting:
            del self._waiting[connection]
            self._in_request.add(connection)

    def request_ended(self, connection: Connection) -> None:
        """The request is answered; the connection waits for the next one."""
        if connection in self._in_request:
            self._in_request.remove(connection)
            self._waiting[connection] = None

    def remove(self, connection: Connection) -> None:
        """The connection is closed, or is being closed."""
        self._waiting.pop(connection, None)
        self._in_request.discard(connection)
        self._refused.discard(connection)

    @property
    def is_refusing_too_many(self) -> bool:
        """Whether more than `MAX_REFUSED` connections wait for their refusal."""
        return len(self._refused) > MAX_REFUSED
