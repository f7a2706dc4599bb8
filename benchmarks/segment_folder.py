"""Images per second of `solo segment FOLDER`, local and over HTTP, compared with the pipeline in process; in interleaved rounds.

    python benchmarks/segment_folder.py [--quick] [--busy] [--images FOLDER] [-o benchmarks/results/segment_folder.json]

The command runs as a user starts it; its rate is the one that it prints, from the first image's bytes to the last result. The rate
in process is the first one of `reliability.py closed`: one thread per core, each from bytes to instances. Exit status 3 if the
machine is not idle.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from record import write_record
from reliability_parts import in_process
from reliability_parts.figures import ratios, spread
from reliability_parts.loads import in_child, served
from reliability_parts.run_options import IDLE_SHARE, ROOT, RunOptions, log, others_share

IN_FLIGHT = 8
BUSY_STATUS = 3
PRINTED = re.compile(r"([0-9.]+) images/s")
BEST = "in_process"


def main() -> int:
    """Measure and print, or write."""
    arguments = _parser().parse_args()
    options = RunOptions(arguments.quick, arguments.images, Path(sys.executable), profile=False)
    share = others_share() or 0.0
    if share > IDLE_SHARE and not (arguments.busy or arguments.quick):
        log(f"segment_folder: NOT IDLE: other processes use {100 * share:.0f} % of the machine; wait, or use --busy")
        return BUSY_STATUS
    found = measure(options) | {"quick": options.is_quick, "others_before": share}
    if arguments.output is not None:
        write_record(arguments.output, found)
    for name, per_s in found["per_s"].items():
        log(f"{name:<16} {per_s['median']:>6} images/s  {found['ratios'][name]['median']} of {BEST}")
    return 0


def measure(options: RunOptions) -> dict[str, Any]:
    """Run the rounds; their rates and a summary."""
    count, rounds = int(options.pick(160, 8)), int(options.pick(9, 1))
    found: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as scratch, served() as server:
        folder = _folder(Path(scratch, "images"), options, count)
        url = f"http://{server.address.host}:{server.address.port}"
        commands = {
            "segment": [],
            "segment_overlay": ["--overlay", str(Path(scratch, "drawn"))],
            "segment_http": ["--url", url],
        }
        with in_child(in_process.__file__, options.images(), IN_FLIGHT, count) as child:
            child.run_task(0)
            for number in range(rounds):
                rates = {BEST: count / child.run_task(0).total_ms * 1e3}
                rates |= {name: _rate(folder, words) for name, words in commands.items()}
                found.append({name: round(rate, 3) for name, rate in rates.items()})
                log(f"{number + 1}/{rounds}: " + ", ".join(f"{name} {rate}" for name, rate in found[-1].items()))
    return {"in_flight": IN_FLIGHT, "images_a_round": count, "rounds": found, **summary(found)}


def summary(rounds: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Spread of the rates, and of their ratios to the rate in process."""
    rates = {name: [one[name] for one in rounds] for name in rounds[0]}
    return {
        "per_s": {name: spread(values, 2) for name, values in rates.items()},
        "ratios": {name: ratios(values, rates[BEST]) for name, values in rates.items()},
    }


def _folder(folder: Path, options: RunOptions, count: int) -> Path:
    """Write `count` images into a new folder, cycling through the given ones."""
    folder.mkdir()
    images = list(options.images().items())
    for number in range(count):
        name, body = images[number % len(images)]
        (folder / f"{number:05}{Path(name).suffix}").write_bytes(body)
    return folder


def _rate(folder: Path, words: Sequence[str]) -> float:
    """Images per second of one run of the command, from its last line."""
    command = [sys.executable, "-m", "solo_models.cli", "segment", str(folder), "--format", "jsonl", *words]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    printed = PRINTED.search(done.stderr)
    if done.returncode or printed is None:
        raise RuntimeError(f"solo segment ended with {done.returncode}: {done.stderr}")
    return float(printed[1])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, for trying it out")
    parser.add_argument("--busy", action="store_true", help="measure although other processes use the machine")
    parser.add_argument("--images", type=Path, help="folder of photographs (default: tests/images)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
