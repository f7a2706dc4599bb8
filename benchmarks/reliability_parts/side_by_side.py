"""The same images, model and pipeline behind our server, LitServe and BentoML, in interleaved rounds.

The others run our `Pipeline`, from bytes to instances, so they have the same speed there and only serving is compared. Each is
measured twice: one worker process with both cores, and two workers with one core each. Servers that are not measured are stopped
(SIGSTOP), since some of them poll.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from solo_server.bench.load.connection import Target, post
from solo_server.bench.load.points import Point
from solo_server.bench.load.server_process import SOLO_SERVE, Program, ServerProcess

from reliability_parts.faults import has_workers_option
from reliability_parts.figures import ratios, spread, tails
from reliability_parts.loads import run_load, served, warm_up
from reliability_parts.run_options import ROOT, RunOptions, log

CONCURRENCY = (1, 8)
SHAPES = ((1, 2), (2, 1))  # worker processes, cores of each
PEERS = ("LitServe", "BentoML")
PACKAGES = tuple(str(ROOT / name) for name in ("models", "server"))
BOUNDARY = "----image"
SCORE_ROUNDING = 5e-6


@dataclass(frozen=True, slots=True)
class Contender:
    """A server. name: of the software; kind: how it receives an image, `form` or a content type."""

    name: str
    workers: int
    threads: int
    program: Program
    arguments: tuple[str, ...] = ()
    kind: str = "application/octet-stream"

    @property
    def label(self) -> str:
        """Like `LitServe 2x1`."""
        return f"{self.name} {self.workers}x{self.threads}"

    def request(self, server: ServerProcess, body: bytes) -> bytes:
        """A request with one image, in this server's form."""
        address = server.address
        if self.kind != "form":
            return post(address.host, address.port, "/segment", body, {"content-type": self.kind})
        lines = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="image.jpg"\r\n\r\n'
        form = lines.encode() + body + f"\r\n--{BOUNDARY}--\r\n".encode()
        return post(
            address.host, address.port, "/segment", form, {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
        )


def side_by_side(options: RunOptions) -> dict[str, Any]:
    """Images/s, latencies and memory of each; ours relative to theirs, by round."""
    if not options.peers_python.exists():
        log("side_by_side: NOT RUN: there is no environment with LitServe and BentoML: make peers")
        return {"not_run": "there is no environment with LitServe and BentoML"}
    rounds, seconds = int(options.pick(3, 1)), options.pick(12, 3)
    with ExitStack() as running:
        contenders = [(c, running.enter_context(served(*c.arguments, program=c.program))) for c in _contenders(options)]
        targets = [_target(options, contender, server) for contender, server in contenders]
        answers = [_instances(target) for target in targets]
        if not all(agree(answer, answers[0]) for answer in answers):
            raise RuntimeError("side_by_side: the servers do not return the same instances")
        for target, (_, server) in zip(targets, contenders, strict=True):
            warm_up(target, server)
        points = _rounds(contenders, targets, rounds, seconds)
        found = {c.label: _figures(points[c.label], server) for c, server in contenders}
    versions = _versions(options.peers_python)
    return {"same_instances": True, "seconds": seconds, "peers": versions, "contenders": found, **_against(found)}


def _rounds(
    contenders: Sequence[tuple[Contender, ServerProcess]], targets: Sequence[Target], rounds: int, seconds: float
) -> dict[str, dict[int, list[Point]]]:
    points: dict[str, dict[int, list[Point]]] = {c.label: {n: [] for n in CONCURRENCY} for c, _ in contenders}
    for _, server in contenders:
        _signal(server, signal.SIGSTOP)
    try:
        for number in range(rounds):
            for (contender, server), target in zip(contenders, targets, strict=True):
                _signal(server, signal.SIGCONT)
                for level in CONCURRENCY:
                    load = run_load("closed", level, target, server, lambda load, n=level: load.closed(n, seconds, inf))  # type: ignore[misc]
                    points[contender.label][level].append(load)
                _signal(server, signal.SIGSTOP)
                rates = [points[contender.label][n][-1].figures()["throughput"] for n in CONCURRENCY]
                log(f"side_by_side {number + 1}/{rounds}: {contender.label}: {rates} images/s")
    finally:
        for _, server in contenders:
            _signal(server, signal.SIGCONT)
    return points


def _contenders(options: RunOptions) -> list[Contender]:
    ours = [Contender("ours", 1, 2, SOLO_SERVE, kind="image/jpeg")]
    if has_workers_option():
        ours.append(Contender("ours", 2, 1, SOLO_SERVE, ("--workers", "2", "--threads", "1"), "image/jpeg"))
    python, folder = str(options.peers_python), Path(__file__).parent / "peers"
    for workers, threads in SHAPES:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([*PACKAGES, str(folder)]),
            "SOLO_PEER_WORKERS": str(workers),
            "SOLO_PEER_THREADS": str(threads),
            "BENTOML_DO_NOT_TRACK": "true",
        }
        lit = Program("LitServe", (python, str(folder / "litserve_app.py")), "/health", environment)
        bento = (python, "-m", "bentoml", "serve", "bentoml_app:Segmenter", "--working-dir", str(folder))
        ours.append(Contender("LitServe", workers, threads, lit, kind="form"))
        ours.append(
            Contender("BentoML", workers, threads, Program("BentoML", bento, "/readyz", environment), (), "image/jpeg")
        )
    return ours


