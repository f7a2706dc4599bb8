"""Downloads and copied commands."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import OpenPage, url_of
from page_support import astronaut, decode, file, png, show, show_masks
from playwright.sync_api import Page, expect
from solo_results.rle import decode_rle
from solo_results.types import RleMask
from solo_server.bench.load.server_process import ServerProcess
from test_failures import KEY, with_keys
from test_instances import IMAGE, SCENE, ring


def copied(page: Page, kind: str) -> str:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click(f"[data-export='{kind}']")
    expect(page.locator(f"[data-export='{kind}']")).to_have_text("Copied")
    text: str = page.evaluate("navigator.clipboard.readText()")
    return text


def downloaded(page: Page, kind: str) -> bytes:
    with page.expect_download() as download:
        page.click(f"[data-export='{kind}']")
    return Path(download.value.path()).read_bytes()


def run(command: list[str], folder: Path, **environment: str) -> str:
    return subprocess.run(
        command, cwd=folder, env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True, check=True
    ).stdout


def listed(page: Page) -> list[tuple[str, str]]:
    return [tuple(text.split("\n")) for text in page.locator("#instances li").all_inner_texts()]  # type: ignore[misc]


def instances_of(text: str) -> list[tuple[str, str]]:
    return [(each["label"], f"{each['score']:.2f}") for each in json.loads(text)["instances"]]


def printed(text: str) -> list[tuple[str, str]]:
    return [(line.split()[0], f"{float(line.split()[1]):.2f}") for line in text.splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "it's mine.jpg").write_bytes(astronaut()["buffer"])
    return tmp_path


def test_the_copied_commands_find_the_instances_on_the_page(open_page: OpenPage, folder: Path) -> None:
    page = open_page()
    show(page, {**astronaut(), "name": "it's mine.jpg"})
    page.locator("#score").fill("0.07")
    expect(page.locator("#score-value")).to_have_text("0.07")
    shown = listed(page)
    assert len(shown) > 1
    assert instances_of(run(shlex.split(copied(page, "curl")), folder)) == shown
    expect(page.locator("[data-export='python']")).to_have_text("Python")
    assert printed(run([sys.executable, "-c", copied(page, "python")], folder)) == shown


def test_the_copied_commands_for_a_sample_fetch_it(open_page: OpenPage, folder: Path) -> None:
    page = open_page()
    page.click("[data-sample='page/riders.jpg']")
    expect(page.locator("#instances li")).to_have_count(2)
    shown = listed(page)
    assert instances_of(run(["sh", "-c", copied(page, "curl")], folder)) == shown
    assert printed(run([sys.executable, "-c", copied(page, "python")], folder)) == shown


def test_the_copied_commands_name_the_classes_that_are_shown(open_page: OpenPage) -> None:
    page = open_page()
    show_masks(page, SCENE, *IMAGE)
    page.get_by_label("cat (2)").uncheck()
    assert "score_threshold=0.3&classes=frame&classes=bell'" in copied(page, "curl")
    assert 'classes=["frame", "bell"]' in copied(page, "python")


def test_the_copied_commands_have_a_variable_for_the_key(open_page: OpenPage, folder: Path) -> None:
    with ServerProcess((), with_keys(KEY)) as process:
        process.wait_ready()
        page = open_page(url_of(process))
        page.fill("#key", KEY)
        page.click("text=Use this key")
        show(page, {**astronaut(), "name": "it's mine.jpg"})
        for kind, command in (("curl", ["sh", "-c"]), ("python", [sys.executable, "-c"])):
            text = copied(page, kind)
            assert KEY not in text
            assert "SOLO_API_KEY" in text
            assert "person" in run([*command, text], folder, SOLO_API_KEY=KEY)


def test_coco_results_have_the_masks_that_are_shown(open_page: OpenPage) -> None:
    page = open_page()
    show_masks(page, SCENE, *IMAGE)
    results = json.loads(downloaded(page, "coco"))
    assert [(each["image_id"], each["category_id"], each["score"]) for each in results] == [
        (1, 4, 0.9),
        (1, 1, 0.8),
        (1, 8, 0.4),
    ]
    segmentation = results[0]["segmentation"]
    np.testing.assert_array_equal(decode_rle(RleMask(tuple(segmentation["size"]), segmentation["counts"])), ring())


def test_coco_results_have_all_images_of_the_strip(open_page: OpenPage) -> None:
    page = open_page()
    show(page, astronaut(), file(png(50, 50), "plain.png"), {**astronaut(), "name": "again.jpg"})
    expect(page.locator("#strip .done")).to_have_count(3)
    results = json.loads(downloaded(page, "coco"))
    assert [(each["image_id"], each["file_name"]) for each in results] == [(1, "astronaut.jpg"), (3, "again.jpg")]


def test_polygons_have_holes(open_page: OpenPage) -> None:
    page = open_page()
    show_masks(page, SCENE, *IMAGE)
    content = json.loads(downloaded(page, "polygons"))
    assert content["image"] == {"name": "photo.png", "width": 400, "height": 300}
    (frame,) = content["instances"][0]["polygons"]
    assert frame == {
        "exterior": [[380, 20], [380, 280], [20, 280], [20, 20]],
        "holes": [[[340, 240], [340, 60], [60, 60], [60, 240]]],
    }


def test_the_png_has_the_size_of_the_image_and_the_masks(open_page: OpenPage) -> None:
    page = open_page()
    show_masks(page, SCENE, *IMAGE)
    drawn = decode(downloaded(page, "png"))
    assert drawn.shape == (300, 400, 4)
    plain = decode(png(*IMAGE))
    changed = (drawn != plain).any(-1)
    assert changed[ring()].all()
    assert not changed[210:230, 210:240].any()
