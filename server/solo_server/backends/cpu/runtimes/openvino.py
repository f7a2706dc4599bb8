"""OpenVINO on the CPU: an optional engine, the faster one for INT8 bundles and the only one with bf16.

Graphs are compiled once for all sizes. The precision is always set explicitly: by default, OpenVINO uses bf16 where the processor
has it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from numpy.typing import NDArray
from solo_models.bundle import BundleError

from solo_server.backends.cpu.runtimes.base import Graph
from solo_server.errors import EngineFailure, SettingsError
from solo_server.system.processor import has_bf16
from solo_server.types import Float32

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # blocks telemetry to Google
import openvino as ov  # noqa: E402

CACHED_KERNELS = 400  # an image size takes about 200, 6 MB for the INT8 demo model; OpenVINO's default is 5000
_NAMES = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "u8": "int8", "i8": "int8"}


class OpenVinoRuntime:
    """OpenVINO. threads: cores that one inference uses, 0 for all; precision: the bundle's own or bf16.

    Raises:
        SettingsError: precision is bf16 and the processor has no bf16 arithmetic.
    """

    def __init__(self, precision: str = "fp32", threads: int = 0) -> None:
        self._core = ov.Core()
        if precision == "bf16":
            capabilities = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            check_bf16(capabilities, self._core.get_property("CPU", "FULL_DEVICE_NAME"))
        self._options = _options(precision, threads)
        self._executed: Counter[str] = Counter()

    @property
    def description(self) -> str:
        """Runtime, version, device and the precision in which the loaded graphs' convolutions are executed."""
        return f"openvino {_version()} cpu, {precisions_text(self._executed)}"

    def load(self, content: bytes, name: str) -> Graph:
        """See `Runtime.load`."""
        try:
            compiled = self._core.compile_model(self._core.read_model(content), "CPU", self._options)
        except RuntimeError as problem:
            raise BundleError(f"{name}: OpenVINO cannot load it ({_reason(problem)})") from problem
        graph = _OpenVinoGraph(compiled)
        self._executed += graph.convolutions()
        return graph


class _OpenVinoGraph:
    """One compiled graph for many callers. Each call has an infer request to itself; later calls reuse it."""

    def __init__(self, compiled: ov.CompiledModel) -> None:
        self._compiled = compiled
        self._idle: SimpleQueue[ov.InferRequest] = SimpleQueue()

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> Sequence[Float32]:
        """The outputs, copied out of the request. A request that failed is not reused.

        Uses `start_async` and `wait`: with one thread, `infer` swallows errors and returns the last image's outputs.
        """
        request = self._request()
        try:
            request.start_async(dict(feeds))
            request.wait()
            outputs = [request.get_tensor(port).data.copy() for port in self._compiled.outputs]
        except RuntimeError as problem:
            raise EngineFailure(f"OpenVINO: {problem}") from problem
        self._idle.put(request)
        return outputs

    def convolutions(self) -> Counter[str]:
        """How many convolutions run in each precision, after OpenVINO has fused operators and chosen precisions."""
        nodes = (node.get_rt_info() for node in self._compiled.get_runtime_model().get_ops())
        kinds = Counter(str(n["runtimePrecision"].value) for n in nodes if n["layerType"].value == "Convolution")
        return Counter({_NAMES.get(kind, kind): count for kind, count in kinds.items()})

    def _request(self) -> ov.InferRequest:
        try:
            return self._idle.get_nowait()
        except Empty:
            return self._compiled.create_infer_request()


def _options(precision: str, threads: int) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",  # for operators that are not quantized
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,  # one inference uses all cores; a second caller waits
        "ENABLE_CPU_PINNING": False,  # post-processing shares the cores
        "CPU_RUNTIME_CACHE_CAPACITY": CACHED_KERNELS,
        **({"INFERENCE_NUM_THREADS": threads} if threads else {}),
    }


def check_bf16(capabilities: Sequence[str], name: str) -> None:
    """Raises SettingsError where OpenVINO would compute in float32 instead. name: of the processor."""
    if not has_bf16(capabilities):
        raise SettingsError(
            f"precision bf16: this processor ({name}) has no bf16 arithmetic (avx512_bf16, amx_bf16); OpenVINO offers "
            f"{', '.join(capabilities)} on it; leave the precision out"
        )


def _version() -> str:
    return str(ov.__version__).split("-")[0]


def precisions_text(convolutions: Counter[str]) -> str:
    """The precision of the convolutions: `bf16` where all have it, or `int8 in 103 of 109 convolutions, else fp32`."""
    (most, count), *others = convolutions.most_common() or [("fp32", 0)]
    if not others:
        return most
    return f"{most} in {count} of {convolutions.total()} convolutions, else {' and '.join(kind for kind, _ in others)}"


def _reason(problem: RuntimeError) -> str:
    """The last line that is not empty: OpenVINO's messages begin with locations in its own source."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(problem).__name__
