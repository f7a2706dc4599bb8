"""A network in ONNX Runtime on a GPU, without TensorRT: it reads and writes our device memory, on our stream.

A session has one stream for its lifetime, so each slot has sessions of its own. A session plans every convolution again when the
shape of its input changes (220 ms for SOLO R50 on an H200), so there is one session for each of the last shapes, and few batch
sizes. Each session loads the weights; intermediate values share one arena. ONNX Runtime waits for its stream at the end of a run:
otherwise it might reuse host memory of unfinished copies, and other sessions that part of the arena.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException
from solo_models.bundle import CATEGORIES, MASKS, Bundle, BundleError

from solo_server.backends.gpu.bindings import (
    Bindings,
    categories_bindings,
    categories_signature,
    masks_bindings,
    masks_signature,
)
from solo_server.backends.gpu.driver.base import DeviceInfo, Stream
from solo_server.backends.gpu.network import BatchShape, NetworkMemory, level_groups
from solo_server.errors import DeviceFailure, DeviceOutOfMemory, SettingsError

CUDA = "CUDAExecutionProvider"
TURING = (7, 5)
FOR_VOLTA = "pip install onnxruntime-gpu==1.20.2 'nvidia-cudnn-cu12<=9.10.2.21'"
FOR_OTHERS = "pip install onnxruntime-gpu==1.26.0"
MAX_PLANNED_SHAPES = 8  # batch shapes with sessions of their own; a ninth takes over the sessions used longest ago
LOG_ERRORS = 3
NO_MEMORY = ("Failed to allocate memory", "out of memory", "CUDNN_STATUS_ALLOC_FAILED")


class OrtCudaNetwork:
    """See `DeviceNetwork`. gpu, ordinal: the device of the slots' streams; shapes: the largest batches.

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
        if hasattr(ort, "preload_dlls"):  # since 1.21: loads CUDA and cuDNN from NVIDIA's Python packages
            ort.preload_dlls()
        ort.set_default_logger_severity(LOG_ERRORS)
        _register_arena(ordinal)
        self.description = f"onnxruntime {ort.__version__} cuda {gpu.name}, {bundle.precision}"

    def run_as(self, shape: BatchShape) -> BatchShape:
        """See `DeviceNetwork.run_as`: the next power of two of images, or the largest batch."""
        most = max(largest.images for largest in self.shapes)
        return replace(shape, images=min(most, 1 << (shape.images - 1).bit_length()))

    def open_slot(self, stream: Stream, memory: NetworkMemory) -> OrtCudaSlot:
        """See `DeviceNetwork.open_slot`. Raises `BundleError` where a graph cannot be loaded, `SettingsError` without CUDA."""
        spec = self._bundle.spec
        groups = len(level_groups(spec))
        categories = Sessions(lambda: self._session(CATEGORIES, stream, categories_signature(spec)), MAX_PLANNED_SHAPES)
        masks = Sessions(lambda: self._session(MASKS, stream, masks_signature(spec)), MAX_PLANNED_SHAPES * groups)
        return OrtCudaSlot(self._bundle, (categories, masks), self._ordinal, memory)

    def note_run(self) -> None:
        """Nothing is recorded."""

    def close(self) -> None:
        """Sessions belong to the slots: there is nothing to free."""

    def _session(self, graph: str, stream: Stream, signature: Bindings) -> Any:
        options = ort.SessionOptions()
        options.log_severity_level = LOG_ERRORS
        options.add_session_config_entry("session.use_env_allocators", "1")
        provider = {
            "device_id": str(self._ordinal),
            "user_compute_stream": str(stream.handle),
            "cudnn_conv_algo_search": "HEURISTIC",  # an exhaustive search would run again for every size
            "arena_extend_strategy": "kSameAsRequested",
            "use_tf32": "1" if self._may_use_tensor_cores() else "0",
        }
        try:
            session = ort.InferenceSession(self._bundle.files[graph], options, providers=[(CUDA, provider)])
        except Exception as problem:  # onnxruntime raises several unrelated types here
            raise self._unloadable(graph, str(problem)) from problem
        if session.get_providers()[:1] != [CUDA]:  # otherwise it continues on the CPU, and only logs why
            raise self._unavailable("cannot load its CUDA provider (is CUDA's or cuDNN's library missing?)")
        session.disable_fallback()
        _check(session, graph, signature)
        return session

    def _may_use_tensor_cores(self) -> bool:
        """ONNX Runtime's option `use_tf32` enables tensor cores, for float16 as well.

        Values that are float32 in a graph must not be rounded. Where all convolutions are float16, TF32 rounds nothing.
        """
        spec = self._bundle.spec
        return self._bundle.precision == "fp16" and not (spec.deformable_stages or spec.deformable_towers)

    def _unloadable(self, graph: str, problem: str) -> Exception:
        reason = problem.splitlines()[0][:200] if problem else "no reason given"
        if any(text in problem for text in NO_MEMORY):
            return DeviceOutOfMemory(f"{graph}: ONNX Runtime: {reason}")
        return BundleError(f"{graph}: ONNX Runtime cannot load it on the GPU ({reason})")

    def _unavailable(self, problem: str) -> SettingsError:
        advice = FOR_OTHERS if self._gpu.capability >= TURING else FOR_VOLTA
        return SettingsError(
            f"engine cuda: the installed onnxruntime {ort.__version__} {problem}; for {self._gpu.name}: "
            f"pip uninstall onnxruntime, then {advice}"
        )


