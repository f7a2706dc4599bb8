"""As much of `triton_python_backend_utils` as our model uses, in Python. `make test-triton` runs the real one."""

from __future__ import annotations

import json
import queue
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

FINAL = 1


class TritonError:
    """A message and a code."""

    INTERNAL, INVALID_ARG, NOT_FOUND, UNAVAILABLE = "INTERNAL", "INVALID_ARG", "NOT_FOUND", "UNAVAILABLE"

    def __init__(self, message: str, code: str) -> None:
        self.message, self.code = message, code


class Tensor:
    """A named array."""

    def __init__(self, name: str, values: np.ndarray) -> None:
        self._name, self._values = name, values

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> np.ndarray:
        return self._values

    @classmethod
    def from_dlpack(cls, name: str, tensor: Tensor) -> Tensor:
        return cls(name, tensor.as_numpy().copy())


class OldTensor(Tensor):
    """As in a back end that was built for numpy 1, under numpy 2: every array that it makes is zeros."""

    @classmethod
    def from_dlpack(cls, name: str, tensor: Tensor) -> Tensor:
        return cls(name, np.zeros_like(tensor.as_numpy()))


class InferenceResponse:
    """Outputs by name, or an error."""

    def __init__(self, tensors: Sequence[Tensor] = (), error: TritonError | None = None) -> None:
        self.outputs, self.error = {tensor.name(): tensor.as_numpy() for tensor in tensors}, error


class Sender:
    """Keeps what is sent to it."""

    def __init__(self) -> None:
        self.sent: queue.Queue[tuple[InferenceResponse, int]] = queue.Queue()

    def send(self, response: Any = None, flags: int = 0) -> None:
        self.sent.put((response, flags))

    def answer(self) -> InferenceResponse:
        """The one response, once it is there."""
        response, flags = self.sent.get(timeout=60)
        if flags != FINAL or not self.sent.empty():
            raise RuntimeError("each request needs exactly one response, marked as final")
        return response


@dataclass(frozen=True)
class Request:
    """One request with one input."""

    name: str
    values: np.ndarray
    outputs: Sequence[str]
    parameters_given: Mapping[str, Any] = field(default_factory=dict)
    timeout_us: int = 0
    sender: Sender = field(default_factory=Sender)

    def inputs(self) -> list[Tensor]:
        return [Tensor(self.name, self.values)]

    def parameters(self) -> str:
        return json.dumps(self.parameters_given) if self.parameters_given else ""

    def requested_output_names(self) -> list[str]:
        return list(self.outputs)

    def timeout(self) -> int:
        return self.timeout_us

    def get_response_sender(self) -> Sender:
        return self.sender


def utils(tensor: type[Tensor] = Tensor) -> Any:
    """The module."""
    return SimpleNamespace(
        Tensor=tensor,
        InferenceResponse=InferenceResponse,
        TritonError=TritonError,
        TRITONSERVER_RESPONSE_COMPLETE_FINAL=FINAL,
    )


def arguments(
    version_folder: str, *, kind: str = "CPU", device: int = 0, count: int = 1, **parameters: str
) -> dict[str, str]:
    """What Triton passes to `initialize`. version_folder: REPOSITORY/NAME/VERSION."""
    repository, _, version = version_folder.rpartition("/")
    config = {
        "instance_group": [{"kind": f"KIND_{kind}", "count": count}],
        "parameters": {name: {"string_value": text} for name, text in parameters.items()},
    }
    return {
        "model_config": json.dumps(config),
        "model_instance_kind": kind,
        "model_instance_device_id": str(device),
        "model_repository": repository,
        "model_version": version,
        "model_name": "tiny",
    }
