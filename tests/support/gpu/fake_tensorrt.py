"""A fake `tensorrt` for the fake device: engines that are ONNX graphs, contexts that run them with ONNX Runtime on a CPU.

    trt = FakeTensorRt(device)
    plan = trt.plan(onnx, profiles)      # what a builder would have given
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)

TensorRT's rules are enforced, as 10.4 documents them, each breach being a `Breach` of the device: the profile is set first, then
shapes inside of it, then the address of every tensor, 256-byte aligned; memory is given before the first run, and shared by
contexts of one stream only; a context is used by one thread, on one stream, and not thrown away while its run is queued; a
capture holds nothing that a new shape needs once; a graph is of one context, whose shapes do not change any more.

Faults can be asked for: `fail`.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from enum import Enum, IntEnum
from functools import lru_cache
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from solo_models.engine_file import Profile
from support.gpu.cuda_rules import Breach
from support.gpu.fake_device import FakeDevice
from support.gpu.fake_queue import Work
from support.gpu.fake_streams import FakeStream

ALIGNMENT = 256
HEAD = b"fake plan\n"
SCRATCH_BYTES = 1000  # for each profile, times its number, so that the largest is not the first
Shape = tuple[int, ...]


class TensorRtMisused(Breach):
    """What TensorRT calls undefined, or answers wrongly without a word."""


class DataType(Enum):
    """The types of tensors."""

    FLOAT, HALF, INT8, INT32, BOOL, UINT8, INT64 = range(7)


class TensorIOMode(Enum):
    """Which side of the engine a tensor is on."""

    NONE, INPUT, OUTPUT = range(3)


class TensorLocation(Enum):
    """Where a tensor lies."""

    DEVICE, HOST = range(2)


class TensorFormat(Enum):
    """How it lies there."""

    LINEAR, CHW32 = range(2)


class ExecutionContextAllocationStrategy(Enum):
    """Who has a context's memory."""

    STATIC, ON_PROFILE_CHANGE, USER_MANAGED = range(3)


class Severity(IntEnum):
    """Of messages; the lower the worse."""

    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ILogger:
    """To be derived from, its constructor to be called."""

    Severity = Severity

    def __init__(self) -> None:
        self.is_made = True


_GRAPHS: dict[str, bytes] = {}  # by digest: plans name them, as they would be too large to be copied about
_TYPES = {"tensor(uint8)": DataType.UINT8, "tensor(int64)": DataType.INT64, "tensor(float)": DataType.FLOAT}
_NUMPY: dict[DataType, Any] = {DataType.UINT8: np.uint8, DataType.INT64: np.int64, DataType.FLOAT: np.float32}


class FakeTensorRt:
    """Stands for the module. enqueued, computed: first input and its shape of each run that was queued or captured, and done."""

    __version__ = "10.4.0"
    DataType, TensorIOMode, TensorLocation, TensorFormat = DataType, TensorIOMode, TensorLocation, TensorFormat
    ExecutionContextAllocationStrategy, ILogger = ExecutionContextAllocationStrategy, ILogger

    def __init__(self, device: FakeDevice) -> None:
        self.device = device
        self.enqueued: list[tuple[str, Shape]] = []
        self.computed: list[tuple[str, Shape]] = []
        self.contexts = 0
        self.scratch_streams: dict[int, int] = {}
        self._failing: dict[str, set[int]] = {
            what: set() for what in ("runtime", "memory", "context", "profile", "enqueue", "capture")
        }
        self._counts = dict.fromkeys(self._failing, 0)

    @staticmethod
    def plan(onnx: bytes, profiles: tuple[Profile, ...], **changes: Any) -> bytes:
        """A plan. changes: `types={name: DataType's name}`, `drop=name`, to make engines that do not fit."""
        shapes = [{name: [s.min, s.opt, s.max] for name, s in profile.items()} for profile in profiles]
        digest = hashlib.sha256(onnx).hexdigest()
        _GRAPHS[digest] = onnx
        return HEAD + json.dumps({"profiles": shapes, "graph": digest, **changes}).encode()

    def Runtime(self, logger: Any) -> FakeRuntime:  # noqa: N802  # TensorRT's name
        """A runtime."""
        if not getattr(logger, "is_made", False):
            raise self.misused("ILogger.__init__ was not called")
        if self.fails("runtime"):
            logger.log(Severity.ERROR, "CUDA initialization failure with error: 35, says the fake")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        return FakeRuntime(self, logger)

    def fail(self, what: str, *numbers: int) -> None:
        """Let the n-th fail from now on, counted from 1: `runtime`, `memory` for an engine, `context`, `profile`, …"""
        self._failing[what] = {self._counts[what] + number for number in numbers}

    def fails(self, what: str) -> bool:
        """Whether this one is to fail."""
        self._counts[what] += 1
        return self._counts[what] in self._failing[what]

    def misused(self, what: str) -> Breach:
        """Remember a breach."""
        return self.device.broken(TensorRtMisused(what))


