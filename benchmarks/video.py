"""Frames per second of `solo segment VIDEO`, compared with the pipeline in process on the same frames; memory over a long video.

    python benchmarks/video.py [--quick] [--busy] [--frames N] [--long N] [-o benchmarks/results/video.json]

The video pans over the photographs of tests/images. In process the frames are decoded before the clock starts, and as many threads
as the command uses pass their pixels to the local model. The command runs as a user starts it; its rate is the one that it
prints. Rounds are interleaved. Memory is the resident size of the command while it draws `--long` frames, every tenth of them
segmented. Exit status 3 if the machine is not idle.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import av
import numpy as np
from PIL import Image
from record import write_record
from reliability_parts.figures import growth_percent, ratios, spread
from reliability_parts.run_options import IDLE_SHARE, OWN_IMAGES, ROOT, log, others_share
from solo_client.command.in_order import in_order
from solo_client.command.video.source import VideoSource
from solo_server.commands.local import open_local

HEIGHT, WIDTH = 480, 640
RATE = 25
LONG_EVERY = 10
SAMPLE_S = 0.5
BUSY_STATUS = 3
BEST = "in_process"
PRINTED = re.compile(r"([0-9.]+) frames/s")
COMMANDS = {"lines": [], "lines_track": ["--track"], "overlay": ["--track", "--overlay"]}


def main() -> int:
    """Measure and print, or write."""
    arguments = _parser().parse_args()
    if arguments.in_process is not None:
        print(in_process(arguments.in_process))
        return 0
    share = others_share() or 0.0
    if share > IDLE_SHARE and not (arguments.busy or arguments.quick):
        log(f"video: NOT IDLE: other processes use {100 * share:.0f} % of the machine; wait, or use --busy")
        return BUSY_STATUS
    found = measure(arguments) | {"quick": arguments.quick, "others_before": share}
    if arguments.output is not None:
        write_record(arguments.output, found)
    for name, per_s in found["per_s"].items():
        log(f"{name:<12} {per_s['median']:>6} frames/s  {found['ratios'][name]['median']} of {BEST}")
    log(f"memory: {found['memory']['growth_percent']} % growth, at most {found['memory']['largest_mib']} MiB")
    return 0


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the rounds, then the long video; their rates, memory and a summary."""
    frames = arguments.frames or (12 if arguments.quick else 200)
    long = arguments.long or (60 if arguments.quick else 10_000)
    with tempfile.TemporaryDirectory() as scratch:
        video = Path(scratch, "pan.mp4")
        make_video(video, frames)
        rounds = [_round(video) for _ in range(1 if arguments.quick else 5)]
        endless = Path(scratch, "long.mp4")
        make_video(endless, long)
        memory = memory_of(endless)
    rates = {name: [one[name] for one in rounds] for name in rounds[0]}
    return {
        "size": [WIDTH, HEIGHT],
        "frames": frames,
        "rounds": rounds,
        "per_s": {name: spread(values, 2) for name, values in rates.items()},
        "ratios": {name: ratios(values, rates[BEST]) for name, values in rates.items()},
        "memory": {"frames": long, "every": LONG_EVERY} | memory,
    }


def make_video(path: Path, count: int) -> None:
    """A pan over the photographs, to and fro, a pixel a frame."""
    photographs = [_large(image) for image in sorted(OWN_IMAGES.glob("*.jpg"))]
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("libx264", rate=RATE, options={"preset": "veryfast", "crf": "20"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for number in range(count):
            photograph = photographs[number // 100 % len(photographs)]
            left = number % 100
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(photograph[:, left : left + WIDTH]))
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            output.mux(stream.encode(frame.reformat(format="yuv420p")))
        output.mux(stream.encode(None))


def in_process(path: Path) -> float:
    """Frames per second of the local model alone, on frames that are decoded already."""
    model = open_local(None, several=True)
    with VideoSource(path) as source:
        frames = [frame.rgb() for frame in source.frames()]
    model.segment_pixels(frames[0], {})
    started = perf_counter()
    for _ in in_order(lambda rgb: model.segment_pixels(rgb, {}), frames, model.max_concurrency):
        pass
    return len(frames) / (perf_counter() - started)


def memory_of(path: Path) -> dict[str, Any]:
    """Resident size of the command while it draws a video, sampled; the growth from a fifth of the run to its end."""
    with tempfile.TemporaryDirectory() as scratch, Path(scratch, "errors").open("w+") as errors:
        overlay = str(Path(scratch, "drawn.mp4"))
        words = ["--every", str(LONG_EVERY), "--track", "--overlay", overlay]
        process = subprocess.Popen(_command(path, words), stdout=subprocess.DEVNULL, stderr=errors, cwd=ROOT)
        samples = []
        while process.poll() is None:
            samples.append(_resident_mib(process.pid))
            sleep(SAMPLE_S)
        if process.returncode:
            errors.seek(0)
            raise RuntimeError(f"solo segment ended with {process.returncode}: {errors.read()}")
    samples = [sample for sample in samples if sample]
    settled = len(samples) // 5
    growth = growth_percent(samples, settled) if len(samples) > 10 else 0.0
    return {
        "samples_mib": samples[:: max(1, len(samples) // 50)],
        "largest_mib": max(samples),
        "growth_percent": growth,
    }


def _round(video: Path) -> dict[str, float]:
    child = [sys.executable, __file__, "--in-process", str(video)]
    rates = {BEST: float(subprocess.run(child, capture_output=True, text=True, check=True).stdout)}
    with tempfile.TemporaryDirectory() as scratch:
        for name, words in COMMANDS.items():
            files = [str(Path(scratch, "drawn.mp4"))] if words[-1:] == ["--overlay"] else []
            done = subprocess.run(
                _command(video, [*words, *files]), capture_output=True, text=True, check=False, cwd=ROOT
            )
            printed = PRINTED.search(done.stderr)
            if done.returncode or printed is None:
                raise RuntimeError(f"solo segment ended with {done.returncode}: {done.stderr}")
            rates[name] = float(printed[1])
    log(json.dumps(rates))
    return {name: round(rate, 3) for name, rate in rates.items()}


def _command(video: Path, words: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "solo_models.cli", "segment", str(video), "--format", "jsonl", *words]


def _large(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(Image.open(path).convert("RGB").resize((WIDTH + 100, HEIGHT)))


def _resident_mib(process_id: int) -> float:
    """0 once the process has ended."""
    try:
        status = Path(f"/proc/{process_id}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmRSS:\s+([0-9]+) kB", status)
    return round(int(found[1]) / 1024, 1) if found else 0.0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, for trying it out")
    parser.add_argument("--busy", action="store_true", help="measure although other processes use the machine")
    parser.add_argument("--frames", type=int, metavar="N", help="frames of a round (default: 200)")
    parser.add_argument("--long", type=int, metavar="N", help="frames of the long video (default: 10,000)")
    parser.add_argument("--in-process", type=Path, metavar="VIDEO", help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
