"""Sends thousands of broken images: none may cause a server error, take long, or fill the memory.

    python benchmarks/fuzz_images.py [BUNDLE] [--url URL --pid PID] [--hostile DIR] [-n 20000] [--seed 0] [-o RESULT.json]

Small images of every supported format, and the files of a folder, are mutated (reproducibly, by `--seed`) and sent to a running
server, or through the pipeline in this process. Exit status 1 if one of them got a 5xx, took more than 5 s, or ended the process;
the body is then written next to the result.
"""

from __future__ import annotations

import argparse
import faulthandler
import io
import random
import re
import resource
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import httpx
import numpy as np
from PIL import Image
from record import write_record
from solo_models.demo import demo_bundle
from solo_server.errors import ServerError
from solo_server.pipeline.image import ImageLimits
from solo_server.pipeline.pipeline import Pipeline

LIMIT_S = 5.0
HANG_S = 60.0  # a body that takes this long ends the run with a traceback
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

Reply = tuple[int, str]  # status and code
Send = Callable[[bytes], Reply]


def main() -> int:
    """Send all bodies and report the responses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "bundle", type=Path, nargs="?", help="bundle for the pipeline in this process (default: the demo model)"
    )
    parser.add_argument("--url", help="a running server, instead of the pipeline in this process")
    parser.add_argument("--pid", type=int, help="process id of that server, for its memory")
    parser.add_argument("--hostile", type=Path, help="folder of further files to mutate")
    parser.add_argument("-n", "--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--max-pixels", type=int, default=ImageLimits().max_pixels, help="limit of the pipeline in this process"
    )
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    seeds = images()
    if arguments.hostile:
        seeds += [path.read_bytes() for path in sorted(arguments.hostile.iterdir()) if path.is_file()]
    send = over_http(arguments.url) if arguments.url else in_process(arguments.bundle, arguments.max_pixels)
    before_mb = peak_mb(arguments.pid)
    outcome = fuzz(mutants(seeds, arguments.count, arguments.seed), send, arguments.output)
    results = {
        "bodies": arguments.count,
        "seed": arguments.seed,
        "seeds": len(seeds),
        "by": "HTTP" if arguments.url else "pipeline",
        "answers": dict(sorted(outcome.answers.items())),
        "slowest_s": round(outcome.slowest_s, 3),
        "faults": outcome.faults,
        "peak_mb_before": before_mb,
        "peak_mb": peak_mb(arguments.pid),
    }
    for name, value in results.items():
        print(f"{name:<15} {value}")
    if arguments.output:
        write_record(arguments.output, results)
    return 1 if outcome.faults else 0


@dataclass(slots=True)
class Outcome:
    """answers: counts by status and code. faults: bodies with a 5xx, or that took longer than `LIMIT_S`."""

    answers: Counter[str]
    slowest_s: float = 0.0
    faults: int = 0


def fuzz(bodies: Iterator[bytes], send: Send, output: Path | None) -> Outcome:
    """Send the bodies one after the other; those at fault are kept next to `output`."""
    outcome = Outcome(Counter())
    for number, body in enumerate(bodies):
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        start = perf_counter()
        status, code = send(body)
        seconds = perf_counter() - start
        faulthandler.cancel_dump_traceback_later()
        outcome.answers[f"{status} {code}".strip()] += 1
        outcome.slowest_s = max(outcome.slowest_s, seconds)
        if status >= 500 or seconds > LIMIT_S:
            outcome.faults += 1
            print(f"body {number}: {status} {code} in {seconds:.2f} s; {_kept(body, number, output)}")
    return outcome


def in_process(bundle: Path | None, max_pixels: int) -> Send:
    """Send to the pipeline; any exception other than `ServerError` counts as 500, as in the server."""
    pipeline = Pipeline.open(bundle or demo_bundle(), limits=ImageLimits(max_pixels=max_pixels))
    pipeline.warm_up()

    def send(body: bytes) -> Reply:
        try:
            pipeline.segment(body)
        except ServerError as problem:
            return problem.status, problem.code
        except Exception as problem:
            return 500, f"{type(problem).__name__}: {problem}"[:200]
        return 200, ""

    return send


def over_http(url: str) -> Send:
    """Send to a server; no response counts as 500."""
    client = httpx.Client(base_url=url, timeout=HANG_S)

    def send(body: bytes) -> Reply:
        try:
            response = client.post("/segment", content=body)
        except httpx.TransportError as problem:
            return 500, type(problem).__name__
        return response.status_code, "" if response.status_code == 200 else response.json()["code"]

    return send


def images() -> list[bytes]:
    """Small images, one for each path through the decoders that Pillow can write."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    rgb = coarse.resize((96, 64), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = [rgb.rotate(90 * turn) for turn in range(3)]
    wide = Image.fromarray(np.arange(96 * 64, dtype=np.uint16).reshape(64, 96) * 10)
    return [
        _encoded(rgb, "JPEG"),
        _encoded(rgb, "JPEG", progressive=True, subsampling=0),
        _encoded(rgb, "JPEG", exif=exif.tobytes(), dpi=(72, 72), restart_marker_rows=1),
        _encoded(rgb.convert("L"), "JPEG"),
        _encoded(rgb.convert("CMYK"), "JPEG"),
        _encoded(rgb, "PNG"),
        _encoded(rgb, "PNG", exif=exif.tobytes(), icc_profile=b"x" * 200),
        _encoded(rgb.convert("P"), "PNG", transparency=0),
        _encoded(rgb.convert("RGBA"), "PNG"),
        _encoded(rgb.convert("1"), "PNG"),
        _encoded(wide, "PNG"),
        _encoded(rgb, "PNG", save_all=True, append_images=frames),
        _encoded(rgb, "WEBP"),
        _encoded(rgb.convert("RGBA"), "WEBP", lossless=True, exif=exif.tobytes()),
        _encoded(rgb, "WEBP", save_all=True, append_images=frames),
        _encoded(rgb, "AVIF"),
        _encoded(rgb, "BMP"),
        _encoded(rgb.convert("P"), "BMP"),
        _encoded(rgb, "GIF"),
    ]


