"""Puts together what a bundle needs on a GPU: device, kernels, network, post-processing.

open_device ─► engine cache ─► TensorRtNetwork ─┐
     │                     or OrtCudaNetwork ───┼─► DeviceBackend
     └───► kernels_cubin ─► CudaPostprocessor ──┘
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from solo_models.bundle import CATEGORIES, MASKS, Bundle
from solo_models.engine_file import EngineFileError
from solo_models.sizes import Size

from solo_server.backends.gpu.backend import DeviceBackend
from solo_server.backends.gpu.driver.base import Device
from solo_server.backends.gpu.driver.cache import cache_folder, warn_where_open
from solo_server.backends.gpu.driver.compile import kernels_cubin
from solo_server.backends.gpu.driver.driver import open_device
from solo_server.backends.gpu.network import DeviceNetwork
from solo_server.backends.gpu.onnxruntime import OrtCudaNetwork
from solo_server.backends.gpu.postprocess.batch import SOURCE
from solo_server.backends.gpu.postprocess.memory import CudaLimits
from solo_server.backends.gpu.postprocess.run import CudaPostprocessor
from solo_server.backends.gpu.tensorrt.build import import_tensorrt
from solo_server.backends.gpu.tensorrt.cache import EngineCache, KeptEngine
from solo_server.backends.gpu.tensorrt.engine import UnusableEngine
from solo_server.backends.gpu.tensorrt.network import GRAPHS, Engines, TensorRtNetwork, check_alignment, largest_shapes
from solo_server.backends.gpu.tensorrt.profiles import MAX_BATCH, EngineProfiles, engine_profiles
from solo_server.errors import SettingsError

LOG = logging.getLogger("solo_server")
TENSORRT, CUDA = "tensorrt", "cuda"
SLOTS = {TENSORRT: 2, CUDA: 1}  # batches on the device at a time: one computes while another is copied
KERNELS = SOURCE.with_name("kernels.cu")


@dataclass(frozen=True, slots=True)
class CudaOptions:
    """What may be chosen for a GPU.

    device: its number; max_batch: images in one batch; shapes: exact padded sizes that TensorRT optimises beside the two
    ranges; slots: batches on the device at a time, `None` for the engine's own; graphs: CUDA graphs that a slot keeps, 0 for none;
    build: whether a missing engine is built; cache: folder of engines and kernels, `None` for the usual one; workspace_mib: of
    TensorRT's builder, `None` for all memory; limits: of post-processing.
    """

    device: int = 0
    max_batch: int = MAX_BATCH
    shapes: tuple[Size, ...] = ()
    slots: int | None = None
    graphs: int = GRAPHS
    build: bool = True
    cache: Path | None = None
    workspace_mib: int | None = None
    limits: CudaLimits = field(default_factory=CudaLimits)

    def __post_init__(self) -> None:
        for name, least in (("device", 0), ("max_batch", 1), ("slots", 1), ("graphs", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise SettingsError(f"{name}: {value} is below {least}")


def open_cuda(bundle: Bundle, engine: str, options: CudaOptions | None = None) -> DeviceBackend:
    """A bundle on a GPU. engine: `tensorrt`, or `cuda` for ONNX Runtime's CUDA provider.

    Raises:
        SettingsError: no such GPU, a package is missing or does not fit, a number is wrong, or an engine is missing and may not be
            built.
        BundleError: the runtime cannot load a graph.
        DeviceOutOfMemory: it does not fit; says which buffer, how large, and what to lower.
        DeviceFailure: the device failed.
        OSError: the cache folder cannot be written.
    """
    chosen = options or CudaOptions()
    engine_profiles(bundle.spec, chosen.max_batch, chosen.shapes)  # what cannot be is told before anything is opened
    warn_where_open(cache_folder(chosen.cache))
    device = open_device(chosen.device)
    cubin = kernels_cubin(KERNELS, device.info.capability, cache_folder(chosen.cache))
    with ExitStack() as opened:
        network = open_device_network(bundle, engine, device, chosen)
        opened.callback(network.close)
        model = (bundle.spec, bundle.kernels)
        postprocessor = CudaPostprocessor(device, model, cubin, network.shapes, chosen.limits)
        opened.pop_all()  # the backend closes both
    return DeviceBackend(device, bundle.spec, network, postprocessor)


def open_device_network(bundle: Bundle, engine: str, device: Device, options: CudaOptions) -> DeviceNetwork:
    """The network alone, which reads and writes memory of `device`. Raises as `open_cuda`."""
    profiles = engine_profiles(bundle.spec, options.max_batch, options.shapes)
    return (_tensorrt if engine == TENSORRT else _onnxruntime)(bundle, device, profiles, options)


def _tensorrt(bundle: Bundle, device: Device, profiles: EngineProfiles, options: CudaOptions) -> DeviceNetwork:
    """Engines from the cache or built now; those that are refused are built again, once."""
    check_alignment(bundle.spec)  # before minutes of building
    trt = import_tensorrt()
    cache = EngineCache(cache_folder(options.cache), trt, device.info, options.build, options.workspace_mib, LOG.info)

    def load(kept: Mapping[str, KeptEngine]) -> TensorRtNetwork:
        engines = Engines(kept[CATEGORIES].plan, kept[MASKS].plan, profiles, bundle.precision)
        note_run = partial(_note_run, cache, list(kept.values()))
        slots = _slots(TENSORRT, options)
        return TensorRtNetwork(trt, device, engines, slots=slots, graphs=options.graphs, note_run=note_run)

    try:
        return cache.loaded(bundle, profiles, load, UnusableEngine)
    except UnusableEngine as problem:
        raise SettingsError(f"engine tensorrt: {problem}") from problem


def _note_run(cache: EngineCache, engines: Sequence[KeptEngine]) -> None:
    """Their headers say from now on that they have run on a GPU; serving does not depend on it."""
    try:
        for engine in engines:
            cache.note_run(engine)
    except (EngineFileError, OSError) as problem:
        LOG.warning("that the engines have run on this GPU cannot be noted: %s", problem)


def _onnxruntime(bundle: Bundle, device: Device, profiles: EngineProfiles, options: CudaOptions) -> DeviceNetwork:
    return OrtCudaNetwork(bundle, device.info, options.device, largest_shapes(profiles), _slots(CUDA, options))


def _slots(engine: str, options: CudaOptions) -> int:
    return options.slots or SLOTS[engine]
