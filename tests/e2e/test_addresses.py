"""The URL and the command in the log of a starting server work as they are printed."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from solo_models.demo import demo_bundle
from support.images import encoded, smooth_image

EVERY_IPV4 = "0.0.0.0"  # noqa: S104 - of a server that ends with its test
BODY = encoded(smooth_image(150, 200), "JPEG")


@dataclass(frozen=True, slots=True)
class Announced:
    """The line of the log with the URL. lines: the log up to it."""

    url: str
    command: str
    lines: str


@contextmanager
def serving(*arguments: object) -> Iterator[Announced]:
    command = [sys.executable, "-m", "solo_models.cli", "serve", "--port", "0", *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SOLO_")}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield announced(process)
        finally:
            process.terminate()
            process.communicate(timeout=60)


def announced(process: subprocess.Popen[str]) -> Announced:
    lines: list[str] = []
    for line in process.stderr or []:
        lines.append(line)
        if match := re.search(r"(http://\S+)  try: (.*)", line):
            return Announced(match[1], match[2], "".join(lines))
    raise RuntimeError("".join(lines))


def answered(command: str) -> httpx.Response:
    """The response that curl would get."""
    *_, url = shlex.split(command)
    return httpx.post(url, content=BODY, timeout=60)


@pytest.fixture(scope="module")
def models(solo_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(solo_bundle, folder / "cats")
    shutil.copytree(demo_bundle(), folder / "person", copy_function=shutil.copyfile)
    return folder


@pytest.mark.parametrize("workers", [1, 2])
def test_the_command_works_for_several_models_without_a_default(models: Path, workers: int) -> None:
    with serving("--models", models, "--workers", workers) as log:
        assert httpx.post(f"{log.url}/segment", content=BODY).status_code == 404
        answer = answered(log.command)
        assert (answer.status_code, answer.json()["model"]["name"]) == (200, "cats")
        assert urlsplit(shlex.split(log.command)[-1]).path == "/models/cats/segment"
        for classes in ("1 class", "3 classes"):
            assert re.search(rf", {classes}$", log.lines, re.MULTILINE)


def test_the_short_path_of_a_default_model_works_for_a_server_on_all_addresses(models: Path) -> None:
    has_ipv6 = socket.has_dualstack_ipv6()
    host = "::" if has_ipv6 else EVERY_IPV4
    with serving("--models", models, "--default-model", "cats", "--host", host) as log:
        assert shlex.split(log.command)[-1] == f"{log.url}/segment"
        assert answered(log.command).status_code == 200
        port = urlsplit(log.url).port
        assert log.url == (f"http://[::1]:{port}" if has_ipv6 else f"http://127.0.0.1:{port}")
        assert httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=60).status_code == 200
        assert f"all addresses of this machine, {'IPv6 and IPv4' if has_ipv6 else 'IPv4 only'}" in log.lines
