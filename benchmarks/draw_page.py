"""Screenshots of the page for the docs: start, result, dark, phone, cut-out, camera.

    .venv-page/bin/python benchmarks/draw_page.py -o docs/figures/page

Every screenshot shows answers of the demo model, by a server that is started for it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright
from reliability_parts.loads import served
from reliability_parts.run_options import log

CHROMIUM = "/usr/bin/chromium"
DESKTOP = {"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce"}
PHONE = {
    **DESKTOP,
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "has_touch": True,
    "is_mobile": True,
}
DARK = {**DESKTOP, "color_scheme": "dark"}


def main() -> int:
    """Draw all, or say why not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", required=True)
    folder = parser.parse_args().output
    with served() as server:
        draw_page(f"http://{server.address.host}:{server.address.port}/", folder)
    return 0


def draw_page(url: str, folder: Path) -> None:
    """Write the screenshots of the page at a server's address into a folder, which is made if it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        for name, options, act in SHOTS:
            _shoot(browser, url, folder / f"{name}.png", options, act)
        browser.close()


def _start(page: Page) -> None:
    expect(page.locator("#model-name")).not_to_be_empty()


def _result(page: Page) -> None:
    _sample(page, "riders")
    for name in ("astronaut", "child"):
        _add_sample(page, name)
    expect(page.locator("#strip .done")).to_have_count(3)
    page.locator("#strip .thumbnail").first.click()
    _highlight(page)


def _dark(page: Page) -> None:
    _sample(page, "child")
    _highlight(page)


def _cut_out(page: Page) -> None:
    _sample(page, "astronaut")
    page.locator("#instances li").first.click()
    expect(page.locator("#cut-out-image")).to_have_js_property("complete", value=True)
    page.mouse.move(5, 5)


def _sample(page: Page, name: str) -> None:
    page.click(f"[data-sample='page/{name}.jpg']")
    expect(page.locator("#instances li").first).to_be_visible()


def _add_sample(page: Page, name: str) -> None:
    body = page.request.get(page.url + f"page/{name}.jpg").body()
    page.set_input_files("#files", {"name": f"{name}.jpg", "mimeType": "image/jpeg", "buffer": body})


def _highlight(page: Page) -> None:
    page.locator("#instances li").first.hover()


SHOTS: tuple[tuple[str, dict[str, Any], Callable[[Page], None]], ...] = (
    ("start", DESKTOP, _start),
    ("result", DESKTOP, _result),
    ("dark", DARK, _dark),
    ("cut-out", DARK, _cut_out),
    ("phone", PHONE, _cut_out),
)
"""Name, window, and what is done before the screenshot."""


def _shoot(browser: Browser, url: str, path: Path, options: dict[str, Any], act: Callable[[Page], None]) -> None:
    with browser.new_context(**options) as context:
        page = context.new_page()
        page.goto(url)
        act(page)
        page.wait_for_timeout(300)
        page.screenshot(path=path)
        log(str(path))


if __name__ == "__main__":
    sys.exit(main())
