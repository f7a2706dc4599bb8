"""A fake `tensorrt` that builds: a plan depends on its inputs, and calls are recorded.

    trt = FakeTensorRt("10.4.0")
    build_plan(trt, request, progress)
    trt.networks, trt.configs                                      # what the builder received
    trt.parser_errors, trt.builder_errors, trt.refuses = ...       # faults

It has what `tensorrt/build.py` uses of TensorRT 10.4 and nothing else; `tests/gpu_packages` holds the same code against the real
one.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from solo_models.bundle import CATEGORIES, MASKS, Bundle
from solo_models.spec import ModelSpec, PreprocessSpec
from solo_server.backends.gpu.driver.base import DeviceInfo
from solo_server.backends.gpu.tensorrt.build import BuiltPlan, PlanRequest, Progress
from solo_server.backends.gpu.tensorrt.cache import EngineCache
from solo_server.backends.gpu.tensorrt.profiles import engine_profiles

TIMES = b"times of "
V100 = DeviceInfo("Tesla V100-SXM2-16GB", (7, 0), 16 << 30, 80, "12.8")
T4 = DeviceInfo("Tesla T4", (7, 5), 15 << 30, 40, "12.8")


class Severity(IntEnum):
    """Of messages."""

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ILogger:
    """What a logger of ours derives from."""

    Severity = Severity

    def log(self, severity: Severity, msg: str) -> None:
        """Overridden."""
        raise NotImplementedError


class IProgressMonitor:
    """What a monitor of ours derives from."""


class BuilderFlag(IntEnum):
    """TF32 is on unless cleared."""

    FP16, INT8, TF32 = range(3)


class MemoryPoolType(IntEnum):
    """The one that is limited."""

    WORKSPACE = 0


@dataclass
class Profile:
    """Shapes by input."""

    shapes: dict[str, Any] = field(default_factory=dict)

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:  # noqa: A002  # TensorRT's own names
        """As TensorRT's."""
        self.shapes[input] = (tuple(min), tuple(opt), tuple(max))


class TimingCache:
    """Kernel times as bytes."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        """As TensorRT's, whose answer is a buffer too."""
        return self.content


class Config:
    """The configuration of a build."""

    def __init__(self) -> None:
        self.flags, self.workspace, self.progress_monitor = {BuilderFlag.TF32}, None, None
        self.profiles: list[Profile] = []
        self.timing_cache: TimingCache | None = None
        self.refuses_profiles = False

    def clear_flag(self, flag: BuilderFlag) -> None:
        """As TensorRT's."""
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        """As TensorRT's."""
        self.workspace = pool_size

    def add_optimization_profile(self, profile: Profile) -> int:
        """As TensorRT's: its number, or -1."""
        self.profiles.append(profile)
        return -1 if self.refuses_profiles else len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> TimingCache | None:
        """As TensorRT's: none for bytes that are no timing cache."""
        content = serialized_timing_cache
        return TimingCache(content) if not content or content.startswith(TIMES) else None

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        """As TensorRT's: not one of another GPU."""
        if b"another GPU" in cache.content and not ignore_mismatch:
            return False
        self.timing_cache = cache
        return True


class ParserError:
    """One error of the parser."""

    def __init__(self, node: str, operator: str, text: str) -> None:
        self._parts = (node, operator, text)

    def node_name(self) -> str:
        """As TensorRT's."""
        return self._parts[0]

    def node_operator(self) -> str:
        """As TensorRT's."""
        return self._parts[1]

    def desc(self) -> str:
        """As TensorRT's."""
        return self._parts[2]


