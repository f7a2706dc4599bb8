"""The commands as a user types them: processes, exit codes, files, signals."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from solo_models.demo import demo_bundle
from support.images import encoded, smooth_image
from support.paths import IMAGES
from support.solo_process import SoloProcesses

SOLO = [sys.executable, "-m", "solo_models.cli"]


def _solo(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return _processes().run([*map(str, arguments)], _environment(environment))


def _unread(*arguments: object) -> subprocess.CompletedProcess[str]:
    """As `solo ... | head` after head has ended; here it ends before the first line."""
    return _processes().run([*map(str, arguments)], _environment({}), reads=False)


@cache
def _processes() -> SoloProcesses:
    return SoloProcesses()


@pytest.fixture(scope="module", autouse=True)
def _ended_processes() -> Iterator[None]:
    yield
    if _processes.cache_info().currsize:
        _processes().close()
        _processes.cache_clear()


def _environment(extra: dict[str, str]) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("SOLO_")} | extra


def _check_refused(done: subprocess.CompletedProcess[str], said: str) -> None:
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert said in done.stderr
    assert done.stdout == ""


@contextmanager
def _server(*arguments: object, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`solo serve` on a free port, once it is ready."""
    command = [*SOLO, "serve", "--port", "0", *map(str, arguments)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=_environment(environment))
    try:
        yield process, _wait_for(process)
    finally:
        process.kill()
        process.communicate()


def _wait_for(process: subprocess.Popen[str]) -> str:
    if process.stderr is None:
        raise RuntimeError("standard error is not a pipe")
    said = []
    for line in process.stderr:
        said.append(line)
        if match := re.search(r"(http://[\d.]+:\d+)  try:", line):
            break
    else:
        raise RuntimeError("".join(said))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{match[1]}/readyz").status_code == 200:
                return match[1]
        except httpx.ConnectError:
            pass
        time.sleep(0.05)
    raise RuntimeError("the server did not become ready within 60 s")


def _loaded_after(statement: str, *modules: str) -> list[str]:
    """Which of `modules` a fresh interpreter has loaded after `statement`."""
    code = f"import sys\n{statement}\nprint(*(m for m in {modules!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()


