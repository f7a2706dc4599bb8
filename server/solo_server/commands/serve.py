"""`solo serve`: reads the settings, then starts the server, which answers "not ready" while it loads the model.

    settings, keys, address ─► listening ─► model loaded, in a thread ─► warm: ready ─► SIGTERM: draining ─► exit status 0

A wrong setting or model is reported in one line, with exit status 2.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn
from urllib.parse import quote

import uvicorn
from solo_models.bundle import BundleError

from solo_server.backends.cpu.kernels.compile import remove_private_cache
from solo_server.commands.open_pipeline import open_repository
from solo_server.commands.serve_arguments import RAY_OPTIONS, add_arguments
from solo_server.commands.serve_on_ray import run_on_ray
from solo_server.errors import DeviceFailure, DeviceLost, EngineHung, SettingsError
from solo_server.exit_codes import ENGINE_HUNG, FAILED, GPU_LOST, MEANINGS, REFUSED
from solo_server.http.api_keys import KeyRing
from solo_server.http.app import create_app
from solo_server.http.connections import uvicorn_options
from solo_server.observability import logs
from solo_server.observability.traces import Traces, open_traces
from solo_server.processes.supervisor_main import become_supervisor
from solo_server.processes.worker_channel import WorkerChannel
from solo_server.service.service import Service
from solo_server.settings import Settings
from solo_server.system.listener import announce, listen
from solo_server.system.memory import share_one_heap

__all__ = ["add_arguments", "run"]

LOG = logging.getLogger("solo_server")
WRITING_SECONDS = 1  # after `drain_seconds`: for sending the last responses


def run(arguments: argparse.Namespace) -> int:
    """Serve until stopped. The exit status: 0, or one of `solo_server.exit_codes`."""
    share_one_heap()
    options = dict(vars(arguments))
    argv, worker = options.pop("argv", []), options.pop("worker_channel", None)
    channel = WorkerChannel.from_descriptor(*worker) if worker else None
    on_ray = {name: options.pop(name, None) for name in RAY_OPTIONS}
    try:
        if on_ray["ray"]:
            return run_on_ray(options, on_ray)
        settings = Settings.read(**options)
        if channel is not None:
            settings = channel.own_settings(settings)
        logs.configure(settings.log_format, settings.log_level, worker=None if channel is None else channel.number)
        keys = KeyRing.read(settings)
        if channel is not None:
            return _serve(settings, keys, channel)
        listener = listen(settings.host, settings.port)
        if settings.workers > 1:
            become_supervisor(settings, listener, argv)
        return _serve(settings, keys, listener)
    except SettingsError as problem:
        return _refuse(problem, channel)


def _serve(settings: Settings, keys: KeyRing, source: socket.socket | WorkerChannel) -> int:
    """Run the server. source: where connections come from, the listener or the supervisor's channel."""
    channel = source if isinstance(source, WorkerChannel) else None

    def on_ready() -> None:
        gc.collect()
        gc.freeze()  # the collector need not scan these objects again, which would block the event loop
        path = _segment_path(server.service)
        if isinstance(source, WorkerChannel):
            source.report_path(path)
        else:
            announce(source, path)
        if channel is None or channel.number == 0:
            keys.log_access(settings.host)

    server = _Server(settings, keys, on_ready, open_traces(settings.traces), channel)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, server.handle_exit)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, server.handle_hangup)
    server.run(sockets=[] if isinstance(source, WorkerChannel) else [source])
    status = _status(server.problem, channel) if server.started else FAILED
    if channel is not None:
        channel.end()
    if not server.service.is_idle or isinstance(server.problem, DeviceLost):
        _exit_now(status)
    return status