@lru_cache(maxsize=16)
def _session(digest: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(_GRAPHS[digest], options, providers=["CPUExecutionProvider"])


class FakeRuntime:
    """Deserialises."""

    def __init__(self, trt: FakeTensorRt, logger: Any) -> None:
        self._trt, self._logger = trt, logger

    def deserialize_cuda_engine(self, plan: bytes) -> FakeEngine | None:
        """`None` where it is no plan of ours, or is asked to fail."""
        if self._trt.fails("memory"):
            self._logger.log(Severity.ERROR, "[defaultAllocator.cpp] Cuda Runtime (out of memory), says the fake")
            return None
        if not plan.startswith(HEAD):
            self._logger.log(Severity.ERROR, "IRuntime::deserializeCudaEngine: magic tag does not match")
            return None
        return FakeEngine(self._trt, self._logger, json.loads(plan.removeprefix(HEAD)))


class FakeEngine:
    """An ONNX graph."""

    def __init__(self, trt: FakeTensorRt, logger: Any, described: dict[str, Any]) -> None:
        self.trt, self.logger = trt, logger
        self.session = _session(described["graph"])
        nodes = [(node, TensorIOMode.INPUT) for node in self.session.get_inputs()]
        nodes += [(node, TensorIOMode.OUTPUT) for node in self.session.get_outputs()]
        self.nodes: dict[str, tuple[Any, TensorIOMode]] = {
            node.name: (node, mode) for node, mode in nodes if node.name != described.get("drop")
        }
        self._types = {name: DataType[kind] for name, kind in described.get("types", {}).items()}
        self._only_batch = described.get("only_batch")
        self._shapes: dict[tuple[tuple[str, Shape], ...], dict[str, Shape]] = {}
        self.profiles: list[dict[str, tuple[Shape, ...]]] = [
            {name: tuple(map(tuple, shapes)) for name, shapes in profile.items()} for profile in described["profiles"]
        ]

    @property
    def num_io_tensors(self) -> int:
        """Inputs and outputs."""
        return len(self.nodes)

    @property
    def num_optimization_profiles(self) -> int:
        """As built."""
        return len(self.profiles)

    def get_tensor_name(self, index: int) -> str:
        """By number."""
        return tuple(self.nodes)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        """Input or output."""
        return self.nodes[name][1]

    def get_tensor_dtype(self, name: str) -> DataType:
        """Its type."""
        return self._types.get(name) or _TYPES[self.nodes[name][0].type]

    def get_tensor_shape(self, name: str) -> Shape:
        """-1 where it varies."""
        return tuple(side if isinstance(side, int) else -1 for side in self.nodes[name][0].shape)

    def get_tensor_location(self, name: str) -> TensorLocation:
        """All are on the device."""
        return TensorLocation.DEVICE

    def get_tensor_format(self, name: str) -> TensorFormat:
        """All are plain."""
        return TensorFormat.LINEAR

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Shape]:
        """Least, best, most."""
        return list(self.profiles[profile_index][name])

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        """Of one context."""
        return SCRATCH_BYTES * (profile_index + 1)

    def create_execution_context(self, strategy: ExecutionContextAllocationStrategy) -> FakeContext | None:
        """`None` where it is asked to fail."""
        if self.trt.fails("context"):
            self.logger.log(Severity.ERROR, "IExecutionContext: out of memory, says the fake")
            return None
        if strategy is not ExecutionContextAllocationStrategy.USER_MANAGED:
            raise self.trt.misused("contexts must work in memory of ours")
        with self.trt.device.entered("create_execution_context", while_capturing=False):
            self.trt.contexts += 1
            return FakeContext(self)

    def output_shapes(self, inputs: dict[str, Shape]) -> dict[str, Shape]:
        """Of a run on empty inputs; `only_batch` engines answer that many images whatever is asked."""
        key = tuple(inputs.items())
        if key not in self._shapes:
            feeds = {name: np.zeros(shape, _NUMPY[_TYPES[self.nodes[name][0].type]]) for name, shape in inputs.items()}
            self._shapes[key] = {
                name: (self._only_batch or output.shape[0], *output.shape[1:])
                for name, output in self.compute(feeds).items()
            }
        return self._shapes[key]

    def compute(self, feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All outputs by name."""
        names = [node.name for node in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, feeds), strict=True))


class _Life:
    """Whether a context is still there; what it has queued knows."""

    is_over = False


class FakeContext:
    """See the module's text for what it watches."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine, self._trt, self._device = engine, engine.trt, engine.trt.device
        self._memory: tuple[int, int] | None = None
        self._profile: int | None = None
        self._shapes: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}
        self._flushed: dict[str, Shape] | None = None  # shapes of the last run that was no capture
        self._captured = False
        self._stream: int | None = None
        self._last: Work | None = None
        self._busy, self._life = threading.Lock(), _Life()

    def __del__(self) -> None:
        """Thrown away: what it has queued must be known to be done."""
        self._life.is_over = True
        if self._last is not None and not self._last.known and self._device._lost is None:
            self._trt.misused("a context was thrown away while its run was queued")

    def set_device_memory(self, memory: int, size: int) -> None:
        """Memory to work in."""
        block = self._device.memory.at(memory, "set_device_memory")
        block.check_inside("set_device_memory", memory - block.address, size)
        if memory % ALIGNMENT:
            raise self._trt.misused("device memory is not aligned")
        self._memory = (memory, size)

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        """Once, before shapes; raises where it fails, as no other call does."""
        self._device.stream(stream_handle)
        if not 0 <= profile_index < len(self._engine.profiles) or self._shapes or self._trt.fails("profile"):
            self._refuse(f"profile {profile_index}, says the fake")
            raise RuntimeError("Error in set optimization profile async.")
        self._profile = profile_index
        return True

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        """Within the profile."""
        if self._profile is None:
            raise self._trt.misused(f"the shape of {name} was set before the profile")
        if self._captured and self._shapes.get(name) != shape:
            raise self._trt.misused(f"{name}: another shape for a context of which there is a graph")
        least, _, most = self._engine.profiles[self._profile][name]
        if len(shape) != len(least) or not all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True)):
            return self._refuse(f"{name} {shape} is not within {least} and {most} of profile {self._profile}")
        self._shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> Shape:
        """Of an output, once all inputs have theirs."""
        self._check_shapes("get_tensor_shape")
        return self._engine.output_shapes(self._shapes)[name]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """Anywhere on the device, aligned."""
        if name not in self._engine.nodes:
            return self._refuse(f"{name} is no tensor")
        self._device.memory.at(memory, f"address of {name}")
        if memory % ALIGNMENT:
            return self._refuse(f"address of {name} is not aligned")
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Queue a run."""
        if not self._busy.acquire(blocking=False):
            raise self._trt.misused("a context was used by two threads at a time")
        try:
            return self._enqueue(self._device.stream(stream_handle))
        finally:
            self._busy.release()

    def _enqueue(self, stream: FakeStream) -> bool:
        self._check_ready(stream)
        capturing = stream.capturing is not None
        if self._trt.fails("capture" if capturing else "enqueue"):
            return self._refuse("enqueueV3 failed, says the fake")
        if capturing and self._flushed != self._shapes:
            return self._refuse("a new shape needs work that cannot be captured")
        if capturing and self._last is not None and not self._last.known:
            raise self._trt.misused("captured while the run before it, which prepares the context, was still queued")
        if capturing:
            self._captured = True
        else:
            self._flushed = dict(self._shapes)
        name, shape = next(iter(self._shapes.items()))
        self._trt.enqueued.append((name, shape))
        uses = (*self._addresses.values(), self._memory[0] if self._memory else 0)
        stream.call(_run(self._engine, dict(self._shapes), dict(self._addresses), self._life), uses, f"run of {name}")
        if not capturing:
            self._last = self._device.queues.last(stream.handle)
        return True

    def _check_ready(self, stream: FakeStream) -> None:
        self._check_shapes("enqueue")
        missing = [name for name in self._engine.nodes if name not in self._addresses]
        if missing:
            raise self._trt.misused(f"no address for {', '.join(missing)}")
        if self._memory is None or self._memory[1] < self._engine.get_device_memory_size_for_profile_v2(
            self._profile or 0
        ):
            raise self._trt.misused("too little device memory, or none")
        if self._stream not in (None, stream.handle):
            raise self._trt.misused("a context moved to another stream")
        self._stream = stream.handle
        if self._trt.scratch_streams.setdefault(self._memory[0], stream.handle) != stream.handle:
            raise self._trt.misused("two streams work in the same device memory")

    def _check_shapes(self, what: str) -> None:
        for name, (_, mode) in self._engine.nodes.items():
            if mode is TensorIOMode.INPUT and name not in self._shapes:
                raise self._trt.misused(f"{what}: the shape of {name} is not set")

    def _refuse(self, what: str) -> bool:
        self._engine.logger.log(Severity.ERROR, f"IExecutionContext: {what}")
        return False


def _run(engine: FakeEngine, shapes: dict[str, Shape], addresses: dict[str, int], life: _Life) -> Callable[[], None]:
    """What the device does; holds no context, so that contexts end when nobody has them any more."""
    trt, device = engine.trt, engine.trt.device

    def run() -> None:
        if life.is_over:
            raise trt.misused("a graph was replayed after its context was gone")
        feeds = {
            name: device.array(addresses[name], shape, _NUMPY[_TYPES[engine.nodes[name][0].type]]).copy()
            for name, shape in shapes.items()
        }
        trt.computed.append(next(iter(shapes.items())))
        for name, output in engine.compute(feeds).items():
            device.array(addresses[name], output.shape, output.dtype)[:] = output

    return run
