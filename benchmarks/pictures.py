"""The pictures of README.md and docs/page.md: `make pictures` writes them again.

    docs/figures/demo.jpg       the demo model's answers for the page's sample images, drawn, side by side
    docs/figures/page.jpg       the page with the same images
    docs/figures/cut_out.jpg    the page with one person cut out, in dark mode

All are real results of a server that is started for them.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from draw_page import draw_page
from PIL import Image
from reliability_parts.loads import served
from reliability_parts.run_options import ROOT, log
from solo_client import SoloClient

FIGURES = ROOT / "docs" / "figures"
SAMPLES = ROOT / "server" / "solo_server" / "http" / "page"
NAMES = ("astronaut", "riders", "child")
HEIGHT, GAP = 400, 8  # pixels
SHOTS = {"result": "page", "cut-out": "cut_out"}


def main() -> int:
    """Write all of them."""
    with served() as server, tempfile.TemporaryDirectory() as scratch:
        url = f"http://{server.address.host}:{server.address.port}/"
        with SoloClient(url) as client:
            drawn = [client.segment(SAMPLES / f"{name}.jpg").draw(below=0.3) for name in NAMES]
        _save(side_by_side(drawn), "demo")
        draw_page(url, Path(scratch))
        for shot, name in SHOTS.items():
            _save(Image.open(Path(scratch, f"{shot}.png")).convert("RGB"), name)
    return 0


def side_by_side(images: list[Image.Image]) -> Image.Image:
    """The images reduced to one height, on white."""
    reduced = [
        image.resize((round(image.width * HEIGHT / image.height), HEIGHT), Image.Resampling.LANCZOS) for image in images
    ]
    row = Image.new("RGB", (sum(image.width for image in reduced) + GAP * (len(reduced) - 1), HEIGHT), "white")
    left = 0
    for image in reduced:
        row.paste(image, (left, 0))
        left += image.width + GAP
    return row


def _save(image: Image.Image, name: str) -> None:
    path = FIGURES / f"{name}.jpg"
    image.save(path, quality=88, optimize=True)
    log(f"wrote {path.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
