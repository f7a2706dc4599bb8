"""`solo selftest`: does the GPU path compute here what the CPU path computes, and how fast. One command, one file to send.

bundle, images ─► GPU? (3 if not) ─► kernels, engines ─► examine ─► JSON, summary ─► exit status 0 or 1
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from solo_models.bundle import BundleError, read_bundle
from solo_models.demo import demo_bundle
from solo_models.exit_codes import FAILED, NO_GPU, REFUSED

from solo_server.bench.errors import BenchError
from solo_server.bench.result import check_writable, write_document
from solo_server.errors import EngineFailure, SettingsError
from solo_server.selftest.document import (
    PASS,
    Document,
    document,
    failed,
    finished,
    summary_lines,
    without_names,
)
from solo_server.selftest.examine import examine
from solo_server.selftest.images import NamedImage, gather
from solo_server.selftest.measuring import Plan
from solo_server.selftest.opening import ENGINES, NoGpuHere, Opened, OpeningFailed, open_gpu

MOST_IMAGES = 64
SIZES = (1, 2, 4, 8, 16, 32, 64)
DEFAULT_OUTPUT = Path("solo-selftest.json")

Say = Callable[[str], None]


class Told(logging.Handler):
    """What the server logs while it opens engines and runs, among the lines of progress."""

    def __init__(self, say: Say) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        self._say(f"{record.levelname.lower()}: {record.getMessage()}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `solo selftest`."""
    parser.add_argument("bundle", type=Path, nargs="?", help="bundle folder or zip (default: the demo model)")
    parser.add_argument("--engine", choices=ENGINES, required=True, help="what runs the network on the GPU")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=DEFAULT_OUTPUT,
        metavar="FILE.json",
        help="the report (default %(default)s)",
    )
    parser.add_argument(
        "--max-batch",
        type=int,
        default=16,
        help=f"images in the largest batch, 1 to {MOST_IMAGES} (default %(default)s)",
    )
    parser.add_argument(
        "--images", type=Path, metavar="DIR", help="compare on these (default: the repository's, and generated ones)"
    )
    parser.add_argument("--no-build", action="store_true", help="only use engines that were built before")


def run(arguments: argparse.Namespace) -> int:
    """0: all parity parts passed; 1: one failed; 2: bad input or setting; 3: no GPU here."""
    lines: list[str] = []
    say = progress(lines)
    logging.basicConfig(level=logging.INFO, handlers=[Told(say)])
    try:
        if not 1 <= arguments.max_batch <= MOST_IMAGES:
            raise SettingsError(f"--max-batch: {arguments.max_batch} is not within 1..{MOST_IMAGES}")
        check_writable(arguments.output)
        bundle = read_bundle(arguments.bundle or demo_bundle())
        images = gather(arguments.images, bundle.spec.preprocess)
        opened = open_gpu(bundle, arguments.engine, arguments.max_batch, build=not arguments.no_build, say=say)
        told = examined(opened, images, sizes_up_to(arguments.max_batch), say)
        close(opened, say)
    except NoGpuHere as problem:
        print(f"solo selftest: {problem}", file=sys.stderr)
        return NO_GPU
    except OpeningFailed as problem:
        head = document(bundle, problem.device, problem.facts, is_fake=False)
        told = finished(head, {"open": failed(problem.__cause__ or problem, "open")})
    except (SettingsError, BundleError, BenchError, OSError) as problem:
        print(f"solo selftest: {problem}", file=sys.stderr)
        return REFUSED
    return report(told | {"log": without_names(lines)}, arguments.output)


def examined(opened: Opened, images: list[NamedImage], plan: Plan, say: Say) -> Document:
    """The whole document of an opened GPU path."""
    head = document(opened.bundle, opened.gpu.watched.info, opened.facts, is_fake=opened.gpu.is_fake)
    return finished(head, examine(opened, images, plan, say))


def close(opened: Opened, say: Say) -> None:
    """Before the process ends, since TensorRT wants to go before CUDA does; what fails now changes no verdict."""
    try:
        opened.gpu.backend.close()
    except EngineFailure as problem:
        say(f"closing: {problem}")


def report(told: Document, path: Path) -> int:
    """Write the file, print the summary."""
    write_document(path, told)
    print("\n".join(summary_lines(told)))
    print(f"wrote {path}; it holds no names of hosts, users or folders: attach it to an issue")
    return 0 if told["verdict"] == PASS else FAILED


def sizes_up_to(max_batch: int) -> Plan:
    """Powers of two, and the largest batch itself."""
    return Plan(sizes=tuple(sorted({*(size for size in SIZES if size <= max_batch), max_batch})))


def progress(lines: list[str]) -> Say:
    """Says on standard error what is done now, with seconds since the start; `lines` keeps it for the report."""
    start = monotonic()

    def say(message: str) -> None:
        lines.append(f"[{monotonic() - start:6.1f} s] {message}")
        print(lines[-1], file=sys.stderr, flush=True)

    return say
