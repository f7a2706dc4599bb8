"""Times the GPU path: by the paper's protocol, and for batches of growing size with trtexec's terms. Times have no verdict.

A batch is timed twice: by the host's clock, as a server runs it; then with CUDA events between its stages, which cost a little.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from solo_models import arithmetic
from solo_models.bundle import Bundle
from solo_models.spec import ModelSpec

from solo_server.pipeline.image import prepare
from solo_server.selftest.gpu_path import GpuPath
from solo_server.selftest.images import COCO_HW, coloured_shapes
from solo_server.selftest.progress import Log
from solo_server.selftest.roofline import known_gpu, least_ms
from solo_server.selftest.timing import BatchTimes, statistics_of, summary
from solo_server.types import PreparedImage, Query

PAPER_RUNS, PAPER_FPS, PAPER_GPU = 5, 22.5, "V100"  # SOLO, section 4: SOLO-512, mean of 5 runs
PAPER_SHORT_SIDE, PAPER_CLASSES = 512, 80
WARM_BATCHES = 3  # plain, captured, replayed


@dataclass(frozen=True, slots=True)
class TimingPlan:
    """sizes: numbers of images in a batch; batches, seconds: limits for each size, the first ends it; image_hw: of the image."""

    sizes: tuple[int, ...] = (1, 2, 4, 8, 16)
    batches: int = 50
    seconds: float = 5.0
    image_hw: tuple[int, int] = COCO_HW


def timed_image(spec: ModelSpec, original_hw: tuple[int, int]) -> PreparedImage:
    """A generated image, prepared for this network."""
    return prepare(coloured_shapes(*original_hw), spec.preprocess)


def paper_protocol(bundle: Bundle, gpu: GpuPath, plan: TimingPlan) -> dict[str, Any]:
    """Batch 1, one warm-up, mean of 5 runs: from prepared image to encoded instances, by the host's clock.

    Decoding and resizing are excluded, as in the paper's figure.
    """
    image, query = timed_image(bundle.spec, plan.image_hw), Query()
    taken_ms = [_segment_ms(gpu, [image], query) for _ in range(1 + PAPER_RUNS)][1:]
    times = [gpu.time([image], [query]) for _ in range(PAPER_RUNS)]
    mean_ms = sum(taken_ms) / len(taken_ms)
    return {
        "padded_hw": list(image.geometry.padded_hw),
        "runs_ms": [round(value, 3) for value in taken_ms],
        "mean_ms": round(mean_ms, 3),
        "fps": round(1e3 / mean_ms, 2),
        "gpu_ms": statistics_of([t.latency_ms for t in times]),
        "paper": _paper(bundle.spec, gpu),
        "roofline": roofline(bundle, gpu, image.geometry.padded_hw),
    }


def batch_sizes(bundle: Bundle, gpu: GpuPath, plan: TimingPlan, log: Log) -> dict[str, Any]:
    """Times of each batch size."""
    image = timed_image(bundle.spec, plan.image_hw)
    found = {}
    for size in plan.sizes:
        found[str(size)] = _one_size(gpu, [image] * size, plan)
        figures = found[str(size)]
        latency = figures["latency_ms"]
        log(
            f"batch {size}: GPU compute {figures['gpu_compute_time_ms']['median']:.2f} ms, latency median "
            f"{latency['median']:.2f} ms p99 {latency['p99']:.2f} ms, {figures['throughput_qps']:.1f} qps"
        )
    return {"padded_hw": list(image.geometry.padded_hw), "slots": 1, "sizes": found}


def roofline(bundle: Bundle, gpu: GpuPath, padded_hw: tuple[int, int]) -> dict[str, Any]:
    """Arithmetic of the network for one image, and its time at the GPU's peak."""
    gflop = arithmetic.needed(bundle.spec, padded_hw).total
    model = None if gpu.is_fake else known_gpu(gpu.device.info.name)
    known = {} if model is None else {
        "gpu": model.title,
        "peak_tflops": model.peak(bundle.precision),
        "least_ms": round(least_ms(gflop, model, bundle.precision), 3),
        "source": model.source,
    }  # fmt: skip
    return {"gflop": round(gflop, 2), "precision": bundle.precision, **known}


def _one_size(gpu: GpuPath, images: Sequence[PreparedImage], plan: TimingPlan) -> dict[str, Any]:
    queries = [Query()] * len(images)
    for _ in range(WARM_BATCHES):
        gpu.backend.infer(images, queries)
    plain_ms = _repeated(plan, lambda: _infer_ms(gpu, images))
    marked: list[BatchTimes] = _repeated(plan, lambda: gpu.time(images, queries))
    seconds = sum(plain_ms) / 1e3
    figures = summary(marked, len(images))
    figures["host_walltime_ms"] = statistics_of(plain_ms)
    figures["throughput_qps"] = round(len(plain_ms) / seconds, 3)
    figures["images_per_second"] = round(len(plain_ms) * len(images) / seconds, 3)
    return figures


def _repeated(plan: TimingPlan, once: Callable[[], Any]) -> list[Any]:
    start = perf_counter()
    found: list[Any] = []
    while len(found) < plan.batches and (not found or perf_counter() - start < plan.seconds):
        found.append(once())
    return found


def _infer_ms(gpu: GpuPath, images: Sequence[PreparedImage]) -> float:
    start = perf_counter()
    gpu.backend.infer(images, [Query()] * len(images))
    return (perf_counter() - start) * 1e3


def _segment_ms(gpu: GpuPath, images: Sequence[PreparedImage], query: Query) -> float:
    start = perf_counter()
    gpu.segment(images, [query] * len(images))
    return (perf_counter() - start) * 1e3


def _paper(spec: ModelSpec, gpu: GpuPath) -> dict[str, Any]:
    """The paper's figure, and whether ours is comparable."""
    differences = [
        reason
        for applies, reason in (
            (spec.variant != "solo" or spec.backbone != "resnet50", f"the network is {spec.variant} {spec.backbone}"),
            (spec.preprocess.short_side != PAPER_SHORT_SIDE, f"the short side is {spec.preprocess.short_side}"),
            (spec.num_classes != PAPER_CLASSES, f"there are {spec.num_classes} classes"),
            (gpu.is_fake, "there is no GPU"),
            (not gpu.is_fake and PAPER_GPU not in gpu.device.info.name, "the GPU is no V100"),
        )
        if applies
    ]
    return {"fps": PAPER_FPS, "gpu": PAPER_GPU, "is_comparable": not differences, "because": "; ".join(differences)}
