"""The workers as their supervisor sees them: their state, the connections they were handed, and who gets the next one."""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

LOG = logging.getLogger("solo_server")


class Process(Protocol):
    """A worker's process: the part of `asyncio.subprocess.Process` that is used."""

    @property
    def pid(self) -> int:
        """Process id."""
        ...

    def send_signal(self, signal: int, /) -> None:
        """Raises ProcessLookupError: the process has ended."""
        ...

    async def wait(self) -> int:
        """Wait for its end. The exit status; below 0, minus the signal that ended it."""
        ...


Start = Callable[[int, socket.socket], Awaitable[Process]]
"""Starts the worker of a number, with its end of the channel."""


@dataclass(slots=True, eq=False)
class WorkerHandle:
    """One worker and its state. channel: the supervisor's end; unready: why it takes no requests, `None` if it does.

    unconfirmed: connections handed to it, oldest first, that it has not confirmed; turn: of the connection handed over last;
    has_time_limit: it is killed if it does not end in time; path: where images are posted; partial: the start of a line.
    """

    number: int
    process: Process
    channel: socket.socket
    unready: str | None = "starting"
    connections: int = 0
    turn: int = 0
    has_been_ready: bool = False
    is_leaving: bool = False
    has_time_limit: bool = False
    refusal: str = ""
    path: str = "/segment"
    unconfirmed: deque[socket.socket] = field(default_factory=deque)
    partial: bytes = b""

    @property
    def can_take(self) -> bool:
        """It can take connections, whether or not it is ready."""
        return self.unready != "starting" and not self.is_leaving

    def hand_over(self, connection: socket.socket, turn: int) -> bool:
        """Hand a connection over; False if the channel is full or closed. Never waits."""
        try:
            socket.send_fds(self.channel, [b"c"], [connection.fileno()])
        except OSError:  # full, or closed, which the next read of the channel shows
            return False
        self.unconfirmed.append(connection)
        self.connections += 1
        self.turn = turn
        return True

    def process_lines(self, received: bytes) -> None:
        """Update the state from what the worker has sent; `solo_server.processes.worker_channel` lists the messages."""
        *lines, self.partial = (self.partial + received).split(b"\n")
        for line in lines:
            word, _, rest = line.decode().partition(" ")
            if word == "took":
                for _ in range(min(int(rest), len(self.unconfirmed))):
                    self.unconfirmed.popleft().close()
            elif word == "closed":
                self.connections -= int(rest)
            elif word in ("ready", "unready"):
                self.unready = rest if word == "unready" else None
                self.has_been_ready |= word == "ready"
            elif word == "answers":
                self.path = rest
            elif word == "leaving":
                self.is_leaving = True
            elif word == "refused":
                self.refusal = rest

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        try:
            self.process.send_signal(number)
        except ProcessLookupError:
            LOG.debug("worker %d has ended already", self.number)


def by_preference(workers: Iterable[WorkerHandle]) -> list[WorkerHandle]:
    """Workers that may get a connection: the ready ones, or else those that can answer why not. Fewest connections first."""
    available = [worker for worker in workers if worker.can_take]
    ready = [worker for worker in available if worker.unready is None]
    return sorted(ready or available, key=lambda worker: (worker.connections, worker.turn))


def read_available(channel: socket.socket) -> bytes | None:
    """What can be read without waiting; `None` at the channel's end."""
    try:
        return channel.recv(65536) or None
    except BlockingIOError:
        return b""
    except ConnectionError:
        return None
