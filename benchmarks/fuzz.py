"""Fuzzes a server that it starts: generated requests, broken images, random streams.

    python benchmarks/fuzz.py [BUNDLE] [--hostile DIR] [-n 20000] [--examples 400] [--streams 500] [--seed 0] [-o RESULT.json]

schemathesis generates the requests from the OpenAPI document (`fuzz_requests.py`); `fuzz_images.py` mutates images;
`fuzz_stream.py` opens streams. The same seed gives the same requests, images and messages. Exit status 1 if a response was at fault
or the server died.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import Any

from fuzz_images import fuzz, images, mutants, over_http
from fuzz_requests import Tried, try_operations
from fuzz_stream import fuzz_streams
from record import write_record
from solo_server.bench.load.server_process import ServerProcess


def main() -> int:
    """Start a server, fuzz it, and report the responses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?", help="bundle to serve (default: the demo model)")
    parser.add_argument("--hostile", type=Path, help="folder of further files to mutate")
    parser.add_argument("-n", "--count", type=int, default=20_000, help="number of broken images")
    parser.add_argument("--examples", type=int, default=400, help="random requests for each operation")
    parser.add_argument("--streams", type=int, default=500, help="number of random streams")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    images_by_url = ["--image-urls", "http://127.0.0.1:1/"]  # where nobody listens
    with ServerProcess([*images_by_url, *([str(arguments.bundle)] if arguments.bundle else [])]) as server:
        server.wait_ready()
        url, start = f"http://{server.address.host}:{server.address.port}", perf_counter()
        started_mb = server.rss_mib("VmHWM")
        tried = try_operations(url, arguments.examples, arguments.seed)
        seeds = images() + files_of(arguments.hostile)
        whole = fuzz(iter(seeds), over_http(url), arguments.output)
        whole_mb = server.rss_mib("VmHWM")
        broken = fuzz(mutants(seeds, arguments.count, arguments.seed), over_http(url), arguments.output)
        streams = fuzz_streams(url, arguments.streams, arguments.seed)
        results = {
            "seed": arguments.seed,
            "seconds": round(perf_counter() - start),
            "requests": _requests(tried),
            "whole_images": _bodies(whole.answers, whole.slowest_s, whole.faults),
            "broken_images": _bodies(broken.answers, broken.slowest_s, broken.faults),
            "streams": streams.to_dict(),
            "peak_mb": {"started": started_mb, "whole_images": whole_mb, "end": server.rss_mib("VmHWM")},
            "rss_mb_at_end": server.rss_mib("VmRSS"),
            "server_ended": server.exit_report(0) is not None,
        }
    for name, value in results.items():
        print(f"{name:<16} {value}")
    if tried.failures:
        print(tried.output)
    if arguments.output:
        write_record(arguments.output, results)
    faults = (tried.failures, whole.faults, broken.faults, streams.faults, results["server_ended"])
    return 1 if any(faults) else 0


def files_of(folder: Path | None) -> list[bytes]:
    """The files of a folder, by name."""
    return [path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()] if folder else []


def _requests(tried: Tried) -> dict[str, Any]:
    answers = {operation: dict(sorted(statuses.items())) for operation, statuses in sorted(tried.answers.items())}
    total = sum(statuses.total() for statuses in tried.answers.values())
    return {"count": total, "slowest_s": round(tried.slowest_s, 3), "failures": tried.failures, "answers": answers}


def _bodies(answers: Counter[str], slowest_s: float, faults: int) -> dict[str, Any]:
    counts = {"count": answers.total(), "slowest_s": round(slowest_s, 3), "faults": faults}
    return {**counts, "answers": dict(sorted(answers.items()))}


if __name__ == "__main__":
    sys.exit(main())
