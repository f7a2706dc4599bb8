"""`solo selftest`: checks that the GPU path computes what the CPU path computes, and times it. Writes one report.

bundle, images ─► GPU? (3 if not) ─► kernels, engines ─► examine ─► JSON, summary ─► exit status 0 or 1
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from solo_models.bundle import BundleError, read_bundle
from solo_models.clocked_log import clocked_log
from solo_models.demo import demo_bundle
from solo_models.exit_codes import FAILED, NO_GPU, REFUSED

from solo_server.backends.gpu.driver.driver import NoGpuError
from solo_server.bench.errors import BenchError
from solo_server.bench.result import check_writable, write_document
from solo_server.errors import EngineFailure, SettingsError
from solo_server.selftest.document import (
    PASS,
    Document,
    failed_part,
    report_head,
    summary_lines,
    with_parts,
    without_names,
)
from solo_server.selftest.examine import examine
from solo_server.selftest.images import NamedImage, load_images
from solo_server.selftest.measuring import TimingPlan
from solo_server.selftest.opening import ENGINES, OpenedGpu, OpeningFailed, open_gpu
from solo_server.selftest.progress import ForwardingHandler, Log

MOST_IMAGES = 64
SIZES = (1, 2, 4, 8, 16, 32, 64)
DEFAULT_OUTPUT = Path("solo-selftest.json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `solo selftest`."""
    parser.add_argument("bundle", type=Path, nargs="?", help="bundle folder or zip (default: the demo model)")
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        required=True,
        help="runtime of the network on the GPU; tensorrt is experimental: it has never run on a GPU",
    )
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
        "--images",
        type=Path,
        metavar="DIR",
        help="images to compare on (default: those of the repository, and generated ones)",
    )
    parser.add_argument("--no-build", action="store_true", help="use only engines that are already built")


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0 where all parity parts passed, 1 where one failed, 2 for bad input or settings, 3 without a GPU."""
    lines: list[str] = []
    log = clocked_log(lines)
    logging.basicConfig(level=logging.INFO, handlers=[ForwardingHandler(log)])
    try:
        if not 1 <= arguments.max_batch <= MOST_IMAGES:
            raise SettingsError(f"--max-batch: {arguments.max_batch} is not within 1..{MOST_IMAGES}")
        check_writable(arguments.output)
        bundle = read_bundle(arguments.bundle or demo_bundle())
        images = load_images(arguments.images, bundle.spec.preprocess)
        opened = open_gpu(bundle, arguments.engine, arguments.max_batch, build=not arguments.no_build, log=log)
        document = full_report(opened, images, sizes_up_to(arguments.max_batch), log)
        close(opened, log)
    except NoGpuError as problem:
        print(f"solo selftest: {problem}", file=sys.stderr)
        return NO_GPU
    except OpeningFailed as problem:
        head = report_head(bundle, problem.device, problem.facts, is_fake=False)
        document = with_parts(head, {"open": failed_part(problem.__cause__ or problem, "open")})
    except (SettingsError, BundleError, BenchError, OSError) as problem:
        print(f"solo selftest: {problem}", file=sys.stderr)
        return REFUSED
    return write_report(document | {"log": without_names(lines)}, arguments.output)


def full_report(opened: OpenedGpu, images: list[NamedImage], plan: TimingPlan, log: Log) -> Document:
    """The report of all parts on an open GPU path."""
    head = report_head(opened.bundle, opened.gpu.device.info, opened.facts, is_fake=opened.gpu.is_fake)
    return with_parts(head, examine(opened, images, plan, log))


def close(opened: OpenedGpu, log: Log) -> None:
    """Close before the process ends: TensorRT must be freed before CUDA. Failures here do not change the verdict."""
    try:
        opened.gpu.backend.close()
    except EngineFailure as problem:
        log(f"closing: {problem}")


def write_report(document: Document, path: Path) -> int:
    """Write the file, print the summary."""
    write_document(path, document)
    print("\n".join(summary_lines(document)))
    print(f"wrote {path}; it contains no names of hosts, users or folders, so you can attach it to an issue")
    return 0 if document["verdict"] == PASS else FAILED


def sizes_up_to(max_batch: int) -> TimingPlan:
    """Powers of two, and the largest batch itself."""
    return TimingPlan(sizes=tuple(sorted({*(size for size in SIZES if size <= max_batch), max_batch})))
