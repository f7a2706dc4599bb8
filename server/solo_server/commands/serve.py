"""`solo serve`: settings, then the server, which loads the model while it answers already that it is not ready.

    settings, keys, address ─► listening ─► model loaded, in a thread ─► warm: ready ─► SIGTERM: draining ─► exit status 0

Whatever is wrong with settings or model is said in one line, exit status 2.
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
from solo_models.demo import demo_bundle

from solo_server.backends.cpu.kernels.compile import remove_private_cache
from solo_server.commands.open_pipeline import open_pipeline
from solo_server.commands.serve_arguments import add_arguments
from solo_server.errors import DeviceFailure, DeviceLost, EngineHung, SettingsError
from solo_server.exit_codes import ENGINE_HUNG, FAILED, GPU_LOST, MEANINGS, REFUSED
from solo_server.http.api_keys import KeyRing
from solo_server.http.app import create_app
from solo_server.http.connections import uvicorn_options
from solo_server.observability import logs
from solo_server.observability.traces import Traces, open_traces
from solo_server.processes.supervisor_main import become_supervisor
from solo_server.processes.worker_channel import WorkerChannel
from solo_server.service.model_repository import ModelRepository, model_repository
from solo_server.service.service import Service
from solo_server.settings import Settings
from solo_server.system.listener import announce, listen
from solo_server.system.memory import share_one_heap

__all__ = ["add_arguments", "run"]

LOG = logging.getLogger("solo_server")
WRITING_SECONDS = 1  # beyond `drain_seconds`: for the answers that it cuts short to reach their callers


def run(arguments: argparse.Namespace) -> int:
    """Serve until stopped.

    The exit status: 0, or one of `solo_server.exit_codes`.
    """
    share_one_heap()
    given = dict(vars(arguments))
    argv, place = given.pop("argv", []), given.pop("worker_channel", None)
    channel = WorkerChannel.of(*place) if place else None
    try:
        settings = Settings.read(**given)
        if channel is not None:
            settings = channel.share(settings)
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
    """source: of connections: the listener, or the supervisor."""
    channel = source if isinstance(source, WorkerChannel) else None

    def on_ready() -> None:
        gc.collect()
        gc.freeze()  # what is there now stays: the collector would go through all of it, with the event loop waiting
        path = _segment_path(server.service)
        if isinstance(source, WorkerChannel):
            source.tell_path(path)
        else:
            announce(source, path)
        if channel is None or channel.number == 0:
            keys.log_access(settings.host)

    server = _Server(settings, keys, on_ready, open_traces(settings.traces), channel)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, server.handle_exit)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, server.hang_up)
    server.run(sockets=[] if isinstance(source, WorkerChannel) else [source])
    status = _status(server.problem, channel) if server.started else FAILED
    if channel is not None:
        channel.end()
    if not server.service.is_idle or isinstance(server.problem, DeviceLost):
        _leave(status)
    return status


class _Server(uvicorn.Server):
    """uvicorn, which tells the service at once when it is to go down, and goes down where the service cannot go on.

    channel: where there are several workers: connections come from it, and it is told whether requests are taken.
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
        self._channel, self._keys, self._is_hung_up = channel, keys, False
        app = create_app(_repository(settings), settings, self._end, keys, traces, on_ready)
        self.service: Service = app.state.service
        self._loop: asyncio.AbstractEventLoop | None = None
        options = uvicorn_options(settings, self.service.observer)
        if channel is not None:
            options["http"] = channel.reporting(options["http"])
        config = uvicorn.Config(
            app,
            log_config=None,  # its lines go where ours go
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=settings.drain_seconds + WRITING_SECONDS,
            **options,
        )
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """From here on there is an event loop for `handle_exit`."""
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._reload)  # for a signal that came before
        await super().startup(sockets)
        if self._channel is not None:
            self._channel.open(self._new_connection, lambda: self.handle_exit(signal.SIGTERM, None))

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        if self._channel is not None:
            self._channel.report(self.service.unready)
            if counter % 10 == 0:
                self._channel.update_figures()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """No more connections; those that are there have what time is left."""
        if self._channel is not None:
            await self._channel.leave()
        await super().shutdown(sockets)

    def _new_connection(self) -> asyncio.Protocol:
        protocol: Any = self.config.http_protocol_class  # uvicorn names all that it may be, with different arguments
        connection: asyncio.Protocol = protocol(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return connection

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM or SIGINT; not handed on to whoever listened before, nobody: the exit status is 0."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._drain)

    def hang_up(self, sig: int, frame: FrameType | None) -> None:
        """SIGHUP: keys and models are looked at again, by the event loop.

        Not here: the code that was interrupted may hold a lock, the log's for one, and would never give it back.
        """
        self._is_hung_up = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._reload)

    def _reload(self) -> None:
        if self._is_hung_up:
            self._is_hung_up = False
            self._keys.reload()
            self.service.reload()

    def _drain(self) -> None:
        if self.service.unready != "draining":
            LOG.info(
                "going down: no more requests are taken, those accepted have %d s", self.service.settings.drain_seconds
            )
        self.service.drain()

    def _end(self, problem: Exception) -> None:
        """Only a new process can mend this one."""
        self.problem = problem
        if isinstance(problem, DeviceLost | EngineHung):
            status = _status(problem)
            meaning = MEANINGS[status]
            LOG.critical("%s; this process ends with status %d, for a supervisor to start another", meaning, status)
        elif not isinstance(problem, _EXPECTED):
            LOG.critical("the model cannot be loaded", exc_info=problem)
        self.should_exit = True
        self.service.drain()


_EXPECTED = (SettingsError, BundleError, DeviceFailure)


def _status(problem: Exception | None, channel: WorkerChannel | None = None) -> int:
    if problem is None:
        return 0
    if isinstance(problem, DeviceLost):
        return GPU_LOST
    if isinstance(problem, EngineHung):
        return ENGINE_HUNG
    return _refuse(problem, channel) if isinstance(problem, _EXPECTED) else FAILED


def _refuse(problem: Exception, channel: WorkerChannel | None = None) -> int:
    """In one line, which of several workers the supervisor tells."""
    if channel is None:
        print(f"solo serve: {problem}", file=sys.stderr)
    else:
        channel.refuse(problem)
    return REFUSED


def _leave(status: int) -> NoReturn:
    """End now: a thread that loads, compiles or hangs cannot be ended, and Python would wait for it.

    No destructors run: on a lost GPU those of TensorRT and ONNX Runtime may abort the process, which is another exit status.
    """
    remove_private_cache()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _repository(settings: Settings) -> ModelRepository:
    """What the settings name; where they name nothing, the demo model."""
    bundle = settings.bundle or (None if settings.models else demo_bundle())
    return model_repository(bundle, settings.models, lambda path: open_pipeline(path, settings))


def _segment_path(service: Service) -> str:
    """Where an image can be posted: without a default model, to the first that is served."""
    names = sorted(model.name for model in service.models.in_service())
    return "/segment" if service.models.default or not names else f"/models/{quote(names[0], safe='')}/segment"
