"""A server, a browser, and pages that may neither fail silently nor speak to another host."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from chromium import CAMERA, PATH
from playwright.sync_api import Browser, Page, sync_playwright
from solo_server.bench.load.server_process import ServerProcess

pytest_plugins = ["support.not_run"]
WAIT_MS = 15_000
OpenPage = Callable[..., Page]


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a server with the demo model."""
    with ServerProcess(()) as process:
        process.wait_ready()
        yield url_of(process)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium with a made-up camera."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=PATH, args=CAMERA)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(server: str, browser: Browser) -> Iterator[OpenPage]:
    """Opens the page in a window of its own: open_page(url of a server, **options of a window).

    At the end of a test each page is checked: no uncaught error, no violation of its policy, no request to another host.
    """
    faults: list[str] = []

    def open_one(url: str = server, before: Callable[[Page], Any] | None = None, **options: Any) -> Page:
        options = {"viewport": {"width": 1280, "height": 800}, "accept_downloads": True, **options}
        page = browser.new_context(**options).new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: None if is_own(request.url, url) else faults.append(request.url))
        if before:
            before(page)
        page.goto(url)
        return page

    yield open_one
    for context in browser.contexts:
        context.close()
    assert [fault for fault in faults if not is_expected(fault)] == []


def is_expected(fault: str) -> bool:
    """What a browser logs by itself about answers with an error status, and about connections that break."""
    return fault.startswith("Failed to load resource") or ("WebSocket connection to" in fault and "failed" in fault)


def is_own(address: str, server_url: str) -> bool:
    """Whether a request stays with the server, or in the browser."""
    return address.startswith((server_url, server_url.replace("http:", "ws:"), "blob:", "data:"))


def url_of(process: ServerProcess) -> str:
    """The address of a server process."""
    return f"http://{process.address.host}:{process.address.port}/"
