"""The container image `cpu`: its content, and how it serves."""

import json
import shutil
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from container import running
from image_builder import ROOT, Image, size_bytes
from memory import limited
from server_calls import ended, free_port, serving, until
from solo_models.bundle import read_bundle, write_bundle
from solo_models.demo import demo_bundle
from support.networks import bundle_content, tiny_network

ASTRONAUT = ROOT / "tests/images/astronaut.jpg"
PHOTOGRAPH = ASTRONAUT.read_bytes()
LARGEST_BYTES = 450_000_000
GIB = 1 << 30


def _answer(url: str) -> dict[str, Any]:
    answer: dict[str, Any] = httpx.post(f"{url}/segment", content=PHOTOGRAPH, timeout=60).raise_for_status().json()
    return answer


def test_the_demo_model_is_served_with_the_results_of_the_repository(cpu: Image, figures: dict[str, Any]) -> None:
    with serving(cpu) as (container, url, ready_s):
        answer, peak = _answer(url), container.peak_bytes()
        status = container.stop()
    assert status == 0
    command = [sys.executable, "-m", "solo_models.cli", "segment", str(ASTRONAUT)]
    expected = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert answer["instances"]
    assert answer["instances"] == expected["instances"]
    assert answer["model"] == expected["model"]
    assert not any("compiling" in line for line in container.log_lines), "kernels in the image are not used"
    figures["cpu"] = figures.get("cpu", {}) | {"ready_s": round(ready_s, 2), "peak_rss_bytes": peak}


def test_the_server_has_no_privileges_and_can_write_only_to_its_cache(cpu: Image) -> None:
    with serving(cpu) as (container, _, _):
        process = Path(f"/proc/{container.pid}")
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
        mounts = [line.split() for line in (process / "mounts").read_text().splitlines()]
    assert status["Uid"].split() == ["10001"] * 4
    assert status["Gid"].split() == ["10001"] * 4
    assert status["Groups"].strip() == ""
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["NSpid"].split()[-1] == "1"
    writable = {where for _, where, _, options, *_ in mounts if "rw" in options.split(",")}
    assert "/" not in writable
    assert {where for where in writable if not where.startswith(("/dev/", "/proc"))} == {"/cache"}


def test_accepted_requests_are_answered_after_sigterm(cpu: Image) -> None:
    with serving(cpu) as (container, url, _), ThreadPoolExecutor(4) as callers:
        before = _done(url)
        calls = [callers.submit(_answer, url) for _ in range(4)]
        while (waiting := _waiting(url)) == 0 and not all(call.done() for call in calls):
            time.sleep(0.001)
        assert container.stop() == 0
        answered = sum(call.exception() is None for call in calls)
    assert before == 0
    assert answered >= waiting > 0


def test_it_runs_on_one_core_with_one_gigabyte(cpu: Image, figures: dict[str, Any]) -> None:
    with limited(GIB) as before, serving(cpu, before=[*before, "taskset", "-c", "0"]) as (container, url, ready_s):
        assert [i["label"] for i in _answer(url)["instances"]]
        peak = container.peak_bytes()
        assert container.stop() == 0
    assert peak < GIB
    limit = "memory control group" if before else "peak resident memory only"
    figures["one_core_1_gib"] = {
        "ready_s": round(ready_s, 2),
        "peak_rss_bytes": peak,
        "limited_by": f"taskset, {limit}",
    }


def test_a_bundle_mounted_at_bundle_is_served_instead(cpu: Image, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "tiny", bundle_content(tiny_network("solo")))
    with serving(cpu, mounts={"/bundle": bundle}) as (_, url, _):
        assert httpx.get(f"{url}/model").json()["name"] == read_bundle(bundle).name


