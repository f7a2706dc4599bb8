"""Errors in plain words; servers that ask for a key, start, or end."""

from __future__ import annotations

import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

from conftest import OpenPage, url_of
from page_support import answer_with, astronaut, file, png, show
from playwright.sync_api import Page, Route, expect
from solo_models.demo import demo_bundle
from solo_server.bench.load.server_process import Program, ServerProcess

KEY = "0123456789abcdef-page"


def problem(code: str, status: int = 400, **more: Any) -> dict[str, Any]:
    return {
        "type": "about:blank",
        "title": "T",
        "status": status,
        "detail": "the detail",
        "code": code,
        "request_id": "r1",
        **more,
    }


def with_keys(keys: str) -> Program:
    return Program(environment={**os.environ, "SOLO_API_KEYS": keys})


def test_every_code_is_shown_with_what_to_do(open_page: OpenPage) -> None:
    page = open_page()
    codes = page.evaluate("import('./page/problems.js').then(({ WORDS }) => Object.entries(WORDS))")
    assert all(title and advice.endswith((".", "?")) for _, (title, advice) in codes)
    for code, status in (("image_too_large", 413), ("model_not_found", 404), ("internal", 500), ("of_the_future", 418)):
        answer_with(page, problem(code, status), status)
        page.set_input_files("#files", [file(png(20, 20), f"{code}.png")])
        expect(page.locator("#failure-title")).to_have_text(
            dict(codes).get(code, ["The server refused: of_the_future"])[0]
        )
        expect(page.locator("#failure-detail")).to_have_text("The server says: the detail · Request r1")


def test_a_busy_server_is_asked_again(open_page: OpenPage) -> None:
    page = open_page()
    asked: list[str] = []

    def refuse_once(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) == 1:
            busy = problem("overloaded", 503, reason="queue_full")
            route.fulfill(status=503, json=busy, headers={"Retry-After": "1"})
        else:
            route.continue_()

    page.route("**/segment?*", refuse_once)
    show(page, astronaut())
    assert len(asked) == 2


def test_an_answer_that_is_damaged_is_told(open_page: OpenPage) -> None:
    page = open_page()
    mask = {"size": [20, 20], "counts": "zzz"}
    bad = {"label": "x", "class_id": 0, "score": 0.9, "box_xywh": [0, 0, 1, 1], "area": 1, "mask": mask}
    answer_with(
        page, {"image": {"width": 20, "height": 20}, "model": {}, "timings_ms": {"total": 1}, "instances": [bad]}
    )
    page.set_input_files("#files", [file(png(20, 20))])
    expect(page.locator("#failure-title")).to_have_text("The answer could not be read")


def test_a_server_with_keys_is_given_one_and_the_key_stays_in_the_tab(open_page: OpenPage) -> None:
    with ServerProcess((), with_keys(KEY)) as process:
        process.wait_ready()
        page = open_page(url_of(process))
        expect(page.locator("#key-dialog")).to_be_visible()
        page.fill("#key", "of no server at all")
        page.click("text=Use this key")
        expect(page.locator("#key-problem")).to_contain_text("only letters")
        page.fill("#key", "wrong-0123456789abcdef")
        page.click("text=Use this key")
        expect(page.locator("#key-problem")).to_have_text("The server does not know this key.")
        page.click("#key-cancel")
        page.set_input_files("#files", [astronaut()])
        expect(page.locator("#key-dialog")).to_be_visible()
        page.fill("#key", KEY)
        page.keyboard.press("Enter")
        expect(page.locator("#instances li")).to_have_count(1)
        expect(page.locator("#model-name")).to_have_text("demo-person")
        assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 1, ""]
        page.click("#camera")
        expect(page.locator("#timings-text")).to_contain_text("FPS")


def test_the_page_waits_for_a_server_that_starts(open_page: OpenPage) -> None:
    page = open_page(before=lambda opened: opened.route("**/readyz", not_yet))
    expect(page.locator("#banner")).to_contain_text("The server is starting. It is loading its model.")
    page.unroute("**/readyz")
    expect(page.locator("#banner")).to_be_hidden()
    expect(page.locator("#model-name")).to_have_text("demo-person")


def not_yet(route: Route) -> None:
    route.fulfill(status=503, json={"status": "not ready", "reason": "warming"})


def test_images_wait_for_a_server_that_is_gone_and_comes_back(open_page: OpenPage) -> None:
    page = open_page()
    page.route("**/*", lambda route: route.abort())
    page.set_input_files("#files", [astronaut()])
    expect(page.locator("#banner")).to_contain_text("The server does not answer.")
    page.unroute("**/*")
    expect(page.locator("#instances li")).to_have_count(1)
    expect(page.locator("#banner")).to_be_hidden()


def test_a_model_is_picked_where_several_are_served(open_page: OpenPage, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / "models").mkdir(exist_ok=True)
        shutil.copytree(demo_bundle(), tmp_path / "models" / name)
    with ServerProcess(("--models", str(tmp_path / "models"))) as process:
        process.wait_ready()
        page = open_page(url_of(process))
        expect(page.locator("#model option")).to_have_text(["first", "second"])
        with page.expect_request(re.compile("/models/first/versions/[^/]+/segment")):
            show(page, astronaut())
        with page.expect_request(re.compile("/models/second/versions/[^/]+/segment")):
            page.select_option("#model", label="second")
        expect(page.locator("#instances li")).to_have_count(1)
        page.click("#camera")
        expect(page.locator("#timings-text")).to_contain_text("FPS")


def test_a_server_that_ends_during_a_request_is_told(open_page: OpenPage) -> None:
    with ServerProcess(()) as process:
        process.wait_ready()
        page: Page = open_page(url_of(process))
        show(page, astronaut())
        process.send(signal.SIGKILL)
        page.set_input_files("#files", [file(png(64, 64), "after.png")])
        expect(page.locator("#banner")).to_contain_text("The server does not answer.")
