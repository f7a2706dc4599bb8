"""`solo export`: a checkpoint or a bundle in, a verified bundle or single file out, or nothing. Its arguments: `arguments`."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from solo_models.bundle import Bundle, BundleError, read_bundle
from solo_models.checkpoint import CheckpointError
from solo_models.exit_codes import NO_GPU, REFUSED
from solo_models.text_file import decoded
from solo_server.backends.gpu.buckets import buckets_of
from solo_server.backends.gpu.driver.driver import NoGpuError
from solo_server.commands.build_engine import engine_options, open_engine_builder
from solo_server.errors import EngineFailure, SettingsError

from solo_export.accuracy import AnnotationsError, annotated_images
from solo_export.arguments import CALIBRATION_IMAGES
from solo_export.export import (
    Order,
    Say,
    TargetError,
    check_target,
    export,
)
from solo_export.half import HalfPrecisionError
from solo_export.images import ImagesError, find_images
from solo_export.parity import ParityError
from solo_export.quantize import FOR_CPU, FORMS
from solo_export.source import Source, describe, from_bundle, from_checkpoint, open_source
from solo_export.tolerance import OutOfTolerance

if TYPE_CHECKING:
    from solo_server.backends.gpu.tensorrt.open import EngineBuilder


class UsageError(ValueError):
    """Arguments that do not go together, or name a file that cannot be read."""


OF_THE_SOURCE = (BundleError, CheckpointError, HalfPrecisionError, ParityError)
OF_THE_REST = (
    AnnotationsError,
    EngineFailure,
    OSError,
    OutOfTolerance,
    ImagesError,
    SettingsError,
    TargetError,
    UsageError,
)


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0 when the export is written, 2 when it cannot be, 3 where engines are asked for and there is no GPU."""
    start = monotonic()

    def say(message: str) -> None:
        print(f"[{monotonic() - start:5.1f} s] {message}", file=sys.stderr, flush=True)

    try:
        order = _order(arguments)
        place, options = _workplace(arguments), engine_options(arguments)
        check_target(order)
        for folder in (order.calibration, order.images):
            find_images(folder, 1)
        order = _with_annotations(order, arguments.annotations, say)
        source = _source(arguments, say)
        buckets_of(source.graphs.spec, options.shapes)  # raises now what would end it later
        export(source, order, say)
        if place is not None:
            place.build(read_bundle(order.output), options, say)
    except NoGpuError as problem:
        print(f"solo export: {problem}", file=sys.stderr)
        return NO_GPU
    except OF_THE_SOURCE as problem:
        print(f"solo export: {arguments.checkpoint}: {problem}", file=sys.stderr)
        return REFUSED
    except OF_THE_REST as problem:
        print(f"solo export: {problem}", file=sys.stderr)
        return REFUSED
    hint = "see docs/single-file.md" if order.single_file else f"try: solo serve {order.output}"
    say(f"wrote {order.output}; {hint}")
    return 0


def _order(arguments: argparse.Namespace) -> Order:
    if (arguments.precision == "int8") != (arguments.calibration is not None):
        raise UsageError(
            "--precision int8 and --calibration DIR go together: int8 needs images like yours to find its ranges"
        )
    if arguments.annotations is not None and arguments.images is None:
        raise UsageError("--annotations needs --images DIR, the folder of the annotated images")
    if arguments.calibration_images is not None and arguments.precision != "int8":
        raise UsageError("--calibration-images goes with --precision int8")
    form = arguments.int8_for or arguments.engine or FOR_CPU.name
    if arguments.int8_for is not None and arguments.precision != "int8":
        raise UsageError("--int8-for goes with --precision int8")
    if arguments.engine == "tensorrt" and form != "tensorrt":
        raise UsageError("--engine tensorrt cannot run INT8 for CPUs; leave --int8-for out")
    if arguments.single_file and (arguments.engine or form == "tensorrt"):
        raise UsageError("--engine and --int8-for tensorrt go with a bundle, not with --single-file")
    if arguments.single_file and arguments.include:
        raise UsageError("--include puts files into a bundle; a single file holds none")
    return Order(
        output=arguments.output,
        precision=arguments.precision,
        single_file=arguments.single_file,
        overwrite=arguments.force,
        calibration=arguments.calibration,
        calibration_images=arguments.calibration_images or CALIBRATION_IMAGES,
        images=arguments.images,
        tolerance=arguments.tolerance,
        int8=FORMS[form],
        extra_files={path.name: path.read_bytes() for path in arguments.include},
    )


def _with_annotations(order: Order, annotations: Path | None, say: Say) -> Order:
    """The order with its annotated images, where annotations are given. Raises AnnotationsError where there are none."""
    if annotations is None or order.images is None:
        return order
    found = annotated_images(annotations, order.images)
    say(f"mask AP is measured on {found.number} of the {found.listed} images of {annotations}: those in {order.images}")
    return replace(order, annotated=found)


def _workplace(arguments: argparse.Namespace) -> EngineBuilder | None:
    """Where engines will be built, if they are asked for. Raises SettingsError where they cannot be."""
    if arguments.engine is None:
        return None
    place = open_engine_builder()
    place.check(arguments.precision)
    return place


def _source(arguments: argparse.Namespace, say: Say) -> Source:
    opened = open_source(arguments.checkpoint, _class_names(arguments.classes), arguments.size)
    name = arguments.name or name_of(arguments.output)
    if isinstance(opened, Bundle):
        say(f"read the bundle {opened.name} {opened.version}: {describe(opened.spec)}")
        return from_bundle(opened, name)
    say(f"read {describe(opened.network.spec)} ({opened.layout} layout)")
    if arguments.size is None and opened.layout != "own":
        say("the input size is not in the file; this is its variant's usual one, --size LONGxSHORT chooses another")
    if opened.unused_names:
        say(opened.unused_names)
    source = from_checkpoint(opened, name)
    say(f"built the ONNX graphs; scores differ from torch by at most {source.parity['max_score_difference']:.1e}")
    return source


def name_of(output: Path) -> str:
    """What a model is called that nobody named: as its bundle is."""
    path = Path(os.path.abspath(output))
    return path.stem if path.suffix in (".zip", ".onnx") else path.name


def _class_names(path: Path | None) -> tuple[str, ...] | None:
    if path is None:
        return None
    try:
        lines = decoded(path.read_bytes()).splitlines()
    except UnicodeDecodeError as problem:
        raise UsageError(f"--classes {path}: is no text file") from problem
    return tuple(line.strip() for line in lines if line.strip())
