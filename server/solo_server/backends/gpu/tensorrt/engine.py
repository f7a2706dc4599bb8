"""One deserialised TensorRT engine: checks that it is the engine of the network, and creates its contexts.

The API is that of TensorRT 10.4, the last release for Volta; later 10.x have it too.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from solo_models.engine_file import Profile, ShapeRange

from solo_server.backends.gpu.bindings import VARIES, Bindings, Tensor
from solo_server.backends.gpu.driver.base import DeviceBuffer, Stream
from solo_server.backends.gpu.network import NetworkMemory
from solo_server.backends.gpu.tensorrt.build import TensorRt, error_logger, unstartable
from solo_server.errors import DeviceFailure, DeviceOutOfMemory, EngineFailure

LOG = logging.getLogger("solo_server")
NO_REASON = "TensorRT gives no reason"
NO_MEMORY = re.compile("out of memory|OutOfMemory", re.IGNORECASE)
DTYPES = {"uint8": "UINT8", "int64": "INT64", "float32": "FLOAT"}


class UnusableEngine(EngineFailure):
    """An engine cannot be deserialised here, or is of another network. Building it again may help, retrying does not."""


@dataclass(frozen=True, slots=True)
class ExpectedEngine:
    """The engine that is expected. name: for messages; profiles: in the engine's expected."""

    name: str
    plan: bytes = field(repr=False)
    signature: Bindings
    profiles: tuple[Profile, ...]


class Loader:
    """TensorRT's runtime with a logger. Calls do not return the reason of a failure: the logger keeps the last error for it.

    The logger must not refer to the loader: the runtime holds it outside of Python's garbage collector, which would leak both.

    Raises:
        SettingsError: TensorRT cannot use this GPU at all.
    """

    def __init__(self, trt: TensorRt) -> None:
        self.trt = trt
        self._errors: deque[str] = deque(maxlen=1)
        try:
            self._runtime = trt.Runtime(error_logger(trt, _keeping(self._errors), logging.WARNING))
        except TypeError as problem:
            raise unstartable(trt, self._reason()) from problem

    def deserialise(self, plan: bytes, name: str) -> Any:
        """An `ICudaEngine`.

        Raises:
            DeviceOutOfMemory: no memory left for it.
            UnusableEngine: it cannot be deserialised for another reason.
        """
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            failure = self.failure(f"{name} engine: cannot be deserialised")
            raise failure if isinstance(failure, DeviceOutOfMemory) else UnusableEngine(str(failure))
        return engine

    def failure(self, what: str) -> DeviceFailure:
        """The failure of a call, with TensorRT's reason."""
        reason = self._reason()
        return (DeviceOutOfMemory if NO_MEMORY.search(reason) else DeviceFailure)(f"{what}: {reason}")

    def _reason(self) -> str:
        try:
            return self._errors.pop()
        except IndexError:  # none, or another thread has taken it
            return NO_REASON


