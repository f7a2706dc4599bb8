"""Settings are read once; a wrong one stops the start, and the message names it."""

import subprocess
import sys
from pathlib import Path

import pytest
from solo_server.errors import SettingsError
from solo_server.settings import SETTINGS, Settings
from solo_server.system.kubernetes import is_service_variable


def test_settings_are_a_leaf_that_imports_no_engine_and_no_image_library() -> None:
    code = (
        "import sys, solo_server.settings\n"
        "heavy = {'numba', 'llvmlite', 'numpy', 'PIL', 'onnxruntime', 'prometheus_client', 'orjson'} & set(sys.modules)\n"
        "ours = [m for m in sys.modules if m.startswith('solo_server.')]\n"
        "assert not heavy, heavy\n"
        "assert not any('backends' in m or 'pipeline' in m or 'observability' in m for m in ours), ours\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_defaults_need_no_environment() -> None:
    assert Settings.read({}) == Settings()


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_a_text_and_a_default_that_it_accepts(name: str) -> None:
    known = SETTINGS[name]
    assert known.text[0].isupper()
    assert known.text.endswith(".")
    known.check(known.default)
    assert getattr(Settings(), name) == known.default


def test_the_secret_among_the_settings_is_not_shown() -> None:
    assert "hidden" not in repr(Settings(api_keys="name:hidden"))


def test_the_environment_is_read_and_the_command_line_wins() -> None:
    environment = {"SOLO_PORT": "9000", "SOLO_BUNDLE": "some/where", "HOME": "x", "SOLO_HOST": ""}
    settings = Settings.read(environment, port=9001, host=None)
    assert settings == Settings(port=9001, bundle=Path("some/where"))


@pytest.mark.parametrize(("text", "on"), [("1", True), ("on", True), ("True", True), ("0", False), ("off", False)])
def test_drafts_are_switched_on_and_off(text: str, on: bool) -> None:
    settings = Settings.read({"SOLO_DRAFT_DECODE": text})
    assert settings.draft_decode is on
    assert not Settings.read({"SOLO_DRAFT_DECODE": text}, draft_decode=False).draft_decode
    assert not Settings().draft_decode


def test_keys_and_origins_are_read_from_the_environment() -> None:
    environment = {"SOLO_API_KEYS_FILE": "some/keys", "SOLO_API_KEYS": "a:b", "SOLO_METRICS_OPEN": "on"}
    settings = Settings.read(environment | {"SOLO_CORS_ORIGINS": "*"})
    assert (settings.api_keys_file, settings.api_keys) == (Path("some/keys"), "a:b")
    assert settings.metrics_open
    assert settings.cors_origins == ("*",)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"SOLO_MAX_CONNECTIONS": "0"}, "SOLO_MAX_CONNECTIONS: 0 is not within 1"),
        ({"SOLO_MAX_HEADER_BYTES": "100"}, "SOLO_MAX_HEADER_BYTES: 100 is not within 1024"),
        ({"SOLO_HEADER_TIMEOUT_S": "0"}, "SOLO_HEADER_TIMEOUT_S: 0 is not within 1"),
        ({"SOLO_BODY_TIMEOUT_S": "0"}, "SOLO_BODY_TIMEOUT_S: 0 is not within 1"),
        ({"SOLO_BODY_BYTES_PER_S": "0"}, "SOLO_BODY_BYTES_PER_S: 0 is not within 1"),
        ({"SOLO_KEEP_ALIVE_S": "4000"}, "SOLO_KEEP_ALIVE_S: 4000 is not within 1"),
        ({"SOLO_METRICS_OPEN": "maybe"}, "SOLO_METRICS_OPEN: 'maybe' is neither on nor off"),
        ({"SOLO_WORKERS": "0"}, "SOLO_WORKERS: 0 is not within 1..64"),
        ({"SOLO_WORKERS": "65"}, "SOLO_WORKERS: 65 is not within 1..64"),
        ({"SOLO_PORT": "many"}, "SOLO_PORT: 'many' is not a whole number"),
        ({"SOLO_PORT": "70000"}, "SOLO_PORT: 70000 is not within"),
        ({"SOLO_MAX_WAITING": "0"}, "SOLO_MAX_WAITING: 0"),
        ({"SOLO_PROT": "1"}, "SOLO_PROT: no such setting"),
        ({"SOLO_ENGINE": "tvm"}, "SOLO_ENGINE: 'tvm' is none of auto, onnxruntime, openvino, tensorrt, cuda"),
        ({"SOLO_PRECISION": "half"}, "SOLO_PRECISION: 'half' is none of fp32, fp16, bf16, int8"),
        ({"SOLO_SHAPES": "800"}, "SOLO_SHAPES: '800' is not LONGxSHORT"),
        ({"SOLO_MAX_BATCH": "65"}, "SOLO_MAX_BATCH: 65 is not within 0..64"),
        ({"SOLO_BUILD_ENGINES": "perhaps"}, "SOLO_BUILD_ENGINES: 'perhaps' is neither on nor off"),
        ({"SOLO_DRAFT_DECODE": "maybe"}, "SOLO_DRAFT_DECODE: 'maybe' is neither on nor off"),
    ],
)
def test_bad_settings_are_named(environment: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.read(environment)


def test_shapes_have_the_same_form_in_environment_and_command_line() -> None:
    sizes = ((800, 1088), (1088, 800))
    assert Settings.read({"SOLO_SHAPES": "1088x800"}).shapes == sizes
    assert Settings.read({"SOLO_SHAPES": "32x32"}, shapes="1088x800:landscape, 1088x800:portrait").shapes == sizes


def _of_kubernetes(service: str, address: str = "10.0.0.1") -> dict[str, str]:
    """What `kubectl exec POD -- env` shows for a Service with the ports http 8000 and udp 9000."""
    name = service.upper().replace("-", "_")
    host = f"[{address}]" if ":" in address else address
    http, udp = f"{name}_PORT_8000_TCP", f"{name}_PORT_9000_UDP"
    return {
        f"{name}_SERVICE_HOST": address,
        f"{name}_SERVICE_PORT": "8000",
        f"{name}_SERVICE_PORT_HTTP": "8000",
        f"{name}_SERVICE_PORT_GRPC_WEB_2": "9000",
        f"{name}_PORT": f"tcp://{host}:8000",
        **{http: f"tcp://{host}:8000", f"{http}_PROTO": "tcp", f"{http}_PORT": "8000", f"{http}_ADDR": address},
        **{udp: f"udp://{host}:9000", f"{udp}_PROTO": "udp", f"{udp}_PORT": "9000", f"{udp}_ADDR": address},
    }


@pytest.mark.parametrize("service", ["solo", "solo-inference", "solo-2", "solo-service", "solo-port", "solo-a--b"])
@pytest.mark.parametrize("address", ["10.0.0.1", "fd00::1"])
def test_variables_of_a_kubernetes_service_are_ignored(service: str, address: str) -> None:
    environment = _of_kubernetes(service, address)
    assert all(is_service_variable(name, value) for name, value in environment.items())
    assert Settings.read(environment) == Settings()
    assert Settings.read(environment, port=9000) == Settings(port=9000)


def test_solo_port_is_read_beside_the_variables_of_a_service_with_a_longer_name() -> None:
    assert Settings.read({**_of_kubernetes("solo-inference"), "SOLO_PORT": "9000"}).port == 9000


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SOLO_PORT", "tcp://10.0.0.1", "SOLO_PORT: 'tcp://10.0.0.1' is not a whole number"),
        ("SOLO_PORT", "http://10.0.0.1:8000", "SOLO_PORT: 'http"),
        ("SOLO_PORT", "tcp://solo:8000", "SOLO_PORT: 'tcp://solo:8000'"),
        ("SOLO_PORT", "tcp://10.0.0.999:8000", "SOLO_PORT: 'tcp"),
        ("SOLO_PORT", "tcp://10.0.0.1:8000/", "SOLO_PORT: 'tcp"),
        ("SOLO_PORT", "8000/tcp", "SOLO_PORT: '8000/tcp'"),
        ("SOLO_INFERENCE_PORT", "8000", "SOLO_INFERENCE_PORT: no such setting"),
        ("SOLO_SERVICE_PORT", "many", "SOLO_SERVICE_PORT: no such setting"),
        ("SOLO_SERVICE_HOST", "example.org", "SOLO_SERVICE_HOST: no such setting"),
        ("SOLO_SERVICE", "10.0.0.1", "SOLO_SERVICE: no such setting"),
        ("SOLO_PORT_TCP", "tcp://10.0.0.1:8000", "SOLO_PORT_TCP: no such setting"),
        ("SOLO_PORT_8000_ICMP", "icmp://10.0.0.1:8000", "SOLO_PORT_8000_ICMP: no such setting"),
        ("SOLO_PORT_8000_TCP_NAME", "tcp", "SOLO_PORT_8000_TCP_NAME: no such setting"),
        ("SOLO__PORT", "tcp://10.0.0.1:8000\n", "SOLO__PORT: no such setting"),
    ],
)
def test_a_name_that_only_resembles_a_kubernetes_variable_stops_the_start(name: str, value: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.read({name: value})


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("SOLO_PROT", "did you mean SOLO_PORT?"),
        ("SOLO_THREAD", "did you mean SOLO_THREADS?"),
        ("SOLO_API_KEY_FILE", "did you mean SOLO_API_KEYS_FILE?"),
        ("SOLO_ZEBRA", "docs/deployment.md lists all settings"),
    ],
)
def test_the_error_for_a_misspelt_setting_suggests_the_nearest_name_without_a_list(name: str, advice: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.read({name: "1"})
    assert str(refused.value) == f"{name}: no such setting; {advice}"
