"""All parts of a self-test in their order; a part that raises is told of and ends nothing but itself, unless the GPU is lost.

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
from solo_server.selftest.document import MEASURED, Part, failed, judged, not_run
from solo_server.selftest.gpu_path import GpuPath
from solo_server.selftest.images import NamedImage
from solo_server.selftest.measuring import Plan, Say, batch_sizes, paper_protocol
from solo_server.selftest.opening import Opened
from solo_server.selftest.parity import Comparison, Parity
from solo_server.selftest.probe import free_memory

LARGEST_BATCH = 4  # of the parity part: one image a query
SMALL_BUFFERS = "small buffers"
PARTS = (*parity.PARTS, SMALL_BUFFERS, "paper", "batches", "memory")


def examine(opened: Opened, images: Sequence[NamedImage], plan: Plan, say: Say) -> dict[str, Part]:
    """Verdicts and figures of every part, by name."""
    bundle, gpu = opened.bundle, opened.gpu
    parts: dict[str, Part] = {}
    try:
        parts |= _compared(Parity(bundle, gpu), images, max(plan.sizes), say)
        works: dict[str, Callable[[], Part]] = {
            SMALL_BUFFERS: lambda: _cramped(opened, images[-1], plan),
            "paper": lambda: _paper(bundle, gpu, plan),
            "batches": lambda: _batches(bundle, gpu, plan, say),
            "memory": lambda: _memory(gpu),
        }
        for name, work in works.items():
            say(f"{name} ...")
            parts[name] = _guarded(work)
            say(f"{name}: {parts[name]['verdict']}: {parts[name]['said']}")
    except DeviceLost as problem:
        say(f"the GPU is lost: {problem}")
        lost = failed(problem, "run")
        names = [name for name in PARTS if name not in parts]
        parts |= {names[0]: lost} | {name: not_run("the GPU was lost before") for name in names[1:]}
    return parts


def _compared(both: Parity, images: Sequence[NamedImage], most: int, say: Say) -> dict[str, Part]:
    """The four parity parts. An image that raises fails the part that it was in."""
    found: dict[str, list[Comparison]] = {name: [] for name in parity.PARTS}
    broken: dict[str, Part] = {}
    jobs: list[tuple[str, Callable[[], Iterator[Comparison]]]] = [
        *((image.name, partial(both.image, image)) for image in images),
        ("batch", partial(both.batch, images[-1], min(most, LARGEST_BATCH))),
    ]
    for number, (name, compare) in enumerate(jobs, 1):
        expected = [parity.PARTS[-1]] if name == "batch" else list(parity.PARTS[:-1])
        try:
            for comparison in compare():
                found[comparison.part].append(comparison)
        except DeviceLost:
            raise
        except Exception as problem:  # whatever it is, whoever reads the report must hear of it
            broken.setdefault(expected[0], failed(problem, "run"))
        say(f"parity {number}/{len(jobs)}: {name}: {_told(found, expected, name)}")
    nothing = not_run("a part before it raised")
    return {
        name: broken.get(name) or (judged(comparisons) if comparisons else nothing)
        for name, comparisons in found.items()
    }


def _told(found: dict[str, list[Comparison]], names: Sequence[str], image: str) -> str:
    mine = [c for name in names for c in found[name] if name == "batch" or c.image == image]
    problems = [f"{c.part}: {d.stage}: {d.problem}" for c in mine for d in c.differences if d.problem]
    return problems[0] if problems else "equal within tolerance" if mine else "raised"


def _guarded(work: Callable[[], Part]) -> Part:
    try:
        return work()
    except DeviceLost:
        raise
    except Exception as problem:  # as above
        return failed(problem, "run")


def _cramped(opened: Opened, image: NamedImage, plan: Plan) -> Part:
    """A batch as in the part before, with room for so few instances and runs that there are many passes and windows."""
    gpu = opened.open_cramped()
    try:
        return judged(list(Parity(opened.bundle, gpu).batch(image, min(max(plan.sizes), LARGEST_BATCH))))
    finally:
        gpu.backend.close()


def _paper(bundle: Bundle, gpu: GpuPath, plan: Plan) -> Part:
    told = paper_protocol(bundle, gpu, plan)
    paper = told["paper"]
    beside = (
        f"the paper's {paper['fps']} FPS on a V100" if paper["is_comparable"] else f"not comparable: {paper['because']}"
    )
    said = f"{told['fps']} FPS, {told['mean_ms']} ms an image at {size_text(told['padded_hw'])} ({beside})"
    least = told["roofline"].get("least_ms")
    return {
        "verdict": MEASURED,
        "said": said + (f"; no less than {least} ms by the data sheet" if least else ""),
        **told,
    }


def _batches(bundle: Bundle, gpu: GpuPath, plan: Plan, say: Say) -> Part:
    told = batch_sizes(bundle, gpu, plan, say)
    best = max(told["sizes"].values(), key=lambda size: size["images_per_second"])
    said = f"{best['images_per_second']} images/s at best, in batches of {best['images']}, one batch at a time"
    return {"verdict": MEASURED, "said": said, **told}


def _memory(gpu: GpuPath) -> Part:
    """Ours by name; on a GPU what the driver says is left as well, which counts weights and the context, too."""
    device, driver = gpu.watched.device_bytes(), {} if gpu.is_fake else free_memory()
    said = f"{sum(device.values()) / 2**20:.0f} MiB allocated for one slot"
    if driver:
        said += f", {(driver['total_bytes'] - driver['free_bytes']) / 2**20:.0f} MiB of the GPU in use by everybody"
    memory: dict[str, Any] = {"device_bytes": device, "pinned_bytes": gpu.watched.pinned_bytes, "driver": driver}
    return {"verdict": MEASURED, "said": said, "memory": memory}