def _target(options: RunOptions, contender: Contender, server: ServerProcess) -> Target:
    images = {name: body for name, body in options.images().items() if name.lower().endswith((".jpg", ".jpeg"))}
    requests = tuple(contender.request(server, body) for body in images.values())
    return Target(server.address.host, server.address.port, requests, tuple(images))


def agree(ours: list[list[dict[str, Any]]], theirs: list[list[dict[str, Any]]]) -> bool:
    """Whether both have the same instances for every image; scores with one core and with two differ in the last digits."""
    return [[_without_score(i) for i in one] for one in ours] == [
        [_without_score(i) for i in one] for one in theirs
    ] and all(
        abs(mine["score"] - other["score"]) <= SCORE_ROUNDING
        for one, another in zip(ours, theirs, strict=True)
        for mine, other in zip(one, another, strict=True)
    )


def _without_score(instance: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in instance.items() if k != "score"}


def _instances(target: Target) -> list[Any]:
    """The instances of every image, from the server."""
    found = []
    for request in target.requests:
        head, _, body = request.partition(b"\r\n\r\n")
        lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        url = f"http://{target.host}:{target.port}/segment"
        with urlopen(Request(url, body, lines, method="POST"), timeout=60) as answer:  # our own URL
            found.append(json.loads(answer.read())["instances"])
    return found


def _figures(points: dict[int, list[Point]], server: ServerProcess) -> dict[str, Any]:
    found: dict[str, Any] = {"peak_rss_mib": server.rss_mib("VmHWM")}
    for level, rounds in points.items():
        shots = [shot for point in rounds for shot in point.shots]
        good = [shot.latency_ms for shot in shots if not shot.code]
        rates = [point.figures()["throughput"] for point in rounds]
        found[str(level)] = {
            "per_s_of_rounds": rates,
            "per_s": spread(rates, 2),
            "ms": tails(good, 50, 99),
            "errors": len(shots) - len(good),
            "cpu_ms": round(sum(point.cpu_s or 0.0 for point in rounds) * 1e3 / max(1, len(good)), 2),
        }
    return found


def _against(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Our best configuration relative to each peer's best one, at the highest concurrency."""
    level = str(CONCURRENCY[-1])
    best = {name: _best(found, name, level) for name in ("ours", *PEERS)}
    ours = found[best["ours"]][level]
    return {
        "best": best,
        "ratio": {n: ratios(ours["per_s_of_rounds"], found[best[n]][level]["per_s_of_rounds"]) for n in PEERS},
        "p99_ratio": {n: round(ours["ms"]["p99"] / found[best[n]][level]["ms"]["p99"], 4) for n in PEERS},
    }


def _best(found: dict[str, dict[str, Any]], name: str, level: str) -> str:
    return max((label for label in found if label.startswith(name)), key=lambda n: found[n][level]["per_s"]["median"])


def _signal(server: ServerProcess, number: signal.Signals) -> None:
    for pid in server.family():
        os.kill(pid, number)


def _versions(python: Path) -> dict[str, str]:
    code = "from importlib.metadata import version as v; print(v('litserve'), v('bentoml'), v('onnxruntime'))"
    versions = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.split()
    return dict(zip(("litserve", "bentoml", "onnxruntime"), versions, strict=True))