def _wait_until_refused(url: str) -> None:
    """Wait until the server refuses new connections."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{url}/healthz")
        except httpx.TransportError:
            return
    raise RuntimeError("the server still takes connections 30 s after SIGTERM")


def test_help_names_every_command_without_heavy_imports() -> None:
    overview = _solo("--help").stdout
    for command in ("segment", "serve", "selftest", "bench", "export", "inspect"):
        assert command in overview
    assert _loaded_after("import solo_models.cli as c; c.main(['--help'])", "torch", "numpy", "fastapi") == []


def test_unknown_commands_are_refused() -> None:
    done = subprocess.run([*SOLO, "fly"], capture_output=True, text=True, check=False)
    _check_refused(done, "unknown command 'fly'")


@pytest.mark.parametrize(
    "words", [["inspect", demo_bundle()], ["--help"], ["export", "--help"], ["bench", "pipeline", "--help"]]
)
def test_a_command_ends_quietly_when_its_reader_is_gone(words: list[object]) -> None:
    done = _unread(*words)
    assert done.stderr == ""
    assert done.returncode in (0, 141)  # argparse ignores that it cannot print


def test_a_measurement_is_kept_when_nobody_reads_its_table(tmp_path: Path) -> None:
    words = ["bench", "pipeline", IMAGES / "astronaut.jpg", "--runs", 1, "--repeats", 1, "-o", tmp_path / "kept.json"]
    done = _unread(*words)
    assert done.returncode == 141
    assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "kept.json").read_text())["contenders"][0]["figures"]["samples"] == 1


def test_the_server_never_loads_torch() -> None:
    assert _loaded_after("import solo_server.commands.serve, solo_server.commands.local", "torch", "onnx") == []
    assert _loaded_after("import solo_server.bench.workers.pipeline, solo_server.bench.command", "torch", "onnx") == []


def test_the_demo_model_is_served_and_finds_the_astronaut() -> None:
    with _server() as (process, url):
        body = (IMAGES / "astronaut.jpg").read_bytes()
        answer = httpx.post(f"{url}/segment", content=body, timeout=60).json()
        assert answer["model"]["name"] == "demo-person"
        best = answer["instances"][0]
        assert best["label"] == "person"
        assert best["score"] > 0.3
        mask = coco_mask.decode(best["mask"]).astype(bool)
        assert mask.shape == (512, 512)
        assert mask[150:, 120:260].mean() > 0.9  # her face and suit
        assert mask[:250, 380:].mean() < 0.1  # the shuttle
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_an_accepted_request_is_answered_after_sigterm(solo_bundle: Path) -> None:
    body = encoded(smooth_image(150, 200), "JPEG")
    with _server(solo_bundle) as (process, url), socket.socket() as raw:
        host, port = url.removeprefix("http://").split(":")
        raw.connect((host, int(port)))
        raw.settimeout(30)
        head = f"POST /segment HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {len(body)}\r\n\r\n"
        raw.sendall(head.encode())
        assert raw.recv(4096).startswith(b"HTTP/1.1 100")  # the request has been accepted and waits for its body
        process.send_signal(signal.SIGTERM)
        _wait_until_refused(url)
        raw.sendall(body)
        received = b""
        while chunk := raw.recv(65536):
            received += chunk
        assert received.startswith(b"HTTP/1.1 200")
        assert process.wait(30) == 0


def test_a_port_in_use_is_reported_in_one_line(solo_bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        _check_refused(_solo("serve", solo_bundle, "--port", taken.getsockname()[1]), "cannot listen on 127.0.0.1")


def test_a_missing_or_damaged_bundle_stops_the_start(solo_bundle: Path, tmp_path: Path) -> None:
    _check_refused(_solo("serve", tmp_path / "nothing", "--port", 0), "does not exist")
    shutil.copytree(solo_bundle, tmp_path / "damaged")
    (tmp_path / "damaged" / "masks.onnx").write_bytes(b"x")
    _check_refused(_solo("serve", tmp_path / "damaged", "--port", 0), "masks.onnx")


def test_unreadable_keys_stop_the_start_and_are_not_printed(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("0123456789abcdef\nmy-secret")
    done = _solo("serve", "--port", 0, "--api-keys-file", tmp_path / "keys")
    _check_refused(done, "SOLO_API_KEYS_FILE: ")
    assert "line 2" in done.stderr
    assert "secret" not in done.stderr
    _check_refused(_solo("serve", "--port", 0, SOLO_API_KEYS_FILE=str(tmp_path / "nothing")), "cannot be read")


def test_keys_are_rotated_by_sighup_without_a_restart(solo_bundle: Path, tmp_path: Path) -> None:
    old, new = {"x-api-key": "old-0123456789abcdef"}, {"x-api-key": "new-0123456789abcdef"}
    keys = tmp_path / "keys"
    keys.write_text(old["x-api-key"])
    with _server(solo_bundle, "--api-keys-file", keys) as (process, url):
        assert httpx.get(f"{url}/model", headers=old).status_code == 200
        assert httpx.get(f"{url}/model", headers=new).status_code == 401
        keys.write_text(new["x-api-key"])
        process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 5
        while (status := httpx.get(f"{url}/model", headers=new).status_code) == 401 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert status == 200
        assert httpx.get(f"{url}/model", headers=old).status_code == 401
        assert _segment(IMAGES / "astronaut.jpg", "--url", url, "--api-key-file", keys)["instances"]
        _check_refused(_solo("segment", IMAGES / "astronaut.jpg", "--url", url), "unauthorized")
        keys.write_text("")
        process.send_signal(signal.SIGHUP)
        time.sleep(0.1)
        assert httpx.get(f"{url}/model", headers=new).status_code == 200  # a damaged file changes nothing
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=30)[1]
    assert "the previous keys stay in use" in said
    assert "0123456789abcdef" not in said


def test_sighup_at_any_time_interrupts_no_request(solo_bundle: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("0123456789abcdef")

    def ask(url: str) -> set[int]:
        with httpx.Client(headers={"x-api-key": "0123456789abcdef"}, timeout=30) as client:
            return {client.get(f"{url}/model").status_code for _ in range(150)}

    with ThreadPoolExecutor(4) as callers, _server(solo_bundle, "--api-keys-file", keys) as (process, url):
        said = callers.submit(lambda: list(process.stderr or ()))
        answers = [callers.submit(ask, url) for _ in range(3)]
        while not all(answer.done() for answer in answers):
            process.send_signal(signal.SIGHUP)
            time.sleep(0.002)
        assert [answer.result() for answer in answers] == [{200}] * 3
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    assert any("1 read from" in line for line in said.result())


def test_an_engine_without_its_gpu_stops_the_start(solo_bundle: Path) -> None:
    hidden = {"CUDA_VISIBLE_DEVICES": ""}  # if this machine has a GPU
    _check_refused(_solo("serve", solo_bundle, "--port", 0, "--engine", "cuda", **hidden), "GPU")


def test_a_bad_setting_stops_the_start(solo_bundle: Path) -> None:
    _check_refused(_solo("serve", solo_bundle, SOLO_PORT="many"), "SOLO_PORT")


def test_a_precision_that_the_bundle_does_not_have_stops_the_start(solo_bundle: Path) -> None:
    done = _solo("serve", solo_bundle, "--port", 0, "--precision", "int8")
    _check_refused(done, "solo export tiny-solo -o NEW --precision int8 --calibration DIR")


def test_a_local_model_on_an_unknown_engine_is_refused(solo_bundle: Path) -> None:
    done = _solo("segment", IMAGES / "astronaut.jpg", "--model", solo_bundle, "--engine", "tensorflow")
    _check_refused(done, "engine 'tensorflow': must be one of auto, onnxruntime, openvino")


def test_openvino_gives_the_results_of_onnx_runtime(solo_bundle: Path) -> None:
    image = IMAGES / "astronaut.jpg"
    expected = _segment(image, "--model", solo_bundle, "--engine", "onnxruntime")["instances"]
    here = _segment(image, "--model", solo_bundle, "--engine", "openvino")["instances"]
    with _server(solo_bundle, SOLO_ENGINE="openvino") as (_, url):
        model = httpx.get(f"{url}/model").json()
        there = httpx.post(f"{url}/segment", content=image.read_bytes(), timeout=60).json()["instances"]
    assert model["engine"].startswith("openvino ")
    assert model["engine"].endswith(" cpu, fp32, compiled head")
    assert model["engine_reason"] == "asked for"
    assert len(expected) > 0
    for found in (here, there):
        assert [i["label"] for i in found] == [i["label"] for i in expected]
        np.testing.assert_allclose([i["score"] for i in found], [i["score"] for i in expected], atol=1e-4)


def _segment(*arguments: object) -> Any:
    done = _solo("segment", *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_local_and_http_results_are_the_same(solo_bundle: Path) -> None:
    image = IMAGES / "astronaut.jpg"
    here = _segment(image, "--model", solo_bundle)
    with _server(solo_bundle) as (_, url):
        there = _segment(image, "--url", url)
    assert here["instances"] == there["instances"]
    assert len(here["instances"]) > 0


def test_coco_results_are_a_list_that_pycocotools_reads(tmp_path: Path) -> None:
    for i in (7, 12):
        shutil.copy(IMAGES / "astronaut.jpg", tmp_path / f"{i:012}.jpg")
    done = _solo("segment", tmp_path, "--format", "coco", "-o", tmp_path / "out.json")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out.json").read_text())
    assert {r["image_id"] for r in results} == {7, 12}
    assert all(set(r) == {"image_id", "category_id", "score", "segmentation"} for r in results)
    assert all(coco_mask.decode(r["segmentation"]).shape == (512, 512) for r in results)


def test_overlays_are_written_and_a_bad_image_fails_alone(tmp_path: Path) -> None:
    shutil.copy(IMAGES / "astronaut.jpg", tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(b"no image")
    done = _solo("segment", tmp_path / "a.jpg", tmp_path / "b.jpg", "--overlay", tmp_path / "drawn")
    assert done.returncode == 1
    assert "b.jpg" in done.stderr
    assert [p.name for p in (tmp_path / "drawn").iterdir()] == ["a.overlay.png"]


def test_the_error_for_an_unsupported_format_names_it(tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "scan.tif")
    done = _solo("segment", tmp_path / "scan.tif")
    assert done.returncode == 1
    assert "scan.tif: TIFF is not accepted; send JPEG, PNG, WebP, AVIF or BMP" in done.stderr


def test_the_bench_records_hardware_versions_and_command(tmp_path: Path) -> None:
    astronaut = IMAGES / "astronaut.jpg"
    done = _solo("bench", "pipeline", astronaut, "--runs", 2, "--repeats", 1, "-o", tmp_path / "bench.json")
    assert done.returncode == 0, done.stderr
    assert "images/s" in done.stdout
    result = json.loads((tmp_path / "bench.json").read_text())
    figures = result["contenders"][0]["figures"]
    assert len(figures["fps_of_runs"]) == result["runs"] == 2
    assert figures["fps"] == pytest.approx(np.mean(figures["fps_of_runs"]), abs=1e-3)
    assert {"command", "commit", "hardware", "versions", "settings", "load_average"} <= set(result)


def test_the_bench_refuses_a_file_that_is_not_an_image(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_text("hello")
    _check_refused(_solo("bench", "pipeline", tmp_path / "x.jpg"), "not a supported image")


def test_the_demo_bundle_is_small_and_its_card_names_its_origin() -> None:
    files = list(demo_bundle().iterdir())
    assert sum(f.stat().st_size for f in files) <= 20_000_000
    card = (demo_bundle() / "MODEL_CARD.md").read_text()
    for needed in ("COCO", "CC BY 4.0", "Apache-2.0", "recipes/demo_person.toml", "AP", "seed"):
        assert needed in card


def test_a_folder_of_models_is_served_and_sighup_reloads_it(solo_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(solo_bundle, tmp_path / "cats" / "1")
    body = (IMAGES / "astronaut.jpg").read_bytes()
    with _server("--models", tmp_path) as (process, url):
        assert httpx.post(f"{url}/models/cats/segment", content=body).json()["model"] == {
            "name": "cats",
            "version": "1",
        }
        shutil.copytree(solo_bundle, tmp_path / "cats" / "2.part")
        (tmp_path / "cats" / "2.part").rename(tmp_path / "cats" / "2")
        process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 60
        while httpx.post(f"{url}/segment", content=body).json()["model"]["version"] != "2":
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=30)[1]
    assert process.returncode == 0
    assert "model cats version 2: in service after" in said


def test_an_empty_folder_of_models_stops_the_start(tmp_path: Path) -> None:
    _check_refused(_solo("serve", "--port", 0, "--models", tmp_path), "holds no bundle; solo export writes them")
