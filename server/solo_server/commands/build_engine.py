"""`solo build-engine`: the TensorRT engines of a bundle, built ahead or found in the cache; `solo export --engine tensorrt` too.

bundle ─► GPU and TensorRT here? ─► profiles ─► cache: find or build both ─► each loaded once ─► what lies where
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from solo_models.bundle import Bundle, BundleError, read_bundle
from solo_models.exit_codes import NO_GPU, REFUSED
from solo_models.sizes import Size

from solo_server.backends.gpu.driver.base import DeviceInfo
from solo_server.backends.gpu.driver.cache import cache_folder
from solo_server.backends.gpu.driver.driver import find_devices
from solo_server.backends.gpu.tensorrt.build import TensorRt, check_gpu, deserialises, import_tensorrt, version_of
from solo_server.backends.gpu.tensorrt.cache import EngineCache, KeptEngine, Say
from solo_server.backends.gpu.tensorrt.profiles import MAX_BATCH, engine_profiles
from solo_server.errors import DeviceFailure, EngineFailure, SettingsError
from solo_server.setting_fields import parse_shapes


class NoGpuHere(SettingsError):
    """This machine cannot build engines: it has no GPU, no driver or no TensorRT."""


class PlanRefused(EngineFailure):
    """TensorRT does not load a plan."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What engines are asked for. shapes: exact padded sizes beside the two ranges; cache: folder, `None` for the usual one."""

    max_batch: int = MAX_BATCH
    shapes: tuple[Size, ...] = ()
    cache: Path | None = None
    build: bool = True
    workspace_mib: int | None = None


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where engines can be built: a GPU, and TensorRT."""

    gpu: DeviceInfo
    trt: TensorRt

    def check(self, precision: str) -> None:
        """Before any work: can it build engines of a precision? Raises SettingsError."""
        check_gpu(version_of(self.trt), self.gpu, precision)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `solo build-engine`."""
    parser.add_argument("bundle", type=Path, help="bundle folder or zip")
    add_engine_arguments(parser)
    parser.add_argument("--no-build", action="store_true", help="only look whether the engines are there and load")


def add_engine_arguments(parser: argparse._ActionsContainer) -> None:
    """Those that `solo export` takes as well."""
    parser.add_argument("--max-batch", type=int, default=MAX_BATCH, help="images in one batch (default %(default)s)")
    parser.add_argument(
        "--shapes",
        default="",
        metavar="LONGxSHORT,...",
        help="padded sizes that get profiles of their own, such as 1088x800 for landscape and portrait, 1088x800:portrait for one",
    )
    parser.add_argument(
        "--cache", type=Path, metavar="DIR", help="where engines are kept (SOLO_CACHE; default ~/.cache/solo)"
    )
    parser.add_argument(
        "--workspace-mib", type=int, metavar="N", help="the builder's GPU memory (default: all there is)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0 with both engines there, 2 for a bundle or options that cannot be built, 3 without GPU or TensorRT."""
    start = monotonic()

    def say(message: str) -> None:
        print(f"[{monotonic() - start:5.1f} s] {message}", file=sys.stderr, flush=True)

    try:
        options = engine_options(arguments, build=not arguments.no_build)
        bundle = read_bundle(arguments.bundle)
        build_engines(bundle, open_workplace(), options, say)
    except NoGpuHere as problem:
        print(f"solo build-engine: {problem}", file=sys.stderr)
        return NO_GPU
    except (BundleError, SettingsError, EngineFailure, OSError) as problem:
        print(f"solo build-engine: {problem}", file=sys.stderr)
        return REFUSED
    return 0


def engine_options(arguments: argparse.Namespace, *, build: bool = True) -> EngineOptions:
    """From the arguments of `add_engine_arguments`.

    Raises:
        SettingsError: a value cannot be.
    """
    workspace: int | None = arguments.workspace_mib
    if workspace is not None and workspace < 1:
        raise SettingsError(f"workspace: {workspace} MiB is below 1")
    if arguments.max_batch < 1:
        raise SettingsError(f"max batch: {arguments.max_batch} is below 1")
    return EngineOptions(arguments.max_batch, parse_shapes(arguments.shapes), arguments.cache, build, workspace)


def open_workplace() -> Workplace:
    """This machine's first GPU, and TensorRT.

    Raises:
        NoGpuHere: there is none, or no driver, or no TensorRT; says what is missing.
    """
    try:
        found = find_devices()
        if not found.devices:
            raise NoGpuHere(f"engines are built on the GPU that runs them: {found.reason}")
        return Workplace(found.devices[0], import_tensorrt())
    except DeviceFailure as problem:
        raise NoGpuHere(f"engines are built on the GPU that runs them: {problem}") from problem
    except SettingsError as problem:
        raise NoGpuHere(str(problem)) from problem


def build_engines(bundle: Bundle, place: Workplace, options: EngineOptions, say: Say) -> tuple[KeptEngine, ...]:
    """Both engines, found or built, and loaded once; `say` hears what is where.

    Raises:
        SettingsError, EngineBuildError, BundleError, OSError: see `EngineCache.engine_for`.
        PlanRefused: TensorRT does not load what is in the cache and may not be built, or what it has just built.
    """
    profiles = engine_profiles(bundle.spec, options.max_batch, options.shapes)
    folder = cache_folder(options.cache)
    cache = EngineCache(folder, place.trt, place.gpu, options.build, options.workspace_mib, say)

    def load(engines: Mapping[str, KeptEngine]) -> tuple[KeptEngine, ...]:
        for graph, engine in engines.items():
            if not deserialises(place.trt, engine.plan):
                raise PlanRefused(f"TensorRT {version_of(place.trt)} does not load {graph}'s {engine.path}")
        return tuple(engines.values())

    kept = cache.loaded(bundle, profiles, load, PlanRefused)
    for engine in kept:
        done = "wrote" if engine.is_new else "found"
        say(f"{done} {engine.path}, {len(engine.plan) / 2**20:.0f} MiB, {engine.profiles} profiles")
    return kept
