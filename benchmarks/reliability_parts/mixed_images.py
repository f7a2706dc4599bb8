"""Images in many sizes and formats, cropped and resized from a few photographs by a seeded generator."""

from __future__ import annotations

import io
import random
from collections.abc import Iterable, Iterator

from PIL import Image

SIDES = (48, 800)
FORMATS: tuple[tuple[str, dict[str, object]], ...] = (
    ("JPEG", {"quality": 90}),
    ("JPEG", {"quality": 75, "progressive": True}),
    ("PNG", {"compress_level": 1}),
    ("WEBP", {"quality": 80, "method": 0}),
    ("BMP", {}),
)


def mixed(bodies: Iterable[bytes], count: int, seed: int) -> list[bytes]:
    """`count` encoded images, no two of the same size."""
    photographs = [Image.open(io.BytesIO(body)).convert("RGB") for body in bodies]
    rng = random.Random(seed)  # noqa: S311  # reproducible, not secret
    return [_encoded(_cropped(rng.choice(photographs), hw, rng), rng) for hw in _sizes(count, rng)]


def _sizes(count: int, rng: random.Random) -> Iterator[tuple[int, int]]:
    seen: set[tuple[int, int]] = set()
    while len(seen) < count:
        hw = rng.randint(*SIDES), rng.randint(*SIDES)
        if hw not in seen:
            seen.add(hw)
            yield hw


def _cropped(photograph: Image.Image, hw: tuple[int, int], rng: random.Random) -> Image.Image:
    """A random part of the photograph, resized to that size."""
    width, height = (rng.randint(side // 2, side) for side in photograph.size)
    left, top = rng.randint(0, photograph.width - width), rng.randint(0, photograph.height - height)
    return photograph.crop((left, top, left + width, top + height)).resize((hw[1], hw[0]), Image.Resampling.BICUBIC)


def _encoded(image: Image.Image, rng: random.Random) -> bytes:
    kind, options = rng.choice(FORMATS)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]  # each format has options of its own
    return buffer.getvalue()
