"""Which engine is chosen, and the error message where none can run the bundle."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from solo_models.bundle import Bundle, read_bundle
from solo_server.backends import choose as choosing
from solo_server.backends.choose import choose
from solo_server.backends.cpu.pool import Pool
from solo_server.errors import SettingsError
from solo_server.pipeline.pipeline import Pipeline


@pytest.fixture(scope="module")
def bundle(solo_bundle: Path) -> Bundle:
    return replace(read_bundle(solo_bundle), name="tiny")


def _choose(bundle: Bundle, bundle_precision: str, engine: str, precision: str | None) -> choosing.Choice:
    return choose(replace(bundle, precision=bundle_precision), engine, precision)


@pytest.mark.parametrize(
    ("bundle_precision", "installed", "engine", "precision", "expected"),
    [
        ("fp32", True, "auto", None, ("onnxruntime", "fp32")),
        ("fp32", True, "auto", "fp32", ("onnxruntime", "fp32")),
        ("fp32", False, "auto", None, ("onnxruntime", "fp32")),
        ("fp32", True, "openvino", None, ("openvino", "fp32")),
        ("fp32", True, "auto", "bf16", ("openvino", "bf16")),
        ("fp32", True, "openvino", "bf16", ("openvino", "bf16")),
        ("fp16", True, "auto", None, ("onnxruntime", "fp16")),
        ("fp16", True, "openvino", "fp16", ("openvino", "fp16")),
        ("int8", True, "auto", None, ("openvino", "int8")),
        ("int8", False, "auto", None, ("onnxruntime", "int8")),
        ("int8", True, "onnxruntime", "int8", ("onnxruntime", "int8")),
    ],
)
def test_engine_and_precision_follow_the_rule(
    bundle: Bundle,
    bundle_precision: str,
    installed: bool,
    engine: str,
    precision: str | None,
    expected: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choosing, "has_openvino", lambda: installed)
    choice = _choose(bundle, bundle_precision, engine, precision)
    assert (choice.engine, choice.precision) == expected
    assert choice.reason.startswith("auto: " if engine == "auto" else "asked for")


def test_int8_for_tensorrt_runs_on_a_cpu_without_int8_products_only(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "has_openvino", lambda: True)
    quantized = replace(bundle, precision="int8", int8_for="tensorrt")
    choice = choose(quantized)
    assert (choice.engine, choice.reason) == ("onnxruntime", "auto: int8 for TensorRT runs on onnxruntime, slowly")
    with pytest.raises(SettingsError, match="engine openvino: tiny is INT8 for TensorRT"):
        choose(quantized, "openvino")


@pytest.mark.parametrize(
    ("bundle_precision", "engine", "precision", "message"),
    [
        ("fp32", "tensorflow", None, "engine 'tensorflow': must be one of auto, onnxruntime, openvino, tensorrt, cuda"),
        ("fp32", "auto", "fp8", "precision 'fp8': must be one of fp32, fp16, bf16, int8"),
        ("fp32", "auto", "int8",
         "precision int8: tiny is fp32; export such a bundle: solo export tiny -o NEW --precision int8 --calibration DIR"),
        ("fp32", "auto", "fp16", "precision fp16: tiny is fp32; export such a bundle: solo export tiny -o NEW --precision fp16"),
        ("int8", "openvino", "bf16",
         "precision bf16: tiny is int8; leave the precision out, or serve the fp32 bundle that it was exported from"),
        ("fp16", "auto", "fp32",
         "precision fp32: tiny is fp16; leave the precision out, or serve the fp32 bundle that it was exported from"),
        ("fp32", "onnxruntime", "bf16",
         "precision bf16: engine onnxruntime does not support it; use engine openvino, or leave the precision out"),
    ],
)  # fmt: skip
def test_an_unsupported_combination_is_an_error_that_says_what_to_do(
    bundle: Bundle, bundle_precision: str, engine: str, precision: str | None, message: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        _choose(bundle, bundle_precision, engine, precision)
    assert str(refused.value) == message


@pytest.mark.parametrize(("engine", "precision"), [("openvino", None), ("auto", "bf16")])
def test_a_missing_package_is_an_error_with_the_command_that_installs_it(
    bundle: Bundle, engine: str, precision: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choosing, "has_openvino", lambda: False)
    with pytest.raises(
        SettingsError, match=r"^engine openvino: .*; pip install -c constraints\.txt -e '\.\[openvino\]' "
    ):
        choose(bundle, engine, precision)


def test_a_package_that_cannot_be_imported_is_an_error(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "solo_server.backends.cpu.runtimes.openvino", None)
    with pytest.raises(SettingsError, match=r"^engine openvino: cannot be imported \(.+\); pip install"):
        choose(bundle, "openvino").open(bundle, Pool(1))


@pytest.mark.parametrize(
    ("bundle_precision", "precision", "head"),
    [("fp32", None, "auto"), ("int8", None, "auto"), ("fp32", "bf16", "graph")],
)
def test_the_head_is_a_graph_in_bf16_only(
    bundle: Bundle, bundle_precision: str, precision: str | None, head: str
) -> None:
    assert _choose(bundle, bundle_precision, "auto", precision).head == head


@pytest.mark.parametrize(
    ("engine", "cores", "requested", "expected"),
    [
        ("onnxruntime", 1, 0, 1),
        ("onnxruntime", 2, 0, 2),
        ("onnxruntime", 4, 0, 4),
        ("onnxruntime", 5, 0, 1),
        ("onnxruntime", 64, 6, 6),
        ("openvino", 4, 0, 1),
        ("openvino", 4, 1, 1),
    ],
)
def test_up_to_four_cores_compute_one_image_each(engine: str, cores: int, requested: int, expected: int) -> None:
    assert choosing.Choice(engine, "fp32", "auto", "asked for").slots(cores, requested) == expected


def test_openvino_takes_one_image_at_a_time(solo_bundle: Path) -> None:
    bundle = read_bundle(solo_bundle)
    choice = choose(bundle, "openvino")
    assert choice.open(bundle, Pool(2), slots=0).max_concurrency == 1
    with pytest.raises(SettingsError, match="SOLO_SLOTS: engine openvino takes one image at a time"):
        choice.open(bundle, Pool(2), slots=2)


def test_the_pipeline_has_the_reason_for_its_engine(solo_bundle: Path) -> None:
    pipeline = Pipeline.open(solo_bundle, threads=1)
    assert pipeline.backend.description.startswith("onnxruntime")
    assert pipeline.engine_reason == "auto: fp32 runs on onnxruntime"
    requested = Pipeline.open(solo_bundle, threads=1, engine="openvino")
    assert requested.backend.description.startswith("openvino")
    assert requested.engine_reason == "asked for"


@pytest.mark.parametrize("engine", ["tensorrt", "cuda"])
def test_a_gpu_engine_is_chosen_only_on_request_and_names_the_missing_package(
    engine: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cuda", None)
    choice = choose(bundle, engine)
    assert (choice.engine, choice.reason) == (engine, "asked for")
    with pytest.raises(SettingsError, match=r"-e '\.\[gpu\]'"):
        choice.open(bundle, Pool(1))
