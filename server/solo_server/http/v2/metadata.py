"""What the protocol tells of the server and its models: metadata, Triton's configuration, the index of its repository."""

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
    """The answer of `GET /v2/models/{name}`. versions: of the model, in service."""
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


def repository_index(listed: Sequence[ModelStatus], *, ready_only: bool) -> list[dict[str, str]]:
    """The answer of `POST /v2/repository/index`."""
    return [
        {"name": one.name, "version": one.version, "state": _STATES[one.state], "reason": _reason(one)}
        for one in listed
        if not ready_only or one.state == READY
    ]


def _platform(served: ServedModel) -> str:
    """As `solo_onnxruntime`: the engine's name, without its version."""
    return f"solo_{served.pipeline.backend.description.split(' ')[0]}"


def _tensor(name: str, datatype: str, shape: Sequence[int]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def _config(name: str, datatype: str, shape: Sequence[int], **more: bool) -> dict[str, Any]:
    return {"name": name, "data_type": _CONFIG_TYPES[datatype], "dims": list(shape), **more}


def _reason(one: ModelStatus) -> str:
    return "it could not be loaded; the log says why" if one.state == FAILED else ""
