"""The objects for KServe, against the records of KServe's own Python package (their types and names of fields)."""

from __future__ import annotations

import importlib
import re
import sys
import types
from importlib.metadata import distribution
from typing import Any

import pytest
import yaml
from kubernetes.client import models as core
from render import ROOT

FOLDER = ROOT / "deploy/kserve"
BASIC = {"str": str, "bool": bool, "int": int, "float": (int, float), "object": object}


@pytest.fixture(scope="module")
def records() -> types.ModuleType:
    """`kserve.models`; the package itself would import its server."""
    package = types.ModuleType("kserve")
    package.__path__ = [str(distribution("kserve").locate_file("kserve"))]
    sys.modules["kserve"] = package
    models = types.ModuleType("kserve.models")
    models.__path__ = [f"{package.__path__[0]}/models"]
    sys.modules["kserve.models"] = models
    return models


def check(value: Any, kind: str, records: types.ModuleType, place: str) -> None:  # Any: a part of an object
    """Compare a part with its type.

    Raises:
        ValueError: it is of another type, or has a field that the type has not.
    """
    if match := re.fullmatch(r"[Ll]ist\[(.+)\]", kind):
        _expect(isinstance(value, list), place, kind)
        for number, part in enumerate(value):
            check(part, match[1], records, f"{place}[{number}]")
    elif match := re.fullmatch(r"[Dd]ict[(\[]str, (.+)[)\]]", kind):
        _expect(isinstance(value, dict), place, kind)
        for name, part in value.items():
            check(part, match[1], records, f"{place}.{name}")
    elif kind in BASIC:
        _expect(isinstance(value, BASIC[kind]), place, kind)
    else:
        _check_record(value, kind, records, place)


def _check_record(value: Any, kind: str, records: types.ModuleType, place: str) -> None:
    record = getattr(core, kind, None) or _record(kind, records)
    _expect(isinstance(value, dict), place, kind)
    fields = {name: record.openapi_types[attribute] for attribute, name in record.attribute_map.items()}
    for name, part in value.items():
        _expect(name in fields, f"{place}.{name}", f"a field of {kind}")
        check(part, fields[name], records, f"{place}.{name}")


def _record(kind: str, records: types.ModuleType) -> Any:
    file = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower()
    return getattr(importlib.import_module(f"{records.__name__}.{file}"), kind)


def _expect(holds: bool, place: str, kind: str) -> None:
    if not holds:
        raise ValueError(f"{place} is not {kind}")


def _load(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def test_the_runtime_has_kserves_fields(records: types.ModuleType) -> None:
    runtime = _load("serving_runtime.yaml")
    assert (runtime["apiVersion"], runtime["kind"]) == ("serving.kserve.io/v1alpha1", "ServingRuntime")
    check(runtime["spec"], "V1alpha1ServingRuntimeSpec", records, "spec")


def test_the_inference_service_has_kserves_fields(records: types.ModuleType) -> None:
    service = _load("inference_service.yaml")
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    check(service["spec"], "V1beta1InferenceServiceSpec", records, "spec")


@pytest.mark.parametrize(
    ("path", "value"),
    [(("containers", 0, "prots"), []), (("supportedModelFormats",), {}), (("multiModel",), "no"), (("container",), {})],
)
def test_a_wrong_field_is_found(records: types.ModuleType, path: tuple[str | int, ...], value: object) -> None:
    spec = _load("serving_runtime.yaml")["spec"]
    parent = spec
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = value
    with pytest.raises(ValueError, match=str(path[-1])):
        check(spec, "V1alpha1ServingRuntimeSpec", records, "spec")


def test_the_service_uses_the_runtime() -> None:
    runtime, model = _load("serving_runtime.yaml"), _load("inference_service.yaml")["spec"]["predictor"]["model"]
    assert model["runtime"] == runtime["metadata"]["name"]
    known = [(each["name"], each["version"]) for each in runtime["spec"]["supportedModelFormats"]]
    assert (model["modelFormat"]["name"], model["modelFormat"]["version"]) in known
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]


def test_the_runtime_has_a_container_with_kserves_name() -> None:
    """KServe puts the model's folder into the container of this name, at /mnt/models."""
    (container,) = _load("serving_runtime.yaml")["spec"]["containers"]
    assert (container["name"], container["args"]) == ("kserve-container", ["serve", "/mnt/models"])
