"""The tables of docs/scale.md: the plan for 10,000 images/s, and the simulated settings of a fleet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from capacity import Demand, Node, Plan, Replica, plan
from page_markdown import head, number, row
from page_results import Results

Lines = Iterator[str]

DEMAND = Demand(images_per_s=10_000.0, utilisation=2 / 3, image_bytes=150e3, answer_bytes=5e3, latency_s=5.0)
CPU_NODE, GPU_NODE = Node(cores=64, memory_mib=256 * 1024), Node(cores=128, memory_mib=1024 * 1024, gpus=8)
SPARE_NODES = 1


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of replica: its title, and where it was measured."""

    title: str
    file: str
    contender: str


CPU_CASES = (
    Case("demo model, fp32", "bench_demo", "demo-person fp32"),
    Case("demo model, int8 (OpenVINO)", "bench_demo", "demo-person int8 openvino"),
    Case("SOLO R50, int8 (OpenVINO)", "bench_solo_r50", "solo-r50 int8 openvino"),
)
GPU_FILE, GPU_BATCH, GPU_CORES, GPU_MEMORY_MIB = "gpu_h200_solo_r50", 8, 16, 8192.0


def capacity(results: Results) -> Lines:
    """What 10,000 images/s need, by `benchmarks/capacity.py`."""
    yield from head(
        "", "images/s of a replica", "replicas", "nodes", "cores", "GPUs", "memory", "network in", "p50", "p99"
    )
    for case in CPU_CASES:
        (found,) = [one for one in results.contenders(case.file) if one.name == case.contender]
        cores = int(results.read(case.file)["hardware"]["cores"])
        replica = Replica(found.figures["fps"], cores, cores, found.figures["peak_rss_mib"])
        yield _row(f"{case.title}, {cores} cores", replica, plan(replica, CPU_NODE, DEMAND, SPARE_NODES))
    sizes = results.read(GPU_FILE)["parts"]["batches"]["sizes"].values()
    (rate,) = [size["images_per_second"] for size in sizes if size["images"] == GPU_BATCH]
    replica = Replica(rate, GPU_BATCH, GPU_CORES, GPU_MEMORY_MIB, gpus=1)
    yield _row("SOLO R50, fp16, an H200 and 16 cores", replica, plan(replica, GPU_NODE, DEMAND, SPARE_NODES))


def fleet(results: Results) -> Lines:
    """Settings that `benchmarks/fleet.py` has simulated."""
    content = results.read("fleet")
    limit_s = content["scenario"]["p99_limit_ms"] / 1e3
    yield from head(
        "",
        "p50",
        "p99",
        "p99 of the worst minute",
        "refused",
        "most pods",
        "pod hours",
        f"p99 <= {limit_s:g} s, refused <= 1 %",
    )
    for name, found in content["settings"].items():
        times = (f"{number(found[key])} ms" for key in ("p50_ms", "p99_ms", "worst_minute_p99_ms"))
        refused = f"{100 * found['refused_share']:.2f} %"
        pods = (str(found["most_pods"]), number(found["pod_hours"]))
        yield row(name, *times, refused, *pods, "yes" if found["holds"] else "**no**")


def _row(title: str, replica: Replica, found: Plan) -> str:
    return row(
        title, number(replica.images_per_s), str(found.replicas), str(found.nodes), str(found.cores), str(found.gpus),
        f"{found.memory_gib:.0f} GiB", f"{found.gbit_in:g} Gbit/s", f"{number(found.p50_ms)} ms", f"{number(found.p99_ms)} ms",
    )  # fmt: skip
