"""`solo export`: a checkpoint in, a verified bundle out, or nothing."""

from __future__ import annotations

import argparse
import platform
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import onnx
import torch
from solo_models.bundle import BundleContent, BundleError, write_bundle
from solo_models.checkpoint import Checkpoint, CheckpointError, read_checkpoint

from solo_export.onnx import categories_model, mask_kernels, masks_model
from solo_export.parity import ParityError, ParityReport, check_parity


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `solo export`."""
    parser.add_argument("checkpoint", type=Path, help="a .pth file: mmdet 2.x/3.x, official SOLO or our own layout")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="the bundle: a folder, or one file ending in .zip"
    )
    parser.add_argument(
        "--size", type=_size, metavar="LONGxSHORT", help="network input, e.g. 1333x800 or 852x512 (SOLO-512)"
    )
    parser.add_argument("--classes", type=Path, metavar="FILE", help="class names, one a line")
    parser.add_argument("--name", help="the model's name (default: the checkpoint's file name)")
    parser.add_argument(
        "--include", type=Path, action="append", default=[], metavar="FILE", help="a file to put into the bundle"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0 when the bundle is written, 2 when nothing was."""
    start = monotonic()
    try:
        if arguments.output.exists() and not arguments.force:
            raise BundleError(f"{arguments.output} exists already; --force replaces it")
        extra = {path.name: path.read_bytes() for path in arguments.include}
        names = _class_names(arguments.classes)
        checkpoint = read_checkpoint(arguments.checkpoint, class_names=names, size=arguments.size)
        _say(start, f"read {_describe(checkpoint)}")
        content, report = build(checkpoint, arguments.name or arguments.checkpoint.stem, extra, start)
        _say(start, f"checked against torch: scores differ by at most {report.max_score_difference:.1e}")
        written = write_bundle(arguments.output, content, overwrite=arguments.force)
    except (CheckpointError, BundleError, ParityError, OSError) as problem:
        print(f"solo export: {arguments.checkpoint}: {problem}", file=sys.stderr)
        return 2
    _say(start, f"wrote {written}; try: solo serve {written}")
    return 0


def build(
    checkpoint: Checkpoint, name: str, extra_files: Mapping[str, bytes] | None = None, start: float | None = None
) -> tuple[BundleContent, ParityReport]:
    """Graphs, kernels, parity and provenance of a checkpoint.

    Raises:
        ParityError: the graphs do not answer as the network does.
    """
    network = checkpoint.network
    categories, masks = categories_model(network), masks_model(network)
    if start is not None:
        _say(start, "built the ONNX graphs, checking them")
    report = check_parity(network, categories, masks)
    content = BundleContent(
        name=name,
        spec=network.spec,
        categories=categories.SerializeToString(),
        masks=masks.SerializeToString(),
        kernels=mask_kernels(network),
        provenance=_provenance(checkpoint),
        parity=report.to_dict(),
        extra_files=extra_files,
    )
    return content, report


def _provenance(checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "checkpoint_sha256": checkpoint.sha256,
        "layout": checkpoint.layout,
        "exported": datetime.now(UTC).isoformat(timespec="seconds"),
        "tools": {"python": platform.python_version(), "torch": torch.__version__, "onnx": onnx.__version__},
        "ran_on_gpu": False,
    }


def _describe(checkpoint: Checkpoint) -> str:
    spec = checkpoint.network.spec
    size = f"{spec.preprocess.long_side}x{spec.preprocess.short_side}"
    return f"{spec.variant} {spec.backbone}, {spec.num_classes} classes, grids {spec.grids}, {size} ({checkpoint.layout} layout)"


def _class_names(path: Path | None) -> tuple[str, ...] | None:
    if path is None:
        return None
    return tuple(line.strip() for line in path.read_text().splitlines() if line.strip())


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{2,5})x(\d{2,5})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not LONGxSHORT, such as 852x512")
    return max(int(match[1]), int(match[2])), min(int(match[1]), int(match[2]))


def _say(start: float, message: str) -> None:
    print(f"[{monotonic() - start:5.1f} s] {message}", file=sys.stderr, flush=True)
