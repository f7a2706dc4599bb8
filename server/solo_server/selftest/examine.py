"""Runs all parts of a self-test in order. A part that raises fails alone, unless the GPU is lost.

network, post-processing, answers: image by image ─► batch ─► paper ─► batches ─► memory
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from solo_models.bundle import Bundle
from solo_models.sizes import size_text

from solo_server.errors import DeviceLost
from solo_server.selftest import parity
from solo_server.selftest.document import MEASURED, Part, failed_part, judged_part, skipped_part
from solo_server.selftest.gpu_path import GpuPath
from solo_server.selftest.images import NamedImage
from solo_server.selftest.measuring import TimingPlan, batch_sizes, paper_protocol
from solo_server.selftest.opening import OpenedGpu
from solo_server.selftest.parity import Comparison, Parity
from solo_server.selftest.probe import free_memory
from solo_server.selftest.progress import Log

LARGEST_BATCH = 4  # of the parity part: one image a query
SMALL_BUFFERS = "small buffers"
PARTS = (*parity.PARTS, SMALL_BUFFERS, "paper", "batches", "memory")


def examine(opened: OpenedGpu, images: Sequence[NamedImage], plan: TimingPlan, log: Log) -> dict[str, Part]:
    """The result of every part, by name."""
    bundle, gpu = opened.bundle, opened.gpu
    parts: dict[str, Part] = {}
    try:
        parts |= _compared(Parity(bundle, gpu), images, max(plan.sizes), log)
        jobs: dict[str, Callable[[], Part]] = {
            SMALL_BUFFERS: lambda: _small_buffers(opened, images[-1], plan),
            "paper": lambda: _paper(bundle, gpu, plan),
            "batches": lambda: _batches(bundle, gpu, plan, log),
            "memory": lambda: _memory(gpu),
        }
        for name, job in jobs.items():
            log(f"{name} ...")
            parts[name] = _guarded(job)
            log(f"{name}: {parts[name]['verdict']}: {parts[name]['said']}")
    except DeviceLost as problem:
        log(f"the GPU is lost: {problem}")
        lost = failed_part(problem, "run")
        names = [name for name in PARTS if name not in parts]
        parts |= {names[0]: lost} | {name: skipped_part("the GPU was lost earlier") for name in names[1:]}
    return parts


def _compared(both: Parity, images: Sequence[NamedImage], most: int, log: Log) -> dict[str, Part]:
    """The four parity parts. An image that raises fails its part."""
    found: dict[str, list[Comparison]] = {name: [] for name in parity.PARTS}
    broken: dict[str, Part] = {}
    comparing: list[tuple[str, Callable[[], Iterator[Comparison]]]] = [
        *((image.name, partial(both.compare_image, image)) for image in images),
        ("batch", partial(both.compare_batch, images[-1], min(most, LARGEST_BATCH))),
    ]
    for number, (name, compare) in enumerate(comparing, 1):
        expected = [parity.PARTS[-1]] if name == "batch" else list(parity.PARTS[:-1])
        try:
            for comparison in compare():
                found[comparison.part].append(comparison)
        except DeviceLost:
            raise
        except Exception as problem:  # the report has to show any failure
            broken.setdefault(expected[0], failed_part(problem, "run"))
        log(f"parity {number}/{len(comparing)}: {name}: {_result(found, expected, name)}")
    nothing = skipped_part("an earlier part raised")
    return {
        name: broken.get(name) or (judged_part(comparisons) if comparisons else nothing)
        for name, comparisons in found.items()
    }


def _result(found: dict[str, list[Comparison]], names: Sequence[str], image: str) -> str:
    mine = [c for name in names for c in found[name] if name == "batch" or c.image == image]
    problems = [f"{c.part}: {d.stage}: {d.problem}" for c in mine for d in c.differences if d.problem]
    return problems[0] if problems else "equal within tolerance" if mine else "raised"


def _guarded(job: Callable[[], Part]) -> Part:
    try:
        return job()
    except DeviceLost:
        raise
    except Exception as problem:  # the report has to show any failure
        return failed_part(problem, "run")


def _small_buffers(opened: OpenedGpu, image: NamedImage, plan: TimingPlan) -> Part:
    """A batch as in the part before, with buffers so small that it takes many passes and windows."""
    gpu = opened.open_small_buffers()
    try:
        return judged_part(list(Parity(opened.bundle, gpu).compare_batch(image, min(max(plan.sizes), LARGEST_BATCH))))
    finally:
        gpu.backend.close()


def _paper(bundle: Bundle, gpu: GpuPath, plan: TimingPlan) -> Part:
    timing = paper_protocol(bundle, gpu, plan)
    paper = timing["paper"]
    beside = (
        f"the paper's {paper['fps']} FPS on a V100" if paper["is_comparable"] else f"not comparable: {paper['because']}"
    )
    summary = f"{timing['fps']} FPS, {timing['mean_ms']} ms an image at {size_text(timing['padded_hw'])} ({beside})"
    least = timing["roofline"].get("least_ms")
    return {
        "verdict": MEASURED,
        "said": summary + (f"; no less than {least} ms by the data sheet" if least else ""),
        **timing,
    }


def _batches(bundle: Bundle, gpu: GpuPath, plan: TimingPlan, log: Log) -> Part:
    timing = batch_sizes(bundle, gpu, plan, log)
    best = max(timing["sizes"].values(), key=lambda size: size["images_per_second"])
    summary = f"{best['images_per_second']} images/s at best, in batches of {best['images']}, one batch at a time"
    return {"verdict": MEASURED, "said": summary, **timing}


def _memory(gpu: GpuPath) -> Part:
    """Our buffers by name; on a GPU also the free memory by the driver, which counts weights and the context too."""
    device, driver = gpu.device.device_bytes(), {} if gpu.is_fake else free_memory()
    summary = f"{sum(device.values()) / 2**20:.0f} MiB allocated for one slot"
    if driver:
        summary += (
            f", {(driver['total_bytes'] - driver['free_bytes']) / 2**20:.0f} MiB of the GPU in use by all processes"
        )
    memory: dict[str, Any] = {"device_bytes": device, "pinned_bytes": gpu.device.pinned_bytes, "driver": driver}
    return {"verdict": MEASURED, "said": summary, "memory": memory}
