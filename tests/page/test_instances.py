"""What can be done with the instances of an image: hover, click, slider, filter, keyboard."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from conftest import OpenPage
from page_support import RING, astronaut, decode, instance, pixels, point_at, screen_point, show, show_masks
from playwright.sync_api import Page, expect
from solo_results.rle import decode_rle
from solo_results.types import RleMask

IMAGE = (400, 300)  # width, height


def rectangle(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros(IMAGE[::-1], bool)
    mask[top:bottom, left:right] = True
    return mask


def ring() -> np.ndarray:
    mask = rectangle(20, 20, 380, 280)
    mask[60:240, 60:340] = False
    return mask


SCENE = [
    instance(ring(), "frame", 3, 0.9),
    instance(rectangle(100, 80, 200, 200), "cat", 0, 0.8),
    instance(rectangle(120, 100, 160, 140), "bell", 7, 0.4),
    instance(rectangle(250, 90, 320, 180), "cat", 0, 0.2),
]
FRAME, CAT, BELL = "#instance-0", "#instance-1", "#instance-2"


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    opened = open_page()
    show_masks(opened, SCENE, *IMAGE)
    expect(opened.locator("#instances li")).to_have_count(3)  # the fourth is below 0.30
    return opened


def test_hovering_highlights_the_instance_whose_mask_is_under_the_pointer(page: Page) -> None:
    point_at(page, 30, 150, IMAGE)
    expect(page.locator(FRAME)).to_have_class("highlighted")
    assert pixels(page, "top")[..., 3].any()
    point_at(page, 220, 220, IMAGE)  # in the frame's box, but not in its mask
    expect(page.locator(".highlighted")).to_have_count(0)
    assert not pixels(page, "top")[..., 3].any()


def test_the_smallest_instance_under_the_pointer_wins(page: Page) -> None:
    point_at(page, 140, 120, IMAGE)
    expect(page.locator(BELL)).to_have_class("highlighted")
    point_at(page, 110, 90, IMAGE)
    expect(page.locator(CAT)).to_have_class("highlighted")


def test_an_instance_below_the_slider_is_not_under_the_pointer(page: Page) -> None:
    page.locator("#score").fill("0.5")
    point_at(page, 140, 120, IMAGE)
    expect(page.locator(CAT)).to_have_class("highlighted")


def test_the_slider_and_the_filter_ask_nothing_of_the_server(page: Page) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.locator("#score").fill("0.1")
    expect(page.locator("#instances li")).to_have_count(4)
    expect(page.locator("#list-title")).to_have_text("Instances (4)")
    before = pixels(page, "masks")
    page.get_by_label("cat (2)").uncheck()
    expect(page.locator("#instances li")).to_have_text(["frame0.90", "bell0.40"])
    page.wait_for_function(
        "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"
    )
    assert (pixels(page, "masks") != before).any()
    page.locator("#score").fill("0.95")
    expect(page.locator("#list-empty")).to_be_visible()
    assert requests == []


def test_colours_are_by_instance_or_by_class(page: Page) -> None:
    page.locator("#score").fill("0.1")
    swatches = "() => [...document.querySelectorAll('#instances i')].map((i) => i.style.background)"
    by_instance = page.evaluate(swatches)
    assert len(set(by_instance)) == 4
    page.get_by_label("Class", exact=True).check()
    by_class = page.evaluate(swatches)
    assert by_class[1] == by_class[3]
    assert len(set(by_class)) == 3


def test_a_colour_stays_when_the_slider_moves(page: Page) -> None:
    colour = "() => document.querySelector('#instance-0 i').style.background"
    before = page.evaluate(colour)
    page.locator("#score").fill("0.85")
    expect(page.locator("#instances li")).to_have_count(1)
    assert page.evaluate(colour) == before


def test_a_click_shows_one_instance_alone_and_escape_shows_all(page: Page) -> None:
    before = pixels(page, "masks")
    page.mouse.click(*screen_point(page, 110, 90, IMAGE))
    expect(page.locator("#cut-out-title")).to_have_text("Cut-out: cat")
    expect(page.locator(CAT)).to_have_attribute("aria-selected", "true")
    faded = pixels(page, "masks")[..., 3]
    x, y = (round(side * 0.5) for side in (faded.shape[1], faded.shape[0]))
    assert faded[y, x] > 150  # the middle of the image is no part of it
    page.keyboard.press("Escape")
    expect(page.locator("#cut-out")).to_be_hidden()
    np.testing.assert_array_equal(pixels(page, "masks"), before)


def cut_out(page: Page) -> np.ndarray:
    expect(page.locator("#cut-out")).to_be_visible()
    with page.expect_download() as download:
        page.click("#cut-out-save")
    assert download.value.suggested_filename.endswith(".png")
    return decode(download.value.path().read_bytes())


def test_the_alpha_of_a_cut_out_is_the_mask(page: Page) -> None:
    page.locator(FRAME).click()
    alpha = cut_out(page)[..., 3]
    np.testing.assert_array_equal(alpha, 255 * ring()[20:280, 20:380])


def test_the_cut_out_of_a_photograph_has_its_pixels_and_its_mask(open_page: OpenPage, server: str) -> None:
    page = open_page()
    with page.expect_response("**/segment?*") as response:
        show(page, astronaut())
    best = response.value.json()["instances"][0]
    page.locator("#instances li").first.click()
    cut = cut_out(page)
    left, top, width, height = best["box_xywh"]
    mask = decode_rle(RleMask(tuple(best["mask"]["size"]), best["mask"]["counts"]))[
        top : top + height, left : left + width
    ]
    np.testing.assert_array_equal(cut[..., 3], 255 * mask)
    photo = decode(astronaut()["buffer"])[top : top + height, left : left + width, :3]
    assert np.abs(cut[mask][:, :3].astype(int) - photo[mask]).max() <= 8  # two JPEG decoders
    assert (cut[~mask] == 0).all()


def test_a_cut_out_can_be_copied(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator(CAT).click()
    page.click("#cut-out-copy")
    expect(page.locator("#live")).to_have_text("The cut-out is on the clipboard.")
    script = """async () => {
      const [item] = await navigator.clipboard.read(), blob = await item.getType("image/png");
      let text = "";
      for (const byte of new Uint8Array(await blob.arrayBuffer())) text += String.fromCharCode(byte);
      return btoa(text);
    }"""
    assert decode(base64.b64decode(page.evaluate(script))).shape == (120, 100, 4)


def test_the_page_is_used_with_the_keyboard_alone(page: Page) -> None:
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "instances":
            break
    expect(page.locator(FRAME)).to_have_class("highlighted")
    expect(page.locator("#instances")).to_have_attribute("aria-activedescendant", "instance-0")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    expect(page.locator(CAT)).to_have_class("highlighted")
    page.keyboard.press("Enter")
    expect(page.locator("#cut-out-title")).to_have_text("Cut-out: cat")
    page.keyboard.press("Escape")
    expect(page.locator("#cut-out")).to_be_hidden()
    assert page.evaluate("document.activeElement.id") == "instances"
    page.keyboard.press("End")
    expect(page.locator(BELL)).to_have_class("highlighted")


def test_a_screen_reader_hears_the_instances(page: Page) -> None:
    expect(page.locator("#live")).to_have_text(
        "photo.png: 3 instances with a score of at least 0.30: frame 0.90, cat 0.80, bell 0.40."
    )
    page.get_by_label("cat (2)").uncheck()
    expect(page.locator("#live")).to_contain_text("2 instances")


def test_the_pointer_in_the_list_highlights_in_the_image(page: Page) -> None:
    page.locator(CAT).hover()
    assert pixels(page, "top")[..., 3].any()
    page.mouse.move(2, 2)
    expect(page.locator(".highlighted")).to_have_count(0)
    assert not pixels(page, "top")[..., 3].any()


def test_a_mask_with_a_hole_is_not_filled(page: Page) -> None:
    assert RING.sum() == 8
    masks = pixels(page, "masks")
    x, y = (int(side * place) for side, place in ((masks.shape[1], 220 / IMAGE[0]), (masks.shape[0], 220 / IMAGE[1])))
    assert masks[y, x, 3] == 0


def test_all_classes_are_hidden_and_shown_at_once(page: Page) -> None:
    page.click("#classes-none")
    expect(page.locator("#instances li")).to_have_count(0)
    page.get_by_label("bell (1)").check()
    expect(page.locator("#instances li")).to_have_text(["bell0.40"])
    page.click("#classes-all")
    expect(page.locator("#instances li")).to_have_count(3)