class _Server(uvicorn.Server):
    """uvicorn's server. It drains the service on SIGTERM, and shuts down when the service cannot go on.

    channel: of one of several workers; connections come from it, and it reports whether requests are taken.
    """

    def __init__(
        self,
        settings: Settings,
        keys: KeyRing,
        on_ready: Callable[[], None],
        traces: Traces | None = None,
        channel: WorkerChannel | None = None,
    ) -> None:
        self.problem: Exception | None = None
        self._channel, self._keys, self._has_hangup = channel, keys, False
        app = create_app(open_repository(settings), settings, self._end, keys, traces, on_ready)
        self.service: Service = app.state.service
        self._loop: asyncio.AbstractEventLoop | None = None
        options = uvicorn_options(settings, self.service.observer)
        if channel is not None:
            options["http"] = channel.reporting(options["http"])
        config = uvicorn.Config(
            app,
            log_config=None,  # uvicorn's lines go to the handlers of `logs.configure`
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=settings.drain_seconds + WRITING_SECONDS,
            **options,
        )
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start; from now on `handle_exit` has an event loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._reload)  # for a SIGHUP that has arrived before
        await super().startup(sockets)
        if self._channel is not None:
            self._channel.open(self._new_connection, lambda: self.handle_exit(signal.SIGTERM, None))

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second by uvicorn."""
        if self._channel is not None:
            self._channel.report(self.service.unready)
            if counter % 10 == 0:
                self._channel.update_metrics()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more connections; open ones have until the end of the drain time."""
        if self._channel is not None:
            await self._channel.leave()
        await super().shutdown(sockets)

    def _new_connection(self) -> asyncio.Protocol:
        protocol: Any = self.config.http_protocol_class  # uvicorn's type is a union of classes with different arguments
        connection: asyncio.Protocol = protocol(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return connection

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM or SIGINT: shut down. Unlike uvicorn's method it does not raise the signal again: the exit status is 0."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._drain)

    def handle_hangup(self, sig: int, frame: FrameType | None) -> None:
        """SIGHUP: the event loop reloads keys and models.

        Not the handler itself: the interrupted code may hold a lock, for example the log's, which it would never release.
        """
        self._has_hangup = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._reload)

    def _reload(self) -> None:
        if self._has_hangup:
            self._has_hangup = False
            self._keys.reload()
            self.service.reload()

    def _drain(self) -> None:
        if self.service.unready != "draining":
            LOG.info(
                "shutting down: accepted requests have %d s, new ones are refused", self.service.settings.drain_seconds
            )
        self.service.drain()

    def _end(self, problem: Exception) -> None:
        """Shut down because of a failure that only a new process can recover from, or a wrong setting or model."""
        self.problem = problem
        if isinstance(problem, DeviceLost | EngineHung):
            status = _status(problem)
            meaning = MEANINGS[status]
            LOG.critical("%s; this process exits with status %d, to be restarted by its supervisor", meaning, status)
        elif not isinstance(problem, _REFUSALS):
            LOG.critical("the model cannot be loaded", exc_info=problem)
        self.should_exit = True
        self.service.drain()


_REFUSALS = (SettingsError, BundleError, DeviceFailure)


def _status(problem: Exception | None, channel: WorkerChannel | None = None) -> int:
    if problem is None:
        return 0
    if isinstance(problem, DeviceLost):
        return GPU_LOST
    if isinstance(problem, EngineHung):
        return ENGINE_HUNG
    return _refuse(problem, channel) if isinstance(problem, _REFUSALS) else FAILED


def _refuse(problem: Exception, channel: WorkerChannel | None = None) -> int:
    """Report the problem in one line; with several workers the supervisor prints it."""
    if channel is None:
        print(f"solo serve: {problem}", file=sys.stderr)
    else:
        channel.refuse(problem)
    return REFUSED


def _exit_now(status: int) -> NoReturn:
    """Exit now: Python would wait for a thread that loads, compiles or hangs.

    No destructors run: on a lost GPU those of TensorRT and ONNX Runtime may abort the process and change the exit status.
    """
    remove_private_cache()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _segment_path(service: Service) -> str:
    """The path that takes images: of the default model, or else of the first model served."""
    names = sorted(model.name for model in service.models.in_service())
    return "/segment" if service.models.default or not names else f"/models/{quote(names[0], safe='')}/segment"
