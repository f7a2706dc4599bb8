"""Server and model metadata, Triton's model configuration, and the index of the model repository."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from solo_server.http.v2.outputs import OUTPUTS
from solo_server.http.v2.requests import INPUTS
from solo_server.service.model_registry import FAILED, LOADING, READY, UNLOADING, ModelStatus
from solo_server.service.served_model import ServedModel

EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "parameters")
_STATES = {READY: "READY", LOADING: "LOADING", UNLOADING: "UNLOADING", FAILED: "UNAVAILABLE"}
_CONFIG_TYPES = {"BYTES": "TYPE_STRING", "FP32": "TYPE_FP32", "INT32": "TYPE_INT32", "UINT8": "TYPE_UINT8"}


def server_metadata() -> dict[str, Any]:
    """The answer of `GET /v2`."""
    return {"name": "solo-inference", "version": version("solo-inference"), "extensions": EXTENSIONS}


def model_metadata(served: ServedModel, versions: Sequence[str]) -> dict[str, Any]:
    """The answer of `GET /v2/models/{name}`. versions: those in service."""
    return {
        "name": served.name,
        "versions": list(versions),
        "platform": _platform(served),
        "inputs": [_tensor(name, kind, shape) for name, (kind, shape) in INPUTS.items()],
        "outputs": [_tensor(output.name, output.datatype, output.shape) for output in OUTPUTS.values()],
    }


def model_config(served: ServedModel) -> dict[str, Any]:
    """The answer of `GET /v2/models/{name}/config`. Outputs have no batch axis, so max_batch_size is 0."""
    classes = ",".join(served.pipeline.bundle.spec.class_names)
    return {
        "name": served.name,
        "platform": _platform(served),
        "backend": "solo",
        "max_batch_size": 0,
        "input": [_config(name, kind, shape, optional=True) for name, (kind, shape) in INPUTS.items()],
        "output": [_config(output.name, output.datatype, output.shape) for output in OUTPUTS.values()],
        "parameters": {"version": {"string_value": served.version}, "classes": {"string_value": classes}},
    }


def repository_index(statuses: Sequence[ModelStatus], *, ready_only: bool) -> list[dict[str, str]]:
    """The answer of `POST /v2/repository/index`."""
    return [
        {"name": status.name, "version": status.version, "state": _STATES[status.state], "reason": _reason(status)}
        for status in statuses
        if not ready_only or status.state == READY
    ]


def _platform(served: ServedModel) -> str:
    """For example `solo_onnxruntime`: the engine's name without its version."""
    return f"solo_{served.pipeline.backend.description.split(' ')[0]}"


def _tensor(name: str, datatype: str, shape: Sequence[int]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def _config(name: str, datatype: str, shape: Sequence[int], **flags: bool) -> dict[str, Any]:
    return {"name": name, "data_type": _CONFIG_TYPES[datatype], "dims": list(shape), **flags}


def _reason(status: ModelStatus) -> str:
    return "loading failed; see the server's log" if status.state == FAILED else ""
