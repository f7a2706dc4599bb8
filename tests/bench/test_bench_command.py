"""`solo bench` on the command line: refusals, exit statuses, files."""

import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from solo_client.command import images
from solo_models import cli
from solo_models.checkpoint import _published_name
from solo_server.bench import contenders
from solo_server.bench.subcommands import engine, pipeline
from support.images import encoded, smooth_image
from support.networks import tiny_network

HERE = Path(__file__).parent
FAKE = HERE / "fake_peer.py"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(encoded(smooth_image(60, 90)))
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of `solo_bundle` in mmdet's layout."""
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    state = {_published_name(k, "mmdet", "solo"): v for k, v in tiny_network("solo").state_dict().items()}
    torch.save({"meta": {}, "state_dict": state}, path)
    return path


@pytest.fixture
def fake_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own models are fake contenders too, which load nothing: for tests of the command alone."""
    monkeypatch.setattr(engine, "WORKER", FAKE.stem)
    monkeypatch.setattr(pipeline, "WORKER", FAKE.stem)
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)


@pytest.fixture
def fake_python(tmp_path: Path) -> Path:
    """Stands in for a peer's interpreter: whatever it is asked to run, it runs the fake peer."""
    path = tmp_path / "python"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{FAKE}"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def _bench(*arguments: object) -> int:
    try:
        return cli.main(["bench", *map(str, arguments)])
    except SystemExit as ended:
        return int(str(ended.code))


