"""The tables of docs/gpu.md: self-tests on a GPU, estimates, memory, and the cost of each kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpu_estimate import NETWORKS, SIZES, spec_of
from page_markdown import head, number, row
from page_results import Results
from solo_models.sizes import size_text
from solo_server.backends.gpu.network import BatchShape, network_layout
from solo_server.backends.gpu.postprocess.memory import CudaLimits, slot_bytes
from solo_server.selftest.examine import SMALL_BUFFERS
from solo_server.selftest.parity import PARTS

Lines = Iterator[str]
MIB = 2**20
BATCHES = (1, 8)


SELF_TESTS = {
    "gpu_h200_demo": "demo model",
    "gpu_h200_solo_r50": "SOLO R50, random weights",
    "gpu_h200_decoupled_solo_r50": "Decoupled SOLO R50, random weights",
}
PARITY = (*PARTS, SMALL_BUFFERS)


def gpu_parity(results: Results) -> Lines:
    """Verdicts of the recorded self-tests, with the first finding of each FAIL."""
    yield from head("self-test", *PARITY)
    notes = []
    for name, title in SELF_TESTS.items():
        content = results.read(name)
        parts = [content["parts"][part] for part in PARITY]
        yield row(_tested(title, content), *(_verdict(part) for part in parts))
        notes += [
            f"- {title}, {name_of}: {part['said']}."
            for name_of, part in zip(PARITY, parts, strict=True)
            if part["verdict"] != "PASS"
        ]
    yield from ("", *notes)
    check = results.read("gpu_h200_check")
    yield ""
    yield "Kernels alone, with the network on the CPU (`benchmarks/gpu_check.py`), all five parts:"
    yield ""
    for name, parts in check["networks"].items():
        yield f"- {name}: {', '.join(sorted({part['verdict'] for part in parts.values()}))};"
    for tool, verdict in check["sanitizers"]["compute-sanitizer"].items():
        yield f"- compute-sanitizer {tool} ({check['sanitizers']['network']}): {verdict.lower()};"
    for failure in check["failures"]:
        yield f"- {failure};"
    device = check["device"]
    bindings = check["versions"]["cuda-bindings"]
    yield f"- {device['name']}, compute capability {device['compute_capability']}; cuda-bindings {bindings} unless noted."


def gpu_measured(results: Results) -> Lines:
    """Milliseconds per batch by CUDA events, and images per second by the host's clock, one batch at a time."""
    yield from head(
        "", "batch", "network", "post-processing", "copies", "host's clock", "images/s, one batch at a time"
    )
    for name, title in SELF_TESTS.items():
        content = results.read(name)
        batches = content["parts"]["batches"]
        for size in batches["sizes"].values():
            copies = size["h2d_latency_ms"]["median"] + size["d2h_latency_ms"]["median"]
            times = (
                size["network_ms"]["median"],
                size["postprocess_ms"]["median"],
                copies,
                size["host_walltime_ms"]["median"],
            )
            yield row(
                f"{_tested(title, content)}, {size_text(batches['padded_hw'])}",
                str(size["images"]),
                *(f"{number(value)} ms" for value in times),
                number(size["images_per_second"]),
            )
    yield ""
    for name in SELF_TESTS:
        content = results.read(name)
        link = f"[{name}.json](../benchmarks/results/{name}.json)"
        yield f"- {content['engine']['description']}: `{content['command']}`, {link};"


def gpu_network(results: Results) -> Lines:
    """Our graphs in ONNX Runtime, compared with the plain network in PyTorch."""
    content = results.read("gpu_h200_network")
    yield from head("", "what", "batch 1", "batch 8")
    cells: dict[tuple[str, str], dict[int, float]] = {}
    for entry in content["rows"]:
        cells.setdefault((entry["by"], entry["what"]), {})[entry["batch"]] = entry["ms"]
    for (by, what), times in cells.items():
        yield row(by, what, *(f"{number(times[n])} ms" if n in times else "" for n in BATCHES))
    versions = ", ".join(f"{name} {version}" for name, version in content["versions_gpu"].items())
    size = size_text(content["padded_hw"])
    yield from ("", f"{content['network']}, {size}; {versions}; `{content['command']}` ({content['note']}).")


