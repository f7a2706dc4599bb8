"""A plan is built as the graph says and by nothing else; what TensorRT complains of is lines in its words."""

import logging
from typing import Any

import pytest
from solo_models.engine_file import ShapeRange
from solo_server.backends.gpu.driver.base import DeviceInfo
from solo_server.backends.gpu.tensorrt import build as tensorrt_build
from solo_server.backends.gpu.tensorrt.build import (
    BuiltPlan,
    EngineBuildError,
    PlanRequest,
    build_plan,
    check_gpu,
    check_int8_form,
    deserialises,
    import_tensorrt,
    progress_lines,
    version_of,
)
from solo_server.errors import SettingsError
from support.gpu.fake_tensorrt_builder import T4, TIMES, V100, BuilderFlag, FakeTensorRt, ParserError, small_bundle

REQUEST = PlanRequest("masks.onnx", b"ONNX", ({"level": ShapeRange((1, 8), (2, 8), (4, 8))},))


def _build(trt: FakeTensorRt, request: PlanRequest = REQUEST) -> BuiltPlan:
    return build_plan(trt, request, lambda *step: None)


def test_networks_are_strongly_typed_and_no_flag_changes_a_precision() -> None:
    trt = FakeTensorRt()
    _build(trt)
    assert trt.networks == [1 << 1]
    assert trt.configs[0].flags == set()
    assert BuilderFlag.TF32 not in trt.configs[0].flags


def test_a_version_that_knows_strongly_typed_networks_only_needs_no_flag() -> None:
    trt = FakeTensorRt("11.0.0")
    trt.NetworkDefinitionCreationFlag = object()
    _build(trt)
    assert trt.networks == [0]


def test_profiles_are_those_of_the_order() -> None:
    trt = FakeTensorRt()
    _build(trt)
    assert [profile.shapes for profile in trt.configs[0].profiles] == [{"level": ((1, 8), (2, 8), (4, 8))}]


@pytest.mark.parametrize(("mib", "limit"), [(None, None), (4096, 4096 << 20)])
def test_the_workspace_is_limited_where_that_is_asked_for(mib: int | None, limit: int | None) -> None:
    trt = FakeTensorRt()
    _build(trt, PlanRequest(REQUEST.name, REQUEST.onnx, REQUEST.profiles, mib))
    assert trt.configs[0].workspace == limit


def test_a_parsers_error_names_graph_node_and_operator() -> None:
    trt = FakeTensorRt()
    trt.parser_errors = [
        ParserError("resize_3", "Resize", "mode cubic\n  is unsupported"),
        ParserError("", "", "and so on"),
    ]
    with pytest.raises(
        EngineBuildError,
        match=r"^masks\.onnx: TensorRT 10\.4\.0 cannot read it: node resize_3 \(Resize\): mode cubic is uns",
    ):
        _build(trt)


def test_a_builders_failure_has_its_own_message() -> None:
    trt = FakeTensorRt()
    trt.builder_errors = [f"no kernel {i}" for i in range(5)]
    with pytest.raises(EngineBuildError, match=r"cannot build it: no kernel 0; no kernel 1; no kernel 2; and 2 more$"):
        _build(trt)


def test_a_gpu_that_the_builder_cannot_use_is_a_setting_with_its_reason() -> None:
    trt = FakeTensorRt()

    def refuse(logger: Any) -> Any:
        logger.log(trt.ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    trt.Builder = trt.Runtime = refuse
    for use in (lambda: _build(trt), lambda: deserialises(trt, b"plan")):
        with pytest.raises(
            SettingsError, match=r"10\.4\.0 cannot use this GPU: CUDA initialization failure with error: 35"
        ):
            use()


def test_a_failure_without_a_reason_is_a_failure() -> None:
    trt = FakeTensorRt()
    trt._build = lambda *ignored: None  # type: ignore[method-assign]  # a fault that no list of errors has
    with pytest.raises(EngineBuildError, match="it gives no reason"):
        _build(trt)


def test_errors_of_a_build_that_succeeds_are_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    trt = FakeTensorRt()
    trt.builder_errors, trt.builds_in_spite = ["a kernel did not fit"], True
    _build(trt)
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        "masks.onnx: TensorRT: a kernel did not fit"
    ]


