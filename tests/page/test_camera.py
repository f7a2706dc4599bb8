"""The camera and WS /stream."""

from __future__ import annotations

import re
import signal
import time

import httpx
import pytest
from conftest import OpenPage, url_of
from page_support import pixels
from playwright.sync_api import Browser, Page, expect
from solo_server.bench.load.server_process import ServerProcess

COUNT_FRAMES = """document.addEventListener("solo:frame", () => {
  document.body.dataset.frames = Number(document.body.dataset.frames ?? 0) + 1;
})"""


def open_camera(page: Page) -> None:
    page.evaluate(COUNT_FRAMES)
    page.click("#start-camera")
    wait_frames(page, 3)


def wait_frames(page: Page, count: int) -> None:
    page.wait_for_function("(count) => Number(document.body.dataset.frames ?? 0) >= count", arg=count)


def frames(page: Page) -> int:
    return int(page.evaluate("document.body.dataset.frames ?? 0"))


def test_the_camera_shows_frames_with_their_rate_and_latency(open_page: OpenPage) -> None:
    page = open_page()
    open_camera(page)
    expect(page.locator("#timings-text")).to_have_text(re.compile(r"\d+ FPS.*camera to screen \d+ ms"))
    assert (pixels(page, "image")[..., 3] == 255).all()
    page.click("#camera-stop")
    expect(page.locator("#start")).to_be_visible()
    assert page.evaluate("document.getElementById('video').srcObject") is None


def test_a_picture_of_the_camera_becomes_an_image(open_page: OpenPage) -> None:
    page = open_page()
    open_camera(page)
    with page.expect_request("**/segment?*"):
        page.click("#photo")
    expect(page.locator("#list-empty")).to_be_visible()
    expect(page.locator("[data-export='png']")).to_be_enabled()
    assert page.evaluate("document.getElementById('video').srcObject") is None


def test_a_server_that_is_killed_during_a_stream_is_told_and_found_again(open_page: OpenPage) -> None:
    with ServerProcess(()) as first:
        first.wait_ready()
        port = first.address.port
        page = open_page(url_of(first))
        open_camera(page)
        first.send(signal.SIGKILL)
        expect(page.locator("#banner")).to_contain_text("The server does not answer.")
    with ServerProcess(("--port", str(port))) as second:
        page.wait_for_timeout(200)
        wait_frames(page, frames(page) + 3)
        expect(page.locator("#banner")).to_be_hidden()
        assert second.exit_status(0) is None


def streams_open(server: str) -> float:
    text = httpx.get(f"{server}metrics").text
    found = re.search(r"^solo_streams_open\S* ([0-9.]+)$", text, re.MULTILINE)
    assert found, [line for line in text.splitlines() if "stream" in line]
    return float(found[1])


def wait_for_streams(server: str, count: int) -> None:
    deadline = time.monotonic() + 20
    while streams_open(server) != count:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_tab_that_is_closed_mid_frame_leaves_no_stream(open_page: OpenPage, server: str) -> None:
    page = open_page()
    open_camera(page)
    wait_for_streams(server, 1)
    page.close()
    wait_for_streams(server, 0)
    assert httpx.get(f"{server}readyz").status_code == 200


def test_the_camera_goes_off_when_images_are_added(open_page: OpenPage, server: str) -> None:
    page = open_page()
    open_camera(page)
    page.click("#add", trial=True)
    page.set_input_files("#files", [{"name": "a.png", "mimeType": "image/png", "buffer": b"no image"}])
    expect(page.locator("#failure")).to_be_visible()
    wait_for_streams(server, 0)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("NotAllowedError", "The camera is not allowed."),
        ("NotFoundError", "No camera was found."),
        ("NotReadableError", "The camera is in use."),
    ],
)
def test_a_camera_that_cannot_be_used_is_told_in_plain_words(open_page: OpenPage, error: str, words: str) -> None:
    page = open_page()
    page.evaluate(
        "(name) => { navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', name); }; }", error
    )
    page.click("#start-camera")
    expect(page.locator("#notice")).to_contain_text(words)
    page.click("#notice-close")
    expect(page.locator("#notice")).to_be_hidden()
    expect(page.locator("#start")).to_be_visible()


def test_a_proxy_that_passes_no_websockets_is_told(open_page: OpenPage) -> None:
    def refuse(page: Page) -> None:
        page.add_init_script(
            "window.WebSocket = class { constructor() { setTimeout(() => this.onclose({}), 1); } close() {} };"
        )

    page = open_page(before=refuse)
    page.click("#start-camera")
    expect(page.locator("#notice")).to_contain_text("The server does not accept the camera's stream.", timeout=40_000)


def test_50_tabs_at_once_are_all_answered(browser: Browser, server: str) -> None:
    script = """() => new Promise((done) => {
      const button = document.querySelector("[data-sample='page/astronaut.jpg']");
      const click = () => (document.readyState === "complete" ? done(button.click()) : setTimeout(click, 20));
      click();
    })"""
    context = browser.new_context()
    pages = [context.new_page() for _ in range(50)]
    for page in pages:
        page.goto(server, wait_until="commit")
    for page in pages:
        page.evaluate(script)
    for page in pages:
        expect(page.locator("#instances li")).to_have_count(1, timeout=120_000)
    context.close()
    assert httpx.get(f"{server}readyz").status_code == 200
