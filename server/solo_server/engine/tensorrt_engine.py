"""One deserialised TensorRT engine: whether it is the one that the specification asks for, its profiles and its contexts.

Names are those of TensorRT 10.4, the last release for Volta; later 10.x has them too.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from threading import Lock
from typing import Any

import tensorrt as trt

from solo_server.cuda.base import DeviceBuffer, Stream
from solo_server.engine.bindings import VARIES, Bindings, Shape, Tensor
from solo_server.engine.device import NetworkMemory
from solo_server.errors import DeviceFailure, EngineFailure

LOG = logging.getLogger("solo_server")
DTYPES = {"uint8": trt.DataType.UINT8, "int64": trt.DataType.INT64, "float32": trt.DataType.FLOAT}


class UnusableEngine(EngineFailure):
    """An engine that cannot be deserialised here, or is not of this network: building it again may help, retrying will not."""


class UnsupportedShape(EngineFailure):
    """A batch shape that no profile of the engine holds."""


class Messages(trt.ILogger):  # type: ignore[misc]  # tensorrt has no types
    """TensorRT's messages in the log; its calls say only that they failed, so the last error is kept to be told with it."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.last_error = "TensorRT gave no reason"

    def log(self, severity: Any, msg: str) -> None:
        """Called by TensorRT, from any thread."""
        if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
            self.last_error = msg
            LOG.error("TensorRT: %s", msg)
        elif severity == trt.ILogger.WARNING:
            LOG.warning("TensorRT: %s", msg)


@dataclass(frozen=True, slots=True)
class Profile:
    """Shapes of all inputs, by name, that one optimisation profile takes."""

    index: int
    least: Mapping[str, Shape]
    best: Mapping[str, Shape]
    most: Mapping[str, Shape]

    def holds(self, shapes: Mapping[str, Shape]) -> bool:
        """Whether every side of every input is within the profile."""
        return all(
            len(shape) == len(self.least[name])
            and all(low <= side <= high for low, side, high in zip(self.least[name], shape, self.most[name], strict=True))
            for name, shape in shapes.items()
        )

    def preference(self, shapes: Mapping[str, Shape]) -> tuple[bool, int]:
        """Sorts first: made for exactly these shapes; then the narrowest."""
        is_exact = all(self.best[name] == shape for name, shape in shapes.items())
        return not is_exact, sum(prod(shape) for shape in self.most.values())


