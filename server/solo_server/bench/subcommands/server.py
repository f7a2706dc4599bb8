"""`solo bench server`: HTTP requests in closed loops (callers that wait) and open loops (fixed rates)."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from solo_server.bench import arguments as shared
from solo_server.bench.contenders import find_images, package_folder
from solo_server.bench.errors import BenchError
from solo_server.bench.finish import Outcome, finish
from solo_server.bench.load.connection import Target, post
from solo_server.bench.load.points import LoadPlan, Point, ServerMeasurement, measure_server
from solo_server.bench.load.server_process import Address, ServerProcess
from solo_server.bench.open_model import Model, serve_arguments
from solo_server.bench.result import document
from solo_server.bench.table import aligned, noise
from solo_server.engine_names import ENGINES

SUMMARY = "measure a server under load: latency, throughput, errors, memory"
DEADLINE_HEADER = "X-Request-Timeout-Ms"  # as in `solo_server.http.wire`, whose import loads pydantic
CONCURRENCY, RATES = (1, 2, 4, 8), (5.0, 10.0, 20.0)
HEADINGS = (
    *("load", "requests/s", "p50", "p90", "p99", "p99.9", "max ms", "requests", "errors", "refused p99", "late p99"),
    *("server CPU s", "MiB", "client CPU s"),
)
NO_RATES: tuple[float, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `solo bench server`."""
    parser.add_argument(
        "images",
        type=Path,
        nargs="*",
        metavar="IMAGE",
        help="image files, or folders of images, sent in turn (default: two from the package)",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--url", help="a running server (default: start one, and stop it afterwards)")
    which.add_argument(
        "--model",
        default="",
        metavar="BUNDLE[@ENGINE[:PRECISION]]",
        help=f"model to serve (default: the demo model); ENGINE: {', '.join(ENGINES)}",
    )
    parser.add_argument("--threads", type=shared.threads, default=0, help="cores per inference (default: all)")
    parser.add_argument(
        "--concurrency",
        type=shared.positive_list,
        metavar="1,2,4,8",
        help="closed loops: numbers of callers, each waits for its response",
    )
    parser.add_argument("--rate", type=shared.rates, metavar="5,10,20", help="open loops: requests per second")
    parser.add_argument("--seconds", type=shared.seconds, default=10.0, help="length of each loop (default 10)")
    parser.add_argument(
        "--timeout", type=shared.seconds, default=30.0, help="seconds to wait for a response (default 30)"
    )
    parser.add_argument(
        "--poisson", type=int, metavar="SEED", help="open loops: random arrival times, as of independent callers"
    )
    parser.add_argument(
        "--deadline-ms", type=shared.positive, metavar="MS", help=f"sent with every request as {DEADLINE_HEADER}"
    )
    shared.add_outputs(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, write; exit status."""
    images = find_images(arguments.images or _own_images())
    plan = _plan(arguments)
    with ExitStack() as running:
        server = None if arguments.url else _started(arguments, running)
        address = server.address if server else Address.parse(arguments.url)
        model = _described(address)
        bodies = [image.read_bytes() for image in images]
        headers = {DEADLINE_HEADER: str(arguments.deadline_ms)} if arguments.deadline_ms else {}
        path = address.path + "/segment"
        requests = tuple(post(address.host, address.port, path, body, headers) for body in bodies)
        names = tuple(image.name for image in images)
        measured = measure_server(Target(address.host, address.port, requests, names), plan, server)
    settings = {
        "url": arguments.url,
        "threads": arguments.threads,
        "images": list(names),
        "seconds": plan.seconds,
        "timeout_s": plan.timeout_s,
        "poisson_seed": plan.poisson_seed,
        "deadline_ms": arguments.deadline_ms,
    }
    content = document("server", settings, {"model": model, **_measured(measured)})
    return finish(Outcome(content, _text(model, measured), measured.ended_early), arguments)


def _plan(arguments: argparse.Namespace) -> LoadPlan:
    """The loops given; the default loops of both kinds if none is given."""
    neither = arguments.concurrency is None and arguments.rate is None
    concurrency = arguments.concurrency or (CONCURRENCY if neither else ())
    rates = arguments.rate or (RATES if neither else NO_RATES)
    return LoadPlan(concurrency, rates, arguments.seconds, arguments.timeout, arguments.poisson)


def _started(arguments: argparse.Namespace, running: ExitStack) -> ServerProcess:
    model = Model.parse(arguments.model)
    server = running.enter_context(ServerProcess(serve_arguments(model, arguments.threads)))
    server.wait_ready()
    return server


def _described(address: Address) -> dict[str, Any]:
    """The model that the server serves.

    Raises:
        BenchError: no response, or the server is not ready.
    """
    try:
        ready, _ = address.get("/readyz")
        _, model = address.get("/model")
    except OSError as problem:
        raise BenchError(f"http://{address.host}:{address.port}: {problem.strerror or problem}") from problem
    if ready != 200 or not isinstance(model, dict):
        raise BenchError(f"http://{address.host}:{address.port}: is not a ready SOLO server (/readyz returned {ready})")
    return {key: model.get(key) for key in ("name", "version", "precision", "engine")}


def _measured(measured: ServerMeasurement) -> dict[str, Any]:
    return {
        "load_average": {"before": measured.load_before, "after": measured.load_after},
        "ended_early": measured.ended_early,
        "peak_rss_mib": measured.peak_rss_mib,
        "points": [point.to_dict() for point in measured.points],
    }


def _text(model: dict[str, Any], measured: ServerMeasurement) -> str:
    rows: list[tuple[str, ...]] = [HEADINGS, *(_row(point) for point in measured.points)]
    peak = "" if measured.peak_rss_mib is None else f", at most {measured.peak_rss_mib:.0f} MiB resident"
    served = f"{model['name']} {model['version']} ({model['precision']}) on {model['engine']}{peak}"
    note = "latency of open loops counts from the scheduled time, so that stalls are not hidden"
    shares = [(_name(p), share) for p in measured.points if (share := p.figures()["foreign_share"])]
    return "\n".join([aligned(rows), "", served, note, *noise(shares)])


def _row(point: Point) -> tuple[str, ...]:
    figures = point.figures()
    errors = ", ".join(f"{count} {code}" for code, count in figures["errors"].items())
    times = [_number(figures[name], 1) for name in ("p50_ms", "p90_ms", "p99_ms", "p99.9_ms", "max_ms")]
    flow = (_number(figures["refused_p99_ms"], 1), _number(figures["late_p99_ms"], 1))
    costs = (_number(point.cpu_s, 1), _number(point.rss_mib, 0), f"{point.client_cpu_s:.2f}")
    return (
        _name(point),
        f"{figures['throughput']:.2f}",
        *times,
        str(figures["requests"]),
        errors or "0",
        *flow,
        *costs,
    )


def _name(point: Point) -> str:
    if point.loop == "open":
        return f"{point.level:g} requests/s"
    return f"{point.level:g} caller{'' if point.level == 1 else 's'}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _own_images() -> list[Path]:
    """The images that exports are checked with; the package has them as plain files."""
    return sorted((package_folder("solo_export") / "images").glob("*.jpg"))
