"""`solo build-engine`, and the engines of `solo export --engine tensorrt`: builds a bundle's TensorRT engines ahead of serving.

bundle ─► GPU and TensorRT here? ─► profiles ─► cache: find or build both ─► each loaded once ─► their paths
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from solo_models.bundle import BundleError, read_bundle
from solo_models.clocked_log import clocked_log
from solo_models.exit_codes import NO_GPU, REFUSED

from solo_server.backends.gpu.driver.driver import NoGpuError, find_devices
from solo_server.backends.gpu.options import MAX_BATCH, CudaOptions
from solo_server.errors import DeviceFailure, EngineFailure, SettingsError
from solo_server.setting_fields import parse_shapes

if TYPE_CHECKING:
    from solo_server.backends.gpu.tensorrt.open import EngineBuilder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `solo build-engine`."""
    parser.epilog = "Experimental: TensorRT has never run on a GPU; solo selftest compares it with the CPU."
    parser.add_argument("bundle", type=Path, help="bundle folder or zip")
    add_engine_arguments(parser)
    parser.add_argument(
        "--no-build", action="store_true", help="only check that the engines are in the cache and can be loaded"
    )


def add_engine_arguments(parser: argparse._ActionsContainer) -> None:
    """Arguments that `solo export` has too."""
    parser.add_argument("--max-batch", type=int, default=MAX_BATCH, help="images in one batch (default %(default)s)")
    parser.add_argument(
        "--shapes",
        default="",
        metavar="LONGxSHORT,...",
        help="padded sizes with profiles of their own, such as 1088x800 for landscape and portrait, 1088x800:portrait for one",
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="where engines are kept (SOLO_CACHE; default ~/.cache/solo)"
    )
    parser.add_argument(
        "--workspace-mib", type=int, metavar="N", help="the builder's GPU memory (default: all there is)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0 with both engines in the cache, 2 for a bundle or options that cannot be built, 3 without GPU or TensorRT."""
    log = clocked_log()
    try:
        options = engine_options(arguments, build=not arguments.no_build)
        bundle = read_bundle(arguments.bundle)
        open_engine_builder().build(bundle, options, log)
    except NoGpuError as problem:
        print(f"solo build-engine: {problem}", file=sys.stderr)
        return NO_GPU
    except (BundleError, SettingsError, EngineFailure, OSError) as problem:
        print(f"solo build-engine: {problem}", file=sys.stderr)
        return REFUSED
    return 0


def engine_options(arguments: argparse.Namespace, *, build: bool = True) -> CudaOptions:
    """From the arguments of `add_engine_arguments`.

    Raises:
        SettingsError: a value is out of range.
    """
    workspace: int | None = arguments.workspace_mib
    if workspace is not None and workspace < 1:
        raise SettingsError(f"workspace: {workspace} MiB is below 1")
    if arguments.max_batch < 1:
        raise SettingsError(f"max batch: {arguments.max_batch} is below 1")
    shapes = parse_shapes(arguments.shapes)
    return CudaOptions(
        max_batch=arguments.max_batch, shapes=shapes, cache=arguments.cache, build=build, workspace_mib=workspace
    )


def open_engine_builder() -> EngineBuilder:
    """TensorRT on the first GPU of this machine.

    Raises:
        NoGpuError: there is no GPU, no driver or no TensorRT; the message says what is missing.
    """
    from solo_server.backends.gpu.tensorrt.open import EngineBuilder  # experimental: imported only where it is used

    try:
        found = find_devices()
        if not found.devices:
            raise NoGpuError(f"engines are built on the GPU that runs them: {found.reason}")
        return EngineBuilder.open(found.devices[0])
    except DeviceFailure as problem:
        raise NoGpuError(f"engines are built on the GPU that runs them: {problem}") from problem
    except SettingsError as problem:
        raise NoGpuError(str(problem)) from problem