def _tested(title: str, content: Any) -> str:
    return f"{title}, {content['bundle']['precision']}"


def _verdict(part: Any) -> str:
    return str(part["verdict"]) if part["verdict"] == "PASS" else f"**{part['verdict']}**"


def gpu_estimate(results: Results) -> Lines:
    """Estimated milliseconds per image in FP16, and the resulting frames per second."""
    content = results.read("gpu_estimate")
    yield from head(
        "ESTIMATE, FP16, batch 1",
        "GPU",
        "network, least (estimate)",
        "network (estimate)",
        "post-processing (estimate)",
        "together (estimate)",
        "images/s (estimate)",
    )
    for entry in content["estimates"]:
        for gpu, estimate in entry["gpus"].items():
            network = estimate["network"][estimate["precision"]]
            post_ms, total_ms = estimate["postprocess_estimate_ms"], estimate["estimate_ms"]
            times = (network["least_ms"], network["estimate_ms"], post_ms, total_ms)
            yield row(
                f"{entry['network']}, {size_text(entry['padded_hw'])}",
                gpu,
                *(f"{number(value)} ms" for value in times),
                number(estimate["estimate_fps"]),
            )
    yield from ("", "Assumed:", "")
    shares: dict[str, Any] = content["assumptions"]
    assumptions = ", ".join(f"{name} {value}" for name, value in shares.items())
    yield f"- {assumptions} (explained in `benchmarks/gpu_estimate.py`);"
    scene = content["scene"]
    yield (
        f"- a crowded image of {scene['original_hw'][1]}x{scene['original_hw'][0]}: {scene['candidates']} candidates of one "
        f"class on {scene['cells']} cells of each level, {scene['kept']} instances;"
    )
    yield from (f"- {gpu['title']}: {gpu['source']}." for gpu in content["gpus"].values())


def gpu_memory(_: Results) -> Lines:
    """MiB of one slot, by `backends/gpu/network.py` and `backends/gpu/postprocess/memory.py`."""
    yield from head(
        "one slot",
        "batch",
        "images, scores, features",
        "candidates, NMS",
        "masks",
        "answer",
        "together",
        "per additional image",
    )
    for name, variant in NETWORKS.items():
        spec = spec_of(variant)
        for hw in SIZES:
            sums = {n: _slot_mib(spec, hw, n) for n in BATCHES}
            for n, parts in sums.items():
                total = sum(parts)
                more = (sum(sums[BATCHES[-1]]) - sum(sums[BATCHES[0]])) / (BATCHES[-1] - BATCHES[0])
                cells = [f"{value:.0f} MiB" if value >= 1 else f"{value:.1f} MiB" for value in (*parts, total)]
                yield row(f"{name}, {size_text(hw)}", str(n), *cells, f"{more:.0f} MiB" if n == 1 else "")


def _slot_mib(spec: Any, hw: tuple[int, int], images: int) -> tuple[float, ...]:
    """Memory of the network, then of the parts of post-processing."""
    shape = BatchShape(images, hw)
    layout = network_layout(spec, shape)
    network = (
        layout.images_bytes + layout.image_hw_bytes + layout.scores_bytes + layout.levels_bytes + layout.features_bytes
    )
    post = slot_bytes(spec, CudaLimits(), (shape,))
    masks = sum(
        post.get(name, 0) for name in ("logits", "tap_logits", "axis_maps", "bits", "boxes", "soft", "segment_runs")
    )
    results = post["results"]
    return tuple(size / MIB for size in (network, sum(post.values()) - masks - results, masks, results))
