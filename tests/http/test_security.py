"""The middleware around the application: API keys, security headers on every response, CORS only if it is configured."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from solo_server.errors import SettingsError
from solo_server.http.app import create_app
from solo_server.http.problems import SECURITY_HEADERS
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import Settings
from support.images import encoded, smooth_image
from support.serving import serving

KEY = "0123456789abcdef0123456789abcdef"
PNG = encoded(smooth_image(60, 80))
ORIGIN = "https://example.org"


@pytest.fixture(scope="module")
def pipeline(solo_bundle: Path) -> Pipeline:
    return Pipeline.open(solo_bundle, threads=1)


@pytest.fixture(scope="module")
def guarded(pipeline: Pipeline) -> Iterator[httpx.Client]:
    """A server that requires a key, and lets pages of one origin read its responses."""
    with serving(create_app(pipeline, Settings(api_keys=f"alice:{KEY}", cors_origins=(ORIGIN,)))) as client:
        yield client


@pytest.fixture(scope="module")
def plain(pipeline: Pipeline) -> Iterator[httpx.Client]:
    with serving(create_app(pipeline)) as client:
        yield client


@pytest.mark.parametrize(
    "headers", [{"authorization": f"Bearer {KEY}"}, {"authorization": f"bearer  {KEY}"}, {"x-api-key": KEY}]
)
def test_a_known_key_is_let_in(guarded: httpx.Client, headers: dict[str, str]) -> None:
    assert guarded.get("/model", headers=headers).status_code == 200
    assert guarded.post("/segment", content=PNG, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": f"Basic {KEY}"},
        {"authorization": f"Bearer {KEY}x"},
        {"x-api-key": ""},
        {"x-api-key": KEY.upper()},
    ],
)
@pytest.mark.parametrize(
    "path",
    [
        "/segment",
        "/model",
        "/page",
        "/docsx",
        "/openapi.json/",
        "/metrics",
        "/nowhere",
        "/healthz/",
        "//healthz",
    ],
)
def test_without_a_known_key_there_is_nothing_but_probes_and_pages(
    guarded: httpx.Client, headers: dict[str, str], path: str
) -> None:
    response = guarded.post(f"{str(guarded.base_url).rstrip('/')}{path}", content=PNG, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["code"] == "unauthorized"
    assert problem["request_id"] == response.headers["x-request-id"]
    assert KEY not in response.text
    assert guarded.get("/healthz").status_code == guarded.get("/readyz").status_code == 200


def test_metrics_can_be_left_open(pipeline: Pipeline) -> None:
    with serving(create_app(pipeline, Settings(api_keys=KEY, metrics_open=True)), lifespan="off") as client:
        assert client.get("/metrics").status_code != 401
        assert client.get("/model").status_code == 401


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/model", "/openapi.json", "/page/nowhere", "/nowhere", "/segment"]
)
def test_every_answer_carries_the_security_headers(plain: httpx.Client, guarded: httpx.Client, path: str) -> None:
    for client in (plain, guarded):
        headers = client.get(path).headers
        for name, value in SECURITY_HEADERS.items():
            assert headers.get_list(name) == [value]


def test_pages_elsewhere_can_read_nothing_unless_their_origin_is_named(
    plain: httpx.Client, guarded: httpx.Client
) -> None:
    request_headers = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-api-key",
    }
    assert not _allowed(plain.get("/healthz", headers={"origin": ORIGIN}))
    assert not _allowed(plain.options("/segment", headers=request_headers))
    assert not _allowed(guarded.get("/healthz", headers={"origin": "https://example.org.evil.net"}))
    preflight = guarded.options("/segment", headers=request_headers)  # has no key
    refused = guarded.get("/model", headers={"origin": ORIGIN})  # readable, so that the page knows why
    assert preflight.status_code == 200
    assert refused.status_code == 401
    for response in (preflight, refused):
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert "access-control-allow-credentials" not in response.headers


def test_any_origin_is_allowed_without_credentials_only(pipeline: Pipeline) -> None:
    with serving(create_app(pipeline, Settings(cors_origins=("*",))), lifespan="off") as client:
        headers = client.get("/healthz", headers={"origin": ORIGIN, "cookie": "a=b"}).headers
    assert headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in headers


@pytest.mark.parametrize(
    "text", ["example.org", "https://example.org/", "https://a b", "null", "*,https://a.b", "https://*.b", ","]
)
def test_an_invalid_origin_stops_the_start(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^SOLO_CORS_ORIGINS: "):
        Settings.read({"SOLO_CORS_ORIGINS": text})


def test_origins_are_read_from_the_environment() -> None:
    text = "https://example.org, http://localhost:3000,http://[::1]:80"
    expected = ("https://example.org", "http://localhost:3000", "http://[::1]:80")
    assert Settings.read({"SOLO_CORS_ORIGINS": text}).cors_origins == expected


def _allowed(response: httpx.Response) -> bool:
    return any(name.startswith("access-control-allow-origin") for name in response.headers)