def mutants(seeds: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    """`count` bodies, each a seed mutated one to three times; half of the PNGs get valid checksums, so that decoding goes on."""
    rng = random.Random(seed)  # noqa: S311  # reproducible, not secret
    for _ in range(count):
        body = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 3)):
            rng.choice(MUTATIONS)(body, rng, seeds)
        if rng.random() < 0.5:
            _mend_checksums(body)
        yield bytes(body)


def peak_mb(pid: int | None) -> float | None:
    """Peak resident memory of this process, or of another one on Linux."""
    if pid is None:
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return round(int(found[1]) / 1024, 1) if found else None


def _flip(body: bytearray, rng: random.Random, _: list[bytes]) -> None:
    for _bit in range(rng.randint(1, 16)):
        if body:
            body[_position(body, rng)] ^= 1 << rng.randrange(8)


def _overwrite(body: bytearray, rng: random.Random, _: list[bytes]) -> None:
    start, length = _position(body, rng), rng.randint(1, 64)
    piece = rng.choice((bytes(length), b"\xff" * length, rng.randbytes(length)))
    body[start : start + length] = piece


def _number(body: bytearray, rng: random.Random, _: list[bytes]) -> None:
    """Replace a size or offset by an edge case."""
    kind = rng.choice((">B", ">H", "<H", ">I", "<I"))
    start, size = _position(body, rng), struct.calcsize(kind)
    body[start : start + size] = struct.pack(kind, rng.choice(INTERESTING) & (256**size - 1))


def _cut(body: bytearray, rng: random.Random, _: list[bytes]) -> None:
    del body[_position(body, rng) :]


def _remove(body: bytearray, rng: random.Random, _: list[bytes]) -> None:
    start = _position(body, rng)
    del body[start : start + rng.randint(1, 256)]


def _repeat(body: bytearray, rng: random.Random, _: list[bytes]) -> None:
    start = _position(body, rng)
    body[start:start] = body[start : start + rng.randint(1, 256)] * rng.randint(1, 8)


def _insert(body: bytearray, rng: random.Random, _: list[bytes]) -> None:
    start = _position(body, rng)
    body[start:start] = rng.randbytes(rng.randint(1, 64))


def _splice(body: bytearray, rng: random.Random, seeds: list[bytes]) -> None:
    other = rng.choice(seeds)
    body[_position(body, rng) :] = other[rng.randrange(len(other) + 1) :]


MUTATIONS = (_flip, _flip, _overwrite, _number, _number, _cut, _remove, _repeat, _insert, _splice)


def _position(body: bytearray, rng: random.Random) -> int:
    """A random position, with a probability of 1/4 within the first headers."""
    end = min(len(body), 96) if rng.random() < 0.25 else len(body)
    return rng.randrange(end) if end else 0


def _mend_checksums(body: bytearray) -> None:
    if not body.startswith(PNG_SIGNATURE):
        return
    at = len(PNG_SIGNATURE)
    while at + 12 <= len(body):
        end = at + 8 + int.from_bytes(body[at : at + 4])
        if end + 4 > len(body):
            return
        body[end : end + 4] = zlib.crc32(body[at + 4 : end]).to_bytes(4)
        at = end + 4


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]  # each format has options of its own
    return buffer.getvalue()


def _kept(body: bytes, number: int, output: Path | None) -> str:
    if output is None:
        return "not kept, without -o"
    path = output.with_name(f"{output.stem}_{number}.body")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    return f"kept as {path}"


if __name__ == "__main__":
    sys.exit(main())