class LoadedEngine:
    """A deserialised engine; several threads may make contexts.

    signature: the tensors that it must have.

    Raises:
        UnusableEngine: it is damaged, of another TensorRT or GPU, or has other inputs or outputs.
    """

    def __init__(self, runtime: Any, messages: Messages, content: bytes, name: str, signature: Bindings) -> None:
        self.name, self._messages, self._making = name, messages, Lock()
        self._engine = runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise UnusableEngine(f"{name} engine: cannot be deserialised: {messages.last_error}")
        self._check(signature)
        self.profiles = tuple(self._profile(i, signature) for i in range(self._engine.num_optimization_profiles))

    @property
    def scratch_bytes(self) -> int:
        """Device memory that a context works in, the most of all profiles."""
        return max(self._engine.get_device_memory_size_for_profile_v2(profile.index) for profile in self.profiles)

    def profile_for(self, bindings: Bindings) -> Profile:
        """The profile to run these shapes with.

        Raises:
            UnsupportedShape: none holds them.
        """
        shapes = {tensor.name: tensor.shape for tensor in bindings.inputs}
        holding = [profile for profile in self.profiles if profile.holds(shapes)]
        if not holding:
            ranges = "; ".join(f"{_named(profile.least)} to {_named(profile.most)}" for profile in self.profiles)
            raise UnsupportedShape(f"{self.name} engine: {_named(shapes)} is in no profile; it has {ranges}")
        return min(holding, key=lambda profile: profile.preference(shapes))

    def describe(self, bindings: Bindings) -> str:
        """A run in words."""
        return f"{self.name} engine, {_named({tensor.name: tensor.shape for tensor in bindings.inputs})}"

    def context(self, profile: Profile, stream: Stream, scratch: DeviceBuffer) -> Context:
        """A context that works in `scratch`, which contexts share whose runs never overlap.

        Raises:
            DeviceFailure: TensorRT cannot make it.
        """
        with self._making:
            context = self._engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise DeviceFailure(f"{self.name} engine: no execution context: {self._messages.last_error}")
        context.set_device_memory(scratch.address, scratch.size_bytes)
        if not context.set_optimization_profile_async(profile.index, stream.handle):
            raise DeviceFailure(f"{self.name} engine: profile {profile.index} refused: {self._messages.last_error}")
        return Context(context, self.name, self._messages)

    def close(self) -> None:
        """Forget the engine; its contexts must be gone."""
        self._engine = None

    def _check(self, signature: Bindings) -> None:
        names = {self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)}
        wanted = {tensor.name for tensor in signature.all}
        if names != wanted:
            raise UnusableEngine(f"{self.name} engine: has tensors {sorted(names)}, the network has {sorted(wanted)}")
        for tensors, mode in ((signature.inputs, trt.TensorIOMode.INPUT), (signature.outputs, trt.TensorIOMode.OUTPUT)):
            for tensor in tensors:
                self._check_tensor(tensor, mode)

    def _check_tensor(self, tensor: Tensor, mode: Any) -> None:
        engine, name = self._engine, tensor.name
        facts = (
            ("mode", engine.get_tensor_mode(name), mode),
            ("type", engine.get_tensor_dtype(name), DTYPES[tensor.dtype]),
            ("location", engine.get_tensor_location(name), trt.TensorLocation.DEVICE),
            ("format", engine.get_tensor_format(name), trt.TensorFormat.LINEAR),
        )
        for what, found, wanted in facts:
            if found != wanted:
                raise UnusableEngine(f"{self.name} engine: {what} of {name} is {found}, must be {wanted}")
        shape = tuple(engine.get_tensor_shape(name))
        if len(shape) != len(tensor.shape) or any(
            VARIES not in sides and len(set(sides)) > 1 for sides in zip(shape, tensor.shape, strict=True)
        ):
            raise UnusableEngine(f"{self.name} engine: shape of {name} is {shape}, must be {tensor.shape}")

    def _profile(self, index: int, signature: Bindings) -> Profile:
        shapes = {
            tensor.name: tuple(tuple(dims) for dims in self._engine.get_tensor_profile_shape(tensor.name, index))
            for tensor in signature.inputs
        }
        return Profile(index, *({name: triple[i] for name, triple in shapes.items()} for i in range(3)))


class Context:
    """One execution context on one profile. It may be used by one thread and on one stream at a time."""

    def __init__(self, context: Any, name: str, messages: Messages) -> None:
        self._context, self._name, self._messages = context, name, messages
        self._set: Bindings | None = None

    def enqueue(self, bindings: Bindings, memory: NetworkMemory, stream: Stream) -> None:
        """Queue one run; shapes and addresses are set where they differ from the last run's.

        Raises:
            DeviceFailure: TensorRT refuses.
            UnusableEngine: its outputs would have other shapes than the network's.
        """
        if self._set != bindings:
            self._set = None  # until all is set
            self._prepare(bindings, memory)
            self._set = bindings
        if not self._context.execute_async_v3(stream.handle):
            raise DeviceFailure(f"{self._name} engine: execute_async_v3: {self._messages.last_error}")

    def _prepare(self, bindings: Bindings, memory: NetworkMemory) -> None:
        for tensor in bindings.inputs:
            if not self._context.set_input_shape(tensor.name, tensor.shape):
                raise self._refusal(f"shape {tensor.shape} of {tensor.name}")
        for tensor in bindings.outputs:
            shape = tuple(self._context.get_tensor_shape(tensor.name))
            if shape != tensor.shape:
                raise UnusableEngine(f"{self._name} engine: {tensor.name} would be {shape}, must be {tensor.shape}")
        for tensor in bindings.all:
            if not self._context.set_tensor_address(tensor.name, tensor.address(memory)):
                raise self._refusal(f"address of {tensor.name}")

    def _refusal(self, what: str) -> DeviceFailure:
        return DeviceFailure(f"{self._name} engine: {what} refused: {self._messages.last_error}")


def _named(shapes: Mapping[str, Shape]) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
