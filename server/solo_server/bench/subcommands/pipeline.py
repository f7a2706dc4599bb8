"""`solo bench pipeline`: from the bytes of an image to RLE masks, stage by stage."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from solo_server.bench import arguments as shared
from solo_server.bench.contenders import ContenderChoice, Workload, find_images
from solo_server.bench.finish import Outcome, finish
from solo_server.bench.measure import Measurement, measure
from solo_server.bench.result import Document, document
from solo_server.bench.samples import Plan
from solo_server.bench.table import PAPER_FPS, contender_table, notes, stage_table

SUMMARY = "measure images from bytes to RLE, stage by stage"
WORKER = "solo_server.bench.workers.pipeline"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `solo bench pipeline`."""
    parser.add_argument("images", type=Path, nargs="+", metavar="IMAGE", help="image files, or folders of images")
    shared.add_contenders(parser)
    shared.add_rounds(parser, repeats=4)
    shared.add_outputs(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, write; exit status."""
    images = find_images(arguments.images)
    chosen = ContenderChoice.read(arguments)
    plan = Plan(arguments.runs, arguments.repeats, len(images))
    measured = measure(chosen.launch_specs(Workload(WORKER, {"images": [str(path) for path in images]})), plan)
    settings = {"images": [path.name for path in images], "threads": arguments.threads}
    content = pipeline_document(measured, settings)
    return finish(Outcome(content, _text(measured), measured.ended_early), arguments)


def pipeline_document(measured: Measurement, settings: dict[str, Any]) -> Document:
    """The measurement as JSON, with figures and samples of each contender."""
    measurement = measured.to_dict()
    for entry, contender in zip(measurement["contenders"], measured.contenders, strict=True):
        entry |= measured.figures_dict(contender)
    return document("pipeline", settings, measurement)


def _text(measured: Measurement) -> str:
    paper = f"the paper's SOLO-512 on one V100: {PAPER_FPS} images/s; other hardware, for orientation"
    return "\n".join([contender_table(measured), "", stage_table(measured), "", *notes(measured), paper])
