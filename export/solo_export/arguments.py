"""The arguments of `solo export`, in a module of their own: `--help` needs neither torch nor onnx."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from pathlib import Path

from solo_models.bundle import INT8_FORMS
from solo_models.sizes import parse_size
from solo_server.commands.build_engine import add_engine_arguments

TOLERANCES: Mapping[str, float] = {"fp32": 2.0, "fp16": 5.0, "int8": 20.0}  # percent of agreement on images
TOLERANCE_AP = 1.0  # points of mask AP
CALIBRATION_IMAGES, CHECKED_IMAGES = 64, 32
MOST_CALIBRATION_IMAGES = 1000  # values of each are kept in memory to the end


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `solo export`."""
    parser.add_argument(
        "checkpoint",
        type=Path,
        help="a .pth or .safetensors file (mmdet 2.x/3.x, official SOLO, our own), or an fp32 bundle",
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument(
        "-o", "--output", type=Path, help="where to write the bundle: a folder, or a file ending in .zip"
    )
    target.add_argument(
        "--triton", type=Path, metavar="DIR", help="write a model repository of NVIDIA Triton instead: docs/triton.md"
    )
    parser.add_argument(
        "--single-file", action="store_true", help="write one .onnx file that includes post-processing instead"
    )
    parser.add_argument(
        "--size", type=parse_size, metavar="LONGxSHORT", help="network input, e.g. 1333x800 or 852x512 (SOLO-512)"
    )
    parser.add_argument("--classes", type=Path, metavar="FILE", help="class names, one per line")
    parser.add_argument("--name", help="the model's name (default: OUTPUT's name without .zip or .onnx)")
    parser.add_argument("--force", action="store_true", help="replace OUTPUT if it exists")
    parser.add_argument(
        "--include", type=Path, action="append", default=[], metavar="FILE", help="a file to add to the bundle"
    )
    precision = parser.add_argument_group("precision")
    precision.add_argument(
        "--precision", choices=tuple(TOLERANCES), default="fp32", help="precision of the graphs (default %(default)s)"
    )
    precision.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR",
        help="a folder of images like those to be served, for int8",
    )
    precision.add_argument(
        "--calibration-images",
        type=_calibration_images,
        metavar="N",
        help=f"how many of them to use, evenly spaced in order of name (default {CALIBRATION_IMAGES})",
    )
    precision.add_argument(
        "--int8-for",
        choices=INT8_FORMS,
        help="the form of INT8: for CPUs (default), or for TensorRT (default with --engine tensorrt)",
    )
    precision.add_argument(
        "--images", type=Path, metavar="DIR",
        help=f"compare on images of this folder instead of the built-in ones; at most {CHECKED_IMAGES}",
    )  # fmt: skip
    precision.add_argument(
        "--annotations",
        type=Path,
        metavar="FILE",
        help="COCO annotations: measure mask AP before and after, on the images that are both annotated and in --images",
    )
    defaults = ", ".join(f"{value:g} for {name}" for name, value in TOLERANCES.items())
    precision.add_argument(
        "--tolerance", type=_percent, metavar="PERCENT",
        help=f"the largest accepted loss: points of mask AP with --annotations (default {TOLERANCE_AP:g}), "
        f"else percent of agreement on the images (default {defaults})",
    )  # fmt: skip
    _add_triton(parser.add_argument_group("triton"))
    engine = parser.add_argument_group("engine")
    engine.add_argument(
        "--engine", choices=("tensorrt",), help="also build the bundle's TensorRT engines on this GPU (experimental)"
    )
    add_engine_arguments(engine)


def run(arguments: argparse.Namespace) -> int:
    """Run `command.run`, which imports torch.

    Raises:
        ModuleNotFoundError: a package of the extra `export` is not installed.
    """
    from solo_export import command, triton_command

    return command.run(arguments) if arguments.triton is None else triton_command.run(arguments)


def _add_triton(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--triton-network",
        choices=("process", "models"),
        help="run the graphs in the Python model's process (default), or as models of Triton's ONNX Runtime",
    )
    group.add_argument("--triton-device", choices=("cpu", "gpu"), help="where the network runs (default cpu)")
    group.add_argument(
        "--triton-engine", type=Path, action="append", default=[], metavar="FILE",
        help="a TensorRT engine of `solo build-engine`, in place of the graph it was built from (experimental)",
    )  # fmt: skip
    group.add_argument(
        "--triton-version", type=_triton_number, metavar="N", help="number of the model's version (default 1)"
    )
    group.add_argument(
        "--triton-instances", type=_triton_number, metavar="N", help="processes with the Python model (default 1)"
    )


def _triton_number(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 999999999")
    return int(text)


def _calibration_images(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= MOST_CALIBRATION_IMAGES:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {MOST_CALIBRATION_IMAGES}")
    return int(text)


def _percent(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage from 0 to 100")
    return value
