"""A worker's end of `solo serve --workers N`: connections come from the supervisor, and word of them goes back.

    supervisor ─► channel: a byte and a connection's descriptor, each ─► WorkerChannel ─► uvicorn's protocol, as if accepted here
               ◄─ channel: lines ◄──────────────────────────────────────┘

    unready REASON   requests are not taken: warming, draining, stalled, lost
    ready            they are
    took N           so many connections were received; from here on they are this worker's
    closed N         so many of them are closed
    leaving          no more are received
    refused TEXT     a setting or the model is wrong

The channel is a stream socket, which every system with descriptors to hand over has. Its end says that the supervisor is gone.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from solo_server.observability.multiprocess import ProcessFigures, count_as, remove_folder
from solo_server.settings import Settings
from solo_server.system.cores import share_of_cores

LOG = logging.getLogger("solo_server")
AT_ONCE = 64  # connections received in one call


class WorkerChannel:
    """This process's place among the workers. number: from 0; channel: to the supervisor."""

    def __init__(self, number: int, channel: socket.socket) -> None:
        self.number, self._channel = number, channel
        self._said: str | None = None
        self._unsent = b""
        self._is_receiving = self._is_orphaned = False
        self._adopting: set[asyncio.Task[None]] = set()
        self._figures: ProcessFigures | None = None
        channel.setblocking(False)

    @classmethod
    def of(cls, number: int, descriptor: int) -> WorkerChannel:
        """The channel that the supervisor's command line names; all metrics made from now on are this worker's."""
        count_as(number)
        channel = cls(number, socket.socket(fileno=descriptor))
        channel._figures = ProcessFigures()
        return channel

    def share(self, settings: Settings) -> Settings:
        """What this worker may take of the machine: its part of the cores where they are not given, a GPU of its own."""
        sharing = settings.workers * settings.replicas
        threads = settings.threads or share_of_cores(sharing)
        return replace(settings, threads=threads, gpu=settings.gpu + self.number)

    def reporting(self, protocol: type[asyncio.Protocol]) -> type[asyncio.Protocol]:
        """The protocol, each of whose connections tells the supervisor when it is closed."""

        def connection_lost(connection: asyncio.Protocol, problem: Exception | None) -> None:
            protocol.connection_lost(connection, problem)
            self._say("closed 1")

        return type(protocol.__name__, (protocol,), {"connection_lost": connection_lost})

    def open(self, protocol: Callable[[], asyncio.Protocol], on_orphaned: Callable[[], None]) -> None:
        """Receive connections from now on. on_orphaned: there is no supervisor any more."""
        self._protocol, self._on_orphaned = protocol, on_orphaned
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._channel, self._receive)
        self._is_receiving = True
        self.report("warming")

    def report(self, unready: str | None) -> None:
        """Why requests are not taken, or that they are; said when it changes."""
        said = "ready" if unready is None else f"unready {unready}"
        if said != self._said:
            self._said = said
            self._say(said)

    def tell_path(self, path: str) -> None:
        """Where an image can be posted: a path of ASCII characters without spaces."""
        self._say(f"answers {path}")

    def update_figures(self) -> None:
        """The metrics that have to be looked up."""
        if self._figures is not None:
            self._figures.update(ready=self._said == "ready")

    async def leave(self) -> None:
        """Receive no more; the supervisor gives what was not received to others."""
        self._stop_receiving()
        if self._adopting:
            await asyncio.wait(self._adopting)
        self._say("leaving")

    def end(self) -> None:
        """The process is about to end; what the supervisor would tidy up."""
        if self._is_orphaned:
            remove_folder()

    def refuse(self, problem: Exception) -> None:
        """A setting or the model is wrong; the supervisor is to tell it, once for all workers."""
        self._channel.setblocking(True)
        text = " ".join(str(problem).splitlines())
        try:
            self._channel.sendall(self._unsent + f"refused {text}\n".encode())
        except OSError:
            LOG.error("%s", problem)  # no supervisor to tell it

    def _receive(self) -> None:
        """All that has come. Said to be taken before a byte of them is read: what a dead worker had not taken goes to others."""
        while self._is_receiving:
            try:
                sent, descriptors, _, _ = socket.recv_fds(self._channel, AT_ONCE, AT_ONCE)
            except BlockingIOError:
                return
            except ConnectionError:
                sent, descriptors = b"", []
            if not sent:
                self._stop_receiving()
                LOG.error("the supervisor is gone, so this worker goes down too")
                self._is_orphaned = True
                self._on_orphaned()
                return
            self._say(f"took {len(sent)}")
            if lost := len(sent) - len(descriptors):
                LOG.error("%d connections could not be received: too many files are open (ulimit -n)", lost)
                self._say(f"closed {lost}")
            for descriptor in descriptors:
                adoption = self._loop.create_task(self._adopt(socket.socket(fileno=descriptor)))
                self._adopting.add(adoption)
                adoption.add_done_callback(self._adopting.discard)

    async def _adopt(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError as problem:  # the caller has gone already
            LOG.info("a connection ended before it began: %s", problem)
            connection.close()
            self._say("closed 1")

    def _stop_receiving(self) -> None:
        if self._is_receiving:
            self._is_receiving = False
            self._loop.remove_reader(self._channel)

    def _say(self, line: str) -> None:
        """Never waits: what the supervisor has no room for follows when it has."""
        self._unsent += line.encode() + b"\n"
        self._send()

    def _send(self, *_: Any) -> None:
        try:
            sent = self._channel.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError:  # nobody listens any more, which `_receive` learns too
            sent = len(self._unsent)
        self._unsent = self._unsent[sent:]
        if self._unsent:
            self._loop.add_writer(self._channel, self._send)
        elif sent:
            self._loop.remove_writer(self._channel)