class FakeTensorRt(SimpleNamespace):
    """The module. parser_errors, builder_errors, warnings: its messages; refuses: plans that it does not load."""

    ILogger, IProgressMonitor = ILogger, IProgressMonitor
    BuilderFlag, MemoryPoolType = BuilderFlag, MemoryPoolType
    NetworkDefinitionCreationFlag: Any = IntEnum("Flag", {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1})

    def __init__(self, version: str = "10.4.0") -> None:
        super().__init__()
        self.__version__ = version
        self.parser_errors: list[ParserError] = []
        self.builder_errors: list[str] = []
        self.builds_in_spite = False
        self.refuses: set[bytes] = set()
        self.networks: list[int] = []
        self.configs: list[Config] = []
        self.Builder, self.OnnxParser, self.Runtime = self._builder, self._parser, self._runtime

    def _builder(self, logger: ILogger) -> Any:
        network = SimpleNamespace(onnx=b"")

        def create_network(flags: int = 0) -> Any:
            self.networks.append(flags)
            return network

        def create_builder_config() -> Config:
            self.configs.append(Config())
            return self.configs[-1]

        return SimpleNamespace(
            create_network=create_network,
            create_builder_config=create_builder_config,
            create_optimization_profile=Profile,
            build_serialized_network=lambda network, config: self._build(logger, network.onnx, config),
        )

    def _parser(self, network: Any, logger: ILogger) -> Any:
        def parse(model: bytes) -> bool:
            network.onnx = model
            return not self.parser_errors

        return SimpleNamespace(
            parse=parse, num_errors=len(self.parser_errors), get_error=lambda number: self.parser_errors[number]
        )

    def _runtime(self, logger: ILogger) -> Any:
        def deserialize_cuda_engine(plan: bytes) -> object | None:
            if plan in self.refuses:
                logger.log(Severity.ERROR, "the engine was built by another version")
                return None
            return object()

        return SimpleNamespace(deserialize_cuda_engine=deserialize_cuda_engine)

    def _build(self, logger: ILogger, onnx: bytes, config: Config) -> bytes | None:
        monitor: Any = config.progress_monitor
        monitor.phase_start("Building engine", None, 2)
        for step in range(2):
            if not monitor.step_complete("Building engine", step):
                return None
        monitor.phase_finish("Building engine")
        for text in self.builder_errors:
            logger.log(Severity.ERROR, text)
        logger.log(Severity.WARNING, "a warning")
        if self.builder_errors and not self.builds_in_spite:
            return None
        if config.timing_cache is not None:
            config.timing_cache.content = TIMES + onnx[:4]
        return b"ftrt" + hashlib.sha256(onnx + repr(config.profiles).encode()).digest()


class Workshop:
    """A bundle of two short graphs and an engine cache on a fake TensorRT. built: graphs in the order of their building."""

    def __init__(self, folder: Path) -> None:
        self.trt, self.folder = FakeTensorRt(), folder
        self.built: list[str] = []
        self.lines: list[str] = []
        self.bundle = small_bundle()
        self.profiles = engine_profiles(self.bundle.spec, 2)

    def cache(self, gpu: DeviceInfo = V100, **options: Any) -> EngineCache:
        """A cache in the folder, as another process would open it."""
        return EngineCache(
            self.folder, options.pop("trt", self.trt), gpu, log=self.lines.append, builder=self.build, **options
        )

    def build(self, trt: Any, request: PlanRequest, progress: Progress) -> BuiltPlan:
        """In place of `build_plan`; a plan is new each time, as TensorRT's are."""
        self.built.append(request.name)
        plan = b"ftrt of " + request.onnx + repr((request.profiles, len(self.built))).encode()
        return BuiltPlan(plan, TIMES + request.timing_cache[-20:] + request.onnx)


def small_bundle(precision: str = "fp16", int8_for: str | None = None, onnx: bytes = b"an ONNX graph") -> Bundle:
    """Only what engines are built from."""
    spec = ModelSpec("solo", "resnet18", ("a",), preprocess=PreprocessSpec(192, 128))
    files = {CATEGORIES: b"categories: " + onnx, MASKS: b"masks: " + onnx}
    return Bundle("small", "0" * 12, spec, precision, {}, {}, files, {}, int8_for)


def build_slowly(folder: Path, notes: Path) -> None:
    """For another process: ask for an engine whose building takes a while and is noted in a file."""
    workshop = Workshop(folder)

    def build(trt: Any, request: PlanRequest, progress: Progress) -> BuiltPlan:
        with notes.open("a") as file:
            file.write("built\n")
        time.sleep(1)
        return BuiltPlan(b"ftrt plan", b"")

    cache = EngineCache(folder, workshop.trt, V100, builder=build)
    plan = cache.engine_for(workshop.bundle, CATEGORIES, workshop.profiles).plan
    with notes.open("a") as file:
        file.write(f"has {plan.decode()}\n")
