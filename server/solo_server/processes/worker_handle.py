"""The workers as their supervisor sees them: what each has told, what it was handed, and who takes the next connection."""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

LOG = logging.getLogger("solo_server")


class Process(Protocol):
    """What is known of a worker's process, as `asyncio.subprocess.Process` has it."""

    @property
    def pid(self) -> int:
        """Its number."""
        ...

    def send_signal(self, signal: int, /) -> None:
        """Raises ProcessLookupError where it has ended."""
        ...

    async def wait(self) -> int:
        """Its exit status; below 0, the signal that ended it."""
        ...


Start = Callable[[int, socket.socket], Awaitable[Process]]
"""Starts worker number so and so, with its end of the channel."""


@dataclass(slots=True, eq=False)
class Worker:
    """One worker, and what it has told. channel: our end; untaken: handed to it, oldest first, and not confirmed yet.

    path: where an image can be posted.
    """

    number: int
    process: Process
    channel: socket.socket
    unready: str | None = "starting"
    connections: int = 0
    turn: int = 0
    has_been_ready: bool = False
    is_leaving: bool = False
    is_bounded: bool = False
    refusal: str = ""
    path: str = "/segment"
    untaken: deque[socket.socket] = field(default_factory=deque)
    partial: bytes = b""

    @property
    def can_take(self) -> bool:
        """It is there, whether or not it is ready."""
        return self.unready != "starting" and not self.is_leaving

    def give(self, connection: socket.socket, turn: int) -> bool:
        """Hand over; False where it has no room just now, or is gone. Never waits."""
        try:
            socket.send_fds(self.channel, [b"c"], [connection.fileno()])
        except OSError:  # its end of the channel is full, or closed, which we shall read
            return False
        self.untaken.append(connection)
        self.connections += 1
        self.turn = turn
        return True

    def hear(self, received: bytes) -> None:
        """What it says: `solo_server.processes.worker_channel` has the list."""
        *lines, self.partial = (self.partial + received).split(b"\n")
        for line in lines:
            word, _, rest = line.decode().partition(" ")
            if word == "took":
                for _ in range(min(int(rest), len(self.untaken))):
                    self.untaken.popleft().close()
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

    def tell(self, number: int) -> None:
        """Send a signal, if it still is there."""
        try:
            self.process.send_signal(number)
        except ProcessLookupError:
            LOG.debug("worker %d has ended already", self.number)


def in_order_of_choice(workers: Iterable[Worker]) -> list[Worker]:
    """Who may take a connection: ready ones, or else whoever is there to say why not; fewest connections first, then by turns."""
    there = [worker for worker in workers if worker.can_take]
    ready = [worker for worker in there if worker.unready is None]
    return sorted(ready or there, key=lambda worker: (worker.connections, worker.turn))


def received_from(channel: socket.socket) -> bytes | None:
    """What is there to read; `None` at the end."""
    try:
        return channel.recv(65536) or None
    except BlockingIOError:
        return b""
    except ConnectionError:
        return None
