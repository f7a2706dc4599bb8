"""Accessibility, colour schemes, narrow windows, and what the page loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
import solo_server.http
from conftest import OpenPage, url_of
from page_support import astronaut, pixels, show, show_masks
from playwright.sync_api import Page, expect
from solo_server.bench.load.server_process import ServerProcess
from test_failures import not_yet
from test_instances import IMAGE, SCENE

AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text()
PHONE = {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}


def violations(page: Page) -> list[str]:
    page.evaluate(AXE)  # through the debugger, which the page's policy does not concern
    found = page.evaluate("axe.run({ resultTypes: ['violations'] })")
    return [f"{each['id']}: {[node['html'][:200] for node in each['nodes']]}" for each in found["violations"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("window", [{}, PHONE], ids=["desktop", "phone"])
def test_axe_finds_no_violation(open_page: OpenPage, scheme: str, window: dict[str, Any]) -> None:
    page = open_page(color_scheme=scheme, reduced_motion="reduce", **window)
    expect(page.locator("#model-name")).to_have_text("demo-person")
    assert violations(page) == []
    show_masks(page, SCENE, *IMAGE)
    page.set_input_files("#files", [{"name": "bad.png", "mimeType": "image/png", "buffer": b"no"}, astronaut()])
    expect(page.locator("#strip li")).to_have_count(3)
    assert violations(page) == []
    page.locator("#strip .thumbnail").first.click()
    page.locator("#instances li").first.click()
    expect(page.locator("#cut-out")).to_be_visible()
    assert violations(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation_in_messages(open_page: OpenPage, scheme: str) -> None:
    page = open_page(
        color_scheme=scheme, reduced_motion="reduce", before=lambda opened: opened.route("**/readyz", not_yet)
    )
    expect(page.locator("#banner")).to_be_visible()
    page.evaluate(
        "() => { navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotFoundError'); }; }"
    )
    page.click("#start-camera")
    expect(page.locator("#notice")).to_be_visible()
    assert violations(page) == []
    page.evaluate("import('./page/key_dialog.js').then(({ askForKey }) => askForKey(() => {}))")
    expect(page.locator("#key-dialog")).to_be_visible()
    assert violations(page) == []
    page.unroute("**/readyz")


def test_a_phone_needs_no_horizontal_scrolling(open_page: OpenPage) -> None:
    page = open_page(**PHONE)
    width = "() => document.documentElement.scrollWidth"
    assert page.evaluate(width) == 360
    show(page, astronaut(), {**astronaut(), "name": "second.jpg"})
    assert page.evaluate(width) == 360
    page.locator("#instances li").first.tap()
    expect(page.locator("#cut-out")).to_be_visible()
    assert page.evaluate(width) == 360
    stage = page.locator("#image").bounding_box()
    assert stage is not None
    assert stage["width"] >= 335
    assert pixels(page, "image").shape[1] >= 670


def test_the_page_follows_the_colour_scheme(open_page: OpenPage) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        page = open_page(color_scheme=scheme)
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.emulate_media(color_scheme="light")
    assert grounds == ["rgb(244, 245, 247)", "rgb(15, 17, 21)"]


def test_every_file_that_the_page_names_is_there(open_page: OpenPage) -> None:
    failed: list[str] = []
    page = open_page(
        before=lambda opened: opened.on("response", lambda r: failed.append(r.url) if r.status >= 400 else None)
    )
    expect(page.locator("#model-name")).to_have_text("demo-person")
    assert failed == []
    names = {path.name for path in Path(solo_server.http.__file__).with_name("page").iterdir()}
    loaded = set(
        page.evaluate(
            "performance.getEntriesByType('resource').map(({ name }) => new URL(name).pathname.split('/').at(-1))"
        )
    )
    assert names - loaded <= {"index.html", "icon.svg"}


def test_the_policy_forbids_what_the_page_does_not_need(open_page: OpenPage, server: str) -> None:
    page = open_page()
    policy = page.request.get(server).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    html = page.request.get(server).text()
    assert " style=" not in html
    assert " onclick=" not in html


def test_the_page_works_below_a_path_prefix(open_page: OpenPage) -> None:
    with ServerProcess(("--root-path", "/vision")) as process:
        process.wait_ready()
        page = open_page(url_of(process) + "vision/")
        page.click("[data-sample='page/astronaut.jpg']")
        expect(page.locator("#instances li")).to_have_count(1)
        page.click("#camera")
        expect(page.locator("#timings-text")).to_contain_text("FPS")
        paths = page.evaluate(
            "performance.getEntriesByType('resource').map(({ name }) => new URL(name)).filter((url) => url.protocol === 'http:')"
            ".map(({ pathname }) => pathname)"
        )
        assert len(paths) > 20
        assert all(path.startswith("/vision/") for path in paths)
