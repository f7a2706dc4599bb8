"""The table of docs/performance.md about the page, overlays, polygons, streams and videos: targets, and what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from page_markdown import head, number, row
from page_results import NotMeasured, Results

Lines = Iterator[str]


@dataclass(frozen=True, slots=True)
class Look:
    """A target. read: the value, and its text, from the content of a result file."""

    what: str
    wanted: str
    file: str
    holds: Callable[[float], bool]
    read: Callable[[dict[str, Any]], tuple[float, str]]


def _ms(value: float) -> tuple[float, str]:
    return value, f"{number(value)} ms"


def _share(found: dict[str, Any]) -> tuple[float, str]:
    """Of `reliability_parts.figures.ratios`."""
    return found[
        "median"
    ], f"{100 * found['median']:.0f} % (rounds {100 * found['min']:.0f} to {100 * found['max']:.0f})"


def _stream_share(content: dict[str, Any]) -> tuple[float, str]:
    """Of the rate with one image a core, the pipeline's highest."""
    shares = [one["paced"] / one["run_to_completion"] for one in content["rounds"]]
    return _share({"median": median(shares), "min": min(shares), "max": max(shares)})


def _frames(found: dict[str, Any]) -> tuple[float, str]:
    return found[
        "median"
    ], f"{number(found['median'])} frames (rounds {number(found['min'])} to {number(found['max'])})"


def _memory(found: dict[str, Any]) -> tuple[float, str]:
    return found["growth_percent"], f"{number(found['growth_percent'])} %, at most {found['largest_mib']:.0f} MiB"


def _most(limit: float) -> Callable[[float], bool]:
    return lambda value: value <= limit


def _least(limit: float) -> Callable[[float], bool]:
    return lambda value: value >= limit


LOOKS = (
    Look(
        "page on loopback, until its scripts have run, median",
        "<= 300 ms",
        "page",
        _most(300),
        lambda c: _ms(c["interactive_ms"]["p50"]),
    ),
    Look(
        "page, answer to the pointer, 100 instances at 1920x1080, p99",
        "<= 16 ms",
        "page",
        _most(16),
        lambda c: _ms(c["hover_ms"]["p99"]),
    ),
    Look(
        "camera in the page, rate relative to the pipeline's own",
        ">= 90 %",
        "page",
        _least(0.9),
        lambda c: _share(c["camera"]["ratios"]["fps_to_in_process"]),
    ),
    Look(
        "camera in the page, from frame to masks",
        "<= 2 frames",
        "page",
        _most(2),
        lambda c: _frames(c["camera"]["latency_frames"]),
    ),
    Look(
        "stream to a Python client, rate relative to the pipeline's own",
        "",
        "stream",
        _least(0),
        _stream_share,
    ),
    Look(
        "stream to a Python client, from frame to masks",
        "<= 2 frames",
        "stream",
        _most(2),
        lambda c: _frames(c["streams"]["paced"]["latency_frames"]),
    ),
    Look(
        "overlay of 100 instances at 1920x1080, without PNG",
        "<= 60 ms",
        "draw",
        _most(60),
        lambda c: _ms(c["made_up"]["draw_ms"]),
    ),
    Look("its PNG", "", "draw", _least(0), lambda c: _ms(c["made_up"]["png_ms"])),
    Look(
        "polygons of 100 instances at 1920x1080",
        "<= 50 ms",
        "polygons",
        _most(50),
        lambda c: _ms(c["median_ms"]["polygons"]),
    ),
    Look(
        "OpenCV's contours of the same masks, decoded already",
        "",
        "polygons",
        _least(0),
        lambda c: _ms(c["median_ms"]["opencv_contours"]),
    ),
    Look(
        "video to JSON lines, rate relative to the pipeline's own",
        ">= 95 %",
        "video",
        _least(0.95),
        lambda c: _share(c["ratios"]["lines"]),
    ),
    Look(
        "video to JSON lines and an annotated MP4",
        ">= 95 %",
        "video",
        _least(0.95),
        lambda c: _share(c["ratios"]["overlay"]),
    ),
    Look(
        "growth of memory over 10,000 frames, with the MP4",
        "flat: <= 5 %",
        "video",
        _most(5),
        lambda c: _memory(c["memory"]),
    ),
)


def looks(results: Results) -> Lines:
    """Targets for what people look at, and figures of peers on the same work."""
    yield from head("", "target", "measured", "met")
    for look in LOOKS:
        try:
            value, text = look.read(results.read(look.file))
        except NotMeasured:
            yield row(look.what, look.wanted, "not measured yet", "")
            continue
        met = ("yes" if look.holds(value) else "**no**") if look.wanted else ""
        yield row(look.what, look.wanted, text, met)
