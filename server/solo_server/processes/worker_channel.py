"""A worker's end of `solo serve --workers N`: it receives connections from the supervisor and reports its state.

    supervisor ─► channel: a byte and a connection's descriptor, each ─► WorkerChannel ─► uvicorn's protocol, as if accepted here
               ◄─ channel: lines ◄──────────────────────────────────────┘

    unready REASON   no requests are taken: warming, draining, stalled, lost
    ready            requests are taken
    answers PATH     where images are posted
    took N           N connections were received; from here on they are this worker's
    closed N         N of them are closed
    leaving          no more connections are received
    refused TEXT     a setting or the model is wrong

The channel is a stream socket: every system that can pass descriptors has those. When it ends, the supervisor is gone.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from solo_server.observability.multiprocess import WorkerMetrics, count_as_worker, remove_folder
from solo_server.settings import Settings
from solo_server.system.cores import share_of_cores

LOG = logging.getLogger("solo_server")
MAX_RECEIVED = 64  # connections received in one call


class WorkerChannel:
    """The connection of this worker to its supervisor. number: of the worker, from 0; channel: the socket."""

    def __init__(self, number: int, channel: socket.socket) -> None:
        self.number, self._channel = number, channel
        self._last_state: str | None = None
        self._unsent = b""
        self._is_receiving = self._is_orphaned = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._metrics: WorkerMetrics | None = None
        channel.setblocking(False)

    @classmethod
    def from_descriptor(cls, number: int, descriptor: int) -> WorkerChannel:
        """The channel named on the worker's command line; all metrics made from now on are counted as this worker's."""
        count_as_worker(number)
        channel = cls(number, socket.socket(fileno=descriptor))
        channel._metrics = WorkerMetrics()
        return channel

    def own_settings(self, settings: Settings) -> Settings:
        """The settings of this worker: its share of the cores, unless `threads` is set, and a GPU of its own."""
        sharing = settings.workers * settings.replicas
        threads = settings.threads or share_of_cores(sharing)
        return replace(settings, threads=threads, gpu=settings.gpu + self.number)

    def reporting(self, protocol: type[asyncio.Protocol]) -> type[asyncio.Protocol]:
        """The protocol, extended: each connection reports to the supervisor when it is closed."""

        def connection_lost(connection: asyncio.Protocol, problem: Exception | None) -> None:
            protocol.connection_lost(connection, problem)
            self._send_line("closed 1")

        return type(protocol.__name__, (protocol,), {"connection_lost": connection_lost})

    def open(self, protocol: Callable[[], asyncio.Protocol], on_orphaned: Callable[[], None]) -> None:
        """Receive connections from now on. on_orphaned: called when the supervisor is gone."""
        self._protocol, self._on_orphaned = protocol, on_orphaned
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._channel, self._receive)
        self._is_receiving = True
        self.report("warming")

    def report(self, unready: str | None) -> None:
        """Report why no requests are taken, or `None` if they are; sent only when it changes."""
        state = "ready" if unready is None else f"unready {unready}"
        if state != self._last_state:
            self._last_state = state
            self._send_line(state)

    def report_path(self, path: str) -> None:
        """Report where images are posted: a path of ASCII characters without spaces."""
        self._send_line(f"answers {path}")

    def update_metrics(self) -> None:
        """Update the metrics that have to be polled."""
        if self._metrics is not None:
            self._metrics.update(ready=self._last_state == "ready")

    async def leave(self) -> None:
        """Receive no more; the supervisor gives the rest to other workers."""
        self._stop_receiving()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._send_line("leaving")

    def end(self) -> None:
        """The process is about to end: remove the metrics folder if there is no supervisor to do it."""
        if self._is_orphaned:
            remove_folder()

    def refuse(self, problem: Exception) -> None:
        """Report that a setting or the model is wrong; the supervisor prints it once for all workers."""
        self._channel.setblocking(True)
        text = " ".join(str(problem).splitlines())
        try:
            self._channel.sendall(self._unsent + f"refused {text}\n".encode())
        except OSError:
            LOG.error("%s", problem)  # there is no supervisor any more

    def _receive(self) -> None:
        """Receive waiting connections; confirmed before a byte is read, since unconfirmed ones of a dead worker go to others."""
        while self._is_receiving:
            try:
                received, descriptors, _, _ = socket.recv_fds(self._channel, MAX_RECEIVED, MAX_RECEIVED)
            except BlockingIOError:
                return
            except ConnectionError:
                received, descriptors = b"", []
            if not received:
                self._stop_receiving()
                LOG.error("the supervisor is gone; this worker shuts down too")
                self._is_orphaned = True
                self._on_orphaned()
                return
            self._send_line(f"took {len(received)}")
            if lost := len(received) - len(descriptors):
                LOG.error("%d connections could not be received: too many files are open (ulimit -n)", lost)
                self._send_line(f"closed {lost}")
            for descriptor in descriptors:
                task = self._loop.create_task(self._serve(socket.socket(fileno=descriptor)))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError as problem:  # the client has disconnected already
            LOG.info("a connection was closed before it could be served: %s", problem)
            connection.close()
            self._send_line("closed 1")

    def _stop_receiving(self) -> None:
        if self._is_receiving:
            self._is_receiving = False
            self._loop.remove_reader(self._channel)

    def _send_line(self, line: str) -> None:
        """Never waits: what does not fit into the socket's buffer is sent later."""
        self._unsent += line.encode() + b"\n"
        self._send()

    def _send(self, *_: Any) -> None:
        try:
            sent = self._channel.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError:  # the supervisor is gone, which `_receive` notices too
            sent = len(self._unsent)
        self._unsent = self._unsent[sent:]
        if self._unsent:
            self._loop.add_writer(self._channel, self._send)
        elif sent:
            self._loop.remove_writer(self._channel)
