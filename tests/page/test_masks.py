"""The page's modules for masks, run in the browser, against the Python implementation and exact arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from page_support import CROSS, RING, Mask, instance
from playwright.sync_api import Browser, Page

SHAPES = {
    "one pixel": np.array([[1]], bool),
    "full": np.ones((2, 3), bool),
    "cross": CROSS,
    "ring": RING,
    "corners that touch": np.array([[1, 0], [0, 1]], bool),
    "holes that touch": np.array([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 1]], bool),
    "island in a hole": np.pad(np.pad(np.ones((1, 1), bool), 1), 1, constant_values=True),
}


@pytest.fixture(scope="module")
def page(browser: Browser, server: str) -> Iterator[Page]:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(server)
        yield page


def noise(seed: int, height: int, width: int) -> Mask:
    return np.random.default_rng(seed).random((height, width)) < 0.5


def polygons(page: Page, mask: Mask) -> list[dict[str, Any]]:
    script = """async ({ counts, size: [height, width] }) => {
      const { decodeEdges } = await import("./page/rle.js"), { tracePolygons } = await import("./page/polygons.js");
      return tracePolygons(decodeEdges(counts, height, width), height);
    }"""
    found: list[dict[str, Any]] = page.evaluate(script, instance(mask)["mask"])
    return found


def filled(rings: list[list[int]], shape: tuple[int, ...]) -> Mask:
    """Pixels inside of rings along pixel edges, by the even-odd rule: each vertical edge flips all pixels on its right."""
    flips: NDArray[np.int64] = np.zeros(shape, np.int64)
    for ring in rings:
        corners = np.reshape(ring, (-1, 2))
        for (x, y), (end_x, end_y) in zip(corners, np.roll(corners, -1, 0), strict=True):
            if x == end_x:
                flips[min(y, end_y) : max(y, end_y), x:] += 1
    return flips % 2 == 1


def area(ring: list[int]) -> float:
    x, y = np.reshape(ring, (-1, 2)).T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2


@pytest.mark.parametrize(
    "mask", [*SHAPES.values(), noise(1, 5, 9), noise(2, 31, 17)], ids=[*SHAPES, "noise 1", "noise 2"]
)
def test_the_pixels_of_a_mask_are_those_that_were_encoded(page: Page, mask: Mask) -> None:
    script = """async ({ counts, size: [height, width] }) => {
      const { decodeEdges, forEachRun, isInside } = await import("./page/rle.js"), edges = decodeEdges(counts, height, width);
      const byRun = Array(height * width).fill(false), byPixel = byRun.map((_, pixel) => isInside(edges, pixel));
      forEachRun(edges, height, (x, top, bottom) => byRun.fill(true, x * height + top, x * height + bottom));
      return [byRun, byPixel];
    }"""
    by_run, by_pixel = page.evaluate(script, instance(mask)["mask"])
    np.testing.assert_array_equal(np.reshape(by_run, mask.T.shape).T, mask)
    np.testing.assert_array_equal(np.reshape(by_pixel, mask.T.shape).T, mask)


@pytest.mark.parametrize("counts", ["0", "~", "o", "5", "00000000000000000", "P"])
def test_a_damaged_mask_is_an_error(page: Page, counts: str) -> None:
    script = """async (counts) => {
      const { decodeEdges } = await import("./page/rle.js");
      try { decodeEdges(counts, 2, 2); return "decoded"; } catch (error) { return error.message; }
    }"""
    assert page.evaluate(script, counts).startswith("a mask ")


@pytest.mark.parametrize(
    "mask", [*SHAPES.values(), noise(3, 12, 8), noise(4, 40, 50)], ids=[*SHAPES, "noise 3", "noise 4"]
)
def test_polygons_enclose_exactly_the_mask(page: Page, mask: Mask) -> None:
    found = polygons(page, mask)
    rings = [ring for polygon in found for ring in (polygon["exterior"], *polygon["holes"])]
    np.testing.assert_array_equal(filled(rings, mask.shape), mask)
    for polygon in found:
        assert area(polygon["exterior"]) > 0 > max([-1.0, *map(area, polygon["holes"])])
        inside = filled([polygon["exterior"]], mask.shape)
        assert all(not (filled([hole], mask.shape) & ~inside).any() for hole in polygon["holes"])


def test_a_polygon_has_corners_only(page: Page) -> None:
    assert polygons(page, np.ones((4, 6), bool)) == [{"exterior": [6, 0, 6, 4, 0, 4, 0, 0], "holes": []}]


def test_a_hole_belongs_to_the_smallest_polygon_around_it(page: Page) -> None:
    mask = np.pad(np.pad(RING, 1), 1, constant_values=True)
    outer, inner = polygons(page, mask)
    assert [area(outer["exterior"]), area(inner["exterior"])] == [49, 9]
    assert [area(hole) for hole in outer["holes"]] == [-25]
    assert [area(hole) for hole in inner["holes"]] == [-1]


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5])
def test_the_path_that_is_drawn_stays_within_a_pixel_of_the_mask(page: Page, scale: float) -> None:
    yy, xx = np.mgrid[:60, :80]
    mask = ((yy - 30) / 25) ** 2 + ((xx - 40) / 33) ** 2 < 1
    mask &= ~(((yy - 30) / 8) ** 2 + ((xx - 40) / 12) ** 2 < 1)
    script = """async ({ counts, size: [height, width], scale }) => {
      const { decodeEdges } = await import("./page/rle.js"), { smoothPath, tracePolygons } = await import("./page/polygons.js");
      const path = smoothPath(tracePolygons(decodeEdges(counts, height, width), height), scale);
      const context = new OffscreenCanvas(1, 1).getContext("2d"), inside = [];
      for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
        inside.push(context.isPointInPath(path, (x + 0.5) * scale, (y + 0.5) * scale, "evenodd"));
      }
      return inside;
    }"""
    inside = np.reshape(page.evaluate(script, {**instance(mask)["mask"], "scale": scale}), mask.shape)
    reach = max(1, round(0.5 / scale))  # image pixels: half a display pixel, and at least half an image pixel
    padded = np.pad(mask, reach, mode="edge")
    sides = range(2 * reach + 1)
    neighbours = [padded[y : y + 60, x : x + 80] for y in sides for x in sides]
    surely_in, surely_out = np.logical_and.reduce(neighbours), ~np.logical_or.reduce(neighbours)
    assert inside[surely_in].all()
    assert not inside[surely_out].any()


def test_labels_do_not_cover_each_other(page: Page) -> None:
    script = """async () => {
      const { placeLabels } = await import("./page/labels.js"), labels = [];
      for (let i = 0; i < 60; i++) {
        const x = (i * 37) % 700;
        labels.push({ width: 70, height: 20, box: [x, (i * 53) % 500, 40 + i, 60], peakX: x + 9 });
      }
      return placeLabels(labels, 800, 600).map((place) => place && [place.x, place.y]);
    }"""
    places = [place for place in page.evaluate(script) if place]
    assert len(places) > 50
    for i, (x, y) in enumerate(places):
        assert 0 <= x <= 730
        assert 0 <= y <= 580
        assert all(abs(x - other_x) >= 70 or abs(y - other_y) >= 20 for other_x, other_y in places[:i])
