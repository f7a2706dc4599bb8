"""`solo export`: a checkpoint or a bundle in, a verified bundle or single file out, or nothing. Arguments: `arguments`."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from solo_models.bundle import Bundle, BundleError, read_bundle
from solo_models.checkpoint import CheckpointError
from solo_models.clocked_log import clocked_log
from solo_models.exit_codes import NO_GPU, REFUSED
from solo_models.text_file import decoded
from solo_server.backends.gpu.buckets import buckets_of
from solo_server.backends.gpu.driver.driver import NoGpuError
from solo_server.commands.build_engine import engine_options, open_engine_builder
from solo_server.errors import EngineFailure, SettingsError

from solo_export.accuracy import AnnotationsError, annotated_images
from solo_export.arguments import CALIBRATION_IMAGES
from solo_export.export import (
    ExportRequest,
    Log,
    TargetError,
    check_target,
    export,
)
from solo_export.half import HalfPrecisionError
from solo_export.images import ImagesError, find_images
from solo_export.parity import ParityError
from solo_export.quantize import FOR_CPU, FORMS
from solo_export.source import ExportSource, describe, from_bundle, from_checkpoint, open_source
from solo_export.tolerance import OutOfTolerance

if TYPE_CHECKING:
    from solo_server.backends.gpu.tensorrt.open import EngineBuilder


class UsageError(ValueError):
    """Options that exclude or need each other, or a file that cannot be read."""


OF_TRITON = ("triton_network", "triton_device", "triton_engine", "triton_version", "triton_instances")
SOURCE_ERRORS = (BundleError, CheckpointError, HalfPrecisionError, ParityError)
OTHER_ERRORS = (
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
    """Exit status 0 when the export is written, 2 when it cannot be, 3 when engines are requested and there is no GPU."""
    log = clocked_log()
    try:
        request = _request(arguments)
        place, options = _workplace(arguments), engine_options(arguments)
        check_target(request)
        for folder in (request.calibration, request.images):
            find_images(folder, 1)
        request = _with_annotations(request, arguments.annotations, log)
        source = _source(arguments, log)
        buckets_of(source.graphs.spec, options.shapes)  # fail before the long work
        export(source, request, log)
        if place is not None:
            place.build(read_bundle(request.output), options, log)
    except NoGpuError as problem:
        print(f"solo export: {problem}", file=sys.stderr)
        return NO_GPU
    except SOURCE_ERRORS as problem:
        print(f"solo export: {arguments.checkpoint}: {problem}", file=sys.stderr)
        return REFUSED
    except OTHER_ERRORS as problem:
        print(f"solo export: {problem}", file=sys.stderr)
        return REFUSED
    hint = "see docs/single-file.md" if request.single_file else f"try: solo serve {request.output}"
    log(f"wrote {request.output}; {hint}")
    return 0


def _request(arguments: argparse.Namespace) -> ExportRequest:
    if (arguments.precision == "int8") != (arguments.calibration is not None):
        raise UsageError(
            "--precision int8 and --calibration DIR go together: int8 finds its ranges on images like those to be served"
        )
    if arguments.annotations is not None and arguments.images is None:
        raise UsageError("--annotations needs --images DIR, the folder with the annotated images")
    if arguments.calibration_images is not None and arguments.precision != "int8":
        raise UsageError("--calibration-images goes with --precision int8")
    form = arguments.int8_for or arguments.engine or FOR_CPU.name
    if arguments.int8_for is not None and arguments.precision != "int8":
        raise UsageError("--int8-for goes with --precision int8")
    if arguments.engine == "tensorrt" and form != "tensorrt":
        raise UsageError("--engine tensorrt cannot run INT8 for CPUs; leave out --int8-for cpu")
    if arguments.single_file and (arguments.engine or form == "tensorrt"):
        raise UsageError("--engine and --int8-for tensorrt go with a bundle, not with --single-file")
    if arguments.triton is None and any(getattr(arguments, name) for name in OF_TRITON):
        raise UsageError("--triton-network, --triton-device and the like go with --triton DIR")
    if arguments.single_file and arguments.include:
        raise UsageError("--include adds files to a bundle; --single-file writes none")
    return ExportRequest(
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


def _with_annotations(request: ExportRequest, annotations: Path | None, log: Log) -> ExportRequest:
    """The request with its annotated images, if annotations are given. Raises AnnotationsError."""
    if annotations is None or request.images is None:
        return request
    annotated = annotated_images(annotations, request.images)
    log(
        f"mask AP is measured on {annotated.number} of the {annotated.listed} images of {annotations}: "
        f"those in {request.images}"
    )
    return replace(request, annotated=annotated)


def _workplace(arguments: argparse.Namespace) -> EngineBuilder | None:
    """What builds the requested engines, `None` if none are requested. Raises SettingsError where it cannot build them."""
    if arguments.engine is None:
        return None
    place = open_engine_builder()
    place.check(arguments.precision)
    return place


def _source(arguments: argparse.Namespace, log: Log) -> ExportSource:
    opened = open_source(arguments.checkpoint, _class_names(arguments.classes), arguments.size)
    name = arguments.name or name_of(arguments.output)
    if isinstance(opened, Bundle):
        log(f"read the bundle {opened.name} {opened.version}: {describe(opened.spec)}")
        return from_bundle(opened, name)
    log(f"read {describe(opened.network.spec)} ({opened.layout} layout)")
    if arguments.size is None and opened.layout != "own":
        log("the file does not give the input size; using the default of its variant, --size LONGxSHORT sets another")
    if opened.unused_names:
        log(opened.unused_names)
    source = from_checkpoint(opened, name)
    log(f"built the ONNX graphs; scores differ from torch by at most {source.parity['max_score_difference']:.1e}")
    return source


def name_of(output: Path) -> str:
    """The default name of a model: that of its bundle."""
    path = Path(os.path.abspath(output))
    return path.stem if path.suffix in (".zip", ".onnx") else path.name


def _class_names(path: Path | None) -> tuple[str, ...] | None:
    if path is None:
        return None
    try:
        lines = decoded(path.read_bytes()).splitlines()
    except UnicodeDecodeError as problem:
        raise UsageError(f"--classes {path}: not a text file") from problem
    return tuple(line.strip() for line in lines if line.strip())
