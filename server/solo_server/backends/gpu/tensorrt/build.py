"""Builds one TensorRT plan from one graph.

    ONNX bytes ─► parser ─► strongly typed network ─┐
    profiles, workspace, timing cache ─► config ────┴► builder ─► plan, updated timing cache

The graph defines the precision: float32, float16 between explicit casts, or INT8 between QuantizeLinear and DequantizeLinear; no
flag lets the builder choose another. For TensorRT 10.4, the last for V100, to 10.16 and 11, which removed features that we do not
use: weak precision flags, implicit batches, calibrators.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from solo_models.bundle import Bundle, BundleError
from solo_models.engine_file import Profile

from solo_server.backends.gpu.driver.base import DeviceInfo
from solo_server.errors import SettingsError

LOG = logging.getLogger("solo_server")
OLDEST, LAST_FOR_VOLTA = (10, 4), (10, 4)
VOLTA, TURING = (7, 0), (7, 5)
INSTALL_VOLTA = (
    "pip install 'tensorrt-cu12==10.4.0' (its libraries come from NVIDIA's package index), "
    "or the Debian packages libnvinfer10=10.4.0.26-1+cuda12.6 and their python3-libnvinfer"
)
INSTALL = "pip install 'tensorrt-cu12==10.16.1.11'"
SHOWN_ERRORS = 3
BAR = 20
SECONDS_BETWEEN_LINES = 5.0

TensorRt = (
    Any  # the module `tensorrt`, which has no types and cannot be installed everywhere; passed in, so that tests can
)

Progress = Callable[[str, int, int], None]


class EngineBuildError(BundleError):
    """TensorRT cannot build an engine from a graph. The message names the graph, and the node if TensorRT does."""


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What to build. name: of the graph, for messages; workspace_mib: `None` for all memory; timing_cache: may be empty."""

    name: str
    onnx: bytes = field(repr=False)
    profiles: tuple[Profile, ...]
    workspace_mib: int | None = None
    timing_cache: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class BuiltPlan:
    """A serialized engine, and the timing cache with all kernel times known so far."""

    plan: bytes = field(repr=False)
    timing_cache: bytes = field(repr=False)


def import_tensorrt() -> TensorRt:
    """The module `tensorrt`.

    Raises:
        SettingsError: it is not installed, or its libraries cannot be loaded.
    """
    try:
        return importlib.import_module("tensorrt")
    except (ImportError, OSError) as problem:
        advice = f"{INSTALL}; for a V100: {INSTALL_VOLTA}"
        raise SettingsError(f"engine tensorrt: TensorRT cannot be imported ({problem}); {advice}") from problem


def version_of(trt: TensorRt) -> str:
    """TensorRT's version as numbers, such as `10.4.0`, without suffixes."""
    match = re.match(r"\d+(\.\d+){1,3}", trt.__version__)
    if match is None:
        raise SettingsError(f"engine tensorrt: the version of TensorRT cannot be read from {trt.__version__!r}")
    return match[0]


def check_gpu(version: str, gpu: DeviceInfo, precision: str) -> None:
    """Check that TensorRT, the GPU and a precision work together.

    Raises:
        SettingsError: TensorRT is too old or no longer supports this GPU, or the GPU cannot run the precision.
    """
    capability = ".".join(map(str, gpu.capability))
    prefix = f"engine tensorrt: TensorRT {version} on {gpu.name} (compute capability {capability})"
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < OLDEST:
        raise SettingsError(f"{prefix}: needs TensorRT {'.'.join(map(str, OLDEST))} or newer; {INSTALL}")
    if gpu.capability < VOLTA:
        raise SettingsError(f"{prefix}: this GPU is too old; TensorRT needs compute capability 7.0 or above")
    if gpu.capability < TURING and numbers > LAST_FOR_VOLTA:
        raise SettingsError(f"{prefix}: 10.4.0 is the last version for this GPU; {INSTALL_VOLTA}")
    if gpu.capability < TURING and precision == "int8":
        raise SettingsError(
            f"{prefix}: has no INT8 tensor cores, only DP4A, which is slower than float16; export with --precision fp16"
        )


def check_int8_form(bundle: Bundle) -> None:
    """Raises SettingsError for an INT8 bundle whose activations have zero points."""
    if bundle.int8_for == "cpu":
        raise SettingsError(
            f"engine tensorrt: {bundle.name} is INT8 for CPUs, its activations have zero points, which TensorRT refuses; "
            "export it again with --precision int8 --calibration DIR --int8-for tensorrt"
        )


def build_plan(trt: TensorRt, request: PlanRequest, progress: Progress) -> BuiltPlan:
    """Build; takes minutes on a GPU. progress: called with the phase, its step and its number of steps, from any thread.

    Raises:
        EngineBuildError: the parser or the builder refuses the graph, or a profile does not fit it.
        SettingsError: TensorRT cannot use this GPU at all.
        BaseException: raised by `progress`, Ctrl-C for instance; it ends the build at its next step.
    """
    errors: list[str] = []
    logger, monitor = error_logger(trt, errors.append), _monitor(trt, progress)
    try:
        builder = trt.Builder(logger)
    except TypeError as problem:
        raise unstartable(trt, _reasons(errors)) from problem
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)  # holds the weights: it must live until the engine is built
    _parse(parser, request, trt.__version__)
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # values that are float32 in a graph must not be rounded
    config.progress_monitor = monitor
    if request.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace_mib << 20)
    _add_profiles(builder, config, request)
    times = _timing_cache(config, request)  # must live until the engine is built
    plan = builder.build_serialized_network(network, config)
    if monitor.problem is not None:
        raise monitor.problem
    if plan is None:
        raise EngineBuildError(f"{request.name}: TensorRT {trt.__version__} cannot build it: {_reasons(errors)}")
    for error in errors:  # kernels that did not fit, for instance, where others did
        LOG.warning("%s: TensorRT: %s", request.name, error)
    return BuiltPlan(bytes(plan), bytes(times.serialize()))


