"""A network in ONNX Runtime on a GPU, for those without TensorRT: it reads and writes our device memory, on our stream.

A session has one stream for life, hence a pair of sessions for each slot. Runs end with ONNX Runtime waiting for its stream: it
may reuse host memory of copies still under way else.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException
from solo_models.bundle import CATEGORIES, MASKS, Bundle, BundleError

from solo_server.cuda.base import DeviceInfo, Stream
from solo_server.engine.bindings import (
    Bindings,
    categories_bindings,
    categories_signature,
    masks_bindings,
    masks_signature,
)
from solo_server.engine.device import BatchShape, NetworkMemory
from solo_server.errors import DeviceFailure, DeviceOutOfMemory, SettingsError

CUDA = "CUDAExecutionProvider"
TURING = (7, 5)
FOR_VOLTA = "pip install onnxruntime-gpu==1.20.2 'nvidia-cudnn-cu12<=9.10.2.21'"
FOR_OTHERS = "pip install onnxruntime-gpu==1.26.0"
NO_MEMORY = ("Failed to allocate memory", "out of memory", "CUDNN_STATUS_ALLOC_FAILED")


class OrtCudaNetwork:
    """See `DeviceNetwork`. gpu, ordinal: the device of the slots' streams; shapes: the largest that will be asked for.

    Raises:
        SettingsError: the installed ONNX Runtime cannot use a GPU.
    """

    def __init__(
        self, bundle: Bundle, gpu: DeviceInfo, ordinal: int, shapes: tuple[BatchShape, ...], slots: int = 1
    ) -> None:
        self._bundle, self._gpu, self._ordinal = bundle, gpu, ordinal
        self.shapes, self.slots = shapes, slots
        if CUDA not in ort.get_available_providers():
            raise self._unavailable("is built without CUDA")
        if hasattr(ort, "preload_dlls"):  # from 1.21 on: CUDA and cuDNN out of NVIDIA's Python packages
            ort.preload_dlls()
        self.description = f"onnxruntime {ort.__version__} cuda {gpu.name}, {bundle.precision}"

    def open_slot(self, stream: Stream, memory: NetworkMemory) -> OrtCudaSlot:
        """See `DeviceNetwork.open_slot`. Raises `BundleError` where a graph cannot be loaded, `SettingsError` without CUDA."""
        spec = self._bundle.spec
        categories = self._session(CATEGORIES, stream, categories_signature(spec))
        masks = self._session(MASKS, stream, masks_signature(spec))
        return OrtCudaSlot(self._bundle, (categories, masks), self._ordinal, memory)

    def note_run(self) -> None:
        """Nothing of it is kept."""

    def close(self) -> None:
        """Sessions belong to the slots: nothing is left."""

    def _session(self, graph: str, stream: Stream, signature: Bindings) -> Any:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        provider = {
            "device_id": str(self._ordinal),
            "user_compute_stream": str(stream.handle),
            "cudnn_conv_algo_search": "HEURISTIC",  # an exhaustive search would be made anew for every size
            "arena_extend_strategy": "kSameAsRequested",
            "use_tf32": "0",  # what is float32 in a graph is so for a reason
        }
        try:
            session = ort.InferenceSession(self._bundle.files[graph], options, providers=[(CUDA, provider)])
        except Exception as problem:  # onnxruntime raises several unrelated types here
            raise self._unloadable(graph, str(problem)) from problem
        if session.get_providers()[:1] != [CUDA]:  # it goes on without, on the CPU, and only logs why
            raise self._unavailable("cannot load its CUDA provider (is CUDA's or cuDNN's library missing?)")
        session.disable_fallback()
        _check(session, graph, signature)
        return session

    def _unloadable(self, graph: str, problem: str) -> Exception:
        reason = problem.splitlines()[0][:200] if problem else "no reason given"
        if any(sign in problem for sign in NO_MEMORY):
            return DeviceOutOfMemory(f"{graph}: ONNX Runtime: {reason}")
        return BundleError(f"{graph}: ONNX Runtime cannot load it on the GPU ({reason})")

    def _unavailable(self, problem: str) -> SettingsError:
        advice = FOR_OTHERS if self._gpu.capability >= TURING else FOR_VOLTA
        return SettingsError(
            f"engine cuda: the installed onnxruntime {ort.__version__} {problem}; for {self._gpu.name}: "
            f"pip uninstall onnxruntime, then {advice}"
        )


class OrtCudaSlot:
    """See `NetworkSlot`: two sessions on one stream."""

    def __init__(self, bundle: Bundle, sessions: tuple[Any, Any], ordinal: int, memory: NetworkMemory) -> None:
        self._spec, self._ordinal, self._memory = bundle.spec, ordinal, memory
        self._categories, self._masks = sessions

    def categories(self, shape: BatchShape) -> None:
        """See `NetworkSlot.categories`."""
        self._run(self._categories, categories_bindings(self._spec, shape))

    def masks(self, shape: BatchShape, group: int) -> None:
        """See `NetworkSlot.masks`."""
        self._run(self._masks, masks_bindings(self._spec, shape, group))

    def close(self) -> None:
        """See `NetworkSlot.close`."""
        self._categories = self._masks = None

    def _run(self, session: Any, bindings: Bindings) -> None:
        binding = session.io_binding()
        for tensor in bindings.inputs:
            place = ("cuda", self._ordinal, np.dtype(tensor.dtype), tensor.shape, tensor.address(self._memory))
            binding.bind_input(tensor.name, *place)
        for tensor in bindings.outputs:
            place = ("cuda", self._ordinal, np.dtype(tensor.dtype), tensor.shape, tensor.address(self._memory))
            binding.bind_output(tensor.name, *place)
        try:
            session.run_with_iobinding(binding)
        except (Fail, InvalidArgument, RuntimeException) as problem:
            kind = DeviceOutOfMemory if any(sign in str(problem) for sign in NO_MEMORY) else DeviceFailure
            raise kind(f"ONNX Runtime: {problem}") from problem


def _check(session: Any, graph: str, signature: Bindings) -> None:
    """Outputs that are not bound would be made, and those of other shapes written past the end."""
    for what, found, wanted in (
        ("inputs", session.get_inputs(), signature.inputs),
        ("outputs", session.get_outputs(), signature.outputs),
    ):
        names = [node.name for node in found]
        expected = [tensor.name for tensor in wanted]
        if names != expected:
            raise BundleError(f"{graph}: has {what} {names}, the network has {expected}")
