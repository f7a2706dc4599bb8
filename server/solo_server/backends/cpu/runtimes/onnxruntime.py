"""ONNX Runtime on the CPU: the default engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException
from solo_models.bundle import BundleError

from solo_server.backends.cpu.runtimes.base import Graph
from solo_server.errors import EngineFailure
from solo_server.types import Float32

WITHOUT_INT8_PRODUCTS = ("session.disable_quant_qdq", "1")


class OrtRuntime:
    """ONNX Runtime. threads: cores that one inference uses, 0 for all.

    int8_for: as in the bundle. Bundles for TensorRT run in float32 between their quantisation steps: on a CPU without VNNI their
    8-bit weights would overflow in ONNX Runtime's INT8 products.
    """

    def __init__(self, threads: int = 0, int8_for: str | None = None) -> None:
        self._threads, self._int8_for = threads, int8_for

    @property
    def description(self) -> str:
        """Runtime, version and device."""
        return f"onnxruntime {ort.__version__} cpu"

    def load(self, content: bytes, name: str) -> Graph:
        """See `Runtime.load`."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.enable_mem_pattern = (
            False  # memory plans hold for one shape; without them a run takes 80 MB less, as fast
        )
        _share_memory(options)
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", "0"
        )  # the compiled kernels need the cores too
        if self._int8_for == "tensorrt":
            options.add_session_config_entry(*WITHOUT_INT8_PRODUCTS)
        try:
            session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as problem:  # onnxruntime raises several unrelated types here
            raise BundleError(
                f"{name}: ONNX Runtime cannot load it ({str(problem).splitlines()[0][:200]})"
            ) from problem
        session._model_bytes = None  # a copy of the graph with all weights, kept only to reload with other providers
        return _OrtGraph(session)


def _share_memory(options: ort.SessionOptions) -> None:
    """One arena for the activations of all sessions, instead of one each; weights stay outside and are freed with their session."""
    _register_arena()
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")


@lru_cache(maxsize=1)
def _register_arena() -> None:
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    growing = {"max_mem": 0, "arena_extend_strategy": 0, "initial_chunk_size_bytes": -1, "max_dead_bytes_per_chunk": -1}
    ort.create_and_register_allocator(memory, ort.OrtArenaCfg(growing))


class _OrtGraph:
    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> Sequence[Float32]:
        try:
            return cast(list[Float32], self._session.run(None, dict(feeds)))
        except (Fail, InvalidArgument, RuntimeException) as problem:
            raise EngineFailure(f"ONNX Runtime: {problem}") from problem
