"""Every dependency has an exact version, so that an audit of `constraints.txt` is an audit of what runs."""

import re
import tomllib
from importlib.metadata import packages_distributions, requires

from packaging.requirements import Requirement
from support.paths import ROOT

EXACT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][0-9A-Za-z.]*(\+[0-9A-Za-z.]+)?")


def _lines() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _locked(image: str) -> dict[str, str]:
    """Versions by name in the lock file of a container image."""
    lines = (ROOT / "deploy/image/locks" / f"{image}.txt").read_text().splitlines()
    return dict(line.split()[0].split("==") for line in lines if "==" in line.split(" ;")[0] and "--hash" not in line)


def _name(text: str) -> str:
    return re.sub(r"[-_.]+", "-", text).lower()


def _pinned() -> set[str]:
    return {_name(line.split("==")[0]) for line in _lines()}


def test_every_constraint_is_one_exact_version() -> None:
    assert [line for line in _lines() if not EXACT.fullmatch(line)] == []
    assert len(_pinned()) == len(_lines())


def test_all_requirements_of_server_and_client_are_pinned_transitive_ones_too() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    installed = {_name(name) for names in packages_distributions().values() for name in names}
    seen: set[str] = set()
    todo = [Requirement(text) for extra in ("server", "client", "openvino", "otel") for text in extras[extra]]
    while todo:
        requirement = todo.pop()
        name = _name(requirement.name)
        if (
            name in seen
            or name == "solo-inference"
            or (requirement.marker and not requirement.marker.evaluate({"extra": ""}))
        ):
            continue
        seen.add(name)
        assert name in installed
        todo += [Requirement(text) for text in requires(name) or ()]
    assert len(seen) > 15
    assert seen - _pinned() == set()


def test_container_images_have_the_tested_versions() -> None:
    tested = {_name(name): version for name, version in (line.split("==") for line in _lines())}
    for image in ("cpu", "gpu", "gpu-modern", "export"):
        locked = _locked(image)
        assert len(locked) > 20
        assert {n: v for n, v in locked.items() if n in tested} == {n: tested[n] for n in locked if n in tested}
    elsewhere = {"colorama"}  # needed on Windows only
    assert set(_locked("cpu")) - set(tested) - elsewhere == set()
    assert set(_locked("export")) - set(tested) - elsewhere == set()


def test_container_images_install_all_but_torch_and_tensorrt_by_hash() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    installs = [line for line in dockerfile.splitlines() if "INSTALL}" in line or "pip install" in line]
    assert installs
    unlocked = [
        part for line in installs for part in line.split("&&") if "INSTALL}" in part and "--require-hashes" not in part
    ]
    assert [part.split()[-1] for part in unlocked] == [f"torch=={dict(x.split('==') for x in _lines())['torch']}"]


def test_container_images_for_a_v100_have_the_last_versions_that_support_it() -> None:
    locked = _locked("gpu")
    assert locked["onnxruntime-gpu"] == "1.20.2"
    assert locked["nvidia-cudnn-cu12"] == "9.10.2.21"
    assert {name: version for name, version in locked.items() if name.startswith("nvidia-cuda-")} != {}
    assert all(version.startswith("12.") for name, version in locked.items() if name.startswith("nvidia-cuda-"))
    assert "tensorrt.sh 10.4.0" in (ROOT / "Dockerfile").read_text()
