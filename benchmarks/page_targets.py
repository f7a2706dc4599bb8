"""The targets of issue 4, and how each figure is read from the result files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from page_markdown import number
from page_results import Results, after_towers_ratio, memory_ratio, time_ratio

COMMON_WORK = (
    "backbone and neck take most of the remaining time, and the reference runs the same convolutions nearly as fast"
)
NO_VNNI = (
    "this processor has AVX2 but no VNNI, so INT8 products run at most at twice the float32 rate; "
    "the target was set on a machine with VNNI"
)


@dataclass(frozen=True, slots=True)
class Target:
    """A target for one figure. found: the figure, and its text; unreached: why it is not met, if it is not."""

    what: str
    wanted: str
    holds: Callable[[float], bool]
    found: Callable[[Results], tuple[float, str]]
    unreached: str


def _share_of_best(results: Results) -> tuple[float, str]:
    entries = results.read("bench_engine_solo_r50")["contenders"]
    total = next(r for r in entries[0]["batches"][0]["rates"] if r["part"] == "total")
    return total["share"], f"{100 * total['share']:.0f} %"


def _faster(file: str, precision: str) -> Callable[[Results], tuple[float, str]]:
    def found(results: Results) -> tuple[float, str]:
        ratio, low, high = time_ratio(results.peer(file, "mmdet"), results.ours(file, precision))
        return ratio, f"{ratio:.2f}x (rounds {low:.2f} to {high:.2f})"

    return found


def _after_towers(file: str) -> Callable[[Results], tuple[float, str]]:
    def found(results: Results) -> tuple[float, str]:
        theirs, ours = results.peer(file, "mmdet"), results.ours(file, "fp32")
        ratio = after_towers_ratio(theirs, ours)
        times = [number(c.figures["after_towers_ms"]) for c in (theirs, ours)]
        return ratio, f"{ratio:.0f}x ({times[0]} ms to {times[1]} ms)"

    return found


def _memory(file: str) -> Callable[[Results], tuple[float, str]]:
    def found(results: Results) -> tuple[float, str]:
        ours, theirs = results.ours(file, "fp32"), results.peer(file, "mmdet")
        sizes = f"{ours.figures['peak_rss_mib']:.0f} MiB of {theirs.figures['peak_rss_mib']:.0f}"
        return memory_ratio(ours, theirs), f"{memory_ratio(ours, theirs):.2f}x ({sizes})"

    return found


def _demo_speed(results: Results) -> tuple[float, str]:
    fps = results.ours("bench_demo", "fp32").figures["fps"]
    return fps, f"{fps:.1f} images/s"


def _at_least(floor: float) -> Callable[[float], bool]:
    return lambda value: value >= floor


def _speed_target(name: str, precision: str, floor: float, file: str) -> Target:
    why = NO_VNNI if precision == "int8" else COMMON_WORK
    return Target(f"{name}, bytes to RLE, {precision}", f">= {floor}x", _at_least(floor), _faster(file, precision), why)


def _memory_target(name: str, file: str, why: str) -> Target:
    return Target(f"{name}, fp32, peak resident memory", "<= 0.4x", lambda value: value <= 0.4, _memory(file), why)


SMALL_REFERENCE = (
    "the reference needs only about 1 GiB here, and our interpreter, libraries, weights and activations of one image set a "
    "lower bound"
)
TARGETS = (
    _speed_target("SOLO R50", "fp32", 2.0, "bench_solo_r50"),
    _speed_target("SOLO R50", "int8", 5.5, "bench_solo_r50"),
    _speed_target("Decoupled SOLO R50", "fp32", 1.4, "bench_decoupled_solo_r50"),
    _speed_target("Decoupled SOLO R50", "int8", 4.2, "bench_decoupled_solo_r50"),
    _speed_target("Decoupled SOLO Light R50", "fp32", 1.6, "bench_decoupled_solo_light_r50"),
    _speed_target("Decoupled SOLO Light R50", "int8", 5.0, "bench_decoupled_solo_light_r50"),
    _speed_target("SOLO R50 with candidates on levels 2 to 4 only", "fp32", 3.0, "bench_solo_r50_coarse"),
    *(
        Target(
            f"SOLO R50, everything after the mask tower, original {size}",
            ">= 20x",
            _at_least(20),
            _after_towers(file),
            "the remaining few milliseconds are products, resampling and encoding of each mask",
        )
        for size, file in (("640x480", "bench_solo_r50"), ("1920x1080", "bench_solo_r50_1080p"))
    ),
    _memory_target("SOLO R50", "bench_solo_r50", "weights and activations of one image set a lower bound"),
    _memory_target("Decoupled SOLO R50", "bench_decoupled_solo_r50", SMALL_REFERENCE),
    _memory_target("Decoupled SOLO Light R50", "bench_decoupled_solo_light_r50", SMALL_REFERENCE),
    Target(
        "SOLO R50, network stage in fp32, relative to the best matrix-product rate",
        ">= 80 %",
        _at_least(0.8),
        _share_of_best,
        "the backbone and the neck run in ONNX Runtime, below the rate of large matrix products",
    ),
    Target(
        "demo model, bytes to RLE, one image at a time",
        ">= 15 images/s",
        _at_least(15),
        _demo_speed,
        "the network in ONNX Runtime takes nearly all of the time",
    ),
)