def deserialises(trt: TensorRt, plan: bytes) -> bool:
    """Whether TensorRT loads a plan on this GPU; if not, the log says why. Raises `SettingsError` for a GPU that it cannot use."""
    errors: list[str] = []
    try:
        runtime = trt.Runtime(error_logger(trt, errors.append))
    except TypeError as problem:
        raise unstartable(trt, _reasons(errors)) from problem
    loads = runtime.deserialize_cuda_engine(plan) is not None
    for error in errors:
        LOG.warning("TensorRT: %s", error)
    return loads


def unstartable(trt: TensorRt, reason: str) -> SettingsError:
    """The error where `Builder` or `Runtime` raises a `TypeError`, whose reason only the logger receives."""
    return SettingsError(
        f"engine tensorrt: TensorRT {trt.__version__} cannot use this GPU: {reason} (CUDA error 35: the driver is older than "
        "the CUDA that it was made for)"
    )


def error_logger(trt: TensorRt, on_error: Callable[[str], None], warning_level: int = logging.DEBUG) -> Any:
    """An `ILogger` that calls `on_error`, and writes warnings to the log. It must outlive the objects created with it."""

    class Logger(trt.ILogger):  # type: ignore[misc]  # a base class that only the module knows
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                on_error(msg)
            elif severity == trt.ILogger.Severity.WARNING:
                LOG.log(warning_level, "TensorRT: %s", msg)

    return Logger()


def progress_lines(name: str, log: Callable[[str], None], seconds: float = SECONDS_BETWEEN_LINES) -> Progress:
    """A callback for `build_plan` that logs the state of the build, at most every `seconds`."""
    start = last = monotonic()

    def progress(phase: str, step: int, steps: int) -> None:
        nonlocal last
        now = monotonic()
        if now - last >= seconds:
            last = now
            filled = BAR * step // max(steps, 1)
            bar = "#" * filled + "." * (BAR - filled)
            log(f"building {name}: {now - start:4.0f} s [{bar}] {phase}, {step} of {steps}")

    return progress


def _network_flags(trt: TensorRt) -> int:
    """Strongly typed, where there is such a flag. Since TensorRT 10 batches are explicit anyway."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)  # a version without the flag has only such networks


def _parse(parser: Any, request: PlanRequest, version: str) -> None:
    if parser.parse(request.onnx):
        return
    errors = [_described(parser.get_error(i)) for i in range(parser.num_errors)]
    raise EngineBuildError(f"{request.name}: TensorRT {version} cannot read it: {_reasons(errors)}")


def _described(error: Any) -> str:
    """A parser's error: `node resize_3 (Resize): ...`."""
    where = f"node {error.node_name()} ({error.node_operator()}): " if error.node_name() else ""
    return f"{where}{error.desc()}"


def _reasons(errors: list[str]) -> str:
    more = f"; and {len(errors) - SHOWN_ERRORS} more" if len(errors) > SHOWN_ERRORS else ""
    return ("; ".join(" ".join(text.split()) for text in errors[:SHOWN_ERRORS]) or "it gives no reason") + more


def _add_profiles(builder: Any, config: Any, request: PlanRequest) -> None:
    for shapes in request.profiles:
        profile = builder.create_optimization_profile()
        refused = f"{request.name}: TensorRT refuses the optimisation profile {dict(shapes)}"
        try:
            for name, shape in shapes.items():
                profile.set_shape(name, shape.min, shape.opt, shape.max)
        except (RuntimeError, ValueError) as problem:
            raise EngineBuildError(f"{refused}: {problem}") from problem
        if config.add_optimization_profile(profile) < 0:
            raise EngineBuildError(refused)


def _timing_cache(config: Any, request: PlanRequest) -> Any:
    """Begin with earlier measurements; a cache of another GPU or version is ignored."""
    times = config.create_timing_cache(request.timing_cache)
    if times is None or not config.set_timing_cache(times, False):
        LOG.warning(
            "%s: the timing cache is damaged or of another GPU or TensorRT; every kernel is timed", request.name
        )
        times = config.create_timing_cache(b"")
        config.set_timing_cache(times, False)
    return times


def _monitor(trt: TensorRt, progress: Progress) -> Any:
    """An `IProgressMonitor` that calls `progress`. It catches every exception: none may pass through the builder's C++ code."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # see Logger
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.problem: BaseException | None = None
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = num_steps
            self._report(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._report(phase_name, step + 1)
            return self.problem is None

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

        def _report(self, phase: str, step: int) -> None:
            try:
                progress(phase, step, self._steps.get(phase, 1))
            except BaseException as problem:  # build_plan raises it
                self.problem = problem

    return Monitor()