def test_a_mount_without_a_bundle_or_with_a_damaged_one_is_refused_in_one_line(cpu: Image, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    damaged = shutil.copytree(demo_bundle(), tmp_path / "damaged")
    (damaged / "masks.onnx").write_bytes(b"no network")
    for folder in (empty, damaged):
        status, lines = ended(cpu, mounts={"/bundle": folder}, SOLO_PORT=str(free_port()))
        assert status == 2
        (refusal,) = [line for line in lines if line.startswith("solo serve: ")]
        assert "/bundle" in refusal
        assert not any("Traceback" in line for line in lines)


def test_an_unwritable_cache_is_reported_in_one_line(cpu: Image, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    port = free_port()
    with running(cpu, cache=tmp_path, SOLO_PORT=str(port)) as container:
        until(lambda: any("compiling kernels" in line for line in container.log_lines), container)
    (line,) = [line for line in container.log_lines if "compiling kernels" in line]
    assert "no cache folder is writable" in line
    assert "docs/deployment.md" in line


def test_the_health_check_distinguishes_ready_from_not_ready(cpu: Image) -> None:
    check = cpu.config["Healthcheck"]["Test"]
    assert check[0] == "CMD"
    with serving(cpu) as (_, url, _):
        port = url.rpartition(":")[2]
        assert ended(cpu, entrypoint=check[1:], SOLO_PORT=port) == (0, [])
    status, lines = ended(cpu, entrypoint=check[1:], SOLO_PORT=port)
    assert (status, len(lines)) == (1, 1)


def test_the_image_has_the_documented_settings(cpu: Image) -> None:
    assert cpu.config["User"] == "10001:10001"
    assert cpu.config["Entrypoint"] == ["solo"]
    assert cpu.config["Cmd"] == ["serve"]
    assert list(cpu.config["Volumes"]) == ["/cache"]
    assert list(cpu.config["ExposedPorts"]) == ["8000/tcp"]
    assert cpu.config["StopSignal"] == "SIGTERM"
    labels = {name.rpartition(".")[2]: text for name, text in cpu.config["Labels"].items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert labels["version"] == project["version"]
    assert labels["licenses"] == project["license"]
    assert labels["revision"] == "0123456789abcdef"


def test_there_are_no_build_tools_and_no_torch(cpu: Image) -> None:
    unwanted = {"pip", "setuptools", "wheel", "torch", "ensurepip", "gcc", "cc", "make", "git", "curl", "wget", "uv"}
    places = ("usr/bin", "usr/local/bin", "opt/solo/bin", "usr/lib/python3*", "usr/lib/python3*/dist-packages")
    places += ("usr/local/lib/python3*/*-packages", "opt/solo/lib/python3*/site-packages", "usr/lib/gcc/*/*")
    found = [path for place in places for path in cpu.root.glob(f"{place}/*") if path.name.split("-")[0] in unwanted]
    assert found == []


def test_the_bill_of_materials_names_every_package(cpu: Image) -> None:
    bill = json.loads((cpu.root / "opt/solo/share/doc/solo/sbom.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    listed = {component["purl"] for component in bill["components"]}
    packages = [
        path.name.removesuffix(".dist-info")
        for path in cpu.root.glob("opt/solo/lib/python3*/site-packages/*.dist-info")
    ]
    pinned = {name.replace("_", "-").lower() + "@" + version for name, version in (p.rsplit("-", 1) for p in packages)}
    assert len(pinned) > 30
    in_bill = {purl.removeprefix("pkg:pypi/") for purl in listed} | {_itself(bill)}
    assert pinned - in_bill == set()
    assert any(purl.startswith("pkg:deb/debian/libc6@") for purl in listed)


def _itself(bill: dict[str, Any]) -> str:
    component = bill["metadata"]["component"]
    return f"{component['name']}@{component['version']}"


def test_it_adds_no_more_to_its_base_than_promised(cpu: Image, figures: dict[str, Any]) -> None:
    base, added = size_bytes(cpu)
    figures["cpu"] = figures.get("cpu", {}) | {"base_bytes": base, "added_bytes": added}
    assert added <= LARGEST_BYTES


def _metric(url: str, name: str) -> float:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def _done(url: str) -> float:
    return _metric(url, "solo_images_total")


def _waiting(url: str) -> float:
    return _metric(url, "solo_waiting_images ")
