"""`/docs` in the browser: every operation, no other host, below a path, and with an API key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect
from solo_server.bench.load.server_process import ServerProcess
from support.paths import ROOT

PREFIX = "/tools/solo"
KEY = "0123456789abcdef0123456789abcdef"
WAIT_MS = 30_000


@dataclass(frozen=True, slots=True)
class Reference:
    """The page, and what it has asked for and complained of."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that requires a key, below a path: the proxy in front of it would keep the prefix."""
    keys: Path = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"alice:{KEY}\n")
    with ServerProcess(("--root-path", PREFIX, "--api-keys-file", str(keys))) as process:
        process.wait_ready()
        yield f"http://{process.address.host}:{process.address.port}"


@pytest.fixture
def reference(browser: Browser, origin: str) -> Iterator[Reference]:
    context = browser.new_context(viewport={"width": 1280, "height": 1000})
    opened = Reference(context.new_page())
    opened.page.set_default_timeout(WAIT_MS)
    opened.page.on("request", lambda request: opened.requests.append(request.url))
    opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.page.on(
        "console", lambda message: opened.complaints.append(message.text) if message.type == "error" else None
    )
    opened.page.goto(f"{origin}{PREFIX}/docs")
    expect(opened.page.locator(".opblock").first).to_be_visible()
    yield opened
    context.close()


def test_the_reference_shows_every_operation_and_asks_no_other_host(reference: Reference, origin: str) -> None:
    document = httpx.get(f"{origin}{PREFIX}/openapi.json").json()
    described = {f"{method.upper()} {path}" for path, of_path in document["paths"].items() for method in of_path}
    blocks = reference.page.locator(".opblock")
    expect(blocks).to_have_count(len(described))
    methods = blocks.locator(".opblock-summary-method").all_inner_texts()
    paths = [text.replace("\u200b", "") for text in blocks.locator(".opblock-summary-path").all_inner_texts()]
    assert {f"{method} {path}" for method, path in zip(methods, paths, strict=True)} == described
    assert len(reference.requests) >= 5
    assert [url for url in reference.requests if not url.startswith((f"{origin}{PREFIX}/", "data:"))] == []
    assert reference.complaints == []


def test_a_request_can_be_tried_out_below_a_path_with_a_key(reference: Reference, origin: str) -> None:
    page = reference.page
    segment = page.locator(".opblock", has=page.get_by_text("Segment one or more images", exact=True))
    segment.locator(".opblock-summary-control").click()
    segment.get_by_role("button", name="Try it out").click()
    segment.locator("input[type=file]").set_input_files(ROOT / "tests/images/astronaut.jpg")
    segment.get_by_role("button", name="Execute").click()
    answer = segment.locator(".live-responses-table")
    expect(answer).to_contain_text("unauthorized")
    page.get_by_role("button", name="Authorize").first.click()
    page.locator(".auth-container input").first.fill(KEY)
    page.locator(".auth-container").first.get_by_role("button", name="Apply credentials").click()
    page.locator(".close-modal").click()
    segment.get_by_role("button", name="Execute").click()
    expect(answer).to_contain_text("demo-person")
    assert f"{origin}{PREFIX}/segment" in {url.partition("?")[0] for url in reference.requests}
    assert [text for text in reference.complaints if "401 (Unauthorized)" not in text] == []


def test_pages_may_open_a_websocket_of_their_own_host_and_of_no_other(reference: Reference, origin: str) -> None:
    """`connect-src 'self'` has to cover ws://, which the webcam mode of the page uses."""
    script = """(url) => new Promise((resolve) => {
      document.addEventListener("securitypolicyviolation", () => resolve("refused by the policy"));
      try { new WebSocket(url).onclose = () => setTimeout(() => resolve("tried"), 100); } catch (error) { resolve(String(error)); }
    })"""
    for path in ("/", "/docs"):
        reference.page.goto(f"{origin}{PREFIX}{path}")
        own = origin.replace("http:", "ws:")
        assert reference.page.evaluate(script, f"{own}{PREFIX}/nothing") == "tried"
        reference.page.reload()
        assert reference.page.evaluate(script, "ws://127.0.0.1:9/") == "refused by the policy"
