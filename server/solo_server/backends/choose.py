"""Chooses the engine and the precision that run a bundle, and gives the reason. No other module knows this rule.

`auto` measures nothing and never lowers the precision:

    bf16 requested                        openvino, the only engine with bf16 on a CPU
    int8 for TensorRT                     onnxruntime, which can run it without INT8 products; these would overflow on many CPUs
    int8 bundle, openvino installed       openvino, which takes less time per image (docs/engines.md)
    everything else                       onnxruntime

A GPU is used only on request: `tensorrt` (experimental, never run on a GPU yet) or `cuda`, ONNX Runtime's CUDA provider.

The head runs on compiled kernels, on every engine and processor. It runs as a graph in bf16, and where it cannot be compiled
(deformable towers, weights under other names).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from solo_models.bundle import Bundle
from solo_models.install import install_command

from solo_server.backends.base import Backend
from solo_server.backends.cpu.backend import CpuBackend
from solo_server.backends.cpu.network import HeadChoice, open_network
from solo_server.backends.cpu.pool import Pool
from solo_server.backends.cpu.runtimes.base import Runtime
from solo_server.backends.cpu.runtimes.one_core_under_load import OneCoreUnderLoadRuntime
from solo_server.backends.cpu.runtimes.onnxruntime import OrtRuntime
from solo_server.engine_names import ENGINES, GPU_ENGINES, PRECISIONS
from solo_server.errors import SettingsError

if TYPE_CHECKING:
    from solo_server.backends.cpu.runtimes.openvino import OpenVinoRuntime
    from solo_server.backends.gpu.options import CudaOptions

ONNXRUNTIME, OPENVINO = "onnxruntime", "openvino"
MAX_DEFAULT_SLOTS = 4
"""Up to this many cores, the default is one image per core at a time; each takes memory while it is computed."""
INSTALL = install_command("openvino")


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine, the precision in which it runs the bundle, what runs the head, and the reason in a few words."""

    engine: str
    precision: str
    head: HeadChoice
    reason: str

    def open(self, bundle: Bundle, pool: Pool, cuda: CudaOptions | None = None, slots: int = 1) -> Backend:
        """Load the bundle into the engine. pool: the cores of a CPU engine; cuda: options of a GPU engine.

        slots: images at a time on a CPU, 0 for the engine's default.

        Raises:
            BundleError: the runtime cannot load it.
            SettingsError: the processor does not support the precision, there is no GPU, the package cannot be imported, or the
                engine takes one image at a time.
            DeviceFailure: the GPU failed, or has too little memory.
        """
        if self.engine in GPU_ENGINES:
            from solo_server.backends.gpu.open import open_cuda  # a server on a CPU does not need it

            try:
                return open_cuda(bundle, self.engine, cuda)
            except OSError as problem:
                raise SettingsError(
                    f"engine {self.engine}: the cache folder cannot be used ({problem}); let the server's user write there, "
                    "or name another (SOLO_CACHE)"
                ) from problem
        max_concurrency = self.slots(pool.threads, slots)
        runtime = self._runtime(bundle.int8_for, pool, max_concurrency)
        return CpuBackend(bundle, open_network(bundle, runtime, pool, self.head), pool, max_concurrency)

    def slots(self, threads: int, requested: int) -> int:
        """How many images a CPU engine computes at a time on `threads` cores. requested: `SOLO_SLOTS`, 0 for the default.

        Raises:
            SettingsError: the engine takes one image at a time, and more are requested.
        """
        if self.engine == OPENVINO:
            if requested > 1:
                raise SettingsError("SOLO_SLOTS: engine openvino takes one image at a time")
            return 1
        return requested or (threads if threads <= MAX_DEFAULT_SLOTS else 1)

    def _runtime(self, int8_for: str | None, pool: Pool, max_concurrency: int) -> Runtime:
        if self.engine == OPENVINO:
            return _openvino_runtime()(self.precision, pool.threads)
        runtime = OrtRuntime(pool.threads, int8_for)
        return (
            OneCoreUnderLoadRuntime(runtime, OrtRuntime(1, int8_for), pool.is_under_load)
            if max_concurrency >= pool.threads > 1
            else runtime
        )


