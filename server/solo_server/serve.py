"""`solo serve`: settings, model, then the server; whatever is wrong is said in one line before it listens."""

from __future__ import annotations

import argparse
import logging
import signal
import socket
import sys
from pathlib import Path

import uvicorn
from solo_models.bundle import BundleError
from solo_models.demo import demo_bundle

from solo_server.app import create_app
from solo_server.engine.base import ENGINES, GPU_ENGINES, PRECISIONS
from solo_server.errors import DeviceFailure, DeviceLost, SettingsError
from solo_server.pipeline import Pipeline
from solo_server.settings import Settings

LOG = logging.getLogger("solo_server")
GPU_LOST = 75  # EX_TEMPFAIL of sysexits.h: try again


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `solo serve`; each also has an environment variable `SOLO_...`."""
    parser.add_argument(
        "bundle", type=Path, nargs="?", help="bundle folder or zip (SOLO_BUNDLE; default: the demo model)"
    )
    parser.add_argument("--host", help="address to listen on (SOLO_HOST; default 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (SOLO_PORT; default 8000)")
    parser.add_argument("--threads", type=int, help="cores for one inference (SOLO_THREADS; default: all)")
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
    gpu = parser.add_argument_group("engines tensorrt and cuda, which have never run on a GPU (docs/gpu.md)")
    gpu.add_argument("--gpu", type=int, help="number of the GPU (SOLO_GPU; default 0)")
    gpu.add_argument("--max-batch", type=int, help="pictures in one batch (SOLO_MAX_BATCH; default 8)")
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


def run(arguments: argparse.Namespace) -> int:
    """Serve until stopped; exit status 0, 2 when the start failed, 75 when the GPU is lost and only a new process can go on."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = Settings.read(**vars(arguments))
        listener = _listen(settings)
        path = settings.bundle or demo_bundle()
        pipeline = Pipeline.open(
            path,
            threads=settings.threads,
            limits=settings.image_limits,
            engine=settings.engine,
            precision=settings.precision,
            cuda=settings.cuda_options if settings.engine in GPU_ENGINES else None,
        )
    except (SettingsError, BundleError, DeviceFailure, OSError) as problem:
        print(f"solo serve: {problem}", file=sys.stderr)
        return 2
    bundle = pipeline.bundle
    host, port = listener.getsockname()[:2]
    LOG.info("%s %s, %s, %d classes", bundle.name, bundle.version, bundle.precision, bundle.spec.num_classes)
    LOG.info("engine: %s (%s)", pipeline.backend.description, pipeline.engine_reason)
    LOG.info("http://%s:%d  try: curl --data-binary @photo.jpg http://%s:%d/segment", host, port, host, port)
    lost: list[DeviceLost] = []

    def end(problem: DeviceLost) -> None:
        LOG.critical("the GPU is lost; this process ends with status %d, for a supervisor to start another", GPU_LOST)
        lost.append(problem)
        server.should_exit = True

    config = uvicorn.Config(
        create_app(pipeline, settings, end),
        log_level="info",
        access_log=False,
        timeout_graceful_shutdown=settings.drain_seconds,
        server_header=False,
    )
    server = uvicorn.Server(config)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _already_drained)
    server.run(sockets=[listener])
    if lost:
        return GPU_LOST
    return 0 if server.started else 1


def _already_drained(number: int, frame: object) -> None:
    """uvicorn drains first, then raises the signal again for whoever listened before: nobody, the exit status is 0."""


def _listen(settings: Settings) -> socket.socket:
    """Bind first: a port in use is known before the model is loaded."""
    try:
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.create_server((settings.host, settings.port), family=family, backlog=1024)
    except OSError as problem:
        raise SettingsError(f"cannot listen on {settings.host}:{settings.port}: {problem.strerror}") from problem
    listener.set_inheritable(True)
    return listener
