"""The page in Debian's chromium: when it can be used, hovering, the camera's frames compared with the pipeline's own rate.

    .venv-page/bin/python benchmarks/page.py [--quick] [--busy] [-o benchmarks/results/page.json]

Server and pipeline have one half of this machine's cores and the browser the other, since a browser mostly has a machine of its
own. Hovering: 100 made-up instances on an image of 1920x1080, drawn on as many canvas pixels; from the pointer's event to the
highlighted pixels. Camera: chromium's made-up one, in rounds that alternate with the pipeline in process on one of its frames,
from JPEG to instances. Exit status 3 if the machine is not idle.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from record import write_record
from reliability_parts import in_process
from reliability_parts.figures import ratios, spread, tails
from reliability_parts.loads import in_child, served
from reliability_parts.run_options import IDLE_SHARE, log, others_share
from solo_results.rle import encode_rle
from solo_server.bench.load.server_process import ServerProcess

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = ("--use-fake-device-for-media-stream=fps=60", "--use-fake-ui-for-media-stream")
BUSY_STATUS = 3
_CORES = os.sched_getaffinity(0)
TASKS = {0: "in_process", 2: "one_by_one"}
"""Of `reliability_parts/in_process.py`: one image a thread, as many as the server has; and one after the other."""
WIDTH, HEIGHT, INSTANCES = 1920, 1080, 100
LARGE_WINDOW = {"width": 2320, "height": 1330}  # whose stage has more than 1920x1080 pixels
HOVER = """(count) => {
  const canvas = document.getElementById("top"), context = canvas.getContext("2d"), box = canvas.getBoundingClientRect();
  const found = [];
  for (let i = 0; i < count; i++) {
    const clientX = box.left + box.width * ((i * 0.618034) % 1), clientY = box.top + box.height * ((i * 0.754878) % 1);
    const start = performance.now();
    canvas.dispatchEvent(new PointerEvent("pointermove", { clientX, clientY, bubbles: true }));
    context.getImageData(0, 0, 1, 1); // waits until all of it is drawn
    found.push(performance.now() - start);
  }
  return { ms: found, size: [canvas.width, canvas.height] };
}"""
SLIDE = """async (count) => {
  const slider = document.getElementById("score"), canvas = document.getElementById("masks"), found = [];
  for (let i = 0; i < count; i++) {
    slider.value = 0.05 + 0.01 * (i % 5);
    const start = performance.now();
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    canvas.getContext("2d").getImageData(0, 0, 1, 1);
    found.push(performance.now() - start);
  }
  return found;
}"""
COUNT = """() => {
  window.counted = [];
  document.addEventListener("solo:frame", ({ detail }) => window.counted.push([performance.now(), detail.latencyMs]));
}"""
FRAME = """async () => {
  const video = document.getElementById("video"), canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0);
  const bytes = new Uint8Array(await (await canvas.convertToBlob({ type: "image/jpeg", quality: 0.85 })).arrayBuffer());
  return btoa(String.fromCharCode(...bytes));
}"""


def main() -> int:
    """Measure and print, or write."""
    arguments = _parser().parse_args()
    share = others_share() or 0.0
    if share > IDLE_SHARE and not (arguments.busy or arguments.quick):
        log(f"page: NOT IDLE: other processes use {100 * share:.0f} % of the machine; wait, or use --busy")
        return BUSY_STATUS
    with _server() as server, _on_half(1), sync_playwright() as playwright:
        url = f"http://{server.address.host}:{server.address.port}/"
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        found = {
            "chromium": browser.version,
            "cores": {"server": len(_half(0)), "browser": len(_half(1))},
            "interactive_ms": tails(_interactive(browser, url, 3 if arguments.quick else 20), 50, 100),
            **_pointer(browser, url, 20 if arguments.quick else 500),
            "camera": _camera(browser, url, arguments.quick),
            "quick": arguments.quick,
            "others_before": share,
        }
        browser.close()
    if arguments.output is not None:
        write_record(arguments.output, found)
    log(json.dumps(found, indent=1))
    return 0


def _half(number: int) -> set[int]:
    """The cores of the server (0) or of the browser (1); the same one where there is only one."""
    cores = sorted(_CORES)
    return set(cores[: len(cores) // 2] if number == 0 else cores[len(cores) // 2 :]) or _CORES


@contextmanager
def _on_half(number: int) -> Iterator[None]:
    """Processes that are started here run on one half of the cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, _half(number))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _server() -> Iterator[ServerProcess]:
    with _on_half(0), served() as server:
        yield server


