"""The models that are served, as JSON: the answers of `GET /models` and `GET /models/{name}`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from solo_server.service.model_registry import ModelStatus
from solo_server.service.served_model import ServedModel


def model_json(served: ServedModel) -> dict[str, Any]:
    """The answer of `GET /models/{name}`. `bundle`: twelve hex digits that identify the content, whatever the version's name."""
    pipeline = served.pipeline
    bundle = pipeline.bundle
    return {
        "name": served.name,
        "version": served.version,
        "bundle": bundle.version,
        "precision": bundle.precision,
        "engine": pipeline.backend.description,
        "engine_reason": pipeline.engine_reason,
        "classes": list(bundle.spec.class_names),
        "spec": bundle.spec.to_dict(),
        "provenance": bundle.provenance,
        "parity": bundle.parity,
    }


def model_list_json(statuses: Sequence[ModelStatus], default: str | None) -> dict[str, Any]:
    """The answer of `GET /models`. default: name of the default model."""
    return {"default": default, "models": [_status_json(status) for status in statuses]}


def _status_json(status: ModelStatus) -> dict[str, Any]:
    content: dict[str, Any] = {"name": status.name, "version": status.version, "state": status.state}
    if status.served is None:
        return content
    pipeline = status.served.pipeline
    bundle = pipeline.bundle
    engine = pipeline.backend.description
    return content | {"bundle": bundle.version, "precision": bundle.precision, "engine": engine}
