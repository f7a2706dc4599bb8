"""`solo bench`: pictures per second and latency of the pipeline, bytes to RLE, in the paper's protocol (mean of 5 runs)."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shlex
import statistics
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

from solo_models.bundle import BundleError
from solo_models.demo import demo_bundle

from solo_server.errors import ServerError
from solo_server.pipeline import Pipeline
from solo_server.types import PictureResult

PAPER_FPS = 22.5  # SOLO-512 on one V100, mean of 5 runs (table 8 of the paper); other hardware, for orientation only
PACKAGES = ("solo-inference", "onnxruntime", "numpy", "opencv-python-headless", "pillow")


@dataclass(frozen=True, slots=True)
class BenchResult:
    """Times in milliseconds a picture; `fps` is the mean over the runs of pictures per second."""

    pictures: int
    runs: int
    repeats: int
    instances: float
    fps: float
    fps_of_runs: tuple[float, ...]
    p50_ms: float
    p90_ms: float
    p99_ms: float
    stages_p50_ms: dict[str, float]
    peak_rss_mib: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `solo bench`."""
    parser.add_argument("images", type=Path, nargs="+", help="pictures to segment")
    parser.add_argument("--model", type=Path, metavar="BUNDLE", help="bundle folder or zip (default: the demo model)")
    parser.add_argument(
        "--runs", type=_positive, default=5, help="runs, of which the mean is taken (default 5, as the paper)"
    )
    parser.add_argument(
        "--repeats", type=_positive, default=4, help="how often a run segments each picture (default 4)"
    )
    parser.add_argument("--threads", type=int, default=0, help="cores for one inference (default: all)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the result as JSON too")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print a table; exit status 2 when a picture or the bundle is unusable."""
    try:
        bodies = [path.read_bytes() for path in arguments.images]
        pipeline = Pipeline.open(arguments.model or demo_bundle(), threads=arguments.threads)
        result = measure(pipeline, bodies, arguments.runs, arguments.repeats)
        print(table(result, pipeline))
        if arguments.output:
            arguments.output.write_text(json.dumps(record(result, pipeline), indent=1) + "\n")
    except (OSError, BundleError, ServerError) as problem:
        print(f"solo bench: {problem}", file=sys.stderr)
        return 2
    return 0


def measure(pipeline: Pipeline, bodies: list[bytes], runs: int, repeats: int) -> BenchResult:
    """One warm-up over all pictures, then `runs` runs of `repeats` passes, one picture at a time."""
    for body in bodies:
        pipeline.segment(body)
    fps, results, latencies = [], [], []
    for number in range(runs):
        start = perf_counter()
        for done in range(repeats * len(bodies)):
            before = perf_counter()
            results.append(pipeline.segment(bodies[done % len(bodies)]))
            latencies.append((perf_counter() - before) * 1e3)
            _progress(number, runs, done + 1, repeats * len(bodies))
        fps.append(repeats * len(bodies) / (perf_counter() - start))
    return BenchResult(
        pictures=len(bodies),
        runs=runs,
        repeats=repeats,
        instances=statistics.fmean(len(r.instances) for r in results),
        fps=statistics.fmean(fps),
        fps_of_runs=tuple(fps),
        p50_ms=_percentile(latencies, 50),
        p90_ms=_percentile(latencies, 90),
        p99_ms=_percentile(latencies, 99),
        stages_p50_ms=_stages(results),
        peak_rss_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def table(result: BenchResult, pipeline: Pipeline) -> str:
    """The result for a terminal."""
    stages = "  ".join(f"{name} {ms:.1f}" for name, ms in result.stages_p50_ms.items())
    lines = [
        ("model", f"{pipeline.bundle.name} {pipeline.bundle.version} ({pipeline.bundle.precision})"),
        ("engine", f"{pipeline.engine.description}, {os.cpu_count()} cores"),
        (
            "pictures/s",
            f"{result.fps:.2f}  mean of {result.runs} runs ({', '.join(f'{v:.2f}' for v in result.fps_of_runs)})",
        ),
        ("", f"the paper's SOLO-512 on one V100: {PAPER_FPS}; other hardware, not comparable"),
        ("latency", f"p50 {result.p50_ms:.1f} ms  p90 {result.p90_ms:.1f} ms  p99 {result.p99_ms:.1f} ms"),
        ("stages p50", stages + "  (ms)"),
        ("instances", f"{result.instances:.1f} a picture, {result.pictures} pictures"),
        ("peak memory", f"{result.peak_rss_mib:.0f} MiB resident"),
    ]
    return "\n".join(f"{name:<12} {text}" for name, text in lines)


def record(result: BenchResult, pipeline: Pipeline) -> dict[str, Any]:
    """The result as JSON, with hardware, versions and command."""
    spec = pipeline.bundle.spec
    return {
        "command": shlex.join(["solo", *sys.argv[1:]]),
        **surroundings(),
        "model": {
            "name": pipeline.bundle.name,
            "version": pipeline.bundle.version,
            "variant": spec.variant,
            "backbone": spec.backbone,
            "size": [spec.preprocess.long_side, spec.preprocess.short_side],
            "precision": pipeline.bundle.precision,
        },
        "engine": pipeline.engine.description,
        **asdict(result),
    }


def surroundings() -> dict[str, Any]:
    """Hardware and versions, as every benchmark file names them. There is no GPU code yet, so no GPU was used."""
    return {
        "hardware": {"cpu": _cpu_model(), "cores": os.cpu_count(), "gpu": None},
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }


def _stages(results: list[PictureResult]) -> dict[str, float]:
    names = [name for name in results[0].timings_ms if name != "total"]
    return {name: statistics.median(r.timings_ms[name] for r in results) for name in names}


def _percentile(values: list[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]


def _progress(number: int, runs: int, done: int, total: int) -> None:
    if sys.stderr.isatty():
        end = "\n" if number + 1 == runs and done == total else ""
        print(f"\rrun {number + 1}/{runs}  picture {done}/{total} ", end=end, file=sys.stderr, flush=True)


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value
