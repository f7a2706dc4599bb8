"""The page at `/` and the API reference at `/docs`: from memory, with tags, strict policies, and open without a key."""

import hashlib
import re
from collections.abc import Iterator
from email.message import Message
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest
from solo_server.http.app import create_app
from solo_server.http.pages import DOCS_POLICY, PAGE_POLICY
from solo_server.http.problems import SECURITY_HEADERS
from solo_server.http.static_files import MEDIA_TYPES, read_folder
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import Settings
from support.paths import ROOT
from support.serving import serving

KEY = "0123456789abcdef0123456789abcdef"
FOLDER = ROOT / "server/solo_server/http"
SWAGGER = FOLDER / "docs/swagger-ui"


@pytest.fixture(scope="module")
def pipeline(solo_bundle: Path) -> Pipeline:
    return Pipeline.open(solo_bundle, threads=1)


@pytest.fixture(scope="module")
def http(pipeline: Pipeline) -> Iterator[httpx.Client]:
    """A server with keys; the client has none."""
    with serving(create_app(pipeline, Settings(api_keys=KEY)), lifespan="off") as client:
        yield client


@pytest.mark.parametrize(
    ("path", "file", "media_type"),
    [
        ("/", "page/index.html", "text/html; charset=utf-8"),
        ("/page/index.html", "page/index.html", "text/html; charset=utf-8"),
        ("/docs", "docs/index.html", "text/html; charset=utf-8"),
        ("/docs/start.js", "docs/start.js", "text/javascript; charset=utf-8"),
        ("/docs/swagger-ui/swagger-ui.css", "docs/swagger-ui/swagger-ui.css", "text/css; charset=utf-8"),
    ],
)
def test_pages_and_their_files_are_served_without_a_key(
    http: httpx.Client, path: str, file: str, media_type: str
) -> None:
    response, head = http.get(path), http.head(path)
    assert (response.status_code, head.status_code) == (200, 200)
    assert response.content == (FOLDER / file).read_bytes()
    assert head.content == b""
    assert response.headers["content-type"] == head.headers["content-type"] == media_type
    policy = DOCS_POLICY if path.startswith("/docs") else PAGE_POLICY
    expected = {**SECURITY_HEADERS, "content-security-policy": policy, "cache-control": "no-cache"}
    for name, value in expected.items():
        assert response.headers.get_list(name) == [value]


def test_the_api_stays_closed(http: httpx.Client) -> None:
    for path in ("/model", "/models", "/metrics", "/v2", "/segment", "/docs-of-others", "/pages"):
        assert http.get(path).status_code == 401, path
    assert http.post("/segment", content=b"image").status_code == 401


def test_a_page_cannot_be_posted_to(http: httpx.Client) -> None:
    for path in ("/", "/docs", "/page/index.html", "/openapi.json"):
        assert http.post(path).status_code == 405, path


@pytest.mark.parametrize(
    "tag", ["{etag}", "W/{etag}", '"other", {etag}', "*"], ids=["same", "weak", "one of several", "any"]
)
def test_a_browser_that_has_the_file_gets_304(http: httpx.Client, tag: str) -> None:
    etag = http.get("/docs/start.js").headers["etag"]
    response = http.get("/docs/start.js", headers={"if-none-match": tag.format(etag=etag)})
    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["etag"] == etag
    assert response.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("tag", ['"other"', "", "W/", '"*"', "{bare}"])
def test_a_browser_that_has_another_version_gets_the_file(http: httpx.Client, tag: str) -> None:
    bare = http.get("/docs/start.js").headers["etag"].strip('"')
    assert http.get("/docs/start.js", headers={"if-none-match": tag.format(bare=bare)}).status_code == 200


