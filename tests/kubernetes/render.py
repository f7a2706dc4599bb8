"""Renders the chart and the overlays with the real helm and kubectl, and checks objects against Kubernetes' schemas."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(os.environ["SOLO_TEST_KUBERNETES"])
CHART = ROOT / "deploy/helm/solo-inference"
OVERLAYS = ROOT / "deploy/kubernetes/overlays"
VERSIONS = ("1.30", "1.37")  # the oldest that the chart allows, and the newest whose schemas the validator has
_OF_HELM = ("app.kubernetes.io/managed-by", "helm.sh/chart", "app.kubernetes.io/version")

Object = dict[str, Any]  # a Kubernetes object, as YAML has it


def helm(*words: str) -> subprocess.CompletedProcess[str]:
    """Run helm."""
    return subprocess.run([TOOLS / "helm/helm", *words], capture_output=True, text=True, check=False, cwd=ROOT)


def chart(values: Object | None = None, name: str = "solo-inference") -> list[Object]:
    """The objects that the chart renders with values."""
    done = helm("template", name, str(CHART), "--set-json", *_sets(values or {}))
    if done.returncode:
        raise RuntimeError(done.stderr)
    return objects(done.stdout)


def refusal(values: Object) -> str:
    """What helm says about values that it refuses."""
    done = helm("template", "solo-inference", str(CHART), "--set-json", *_sets(values))
    if done.returncode == 0:
        raise RuntimeError("helm accepts these values")
    return done.stderr


def overlay(name: str) -> list[Object]:
    """The objects of an overlay."""
    command = [TOOLS / "kubectl/kubectl", "kustomize", str(OVERLAYS / name)]
    return objects(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def objects(text: str) -> list[Object]:
    """The objects of a YAML text, in order of their kinds."""
    return sorted((one for one in yaml.safe_load_all(text) if one), key=lambda one: str(one["kind"]))


def validate(one: Object) -> None:
    """Check an object against the schemas of Kubernetes, strictly: an unknown field is an error.

    Raises:
        kubernetes_validate.ValidationError: the object does not fit.
    """
    for version in VERSIONS:
        kubernetes_validate.validate(one, version, strict=True)


def without_helm(value: Any) -> Any:  # Any: any part of an object
    """A part of an object without the labels that Helm adds."""
    if isinstance(value, dict):
        return {key: without_helm(part) for key, part in value.items() if key not in _OF_HELM}
    return [without_helm(part) for part in value] if isinstance(value, list) else value


def of_kind(found: list[Object], kind: str) -> Object:
    """The one object of a kind."""
    (one,) = [each for each in found if each["kind"] == kind]
    return one


def _sets(values: Object) -> list[str]:
    return [",".join(f"{name}={json.dumps(value)}" for name, value in values.items()) or "global={}"]
