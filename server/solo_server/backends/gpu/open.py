"""Opens a bundle on a GPU: device, kernels, network, post-processing.

open_device ─┬─► open_tensorrt or OrtCudaNetwork ───┬─► DeviceBackend
             └─► kernels_cubin ─► CudaPostprocessor ─┘
"""

from __future__ import annotations

from contextlib import ExitStack

from solo_models.bundle import Bundle

from solo_server.backends.gpu.backend import DeviceBackend
from solo_server.backends.gpu.buckets import buckets_of, largest_shapes
from solo_server.backends.gpu.driver.base import Device
from solo_server.backends.gpu.driver.cache import cache_folder, warn_where_open
from solo_server.backends.gpu.driver.compile import kernels_cubin
from solo_server.backends.gpu.driver.driver import open_device
from solo_server.backends.gpu.network import DeviceNetwork
from solo_server.backends.gpu.onnxruntime import OrtCudaNetwork
from solo_server.backends.gpu.options import CudaOptions
from solo_server.backends.gpu.postprocess.batch import SOURCE
from solo_server.backends.gpu.postprocess.run import CudaPostprocessor

TENSORRT, CUDA = "tensorrt", "cuda"
KERNELS = SOURCE.with_name("kernels.cu")


def open_cuda(bundle: Bundle, engine: str, options: CudaOptions | None = None) -> DeviceBackend:
    """A bundle on a GPU. engine: `tensorrt`, or `cuda` for ONNX Runtime's CUDA provider.

    Raises:
        SettingsError: no such GPU, a package is missing or does not fit, an option is wrong, or an engine is missing and may not
            be built.
        BundleError: the runtime cannot load a graph.
        DeviceOutOfMemory: it does not fit; says which buffer, how large, and what to lower.
        DeviceFailure: the device failed.
        OSError: the cache folder cannot be written.
    """
    chosen = options or CudaOptions()
    buckets_of(bundle.spec, chosen.shapes)  # refuses impossible sizes before anything is opened
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
    if engine == TENSORRT:
        from solo_server.backends.gpu.tensorrt.open import (
            open_tensorrt,
        )  # experimental: imported only where it is chosen

        return open_tensorrt(bundle, device, options)
    shapes = largest_shapes(buckets_of(bundle.spec, options.shapes), options.max_batch)
    return OrtCudaNetwork(bundle, device.info, options.device, shapes, options.slots or 1)