def _refused(capsys: pytest.CaptureFixture[str], message: str, *arguments: object) -> None:
    status = _bench(*arguments)
    out, err = capsys.readouterr()
    assert (status, out) == (2, ""), err
    assert len(err.strip().splitlines()) == 1, err
    assert message in err


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("no such file", ["pipeline", "nothing.jpg"]),
        ("the following arguments are required: IMAGE", ["pipeline"]),
        ("--runs: 0 is below 1", ["engine", "--runs", "0"]),
        ("--batch: 'two' is not a whole number", ["engine", "--batch", "1,two"]),
        ("both sides must be multiples of 32", ["engine", "--size", "700x500"]),
        ("'1000' is not LONGxSHORT", ["engine", "--size", "1000"]),
        ("512x704: the longer side comes first, for portrait images too: 704x512", ["engine", "--size", "512x704"]),
        ("99999x704: 99999 is not within 32..16384", ["engine", "--size", "99999x704"]),
        ("'up' is neither landscape nor portrait", ["engine", "--size", "704x512:up"]),
        ("does not exist", ["engine", "--model", "/no/such/bundle"]),
        ("'warp' is not an engine; known: auto, onnxruntime", ["engine", "--model", "@warp"]),
        ("'fp7' is not a precision; known: fp32", ["engine", "--model", "@auto:fp7"]),
        ("precision bf16: engine onnxruntime does not support it", ["engine", "--model", "@onnxruntime:bf16"]),
        ("--rate: 0 is not above zero", ["server", "--rate", "0"]),
        ("must be of the form http://HOST:PORT", ["server", "--url", "https://x"]),
        ("Connection refused", ["server", "--url", "http://127.0.0.1:9"]),
        ("no such file", ["server", "nothing.jpg"]),
        ("/dev/null/x.json: cannot be written", ["engine", "-o", "/dev/null/x.json"]),
        ("/tmp: is a folder", ["engine", "--html", "/tmp"]),  # noqa: S108 - nothing is written there
        ("No such file", ["report", "nothing.json", "-o", "x.html"]),
        ("--peer reference needs --checkpoint", ["engine", "--peer", "reference"]),
        ("no such file", ["engine", "--peer", "plain-onnx", "--checkpoint", "nothing.pth"]),
    ],
)
def test_invalid_arguments_are_refused_in_one_line(
    message: str, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    _refused(capsys, message, *arguments)


def test_a_file_that_is_not_an_image_is_refused(
    solo_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.jpg").write_text("hello")
    _refused(capsys, "x.jpg: not a supported image", "pipeline", tmp_path / "x.jpg", "--model", solo_bundle)


@pytest.mark.usefixtures("fake_worker")
def test_a_folder_stands_for_the_images_in_it(photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    for name in ("b.jpg", "a.JPG", "deeper/c.jpg", ".hidden.jpg", "._b.jpg", "notes.txt"):
        (folder / name).write_bytes(photo.read_bytes())
    command = ("pipeline", folder, photo, "--runs", 1, "--repeats", 1, "-o", tmp_path / "x.json")
    assert _bench(*command) == 0
    result = json.loads((tmp_path / "x.json").read_text())
    assert result["settings"]["images"] == ["a.JPG", "b.jpg", photo.name]
    assert [Path(image).name for image in result["contenders"][0]["details"]["setup"]["images"]] == [
        "a.JPG",
        "b.jpg",
        photo.name,
    ]
    assert len(result["contenders"][0]["samples"]) == 3


@pytest.mark.parametrize("subcommand", ["pipeline", "server"])
def test_a_folder_without_images_is_refused(
    subcommand: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scan.tiff").touch()
    _refused(capsys, "no image in this folder (.avif, .bmp, .jfif, .jpeg, .jpg, .png, .webp)", subcommand, tmp_path)


def test_bench_and_segment_find_the_same_images_in_a_folder() -> None:
    assert contenders.SUFFIXES == images.SUFFIXES


@pytest.mark.usefixtures("fake_worker")
def test_a_peer_needs_its_environment(
    photo: Path, checkpoint: Path, solo_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("pipeline", photo, "--model", solo_bundle, "--peer", "reference", "--checkpoint", checkpoint)
    _refused(capsys, "needs --peer-python", *command)
    _refused(
        capsys, "--peer reference: /no/such/python cannot be started", *command, "--peer-python", "/no/such/python"
    )
    _refused(capsys, "has no usable mmengine", *command, "--peer-python", sys.executable)


@pytest.mark.usefixtures("fake_worker")
def test_a_checkpoint_of_another_network_is_refused(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("engine", "--size", "32x32", "--peer", "plain-onnx", "--checkpoint", checkpoint)
    _refused(capsys, "does not fit the bundle: variant is solo, not decoupled_light", *command)


def test_a_dying_contender_ends_the_run_with_3_and_keeps_samples(
    photo: Path,
    checkpoint: Path,
    solo_bundle: Path,
    fake_python: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FAKE_PEER", "die:2")
    peer = ("--peer", "reference", "--peer-python", fake_python, "--checkpoint", checkpoint)
    files = ("-o", tmp_path / "out.json", "--html", tmp_path / "out.html")
    status = _bench("pipeline", photo, "--model", solo_bundle, *peer, "--runs", 3, "--repeats", 1, *files)
    out, err = capsys.readouterr()
    assert status == 3
    assert "MemoryError: no more" in err
    assert len(err.strip().splitlines()) == 1
    assert "tiny-solo fp32" in out
    result = json.loads((tmp_path / "out.json").read_text())
    assert [len(c["samples"]) for c in result["contenders"]] == [2, 1]
    assert "MemoryError" in result["ended_early"]
    assert "Ended early" in (tmp_path / "out.html").read_text()


@pytest.fixture
def dying_url() -> Iterator[str]:
    """A server that answers seven images, two of them for the warm-up, and refuses text."""
    command = [sys.executable, str(Path(__file__).parent / "dying_server.py"), "7"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None:
            raise RuntimeError("standard output is not a pipe")
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        process.kill()


def test_a_dying_server_ends_the_run_with_3_and_keeps_samples(
    photo: Path, dying_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loops = ("--concurrency", 1, "--rate", 5, "--seconds", 30)
    status = _bench("server", photo, "--url", dying_url, *loops, "-o", tmp_path / "out.json")
    err = capsys.readouterr().err
    assert status == 3, err
    assert "no longer accepts connections" in err
    result = json.loads((tmp_path / "out.json").read_text())
    codes = [code for _, _, code, *_ in result["points"][0]["shots"]]
    assert codes[:5] == [""] * 5
    assert set(codes[5:]) == {"connection_lost"}  # a second connection may be accepted while the process exits
    assert "no longer accepts connections" in result["ended_early"]
    assert len(result["points"]) == 1


def test_ctrl_c_keeps_the_results_so_far_and_exits_with_130(
    photo: Path, checkpoint: Path, solo_bundle: Path, fake_python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_PEER", f"touch:{tmp_path / 'measuring'}")
    peer = ("--peer", "reference", "--peer-python", fake_python, "--checkpoint", checkpoint)
    command = ("pipeline", photo, "--model", solo_bundle, *peer, "--runs", 100000, "-o", tmp_path / "out.json")
    words = [sys.executable, "-m", "solo_models.cli", "bench", *map(str, command)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not (tmp_path / "measuring").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.terminate()  # handled like Ctrl-C, which a background process may ignore
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["ended_early"] == "interrupted"
    assert len(result["contenders"][0]["samples"]) > 0


def test_a_server_is_started_measured_and_stopped(
    photo: Path, solo_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ("-o", tmp_path / "out.json", "--html", tmp_path / "out.html")
    status = _bench("server", photo, "--model", solo_bundle, "--concurrency", 2, "--seconds", 0.5, *files)
    out, err = capsys.readouterr()
    assert status == 0, err
    assert "2 callers" in out
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["model"]["name"] == "tiny-solo"
    assert result["points"][0]["errors"] == {}
    assert result["points"][0]["cpu_s"] is None or result["points"][0]["rss_mib"] > 20


def test_an_image_that_the_server_rejects_is_named(
    dying_url: str, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    command = ("server", photo, tmp_path / "text.jpg", "--url", dying_url)
    _refused(capsys, "text.jpg: the server returned unsupported_media_type", *command)


def test_results_become_a_report(photo: Path, solo_bundle: Path, tmp_path: Path) -> None:
    result = tmp_path / "engine.json"
    rounds = ("--runs", 1, "--repeats", 1, "--size", "96x64", "--batch", "1,2")
    assert _bench("engine", "--model", solo_bundle, *rounds, "-o", result) == 0
    assert _bench("report", result, "-o", tmp_path / "page.html") == 0
    assert "GFLOP per second, batch 2" in (tmp_path / "page.html").read_text()
