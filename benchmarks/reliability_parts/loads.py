"""Runs one load against one server with the generator of `solo bench server`; measures the cost for both."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import process_time
from typing import Any, Literal

import uvloop
from solo_server.bench import machine
from solo_server.bench.contender_process import ContenderProcess, LaunchSpec
from solo_server.bench.load.connection import Target
from solo_server.bench.load.loops import Load, Shot
from solo_server.bench.load.points import Point
from solo_server.bench.load.server_process import SOLO_SERVE, Program, ServerProcess

TIMEOUT_S = 60.0
WARM_UPS = 2  # per image

Drive = Callable[[Load], Awaitable[None]]


@contextmanager
def served(*arguments: str, program: Program = SOLO_SERVE) -> Iterator[ServerProcess]:
    """A server that is ready."""
    with ServerProcess(arguments, program) as server:
        server.wait_ready()
        yield server


@contextmanager
def in_child(script: str, images: Mapping[str, bytes], in_flight: int, count: int) -> Iterator[ContenderProcess]:
    """A worker script that runs without HTTP, in its own process. count: images per task."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in images]
        for path, body in zip(paths, images.values(), strict=True):
            path.write_bytes(body)
        setup = {"images": [str(path) for path in paths], "in_flight": in_flight, "count": count}
        with ContenderProcess(LaunchSpec((sys.executable, script), setup, os.environ, Path(script).stem)) as child:
            yield child


def warm_up(target: Target, server: ServerProcess) -> None:
    """Send every image, one after the other; none may be rejected."""
    point = run_load("closed", 1, target, server, lambda load: load.in_sequence(WARM_UPS * len(target.requests)))
    if errors := point.figures()["errors"]:
        raise RuntimeError(f"the server rejects the images: {errors}")


def run_load(
    loop: Literal["closed", "open"],
    level: float,
    target: Target,
    server: ServerProcess,
    drive: Drive,
    on_shot: Callable[[Shot], None] = lambda _: None,
) -> Point:
    """Run a load; its shots, and the processor time of the server, of this generator and of other processes."""
    load = Load(target, TIMEOUT_S, on_shot)
    point = Point(loop, level, load.shots)

    async def driven() -> None:
        try:
            await drive(load)
        finally:
            load.close()

    busy, own, before = machine.busy_s(), process_time(), server.cpu_s()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(driven())
    after, now = server.cpu_s(), machine.busy_s()
    point.client_cpu_s = round(process_time() - own, 4)
    if before is not None and after is not None:
        point.cpu_s = round(after - before, 3)
        if busy is not None and now is not None:
            point.foreign_cpu_s = round(now - busy - point.cpu_s - point.client_cpu_s, 3)
    point.rss_mib = server.rss_mib("VmRSS")
    return point


def load_figures(point: Point) -> dict[str, Any]:
    """A load's figures without its shots."""
    return {k: v for k, v in point.to_dict().items() if k != "shots"}