@pytest.mark.parametrize(
    "name",
    [
        "nothing.js", "..", "../pages.py", "%2e%2e/pages.py", "..%2fpages.py", "%2e%2e%2f%2e%2e%2fsettings.py",
        "swagger-ui/../../pages.py", "/etc/passwd", "%2fetc%2fpasswd", "..%5cpages.py", "index.html%00", "index.html/",
        "INDEX.HTML", "swagger-ui", "swagger-ui/", "swagger-ui/LICENSE", "./index.html", "//index.html",
    ],
)  # fmt: skip
@pytest.mark.parametrize("folder", ["docs", "page"])
def test_what_was_not_read_at_the_start_is_not_found(http: httpx.Client, folder: str, name: str) -> None:
    status, headers = _get_exactly(http, f"/{folder}/{name}")
    assert status in (404, 307)
    if status == 307:  # to a path of ours, without the last slash
        assert headers["location"] in {f"/{folder}/index.html", f"/{folder}/swagger-ui", f"/{folder}"}
    else:
        assert headers["content-type"] == "application/problem+json"


def test_a_folder_is_read_with_its_folders_and_without_unknown_types(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/b.js", "c.css", "notes.md", "LICENSE"):
        (tmp_path / name).write_text(name)
    files = read_folder(tmp_path)
    assert {name: file.media_type for name, file in files.items()} == {
        "a/b.js": MEDIA_TYPES[".js"],
        "c.css": MEDIA_TYPES[".css"],
    }
    assert files["c.css"].content == b"c.css"
    assert files["c.css"].etag != files["a/b.js"].etag
    assert read_folder(tmp_path / "nothing") == {}


def test_policies_allow_no_inline_script_no_eval_and_no_other_host() -> None:
    for policy in (PAGE_POLICY, DOCS_POLICY):
        parts = dict(part.split(" ", 1) for part in policy.split("; "))
        assert parts["default-src"] == parts["base-uri"] == parts["form-action"] == parts["frame-ancestors"] == "'none'"
        assert parts["script-src"] == parts["connect-src"] == parts["style-src"] == "'self'"
        allowed = {"'none'", "'self'", "blob:", "data:", "mediastream:"}
        assert {source for sources in parts.values() for source in sources.split()} <= allowed


def test_pages_name_no_other_host_and_have_relative_urls_only() -> None:
    for page in (FOLDER / "page/index.html", FOLDER / "docs/index.html"):
        urls = re.findall(r'\b(?:src|href)="([^"]*)"', page.read_text())
        assert urls
        own = [url for url in urls if not re.match(r"data:|https?://", url)]  # a link to elsewhere loads nothing
        assert all(not url.startswith("/") for url in own), page
        loaded = re.findall(r'<(?:script|link|img)\b[^>]*?\b(?:src|href)="(https?:[^"]*)"', page.read_text())
        assert loaded == []


def test_the_vendored_files_are_those_of_the_version_beside_them() -> None:
    sums = re.findall(r"^([0-9a-f]{64})  (\S+)$", (SWAGGER / "VERSION.txt").read_text(), re.MULTILINE)
    assert {name for _, name in sums} == {"swagger-ui-bundle.js", "swagger-ui.css"}
    for digest, name in sums:
        assert hashlib.sha256((SWAGGER / name).read_bytes()).hexdigest() == digest
    assert "Apache License" in (SWAGGER / "LICENSE").read_text()


def test_with_keys_the_document_says_how_to_send_one(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    assert document["security"] == [{"bearer": []}, {"x-api-key": []}]
    assert set(document["components"]["securitySchemes"]) == {"bearer", "x-api-key"}
    open_paths = {path for path, methods in document["paths"].items() for one in methods.values() if "security" in one}
    assert open_paths == {"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"}
    for path in open_paths:
        assert document["paths"][path]["get"]["security"] == []
    assert KEY not in http.get("/openapi.json").text


def test_without_keys_the_document_asks_for_none(pipeline: Pipeline) -> None:
    with serving(create_app(pipeline, Settings()), lifespan="off") as client:
        document = client.get("/openapi.json").json()
    assert "security" not in document
    assert "securitySchemes" not in document.get("components", {})
    assert "servers" not in document


def _get_exactly(http: httpx.Client, path: str) -> tuple[int, Message]:
    """Status and headers of a path that is sent as it is; httpx would remove dot segments."""
    connection = HTTPConnection(http.base_url.host, http.base_url.port or 80)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.headers
    finally:
        connection.close()
