"""The tables of docs/gpu.md: estimates, memory, and what each kernel costs. No figure in them was measured on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpu_estimate import NETWORKS, SIZES, spec_of
from page_results import Results
from page_words import head, number, row
from solo_server.engine.device import BatchShape, network_layout
from solo_server.postprocess.cuda.memory import CudaLimits, slot_bytes

Lines = Iterator[str]
MIB = 2**20
BATCHES = (1, 8)


def gpu_estimate(results: Results) -> Lines:
    """Estimated milliseconds of one picture, FP16, and the frames per second that would be."""
    content = results.read("gpu_estimate")
    yield from head(
        "ESTIMATE, FP16, batch 1",
        "GPU",
        "network, least (estimate)",
        "network (estimate)",
        "post-processing (estimate)",
        "together (estimate)",
        "pictures/s (estimate)",
    )
    for entry in content["estimates"]:
        height, width = entry["padded_hw"]
        for gpu, told in entry["gpus"].items():
            network = told["network"][told["precision"]]
            times = (network["least_ms"], network["estimate_ms"], told["postprocess_estimate_ms"], told["estimate_ms"])
            yield row(
                f"{entry['network']}, {height}x{width}",
                gpu,
                *(f"{number(value)} ms" for value in times),
                number(told["estimate_fps"]),
            )
    yield from ("", "Assumed:", "")
    shares: dict[str, Any] = content["assumptions"]
    told = ", ".join(f"{name} {value}" for name, value in shares.items())
    yield f"- {told} (`benchmarks/gpu_estimate.py` says of each what it is);"
    scene = content["scene"]
    yield (
        f"- a crowded picture of {scene['original_hw'][1]}x{scene['original_hw'][0]}: {scene['candidates']} candidates of one "
        f"class on {scene['cells']} cells of each level, {scene['kept']} instances;"
    )
    yield from (f"- {gpu['title']}: {gpu['source']}." for gpu in content["gpus"].values())


def gpu_memory(_: Results) -> Lines:
    """MiB of one slot by `engine/device.py` and `postprocess/cuda/memory.py`."""
    yield from head(
        "one slot",
        "batch",
        "pictures, scores, features",
        "candidates, NMS",
        "masks",
        "answer",
        "together",
        "a picture more",
    )
    for name, variant in NETWORKS.items():
        spec = spec_of(variant)
        for hw in SIZES:
            sums = {n: _slot_mib(spec, hw, n) for n in BATCHES}
            for n, parts in sums.items():
                total = sum(parts)
                more = (sum(sums[BATCHES[-1]]) - sum(sums[BATCHES[0]])) / (BATCHES[-1] - BATCHES[0])
                cells = [f"{value:.0f} MiB" if value >= 1 else f"{value:.1f} MiB" for value in (*parts, total)]
                yield row(f"{name}, {hw[0]}x{hw[1]}", str(n), *cells, f"{more:.0f} MiB" if n == 1 else "")


def gpu_kernels(results: Results) -> Lines:
    """Registers and static shared memory of each kernel, as NVRTC's assembler counts them."""
    content = results.read("kernels")
    architectures = list(next(iter(content["kernels"].values())))
    yield from head("kernel", *(f"registers {name}" for name in architectures), "shared memory", "spilled")
    for name, costs in content["kernels"].items():
        spilled = sum(c["spill_store_bytes"] + c["spill_load_bytes"] for c in costs.values())
        shared = max(c["shared_bytes"] for c in costs.values())
        yield row(f"`{name}`", *(str(costs[a]["registers"]) for a in architectures), f"{shared} bytes", str(spilled))
    yield from ("", f"NVRTC {content['nvrtc']}; `python benchmarks/kernels.py -o benchmarks/results/kernels.json`.")


def _slot_mib(spec: Any, hw: tuple[int, int], pictures: int) -> tuple[float, ...]:
    """Network's memory; then post-processing's by what it is for."""
    shape = BatchShape(pictures, hw)
    layout = network_layout(spec, shape)
    network = (
        layout.images_bytes + layout.image_hw_bytes + layout.scores_bytes + layout.levels_bytes + layout.features_bytes
    )
    post = slot_bytes(spec, CudaLimits(), (shape,))
    masks = sum(
        post.get(name, 0) for name in ("logits", "tap_logits", "axis_maps", "bits", "boxes", "soft", "segment_runs")
    )
    answer = post["answer"]
    return tuple(size / MIB for size in (network, sum(post.values()) - masks - answer, masks, answer))