def _interactive(browser: Browser, url: str, count: int) -> list[float]:
    """Milliseconds from the start of the navigation until the page's scripts have run, each in a fresh profile."""
    found = []
    for _ in range(count):
        page = _open(browser, url)
        found.append(float(page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")))
        page.context.close()
    return found


def _pointer(browser: Browser, url: str, count: int) -> dict[str, Any]:
    """Milliseconds of hovering, and of drawing all instances after a move of the slider."""
    page = _open(browser, url, viewport=LARGE_WINDOW)
    content = _answer()
    page.route("**/segment?*", lambda route: route.fulfill(json=content))
    page.set_input_files("#files", {"name": "made-up.png", "mimeType": "image/png", "buffer": _image()})
    page.wait_for_selector(f"#instance-{INSTANCES - 1}")
    page.wait_for_timeout(500)
    page.evaluate(HOVER, 10)
    hover, slide = page.evaluate(HOVER, count), page.evaluate(SLIDE, max(5, count // 10))
    page.context.close()
    return {
        "canvas": hover["size"],
        "instances": INSTANCES,
        "hover_ms": tails(hover["ms"], 50, 99, 100),
        "slider_ms": tails(slide, 50, 100),
    }


def _camera(browser: Browser, url: str, is_quick: bool) -> dict[str, Any]:
    """Frames per second of the camera and of the pipeline in process, in alternating rounds; the latency in frames of that rate."""
    seconds, rounds, count = (2, 1, 10) if is_quick else (10, 5, 200)
    frame = _camera_frame(browser, url)
    found: list[dict[str, float]] = []
    with _on_half(0), in_child(in_process.__file__, {"frame.jpg": frame}, 8, count) as child:
        child.run_task(0)
        for _ in range(rounds):
            rates = {name: round(count / child.run_task(task).total_ms * 1e3, 2) for task, name in TASKS.items()}
            found.append({**rates, **_streamed(browser, url, seconds)})
            log(f"camera: {found[-1]}")
    names = (*TASKS.values(), "fps", "latency_ms", "latency_frames")
    summary = {name: spread([one[name] for one in found], 2) for name in names}
    fps = [one["fps"] for one in found]
    quotients = {f"fps_to_{name}": ratios(fps, [one[name] for one in found]) for name in TASKS.values()}
    return {"frame_wh": Image.open(BytesIO(frame)).size, "rounds": found, **summary, "ratios": quotients}


def _streamed(browser: Browser, url: str, seconds: float) -> dict[str, float]:
    page = _open(browser, url)
    page.evaluate(COUNT)
    page.click("#start-camera")
    page.wait_for_function("() => window.counted.length > 10")
    page.evaluate("window.counted.length = 0")
    page.wait_for_timeout(1000 * seconds)
    counted: NDArray[np.float64] = np.array(page.evaluate("window.counted"))
    page.context.close()
    fps = float(1000 * (len(counted) - 1) / (counted[-1, 0] - counted[0, 0]))
    latency = float(np.median(counted[:, 1]))
    return {"fps": round(fps, 2), "latency_ms": round(latency, 1), "latency_frames": round(latency * fps / 1000, 2)}


def _camera_frame(browser: Browser, url: str) -> bytes:
    page = _open(browser, url)
    page.click("#start-camera")
    page.wait_for_function("() => document.getElementById('video').videoWidth > 0")
    frame = base64.b64decode(page.evaluate(FRAME))
    page.context.close()
    return frame


def _open(browser: Browser, url: str, **options: Any) -> Page:
    page = browser.new_context(**options).new_page()
    page.goto(url)
    return page


def _answer() -> dict[str, Any]:
    instances = [_instance(number) for number in range(INSTANCES)]
    content = {"image": {"width": WIDTH, "height": HEIGHT}, "model": {"name": "made-up", "version": "1"}}
    return {**content, "timings_ms": {"total": 1.0}, "instances": instances}


def _instance(number: int) -> dict[str, Any]:
    """A star with a hole; all overlap others."""
    x, y = WIDTH * ((number * 0.618034) % 1), HEIGHT * ((number * 0.754878) % 1)
    yy, xx = np.mgrid[:HEIGHT, :WIDTH]
    radius, angle = np.hypot(xx - x, yy - y), np.arctan2(yy - y, xx - x)
    size = 60 + 1.5 * number
    mask = (radius < size * (1 + 0.3 * np.sin(7 * angle))) & (radius > size / 4)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0]) + 1, int(rows[-1] - rows[0]) + 1]
    rle = {"size": [HEIGHT, WIDTH], "counts": encode_rle(mask)}
    return {"label": f"class {number % 20}", "class_id": number % 20, "score": round(0.99 - 0.005 * number, 3), "box_xywh": box,
            "area": int(mask.sum()), "mask": rle}  # fmt: skip


def _image() -> bytes:
    out = BytesIO()
    ramp = np.linspace(60, 190, WIDTH, dtype=np.uint8)
    Image.fromarray(np.broadcast_to(ramp[None, :, None], (HEIGHT, WIDTH, 3)).copy()).save(out, "PNG")
    return out.getvalue()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="seconds instead of minutes, for trying it out")
    parser.add_argument("--busy", action="store_true", help="measure although other processes use the machine")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
