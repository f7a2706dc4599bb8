"""Answers that are made up, and what tests do with the page again and again."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, Route, expect
from solo_results.rle import encode_rle
from support.paths import ASTRONAUT

Mask = NDArray[np.bool_]
CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)
RING = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)


def instance(mask: Mask, label: str = "cat", class_id: int = 0, score: float = 0.9) -> dict[str, Any]:
    """One instance of an answer. mask: (H, W) bool, not empty."""
    ys, xs = np.nonzero(mask)
    left, top = int(xs.min()), int(ys.min())
    box = [left, top, int(xs.max()) + 1 - left, int(ys.max()) + 1 - top]
    rle = {"size": list(mask.shape), "counts": encode_rle(mask)}
    return {"label": label, "class_id": class_id, "score": score, "box_xywh": box, "area": len(xs), "mask": rle}


def answer(instances: Sequence[dict[str, Any]], width: int, height: int) -> dict[str, Any]:
    """An answer of POST /segment."""
    stages = {"queue": 0.1, "decode": 2.0, "categories": 30.0, "masks": 3.0, "total": 35.1}
    return {"image": {"width": width, "height": height}, "model": {"name": "made-up", "version": "1"}, "timings_ms": stages,
            "instances": list(instances)}  # fmt: skip


def answer_with(page: Page, content: dict[str, Any], status: int = 200) -> None:
    """Let every request for instances be answered with this."""
    kind = "application/json" if status == 200 else "application/problem+json"

    def fulfil(route: Route) -> None:
        route.fulfill(status=status, content_type=kind, body=json.dumps(content))

    page.route("**/segment?*", fulfil)


def png(width: int, height: int, colour: tuple[int, int, int] = (90, 110, 130)) -> bytes:
    """An image of one colour."""
    out = BytesIO()
    Image.new("RGB", (width, height), colour).save(out, "PNG")
    return out.getvalue()


def file(content: bytes, name: str = "photo.png", media_type: str = "image/png") -> dict[str, Any]:
    """A file for `set_input_files`."""
    return {"name": name, "mimeType": media_type, "buffer": content}


def astronaut() -> dict[str, Any]:
    """The test image, as a file."""
    return file(ASTRONAUT.read_bytes(), "astronaut.jpg", "image/jpeg")


def show(page: Page, *files: dict[str, Any]) -> None:
    """Pick files and wait for the instances of the first."""
    page.set_input_files("#files", list(files))
    expect(page.locator("#instances li").first).to_be_visible()


def show_masks(page: Page, instances: Sequence[dict[str, Any]], width: int, height: int) -> None:
    """Show an image of this size with made-up instances."""
    answer_with(page, answer(instances, width, height))
    show(page, file(png(width, height)))


def transfer(page: Page, files: Sequence[dict[str, Any]]) -> Any:
    """A DataTransfer of the browser with files, as events of drop and paste have it."""
    sent = [{**each, "buffer": base64.b64encode(each["buffer"]).decode()} for each in files]
    return page.evaluate_handle(
        """(files) => {
          const transfer = new DataTransfer();
          for (const { name, mimeType, buffer } of files) {
            transfer.items.add(new File([Uint8Array.from(atob(buffer), (c) => c.charCodeAt(0))], name, { type: mimeType }));
          }
          return transfer;
        }""",
        sent,
    )


def point_at(page: Page, x: float, y: float, image: tuple[int, int]) -> None:
    """Move the pointer to a point of the image, in image pixels. image: its width and height."""
    page.mouse.move(*screen_point(page, x, y, image))


def screen_point(page: Page, x: float, y: float, image: tuple[int, int]) -> tuple[float, float]:
    """Where a point of the image is in the window."""
    width, height = image
    box = page.locator("#top").bounding_box()
    if box is None:
        raise RuntimeError("the stage is not shown")
    return box["x"] + x / width * box["width"], box["y"] + y / height * box["height"]


def pixels(page: Page, canvas: str) -> NDArray[np.uint8]:
    """The pixels of a canvas: (H, W, 4) uint8."""
    url = page.evaluate("(id) => document.getElementById(id).toDataURL('image/png')", canvas)
    return decode(base64.b64decode(url.split(",")[1]))


def decode(content: bytes) -> NDArray[np.uint8]:
    """An image file's pixels: (H, W, 4) uint8."""
    return np.asarray(Image.open(BytesIO(content)).convert("RGBA"))