class Sessions:
    """One graph in up to `most` sessions, each with the plans of the input shape that it ran last.

    open_session: opens one. It is called once immediately, so that a graph that cannot be loaded stops the start, and later for new
    shapes. Without memory for another session, the shapes take turns in the existing ones.
    """

    def __init__(self, open_session: Callable[[], Any], most: int) -> None:
        self._open_session, self._most = open_session, most
        self._spare = [open_session()]
        self._planned: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    def planned_for(self, shape: tuple[int, ...]) -> Any:
        """The session for inputs of that shape."""
        session = self._planned.pop(shape, None) or self._unplanned()
        self._planned[shape] = session
        return session

    def _unplanned(self) -> Any:
        if self._spare:
            return self._spare.pop()
        if len(self._planned) < self._most:
            try:
                return self._open_session()
            except DeviceOutOfMemory:
                self._most = len(self._planned)
        return self._planned.popitem(last=False)[1]


class OrtCudaSlot:
    """See `NetworkSlot`: sessions of two graphs on one stream."""

    def __init__(
        self, bundle: Bundle, sessions: tuple[Sessions, Sessions], ordinal: int, memory: NetworkMemory
    ) -> None:
        self._spec, self._ordinal, self._memory = bundle.spec, ordinal, memory
        self._categories: Sessions | None = sessions[0]
        self._masks: Sessions | None = sessions[1]

    def categories(self, shape: BatchShape) -> None:
        """See `NetworkSlot.categories`."""
        self._run(self._categories, categories_bindings(self._spec, shape))

    def masks(self, shape: BatchShape, group: int) -> None:
        """See `NetworkSlot.masks`."""
        self._run(self._masks, masks_bindings(self._spec, shape, group))

    def close(self) -> None:
        """See `NetworkSlot.close`."""
        self._categories = self._masks = None

    def _run(self, sessions: Sessions | None, bindings: Bindings) -> None:
        if sessions is None:
            raise DeviceFailure("the network was closed")
        session = sessions.planned_for(bindings.inputs[0].shape)
        binding = session.io_binding()
        for tensor in bindings.inputs:
            memory = ("cuda", self._ordinal, np.dtype(tensor.dtype), tensor.shape, tensor.address(self._memory))
            binding.bind_input(tensor.name, *memory)
        for tensor in bindings.outputs:
            memory = ("cuda", self._ordinal, np.dtype(tensor.dtype), tensor.shape, tensor.address(self._memory))
            binding.bind_output(tensor.name, *memory)
        try:
            session.run_with_iobinding(binding)
        except (Fail, InvalidArgument, RuntimeException) as problem:
            kind = DeviceOutOfMemory if any(text in str(problem) for text in NO_MEMORY) else DeviceFailure
            raise kind(f"ONNX Runtime: {problem}") from problem


@cache
def _register_arena(ordinal: int) -> None:
    """One arena for all sessions of the process on that GPU."""
    memory = ort.OrtMemoryInfo("Cuda", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, ordinal, ort.OrtMemType.DEFAULT)
    growing = {"max_mem": 0, "arena_extend_strategy": 1, "initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1}
    ort.create_and_register_allocator_v2(CUDA, memory, {"device_id": str(ordinal)}, ort.OrtArenaCfg(growing))


def _check(session: Any, graph: str, signature: Bindings) -> None:
    """Raises BundleError for a graph of another network: unbound outputs would be allocated, other shapes written out of bounds."""
    for kind, found, required in (
        ("inputs", session.get_inputs(), signature.inputs),
        ("outputs", session.get_outputs(), signature.outputs),
    ):
        names = [node.name for node in found]
        expected = [tensor.name for tensor in required]
        if names != expected:
            raise BundleError(f"{graph}: has {kind} {names}, the network has {expected}")
