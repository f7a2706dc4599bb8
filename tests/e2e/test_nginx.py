"""deploy/nginx.conf in a real nginx: at the root of a host, and below a path that nginx keeps or removes."""

import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from solo_server.http.app import create_app
from solo_server.http.connections import uvicorn_options
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import Settings
from support.images import encoded, smooth_image
from support.paths import ROOT
from support.serving import serving
from support.url_host import CERTIFICATE

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")
PNG = encoded(smooth_image(60, 80))
MAIN = """daemon off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    include {folder}/solo.conf;
}}
"""

pytestmark = pytest.mark.skipif(NGINX is None, reason="deploy/nginx.conf in a real nginx: none is installed here")


@pytest.fixture(scope="module")
def pipeline(solo_bundle: Path) -> Pipeline:
    return Pipeline.open(solo_bundle, threads=1)


@pytest.fixture(params=["", "kept", "removed"], ids=["at the root", "prefix kept", "prefix removed"])
def through_nginx(request: pytest.FixtureRequest, pipeline: Pipeline, tmp_path: Path) -> Iterator[httpx.Client]:
    """A client whose base URL is that of the server behind nginx."""
    prefix = "/solo" if request.param else ""
    settings = Settings(root_path=prefix or None)
    with serving(create_app(pipeline, settings), **uvicorn_options(settings)) as direct:
        text = (ROOT / "deploy/nginx.conf").read_text()
        if prefix:
            text = _below_a_path(text, removes_prefix=request.param == "removed")
        with (
            _nginx(text, direct.base_url.port or 0, tmp_path) as port,
            httpx.Client(base_url=f"https://127.0.0.1:{port}{prefix}", verify=False, timeout=60) as client,  # noqa: S501
        ):
            yield client


def test_everything_works_through_nginx(through_nginx: httpx.Client) -> None:
    http = through_nginx
    for path in (
        "/",
        "/page/index.html",
        "/docs",
        "/docs/start.js",
        "/docs/swagger-ui/swagger-ui.css",
        "/healthz",
        "/models",
    ):
        assert http.get(path).status_code == 200, path
    assert http.get("/docs").headers["content-security-policy"].startswith("default-src 'none'")
    answer = http.post("/segment?max_instances=1", content=PNG, headers={"x-request-id": "through-nginx"})
    assert answer.status_code == 200
    assert answer.headers["x-request-id"] == "through-nginx"
    assert http.get("/nothing").json()["code"] == "not_found"
    assert http.get("/metrics").headers["content-type"].startswith("text/html")  # nginx's own 404
    etag = http.get("/docs/start.js").headers["etag"]
    assert http.get("/docs/start.js", headers={"if-none-match": etag}).status_code == 304


def test_redirects_stay_on_the_public_host_and_scheme(through_nginx: httpx.Client) -> None:
    for path in ("/docs/", "/models/"):
        response = through_nginx.get(path, follow_redirects=True)
        assert response.status_code == 200, path
        assert str(response.url) == f"{str(through_nginx.base_url).rstrip('/')}{path.rstrip('/')}"


def test_the_document_has_the_public_path(through_nginx: httpx.Client) -> None:
    prefix = through_nginx.base_url.path.rstrip("/")
    expected = [{"url": prefix}] if prefix else None
    assert through_nginx.get("/openapi.json").json().get("servers") == expected


def _below_a_path(text: str, *, removes_prefix: bool) -> str:
    """The configuration with its commented locations instead of the two for the root."""
    text, of_root = re.subn(r"    location (/|= /metrics) \{.*?\n    \}\n", "", text, flags=re.DOTALL)
    text, below = re.subn(r"^    #(?! \S)", "    ", text, flags=re.MULTILINE)  # sentences have a space after the #
    assert (of_root, below) == (2, 7)
    return text.replace("proxy_pass http://solo;", "proxy_pass http://solo/;") if removes_prefix else text


@contextmanager
def _nginx(text: str, backend_port: int, folder: Path) -> Iterator[int]:
    """nginx with a configuration whose ports and files are replaced by some of the test; the port that speaks TLS."""
    plain, tls = _free_port(), _free_port()
    for old, new in (
        ("127.0.0.1:8000", f"127.0.0.1:{backend_port}"),
        ("listen 80;", f"listen 127.0.0.1:{plain};"),
        ("listen 443 ssl;", f"listen 127.0.0.1:{tls} ssl;"),
        ("/etc/nginx/tls/solo.pem", str(CERTIFICATE)),
        ("/etc/nginx/tls/solo.key", str(CERTIFICATE)),
        ("/var/log/nginx/", f"{folder}/"),
    ):
        assert old in text
        text = text.replace(old, new)
    (folder / "solo.conf").write_text(text)
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder))
    assert NGINX is not None
    process = subprocess.Popen([NGINX, "-c", str(folder / "nginx.conf"), "-p", str(folder)])
    try:
        _wait_for(tls, process, folder)
        yield tls
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    while True:
        assert process.poll() is None, (folder / "error.log").read_text()
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.02)
        else:
            return


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
