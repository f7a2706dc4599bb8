"""`solo serve`: settings, then the server, which loads the model while it answers already that it is not ready.

    settings, keys, address ─► listening ─► model loaded, in a thread ─► warm: ready ─► SIGTERM: draining ─► exit status 0

Whatever is wrong with settings or model is said in one line, exit status 2.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

import uvicorn
from solo_models.bundle import BundleError
from solo_models.demo import demo_bundle

from solo_server import logs
from solo_server.app import create_app
from solo_server.catalogue import Catalogue, catalogue
from solo_server.connections import uvicorn_options
from solo_server.engine.base import ENGINES, GPU_ENGINES, PRECISIONS
from solo_server.errors import DeviceFailure, DeviceLost, EngineHung, SettingsError
from solo_server.keys import KeyRing
from solo_server.pipeline import Pipeline
from solo_server.service import Service
from solo_server.settings import Settings
from solo_server.traces import Traces, open_traces

LOG = logging.getLogger("solo_server")
GPU_LOST = 75  # EX_TEMPFAIL of sysexits.h: try again
ENGINE_HUNG = 70  # EX_SOFTWARE
WRITING_SECONDS = 1  # beyond `drain_seconds`: for the answers that it cuts short to reach their callers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `solo serve`; each also has an environment variable `SOLO_...`."""
    parser.add_argument(
        "bundle", type=Path, nargs="?", help="bundle folder or zip (SOLO_BUNDLE; default: the demo model)"
    )
    parser.add_argument(
        "--models", type=Path, metavar="DIR", help="folder of bundles, each served at /models/NAME (SOLO_MODELS)"
    )
    parser.add_argument(
        "--default-model",
        metavar="NAME",
        help="the model at /segment (SOLO_DEFAULT_MODEL; default: the only one)",
    )
    parser.add_argument(
        "--model-control",
        action=argparse.BooleanOptionalAction,
        help="models may be loaded and unloaded over HTTP (SOLO_MODEL_CONTROL; default off: SIGHUP reloads them)",
    )
    parser.add_argument("--host", help="address to listen on (SOLO_HOST; default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (SOLO_PORT; default 8000)")
    parser.add_argument("--threads", type=int, help="cores for one inference (SOLO_THREADS; default: all)")
    parser.add_argument(
        "--replicas", type=int, help="of each model, with a share of the cores each (SOLO_REPLICAS; default 1)"
    )
    parser.add_argument(
        "--engine", help=f"{', '.join(ENGINES)} (SOLO_ENGINE; default auto: docs/engines.md tells the rule)"
    )
    parser.add_argument(
        "--precision", help=f"of the arithmetic: {', '.join(PRECISIONS)} (SOLO_PRECISION; default: the bundle's own)"
    )
    parser.add_argument(
        "--draft-decode",
        action=argparse.BooleanOptionalAction,
        help="decode large JPEGs at a fraction of their size: faster, not exact (SOLO_DRAFT_DECODE; default off)",
    )
    parser.add_argument(
        "--api-keys-file", type=Path, help="ask callers for one of these keys (SOLO_API_KEYS_FILE; default: none asked)"
    )
    gpu = parser.add_argument_group("engines tensorrt and cuda, which have never run on a GPU (docs/gpu.md)")
    gpu.add_argument("--gpu", type=int, help="number of the GPU (SOLO_GPU; default 0)")
    gpu.add_argument("--slots", type=int, help="batches on the GPU at a time (SOLO_SLOTS; tensorrt 2, cuda 1)")
    gpu.add_argument(
        "--shapes",
        metavar="HxW,...",
        help="padded sizes with kernels of their own, such as 800x1088,1088x800 (SOLO_SHAPES; default none)",
    )
    gpu.add_argument(
        "--build-engines",
        action=argparse.BooleanOptionalAction,
        help="build engines that are not in the cache (SOLO_BUILD_ENGINES; default on)",
    )
    gpu.add_argument("--cache", type=Path, help="folder of engines and kernels (SOLO_CACHE; default ~/.cache/solo)")
    gpu.add_argument("--workspace-mib", type=int, help="the builder's memory (SOLO_WORKSPACE_MIB; default all)")
    parser.add_argument("--max-body-bytes", type=int, help="largest request body (SOLO_MAX_BODY_BYTES; default 20 MiB)")
    parser.add_argument("--max-waiting", type=int, help="pictures waiting before 503 (SOLO_MAX_WAITING; default 64)")
    parser.add_argument(
        "--max-waiting-pixels", type=int, help="their pixels before 503 (SOLO_MAX_WAITING_PIXELS; default 256 million)"
    )
    parser.add_argument(
        "--max-batch", type=int, help="pictures in one batch (SOLO_MAX_BATCH; default 1 on a CPU, 8 on a GPU)"
    )
    parser.add_argument(
        "--max-delay-ms",
        type=int,
        help="how long an idle engine waits for a batch to fill (SOLO_MAX_DELAY_MS; default 0)",
    )
    parser.add_argument(
        "--request-timeout-ms",
        type=int,
        help="504 after so long, where a request has no X-Request-Timeout-Ms (SOLO_REQUEST_TIMEOUT_MS; default 60000)",
    )
    parser.add_argument(
        "--engine-timeout-s",
        type=int,
        help="without an answer from the engine for so long, exit status 70 (SOLO_ENGINE_TIMEOUT_S; default 120)",
    )
    parser.add_argument(
        "--drain-seconds",
        type=int,
        help="how long SIGTERM waits for what was accepted (SOLO_DRAIN_SECONDS; default 20)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until stopped.

    Exit status 0; 2 when settings or model are wrong; 75 when the GPU is lost and 70 when the engine hangs, which only a new
    process can mend; 1 for what should not happen.
    """
    try:
        settings = Settings.read(**vars(arguments))
        logs.configure(settings.log_format, settings.log_level)
        keys, traces = KeyRing.read(settings), open_traces(settings.traces)
        listener = _listen(settings)
    except SettingsError as problem:
        return _refuse(problem)
    host, port = listener.getsockname()[:2]

    LOG.info(
        "http://%s:%d  try: curl --data-binary @photo.jpg http://%s:%d/segment", host, port, host, port
    )
    keys.log_access(settings.host)
    server = _Server(settings, keys, traces)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, server.handle_exit)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda *_: server.reload(keys))
    server.run(sockets=[listener])
    status = _status(server.problem) if server.started else 1
    if not server.service.is_idle or isinstance(server.problem, DeviceLost):
        _leave(status)
    return status


class _Server(uvicorn.Server):
    """uvicorn, which tells the service at once when it is to go down, and goes down where the service cannot go on."""

    def __init__(self, settings: Settings, keys: KeyRing, traces: Traces | None = None) -> None:
        self.problem: Exception | None = None
        app = create_app(_catalogue(settings), settings, self._end, keys, traces)
        self.service: Service = app.state.service
        self._loop: asyncio.AbstractEventLoop | None = None
        config = uvicorn.Config(
            app,
            log_config=None,  # its lines go where ours go
            log_level="warning",
            access_log=False,
            timeout_graceful_shutdown=settings.drain_seconds + WRITING_SECONDS,
            **uvicorn_options(settings, self.service.observer),
        )
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """From here on there is an event loop for `handle_exit`."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM or SIGINT; not handed on to whoever listened before, nobody: the exit status is 0."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._drain)

    def reload(self, keys: KeyRing) -> None:
        """SIGHUP: keys and models are looked at again."""
        keys.reload()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.service.reload)

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
            told = "the GPU is lost" if isinstance(problem, DeviceLost) else "the engine hangs"
            status = _status(problem)
            LOG.critical("%s; this process ends with status %d, for a supervisor to start another", told, status)
        elif not isinstance(problem, _EXPECTED):
            LOG.critical("the model cannot be loaded", exc_info=problem)
        self.should_exit = True
        self.service.drain()