@pytest.mark.parametrize("kept", [b"no timing cache", TIMES + b"another GPU"])
def test_a_timing_cache_that_does_not_fit_is_left(kept: bytes, caplog: pytest.LogCaptureFixture) -> None:
    built = _build(FakeTensorRt(), PlanRequest(REQUEST.name, REQUEST.onnx, REQUEST.profiles, timing_cache=kept))
    assert built.timing_cache == TIMES + b"ONNX"
    assert "every kernel is timed" in caplog.text


def test_progress_reaches_the_callback() -> None:
    message: list[tuple[str, int, int]] = []
    build_plan(FakeTensorRt(), REQUEST, lambda *step: message.append(step))
    assert message == [("Building engine", step, 2) for step in range(3)]


def test_what_the_callback_raises_ends_the_build_and_comes_out() -> None:
    def progress(phase: str, step: int, steps: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_plan(FakeTensorRt(), REQUEST, progress)


def test_lines_of_progress_have_a_bar_and_come_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, lines = [100.0], list[str]()
    monkeypatch.setattr(tensorrt_build, "monotonic", lambda: clock[0])
    tell = progress_lines("masks.onnx", lines.append, seconds=5)
    for seconds, step in ((1, 1), (5, 10), (6, 11), (12, 40)):
        clock[0] = 100.0 + seconds
        tell("Timing", step, 40)
    assert lines == [
        "building masks.onnx:    5 s [#####...............] Timing, 10 of 40",
        "building masks.onnx:   12 s [####################] Timing, 40 of 40",
    ]


def test_a_plan_that_tensorrt_refuses_does_not_deserialise(caplog: pytest.LogCaptureFixture) -> None:
    trt = FakeTensorRt()
    trt.refuses = {b"old"}
    assert deserialises(trt, b"new")
    assert not deserialises(trt, b"old")
    assert "built by another version" in caplog.text


@pytest.mark.parametrize(
    ("version", "gpu", "precision"),
    [
        ("10.4.0", V100, "fp32"),
        ("10.4.0.26", V100, "fp16"),
        ("10.4.0", T4, "int8"),
        ("10.16.1.11", T4, "int8"),
        ("11.0.0", T4, "fp16"),
    ],
)
def test_what_goes_together_passes(version: str, gpu: DeviceInfo, precision: str) -> None:
    check_gpu(version, gpu, precision)


@pytest.mark.parametrize(
    ("version", "gpu", "precision", "message"),
    [
        (
            "10.16.1.11",
            V100,
            "fp16",
            r"10\.4\.0 is the last version for this GPU; pip install 'tensorrt-cu12==10\.4\.0'",
        ),
        ("11.0.0", V100, "fp32", r"10\.4\.0 is the last"),
        ("10.3.0", T4, "fp32", r"needs TensorRT 10\.4 or newer"),
        ("8.6.1", V100, "fp32", r"needs TensorRT 10\.4 or newer"),
        ("10.4.0", V100, "int8", r"no INT8 tensor cores, only DP4A.*--precision fp16"),
        ("10.4.0", DeviceInfo("Tesla P100", (6, 0), 1, 1, "12.8"), "fp32", r"too old"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_way_out(
    version: str, gpu: DeviceInfo, precision: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        check_gpu(version, gpu, precision)


def test_int8_for_cpus_is_refused_with_the_way_to_the_other_form() -> None:
    check_int8_form(small_bundle("int8", "tensorrt"))
    check_int8_form(small_bundle("fp16"))
    with pytest.raises(SettingsError, match=r"small is INT8 for CPUs.*--int8-for tensorrt"):
        check_int8_form(small_bundle("int8", "cpu"))


@pytest.mark.parametrize(
    ("has", "version"), [("10.4.0", "10.4.0"), ("10.16.1.11", "10.16.1.11"), ("10.0.0b6", "10.0.0")]
)
def test_versions_are_plain_numbers(has: str, version: str) -> None:
    assert version_of(FakeTensorRt(has)) == version


def test_a_version_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        version_of(FakeTensorRt("unknown"))


def test_without_tensorrt_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError("libnvinfer.so.10: cannot open shared object file")

    monkeypatch.setattr(tensorrt_build.importlib, "import_module", missing)
    with pytest.raises(SettingsError, match=r"libnvinfer\.so\.10.*pip install"):
        import_tensorrt()
