"""Ways in: drop, paste, pick, samples; and the strip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import OpenPage
from page_support import answer, answer_with, astronaut, file, instance, pixels, png, show, transfer
from playwright.sync_api import Page, expect

TWO = [astronaut(), file(png(300, 200), "plain.png")]


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_images_that_are_dropped_or_pasted_are_segmented(open_page: OpenPage, event: str) -> None:
    page = open_page()
    given = transfer(page, TWO)
    if event == "drop":
        page.dispatch_event("body", "dragover", {"dataTransfer": given})
        expect(page.locator("#veil")).to_be_visible()
        page.dispatch_event("body", "drop", {"dataTransfer": given})
        expect(page.locator("#veil")).to_be_hidden()
    else:
        page.evaluate("(clipboardData) => dispatchEvent(new ClipboardEvent('paste', { clipboardData }))", given)
    expect(page.locator("#instances li")).to_have_count(1)
    expect(page.locator("#strip .done")).to_have_count(2)


def test_text_that_is_pasted_is_left_alone(open_page: OpenPage) -> None:
    page = open_page()
    page.evaluate("dispatchEvent(new ClipboardEvent('paste', { clipboardData: new DataTransfer() }))")
    expect(page.locator("#start")).to_be_visible()


def test_each_sample_has_instances(open_page: OpenPage) -> None:
    for path in ("page/astronaut.jpg", "page/riders.jpg", "page/child.jpg"):
        page = open_page()
        page.click(f"[data-sample='{path}']")
        expect(page.locator("#instances li").first).to_contain_text("person")
        expect(page.locator("#timings-text")).to_contain_text("categories")


def test_the_masks_are_drawn_over_the_image(open_page: OpenPage) -> None:
    page = open_page()
    show(page, astronaut())
    image, masks = pixels(page, "image"), pixels(page, "masks")
    assert image.shape == masks.shape
    assert (image[..., 3] == 255).all()
    drawn = masks[..., 3] > 0
    assert 0.2 < drawn.mean() < 0.6


def test_the_canvas_has_the_pixels_of_the_screen(open_page: OpenPage) -> None:
    page = open_page(device_scale_factor=2)
    show(page, astronaut())
    box = page.locator("#image").bounding_box()
    assert box is not None
    assert pixels(page, "image").shape[1] == pytest.approx(2 * box["width"], abs=1)


def test_an_image_is_drawn_as_its_exif_orientation_says(open_page: OpenPage) -> None:
    from io import BytesIO

    from PIL import Image

    picture = Image.new("RGB", (60, 40), (0, 0, 255))
    picture.paste((255, 0, 0), (0, 0, 60, 10))
    exif = Image.Exif()
    exif[0x112] = 6  # turned right by a quarter: the upper edge becomes the right one
    out = BytesIO()
    picture.save(out, "PNG", exif=exif)
    page = open_page()
    page.set_input_files("#files", [file(out.getvalue())])
    expect(page.locator("#list-empty")).to_be_visible()
    shown = pixels(page, "image")
    assert shown.shape[0] > shown.shape[1]
    assert shown[:, -2, 0].min() > 200
    assert shown[:, 2, 2].min() > 200


def test_a_bad_file_among_several_fails_alone(open_page: OpenPage) -> None:
    page = open_page()
    bad = file(b"this is no image", "notes.jpg", "image/jpeg")
    show(page, astronaut(), bad, file(png(64, 64), "plain.png"))
    expect(page.locator("#strip .done")).to_have_count(2)
    expect(page.locator("#strip .failed")).to_have_count(1)
    page.click("[aria-label='notes.jpg, failed']")
    expect(page.locator("#failure-title")).to_have_text("This is not an image that the server reads")
    expect(page.locator("#failure-detail")).to_contain_text("The server says:")
    expect(page.locator("[data-export='png']")).to_be_disabled()
    page.locator("#strip .thumbnail").first.click()
    expect(page.locator("#failure")).to_be_hidden()
    expect(page.locator("#instances li")).to_have_count(1)


@pytest.mark.parametrize(
    ("content", "title"),
    [(b"", "The file is empty"), (astronaut()["buffer"][:20_000], "The image is damaged")],
    ids=["empty", "truncated"],
)
def test_a_file_that_cannot_be_used_is_named_in_plain_words(open_page: OpenPage, content: bytes, title: str) -> None:
    page = open_page()
    page.set_input_files("#files", [file(content, "photo.jpg", "image/jpeg")])
    expect(page.locator("#failure-title")).to_have_text(title)


def test_a_file_beyond_the_limit_is_too_large(open_page: OpenPage, tmp_path: Path) -> None:
    large = tmp_path / "large.jpg"
    large.write_bytes(astronaut()["buffer"] + bytes(21 << 20))
    page = open_page()
    page.set_input_files("#files", large)
    expect(page.locator("#failure-title")).to_have_text("The file is too large for this server", timeout=30_000)


def test_an_image_can_be_removed_from_the_strip(open_page: OpenPage) -> None:
    page = open_page()
    show(page, *TWO)
    page.click("[aria-label='Remove astronaut.jpg']")
    expect(page.locator("#strip")).to_be_hidden()
    expect(page.locator("#list-empty")).to_be_visible()


def test_an_image_of_6000_pixels_keeps_the_page_responsive(open_page: OpenPage) -> None:
    height, width = 4500, 6000
    page = open_page()
    masks = []
    for i in range(3):
        mask = np.zeros((height, width), bool)
        mask[100 * i : 100 * i + 3000, 200 * i : 200 * i + 3500] = True
        masks.append(instance(mask, score=0.9 - 0.01 * i))
    answer_with(page, answer(masks, width, height))
    show(page, file(png(width, height)))
    expect(page.locator("#instances li")).to_have_count(3)
    shown = pixels(page, "image")
    assert shown.shape[1] < 1000  # drawn at the size of the window
    assert page.evaluate("document.getElementById('image').width * document.getElementById('image').height") < 1_000_000


def test_pages_with_a_camera_and_images_can_be_left_and_reopened(open_page: OpenPage, server: str) -> None:
    page: Page = open_page()
    show(page, astronaut())
    page.reload()
    expect(page.locator("#start")).to_be_visible()
    show(page, astronaut())