_EXPECTED = (SettingsError, BundleError, DeviceFailure)


def _status(problem: Exception | None) -> int:
    if problem is None:
        return 0
    if isinstance(problem, DeviceLost):
        return GPU_LOST
    if isinstance(problem, EngineHung):
        return ENGINE_HUNG
    return _refuse(problem) if isinstance(problem, _EXPECTED) else 1


def _refuse(problem: Exception) -> int:
    print(f"solo serve: {problem}", file=sys.stderr)
    return 2


def _leave(status: int) -> NoReturn:
    """End now: a thread that loads, compiles or hangs cannot be ended, and Python would wait for it.

    No destructors run: on a lost GPU those of TensorRT and ONNX Runtime may abort the process, which is another exit status.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _catalogue(settings: Settings) -> Catalogue:
    """What the settings name; where they name nothing, the demo model."""
    bundle = settings.bundle or (None if settings.models else demo_bundle())
    return catalogue(bundle, settings.models, lambda path: _open(path, settings))


def _open(bundle_path: Path, settings: Settings) -> Pipeline:
    pipeline = Pipeline.open(
        bundle_path,
        threads=settings.threads,
        replicas=settings.replicas,
        limits=settings.image_limits,
        engine=settings.engine,
        precision=settings.precision,
        cuda=settings.cuda_options if settings.engine in GPU_ENGINES else None,
    )
    bundle = pipeline.bundle
    LOG.info("%s %s, %s, %d classes", bundle.name, bundle.version, bundle.precision, bundle.spec.num_classes)
    LOG.info("engine: %s (%s)", pipeline.backend.description, pipeline.engine_reason)
    return pipeline


_ADVICE = {
    errno.EADDRINUSE: "another process does; stop it, or choose another port (--port, SOLO_PORT)",
    errno.EACCES: "this user may not; choose a port above 1023 (--port, SOLO_PORT)",
    errno.EADDRNOTAVAIL: "this machine has no such address (--host, SOLO_HOST)",
    socket.EAI_NONAME: "that is no address, and no known name of one (--host, SOLO_HOST)",
}


def _advice(problem: OSError) -> str:
    return _ADVICE.get(problem.errno or 0) or str(problem.strerror).partition(" (while")[0]


def _listen(settings: Settings) -> socket.socket:
    """Bind first: a port in use is known before the model is loaded."""
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=1024)
    except OSError as problem:
        raise SettingsError(f"cannot listen on {settings.host}:{settings.port}: {_advice(problem)}") from problem
    listener.set_inheritable(True)
    return listener