class LoadedEngine:
    """A deserialised engine. Several threads may create contexts.

    Raises:
        UnusableEngine: it is damaged, of another TensorRT or GPU, or has other inputs, outputs or profiles.
        DeviceOutOfMemory: it does not fit.
    """

    def __init__(self, loader: Loader, expected: ExpectedEngine) -> None:
        self.name, self._loader, self._trt, self._lock = expected.name, loader, loader.trt, Lock()
        self._engine: Any = loader.deserialise(expected.plan, expected.name)
        self._check_names(expected.signature)
        for tensor in expected.signature.inputs:
            self._check(tensor, self._trt.TensorIOMode.INPUT)
        for tensor in expected.signature.outputs:
            self._check(tensor, self._trt.TensorIOMode.OUTPUT)
        self._check_profiles(expected.profiles)

    @property
    def scratch_bytes(self) -> int:
        """Scratch memory of a context, the largest of all profiles."""
        engine = self._engine
        profiles = range(engine.num_optimization_profiles)
        return max(int(engine.get_device_memory_size_for_profile_v2(i)) for i in profiles)

    def context(self, profile: int, stream: Stream, scratch: DeviceBuffer) -> Context:
        """A context that uses `scratch`; contexts whose runs never overlap may share it.

        Raises:
            DeviceFailure: TensorRT cannot create it.
        """
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        with self._lock:
            context = self._engine.create_execution_context(strategy)
            if context is None:
                raise self._loader.failure(f"{self.name} engine: no execution context")
            context.set_device_memory(scratch.address, scratch.size_bytes)
            try:
                context.set_optimization_profile_async(profile, stream.handle)
            except RuntimeError as problem:  # the only call that raises
                raise self._loader.failure(f"{self.name} engine: profile {profile} refused") from problem
        return Context(context, self.name, self._loader)

    def close(self) -> None:
        """Release the engine, after its contexts."""
        self._engine = None

    def _check_names(self, signature: Bindings) -> None:
        names = {self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)}
        required = {tensor.name for tensor in signature.all}
        if names != required:
            raise self._unusable(f"has tensors {sorted(names)}, the network has {sorted(required)}")

    def _check(self, tensor: Tensor, mode: Any) -> None:
        trt, engine, name = self._trt, self._engine, tensor.name
        facts = (
            ("mode", engine.get_tensor_mode(name), mode),
            ("type", engine.get_tensor_dtype(name), getattr(trt.DataType, DTYPES[tensor.dtype])),
            ("location", engine.get_tensor_location(name), trt.TensorLocation.DEVICE),
            ("format", engine.get_tensor_format(name), trt.TensorFormat.LINEAR),
        )
        for property_name, found, required in facts:
            if found != required:
                raise self._unusable(f"{property_name} of {name} is {found}, must be {required}")
        shape = tuple(engine.get_tensor_shape(name))
        if len(shape) != len(tensor.shape) or not all(map(_agree, shape, tensor.shape)):
            raise self._unusable(f"shape of {name} is {shape}, must be {tensor.shape}")

    def _check_profiles(self, profiles: tuple[Profile, ...]) -> None:
        count = self._engine.num_optimization_profiles
        if count != len(profiles):
            raise self._unusable(f"has {count} optimisation profiles, must have {len(profiles)}")
        for i, profile in enumerate(profiles):
            for name, required in profile.items():
                found = ShapeRange(*(tuple(dims) for dims in self._engine.get_tensor_profile_shape(name, i)))
                if found != required:
                    raise self._unusable(f"profile {i} of {name} is {found}, must be {required}")

    def _unusable(self, problem: str) -> UnusableEngine:
        return UnusableEngine(f"{self.name} engine: {problem}")


class Context:
    """One execution context on one profile, for one thread and one stream at a time."""

    def __init__(self, context: Any, name: str, loader: Loader) -> None:
        self._context, self._name, self._loader = context, name, loader
        self._set: Bindings | None = None

    def enqueue(self, bindings: Bindings, memory: NetworkMemory, stream: Stream) -> None:
        """Queue one run. Shapes and addresses are set if they differ from the last run's.

        Raises:
            DeviceFailure: TensorRT refuses.
            UnusableEngine: its outputs have other shapes than the network's.
        """
        if self._set != bindings:
            self._set = None  # until everything is set
            self._prepare(bindings, memory)
            self._set = bindings
        if not self._context.execute_async_v3(stream.handle):
            raise self._loader.failure(f"{self._name} engine: execute_async_v3")

    def _prepare(self, bindings: Bindings, memory: NetworkMemory) -> None:
        for tensor in bindings.inputs:
            if not self._context.set_input_shape(tensor.name, tensor.shape):
                raise self._loader.failure(f"{self._name} engine: shape {tensor.shape} of {tensor.name} refused")
        for tensor in bindings.outputs:  # an engine built for one image returns one image for any batch
            shape = tuple(self._context.get_tensor_shape(tensor.name))
            if shape != tensor.shape:
                raise UnusableEngine(f"{self._name} engine: {tensor.name} would be {shape}, must be {tensor.shape}")
        for tensor in bindings.all:
            if not self._context.set_tensor_address(tensor.name, tensor.address(memory)):
                raise self._loader.failure(f"{self._name} engine: address of {tensor.name} refused")


def _agree(side: int, required: int) -> bool:
    """Whether a side of the engine's tensor may be that of the network's."""
    return VARIES in (side, required) or side == required


def _keeping(errors: deque[str]) -> Callable[[str], None]:
    """A callback that keeps an error, and writes it to the log."""

    def keep(error: str) -> None:
        errors.append(error)
        LOG.error("TensorRT: %s", error)

    return keep
