"""The one module of this folder that the rest of the server imports. Experimental: TensorRT has never run on a GPU here.

open_tensorrt, for serving ──────────► engine cache: find or build ─► TensorRtNetwork
EngineBuilder, for `solo build-engine` ─► engine cache: find or build ─► each engine is loaded once
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from solo_models.bundle import CATEGORIES, MASKS, Bundle
from solo_models.engine_file import EngineFileError

from solo_server.backends.gpu.driver.base import Device, DeviceInfo
from solo_server.backends.gpu.driver.cache import cache_folder
from solo_server.backends.gpu.network import DeviceNetwork
from solo_server.backends.gpu.options import CudaOptions
from solo_server.backends.gpu.tensorrt.build import TensorRt, check_gpu, deserialises, import_tensorrt, version_of
from solo_server.backends.gpu.tensorrt.cache import CachedEngine, EngineCache
from solo_server.backends.gpu.tensorrt.engine import UnusableEngine
from solo_server.backends.gpu.tensorrt.network import Engines, TensorRtNetwork, check_alignment
from solo_server.backends.gpu.tensorrt.profiles import engine_profiles
from solo_server.errors import EngineFailure, SettingsError

LOG = logging.getLogger("solo_server")
SLOTS = 2  # batches on the device at a time: one is computed while another is copied


class PlanRefused(EngineFailure):
    """TensorRT does not load a plan."""


def open_tensorrt(bundle: Bundle, device: Device, options: CudaOptions) -> DeviceNetwork:
    """A bundle's network in TensorRT. Engines come from the cache or are built now; engines that are refused are built again once.

    Raises:
        SettingsError: TensorRT is missing, or does not fit the GPU or the bundle, or an engine is missing and may not be built.
        DeviceOutOfMemory: an engine does not fit.
        OSError: the cache folder cannot be written.
    """
    LOG.warning("engine tensorrt is experimental: it has never run on a GPU; solo selftest compares it with the CPU")
    profiles = engine_profiles(bundle.spec, options.max_batch, options.shapes)
    check_alignment(bundle.spec)  # before minutes of building
    trt = import_tensorrt()
    cache = EngineCache(cache_folder(options.cache), trt, device.info, options.build, options.workspace_mib, LOG.info)

    def load(cached: Mapping[str, CachedEngine]) -> TensorRtNetwork:
        engines = Engines(cached[CATEGORIES].plan, cached[MASKS].plan, profiles, bundle.precision)
        note_run = partial(_note_run, cache, list(cached.values()))
        slots = options.slots or SLOTS
        return TensorRtNetwork(trt, device, engines, slots=slots, graphs=options.graphs, note_run=note_run)

    try:
        return cache.loaded(bundle, profiles, load, UnusableEngine)
    except UnusableEngine as problem:
        raise SettingsError(f"engine tensorrt: {problem}") from problem


@dataclass(frozen=True, slots=True)
class EngineBuilder:
    """Builds engines ahead of serving, with TensorRT, for one GPU."""

    gpu: DeviceInfo
    trt: TensorRt

    @classmethod
    def open(cls, gpu: DeviceInfo) -> EngineBuilder:
        """Import TensorRT. Raises SettingsError where it is not installed or cannot be loaded."""
        return cls(gpu, import_tensorrt())

    def check(self, precision: str) -> None:
        """Raise SettingsError where this TensorRT on this GPU cannot build engines of a precision."""
        check_gpu(version_of(self.trt), self.gpu, precision)

    def build(self, bundle: Bundle, options: CudaOptions, log: Callable[[str], None]) -> tuple[CachedEngine, ...]:
        """Both engines, found or built, and loaded once. log: receives a line for each.

        Raises:
            SettingsError, EngineBuildError, BundleError, OSError: see `EngineCache.engine_for`.
            PlanRefused: TensorRT does not load an engine that it has just built, or one in the cache that may not be built again.
        """
        profiles = engine_profiles(bundle.spec, options.max_batch, options.shapes)
        folder = cache_folder(options.cache)
        cache = EngineCache(folder, self.trt, self.gpu, options.build, options.workspace_mib, log)
        engines = cache.loaded(bundle, profiles, self._load_once, PlanRefused)
        for engine in engines:
            done = "wrote" if engine.is_new else "found"
            log(f"{done} {engine.path}, {len(engine.plan) / 2**20:.0f} MiB, {engine.profiles} profiles")
        return engines

    def _load_once(self, engines: Mapping[str, CachedEngine]) -> tuple[CachedEngine, ...]:
        for graph, engine in engines.items():
            if not deserialises(self.trt, engine.plan):
                raise PlanRefused(f"TensorRT {version_of(self.trt)} does not load {graph}'s {engine.path}")
        return tuple(engines.values())


def _note_run(cache: EngineCache, engines: Sequence[CachedEngine]) -> None:
    """Note in the engines' headers that they have run on a GPU; serving does not depend on it."""
    try:
        for engine in engines:
            cache.note_run(engine)
    except (EngineFileError, OSError) as problem:
        LOG.warning("cannot note that the engines have run on this GPU: %s", problem)
