"""Images a second through NVIDIA's tritonserver against our own server: the same images, the same client, rounds in turn.

    make .venv-triton/.ready && .venv-triton/bin/python benchmarks/triton.py -o benchmarks/results/triton.json
    .venv-triton/bin/python benchmarks/triton.py --quick          # a minute, to try it

Three servers run side by side, and one at a time is asked: ours; Triton with the network in the Python model's process;
Triton with the graphs as models. The graphs of the last run on a stand-in for Triton's ONNX Runtime back end
(tests/tritonserver/onnx_model.py), since nvidia-pytriton's server has the Python back end only: its figure includes the
stand-in's cost.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))
sys.path.append(str(Path(__file__).parents[1] / "tests" / "triton"))

import numpy as np
import tritonclient.http as client_library
from record import write_record
from served_demo import MODEL, our_server, repository
from triton_server import triton_server

OURS = "ours"
IMAGES = sorted((Path(__file__).parents[1] / "tests" / "images").glob("*.jpg"))


@dataclass(frozen=True, slots=True)
class Load:
    """Closed loop: `callers` threads, each with one image on its way, for `seconds`, in `rounds` rounds."""

    callers: int
    seconds: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Round:
    """One round of one server. latencies_ms: of its answers, sorted."""

    images_per_s: float
    latencies_ms: Sequence[float]


def main() -> None:
    """Measure, print, and write a record if `-o` is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--quick", action="store_true", help="two short rounds; not for the record")
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 8])
    arguments = parser.parse_args()
    seconds, rounds = (3.0, 2) if arguments.quick else (12.0, 5)
    loads = [Load(callers, seconds, rounds) for callers in arguments.callers]
    bodies = [path.read_bytes() for path in IMAGES]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {OURS: stack.enter_context(our_server(folder))}
        for network in ("process", "models"):
            (folder / network).mkdir()
            served = repository(folder / network, network)
            servers[f"triton, {network}"] = stack.enter_context(triton_server(served, folder / network)).address
        results = {f"{load.callers} callers": measure(servers, bodies, load) for load in loads}
    print(json.dumps(results, indent=1))
    if arguments.output is not None:
        images = [path.name for path in IMAGES]
        write_record(arguments.output, {"images": images, "seconds": seconds, "rounds": rounds, "results": results})


def measure(servers: Mapping[str, str], bodies: Sequence[bytes], load: Load) -> dict[str, dict[str, float]]:
    """Medians over the rounds, of each server, and the ratio to ours: the median of the ratios of each round."""
    rounds: dict[str, list[Round]] = {name: [] for name in servers}
    for _ in range(load.rounds):
        for name, address in servers.items():
            rounds[name].append(run_round(address, bodies, load))
    return {
        name: {
            "images_per_s": round(statistics.median(each.images_per_s for each in own), 2),
            "p50_ms": round(statistics.median(_quantile(each.latencies_ms, 0.5) for each in own), 1),
            "p99_ms": round(statistics.median(_quantile(each.latencies_ms, 0.99) for each in own), 1),
            "ratio_to_ours": round(
                statistics.median(
                    each.images_per_s / ours.images_per_s for each, ours in zip(own, rounds[OURS], strict=True)
                ),
                3,
            ),
        }
        for name, own in rounds.items()
    }


def run_round(address: str, bodies: Sequence[bytes], load: Load) -> Round:
    """One round; answers that begin before its end count."""
    end, latencies_ms, failures = time.perf_counter() + load.seconds, [], []

    def call() -> None:
        with client_library.InferenceServerClient(address, network_timeout=120, connection_timeout=120) as client:
            at = 0
            while time.perf_counter() < end and not failures:
                start = time.perf_counter()
                infer(client, bodies[at % len(bodies)])
                latencies_ms.append((time.perf_counter() - start) * 1e3)
                at += 1

    start = time.perf_counter()
    threads = [threading.Thread(target=_caught(call, failures)) for _ in range(load.callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return Round(len(latencies_ms) / (time.perf_counter() - start), sorted(latencies_ms))


def infer(client: client_library.InferenceServerClient, body: bytes) -> None:
    """One image, as in docs/v2.md."""
    tensor = client_library.InferInput("IMAGE", [1], "BYTES").set_data_from_numpy(np.array([body], object))
    client.infer(MODEL, [tensor]).as_numpy("RLE")


def _caught(work: Callable[[], None], failures: list[Exception]) -> Callable[[], None]:
    def run() -> None:
        try:
            work()
        except Exception as problem:
            failures.append(problem)

    return run


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


if __name__ == "__main__":
    main()
