"""`solo build-engine` and `solo export --engine tensorrt`: output, files and exit status."""

from pathlib import Path
from typing import Any

import pytest
from solo_models.cli import main
from solo_models.engine_file import read_engine_header
from solo_server.backends.gpu.driver.base import DeviceInfo
from solo_server.backends.gpu.driver.driver import FoundDevices
from solo_server.backends.gpu.options import CudaOptions
from solo_server.backends.gpu.tensorrt import open as tensorrt
from solo_server.backends.gpu.tensorrt.open import EngineBuilder, PlanRefused
from solo_server.commands import build_engine
from solo_server.errors import SettingsError
from support.gpu.fake_tensorrt_builder import T4, V100, FakeTensorRt, small_bundle


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRt:
    """A machine with a V100 and TensorRT 10.4."""
    module = FakeTensorRt("10.4.0")
    _with_gpus(monkeypatch, V100)
    monkeypatch.setattr(tensorrt, "import_tensorrt", lambda: module)
    return module


def _with_gpus(monkeypatch: pytest.MonkeyPatch, *gpus: DeviceInfo, reason: str = "") -> None:
    monkeypatch.setattr(build_engine, "find_devices", lambda: FoundDevices(gpus, reason))


def _stderr(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


def test_both_engines_are_built_and_then_found(
    trt: FakeTensorRt, solo_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "build-engine",
        str(solo_bundle),
        "--cache",
        str(tmp_path),
        "--max-batch",
        "2",
        "--shapes",
        "192x128:landscape",
    ]
    assert main(command) == 0
    printed = _stderr(capsys)
    assert printed.count("wrote ") == 2
    headers = [read_engine_header(path) for path in sorted(tmp_path.glob("*.engine"))]
    assert [len(header.profiles) for header in headers] == [3, 9]
    assert headers[0].profiles[0]["images"].min == (1, 128, 192, 3)
    assert main([*command, "--no-build"]) == 0
    assert _stderr(capsys).count("found ") == 2
    assert len(trt.configs) == 2


def test_the_help_says_that_tensorrt_is_experimental(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["build-engine", "--help"])
    assert "Experimental: TensorRT has never run on a GPU" in capsys.readouterr().out


def test_the_workspace_reaches_the_builder(trt: FakeTensorRt, solo_bundle: Path, tmp_path: Path) -> None:
    assert main(["build-engine", str(solo_bundle), "--cache", str(tmp_path), "--workspace-mib", "512"]) == 0
    assert [config.workspace for config in trt.configs] == [512 << 20] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shapes", "192by128"], "'192by128' is not LONGxSHORT"),
        (["--shapes", "128x192"], "shapes: 128x192: the longer side comes first, for portrait images too: 192x128"),
        (["--shapes", "192x100"], "shapes: 192x100: both must be multiples of 32"),
        (["--shapes", "192x192"], "shapes: 192x192: this network's padded input is at most 192x128"),
        (["--max-batch", "0"], "max batch: 0 is below 1"),
        (["--workspace-mib", "0"], "workspace: 0 MiB is below 1"),
        (["--no-build"], "has none of this graph"),
    ],
)
def test_bad_options_end_with_2(
    trt: FakeTensorRt,
    solo_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    assert main(["build-engine", str(solo_bundle), "--cache", str(tmp_path / "cache"), *arguments]) == 2
    assert message in _stderr(capsys)
    assert not (tmp_path / "cache").exists()


def test_a_file_that_is_no_bundle_ends_with_2(
    trt: FakeTensorRt, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build-engine", str(tmp_path / "nothing")]) == 2
    assert "does not exist" in _stderr(capsys)


def test_a_graph_that_tensorrt_refuses_ends_with_2(
    trt: FakeTensorRt, solo_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trt.builder_errors = ["out of memory"]
    assert main(["build-engine", str(solo_bundle), "--cache", str(tmp_path)]) == 2
    assert "cannot build it: out of memory" in _stderr(capsys)


def test_without_a_gpu_it_ends_with_3_and_says_what_is_missing(
    trt: FakeTensorRt, monkeypatch: pytest.MonkeyPatch, solo_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _with_gpus(monkeypatch, reason="there is no working NVIDIA driver")
    assert main(["build-engine", str(solo_bundle)]) == 3
    assert "no working NVIDIA driver" in _stderr(capsys)


def test_without_tensorrt_it_ends_with_3_and_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, solo_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> Any:
        raise SettingsError("TensorRT cannot be imported; pip install")

    _with_gpus(monkeypatch, T4)
    monkeypatch.setattr(tensorrt, "import_tensorrt", missing)
    assert main(["build-engine", str(solo_bundle)]) == 3
    assert "pip install" in _stderr(capsys)


def test_a_tensorrt_that_has_given_up_the_gpu_ends_with_2(
    trt: FakeTensorRt, solo_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trt.__version__ = "10.16.1.11"
    assert main(["build-engine", str(solo_bundle)]) == 2
    assert "10.4.0 is the last version for this GPU" in _stderr(capsys)


def test_a_plan_that_is_refused_twice_is_an_error(trt: FakeTensorRt, tmp_path: Path) -> None:
    options, builder = CudaOptions(max_batch=2, cache=tmp_path), EngineBuilder(V100, trt)
    kept = builder.build(small_bundle(), options, print)
    trt.refuses = {engine.plan for engine in kept}  # the fake makes the same plans again
    with pytest.raises(PlanRefused, match=r"TensorRT 10\.4\.0 does not load categories\.onnx"):
        builder.build(small_bundle(), options, print)
    assert len(trt.configs) == 4


@pytest.mark.parametrize(
    ("gpus", "precision", "status", "message"),
    [((), "fp16", 3, "no driver"), ((V100,), "int8", 2, "only DP4A")],
)
def test_an_export_for_an_engine_that_cannot_be_built_ends_before_any_work(
    trt: FakeTensorRt,
    monkeypatch: pytest.MonkeyPatch,
    solo_bundle: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    gpus: tuple[DeviceInfo, ...],
    precision: str,
    status: int,
    message: str,
) -> None:
    _with_gpus(monkeypatch, *gpus, reason="no driver")
    calibration = ["--calibration", str(tmp_path)] if precision == "int8" else []
    command = ["export", str(solo_bundle), "-o", str(tmp_path / "out"), "--precision", precision, *calibration]
    assert main([*command, "--engine", "tensorrt"]) == status
    printed = _stderr(capsys)
    assert message in printed
    assert "read the bundle" not in printed
    assert not (tmp_path / "out").exists()


def test_an_export_builds_the_engines_of_the_bundle_that_it_has_written(
    trt: FakeTensorRt, solo_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--engine", "tensorrt", "--cache", str(tmp_path / "cache"), "--max-batch", "1"]
    assert main(["export", str(solo_bundle), "-o", str(tmp_path / "out"), "--precision", "fp16", *options]) == 0
    assert _stderr(capsys).count("wrote ") == 3
    assert {read_engine_header(path).precision for path in (tmp_path / "cache").glob("*.engine")} == {"fp16"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--int8-for", "tensorrt"], "--int8-for goes with --precision int8"),
        (["--engine", "tensorrt", "--single-file"], "go with a bundle"),
        (
            ["--engine", "tensorrt", "--precision", "int8", "--calibration", ".", "--int8-for", "cpu"],
            "cannot run INT8 for CPUs",
        ),
    ],
)
def test_options_that_do_not_go_together_end_an_export_with_2(
    solo_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["export", str(solo_bundle), "-o", str(tmp_path / "out"), *arguments]) == 2
    assert message in _stderr(capsys)
