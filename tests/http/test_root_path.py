"""`SOLO_ROOT_PATH`: the server below a path, behind a proxy that removes the prefix and one that does not."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from solo_client import SoloClient
from solo_server.errors import SettingsError
from solo_server.http.app import create_app
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import Settings
from support.images import encoded, smooth_image
from support.serving import serving

KEY = "0123456789abcdef0123456789abcdef"
PREFIX = "/tools/solo-1.0_~"
PNG = encoded(smooth_image(60, 80))


@pytest.fixture(scope="module")
def pipeline(solo_bundle: Path) -> Pipeline:
    return Pipeline.open(solo_bundle, threads=1)


@pytest.fixture(scope="module")
def http(pipeline: Pipeline) -> Iterator[httpx.Client]:
    settings = Settings.read({"SOLO_ROOT_PATH": PREFIX, "SOLO_API_KEYS": KEY})
    with serving(create_app(pipeline, settings)) as client:
        yield client


@pytest.mark.parametrize("prefix", [PREFIX, ""], ids=["kept", "removed"])
def test_everything_is_there_whether_the_proxy_removes_the_prefix_or_not(http: httpx.Client, prefix: str) -> None:
    for path in ("/", "/page/index.html", "/docs", "/docs/start.js", "/openapi.json", "/healthz", "/v2/health/live"):
        assert http.get(prefix + path).status_code == 200, path
    key = {"x-api-key": KEY}
    answer = http.post(f"{prefix}/segment?max_instances=1", content=PNG, headers=key)
    assert answer.status_code == 200
    name = answer.json()["model"]["name"]
    assert http.get(f"{prefix}/models/{name}", headers=key).status_code == 200
    assert http.get(f"{prefix}/v2/models/{name}", headers=key).json()["name"] == name
    assert http.post(f"{prefix}/segment", content=PNG).status_code == 401


def test_the_client_calls_a_server_below_a_path(http: httpx.Client) -> None:
    with SoloClient(f"{http.base_url}{PREFIX}", api_key=KEY) as client:
        assert client.segment(PNG).width == 80
    with SoloClient(f"{http.base_url}{PREFIX}/", api_key=KEY) as client:
        assert client.segment(PNG).height == 60


@pytest.mark.parametrize("prefix", [PREFIX, ""], ids=["kept", "removed"])
def test_errors_below_v2_have_that_protocols_form(http: httpx.Client, prefix: str) -> None:
    assert set(http.get(f"{prefix}/v2/models/x").json()) == {"error", "code", "request_id"}


def test_metrics_and_logs_have_the_path_without_the_prefix(http: httpx.Client) -> None:
    http.get(f"{PREFIX}/healthz")
    text = http.get("/metrics", headers={"x-api-key": KEY}).text
    assert 'route="/healthz"' in text
    assert PREFIX not in text


def test_the_document_names_the_prefix_as_its_server(http: httpx.Client) -> None:
    assert http.get(f"{PREFIX}/openapi.json").json()["servers"] == [{"url": PREFIX}]


@pytest.mark.parametrize(
    ("path", "location"),
    [
        (PREFIX, f"{PREFIX}/"),
        (f"{PREFIX}/docs/", f"{PREFIX}/docs"),
        ("/docs/", f"{PREFIX}/docs"),
        (f"{PREFIX}/segment/?nms=none&a=%2F", f"{PREFIX}/segment?nms=none&a=%2F"),
        ("/segment///", f"{PREFIX}/segment"),
        (f"{PREFIX}/models/caf%C3%A9%3F/", f"{PREFIX}/models/caf%C3%A9%3F"),
    ],
)
def test_redirects_have_the_prefix_and_no_host(http: httpx.Client, path: str, location: str) -> None:
    response = http.get(path, headers={"x-api-key": KEY})
    assert response.status_code == 307
    assert response.headers["location"] == location


def test_the_prefix_alone_is_redirected_without_a_key(http: httpx.Client) -> None:
    assert http.get(PREFIX).headers["location"] == f"{PREFIX}/"


@pytest.mark.parametrize(
    "path",
    [f"{PREFIX}x/healthz", f"{PREFIX}{PREFIX}/healthz", "/tools/healthz", f"{PREFIX}//healthz", f"/{PREFIX}/healthz"],
)
def test_other_prefixes_open_nothing(http: httpx.Client, path: str) -> None:
    address = f"{str(http.base_url).rstrip('/')}{path}"
    assert http.get(address).status_code == 401
    assert http.get(address, headers={"x-api-key": KEY}).status_code == 404


def test_a_redirect_never_leads_to_another_host(http: httpx.Client, pipeline: Pipeline) -> None:
    with serving(create_app(pipeline), lifespan="off") as client:
        for one, headers in ((http, {"x-api-key": KEY}), (client, {})):
            address = str(one.base_url).rstrip("/")
            for path in ("//example.org/", "//example.org/segment/", "/\\example.org/", "/%2Fexample.org/"):
                location = one.get(f"{address}{path}", headers=headers).headers.get("location", "")
                assert not location.startswith(("//", "/\\", "http")), path


@pytest.mark.parametrize(
    "text",
    [
        "solo", "/solo/", "/", "//solo", "/a//b", "/a/../b", "/..", "/.", "/a/.", "/so lo", "/a?b", "/a#b", "/a%2Fb",
        "https://example.org/solo", "/söl", "/a\\b", "/{a}", "/a\n",
    ],
)  # fmt: skip
def test_a_bad_prefix_stops_the_start(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^SOLO_ROOT_PATH: .*a path such as /solo"):
        Settings.read({"SOLO_ROOT_PATH": text})


@pytest.mark.parametrize("text", ["/v2", "/models", "/models/x", "/docs/solo", "/page", "/segment", "/healthz"])
def test_a_prefix_that_is_a_path_of_the_server_stops_the_start(pipeline: Pipeline, text: str) -> None:
    with pytest.raises(SettingsError, match=r"^SOLO_ROOT_PATH: /\w+ is the beginning of paths of the server's own"):
        create_app(pipeline, Settings.read({"SOLO_ROOT_PATH": text}))


def test_without_a_prefix_nothing_is_removed() -> None:
    assert Settings.read({"SOLO_ROOT_PATH": ""}).root_path is None
    assert Settings.read({}, root_path="").root_path is None
    assert Settings.read({"SOLO_ROOT_PATH": "/a.b/..c/.d"}).root_path == "/a.b/..c/.d"