def choose(bundle: Bundle, engine: str = "auto", precision: str | None = None) -> Choice:
    """Apply the rule above. precision: `None` for the bundle's own.

    Raises:
        SettingsError: a name is unknown, the package is missing, or the engine cannot run the bundle in this precision.
    """
    check_names(engine, precision)
    requested = precision or bundle.precision
    if requested != bundle.precision and (requested, bundle.precision) != ("bf16", "fp32"):
        raise SettingsError(
            f"precision {requested}: {bundle.name} is {bundle.precision}; {_how_to_get(requested, bundle)}"
        )
    chosen, reason = (engine, "asked for") if engine != "auto" else _auto_engine(requested, bundle.int8_for)
    if chosen == OPENVINO and bundle.int8_for == "tensorrt":
        raise SettingsError(f"engine openvino: {bundle.name} is INT8 for TensorRT; onnxruntime runs it, slowly")
    if chosen in (ONNXRUNTIME, *GPU_ENGINES) and requested == "bf16":
        raise SettingsError(
            f"precision bf16: engine {chosen} does not support it; use engine openvino, or leave the precision out"
        )
    if chosen == OPENVINO and not has_openvino():
        raise SettingsError(f"engine openvino: not installed; {INSTALL}")
    return Choice(chosen, requested, _head(requested), reason)


def _head(precision: str) -> HeadChoice:
    """The graph in bf16, which the kernels do not have; the compiled head otherwise, on every processor.

    INT8 mask towers take half the graph's time on the 16-bit kernels with AVX2 alone, a third more with VNNI (SOLO R50 at 704x512:
    benchmarks/results/processor.json; docs/engines.md, "The head").
    """
    return "graph" if precision == "bf16" else "auto"


def check_names(engine: str, precision: str | None) -> None:
    """Raises SettingsError for an unknown engine or precision."""
    if engine not in ENGINES:
        raise SettingsError(f"engine {engine!r}: must be one of {', '.join(ENGINES)}")
    if precision is not None and precision not in PRECISIONS:
        raise SettingsError(f"precision {precision!r}: must be one of {', '.join(PRECISIONS)}")


def has_openvino() -> bool:
    """Whether the openvino package is installed; does not import it."""
    return find_spec(OPENVINO) is not None


def _auto_engine(precision: str, int8_for: str | None) -> tuple[str, str]:
    if int8_for == "tensorrt":
        return ONNXRUNTIME, "auto: int8 for TensorRT runs on onnxruntime, slowly"
    if precision == "bf16":
        return OPENVINO, "auto: only openvino has bf16 on a CPU"
    if precision != "int8":
        return ONNXRUNTIME, f"auto: {precision} runs on onnxruntime"
    if has_openvino():
        return OPENVINO, "auto: int8 runs on openvino, which is installed"
    return ONNXRUNTIME, "auto: int8 runs on onnxruntime where openvino, the faster one, is not installed"


def _openvino_runtime() -> type[OpenVinoRuntime]:
    try:
        from solo_server.backends.cpu.runtimes.openvino import OpenVinoRuntime
    except ImportError as problem:
        raise SettingsError(f"engine openvino: cannot be imported ({problem}); {INSTALL}") from problem
    return OpenVinoRuntime


def _how_to_get(requested: str, bundle: Bundle) -> str:
    if bundle.precision != "fp32":
        return "leave the precision out, or serve the fp32 bundle that it was exported from"
    calibration = " --calibration DIR" if requested == "int8" else ""
    return f"export such a bundle: solo export {bundle.name} -o NEW --precision {requested}{calibration}"
