"""An ESTIMATE of the GPU path's time on three GPUs that it has never run on; nothing in it was measured on a GPU.

    python benchmarks/gpu_estimate.py [-o benchmarks/results/gpu_estimate.json]

    network           GFLOP (solo_models/arithmetic.py) and bytes of activations and weights, part by part, against the data sheet
    post-processing   operations and bytes of every launch that `gpu/postprocess/stages.py` would queue for an assumed image,
                      against the data sheet, the registers and shared memory of kernels.json, and the cost of a launch

Each part takes the longer of computing and moving bytes. Assumptions are in `ASSUMPTIONS` and in the file.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gpu_work
from gpu_work import Launch, Scene
from record import write_record
from solo_models import arithmetic
from solo_models.arithmetic import Hw
from solo_models.spec import ModelSpec, Variant
from solo_server.selftest.roofline import GPUS, Gpu

CLASSES = tuple(f"class {i}" for i in range(80))
NETWORKS: dict[str, Variant] = {
    "SOLO R50": "solo",
    "Decoupled SOLO R50": "decoupled",
    "Decoupled SOLO Light R50": "decoupled_light",
}
SIZES: tuple[Hw, ...] = ((512, 896), (800, 1344))
LIGHT = {"head_depth": 4}
PRECISIONS = ("fp32", "fp16", "int8")
BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
REGISTERS, THREADS_A_BLOCK_MAX, WARP = 65_536, 1024, 32
ASSUMPTIONS = {
    "tensor_share": 0.4,  # of the FP16 and INT8 peaks, what convolutions of these sizes reach at batch 1
    "fp32_share": 0.7,  # of the FP32 peak, likewise
    "memory_share": 0.75,  # of the memory's peak
    "kernel_share": 0.25,  # of the FP32 peak, what our kernels reach at full occupancy: most of their work is no fused product
    "launch_us": 4.0,  # from one small kernel to the next on a stream
    "network_gap_us": 1.5,  # between two kernels of the network, replayed as a CUDA graph
    "host_wait_us": 20.0,  # for the counts between candidates and masks
}
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class KernelEstimate:
    """One kernel of one image. occupancy: share of a multiprocessor's threads; filled: of the GPU's room that the blocks take."""

    launches: int
    blocks: int
    mega_operations: float
    megabytes: float
    registers: int
    occupancy: float
    filled: float
    estimate_us: float


def main() -> int:
    """Print the table, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    costs = json.loads((RESULTS / "kernels.json").read_text())["kernels"]
    scene = Scene()
    estimates = [_estimate(name, variant, hw, scene, costs) for name, variant in NETWORKS.items() for hw in SIZES]
    for entry in estimates:
        for gpu, estimate in entry["gpus"].items():
            print(
                f"{entry['network']} {entry['padded_hw']} {gpu}: estimate {estimate['estimate_ms']} ms with {estimate['precision']}"
            )
    if arguments.output:
        found = {
            "is_estimate": True,
            "ran_on_gpu": False,
            "assumptions": ASSUMPTIONS,
            "scene": asdict(scene),
            "gpus": {gpu.title: asdict(gpu) for gpu in GPUS},
            "estimates": estimates,
        }
        write_record(arguments.output, found)
    return 0


def spec_of(variant: Variant) -> ModelSpec:
    """The published network on ResNet-50; Light's towers are shallower."""
    small = LIGHT if variant == "decoupled_light" else {}
    return ModelSpec(variant=variant, backbone="resnet50", class_names=CLASSES, **small)  # type: ignore[arg-type]


def _estimate(name: str, variant: Variant, hw: Hw, scene: Scene, costs: dict[str, Any]) -> dict[str, Any]:
    spec = spec_of(variant)
    launches = gpu_work.launches(spec, hw, scene)
    return {
        "network": name,
        "padded_hw": list(hw),
        "gflop": round(arithmetic.needed(spec, hw).total, 1),
        "gflop_of_the_reference": round(arithmetic.reference(spec, hw).total, 1),
        "launches": len(launches),
        "gpus": {gpu.title: _on(gpu, spec, hw, launches, costs) for gpu in GPUS},
    }


def _on(gpu: Gpu, spec: ModelSpec, hw: Hw, launches: list[Launch], costs: dict[str, Any]) -> dict[str, Any]:
    """All precisions, then the one to ship: FP16 where INT8 has no tensor cores, else INT8's beside it."""
    kernels = _kernels(gpu, launches, costs)
    post_ms = sum(k.estimate_us for k in kernels.values()) / 1e3 + ASSUMPTIONS["host_wait_us"] / 1e3
    networks = {precision: _network_ms(gpu, spec, hw, precision) for precision in PRECISIONS}
    return {
        "precision": "fp16",
        "estimate_ms": round(networks["fp16"]["estimate_ms"] + post_ms, 2),
        "estimate_fps": round(1e3 / (networks["fp16"]["estimate_ms"] + post_ms), 0),
        "network": networks,
        "postprocess_estimate_ms": round(post_ms, 3),
        "kernels": {name: asdict(kernel) for name, kernel in kernels.items()},
    }


def _network_ms(gpu: Gpu, spec: ModelSpec, hw: Hw, precision: str) -> dict[str, float]:
    """least: all of the peaks, computing and moving side by side; estimate: with the assumed shares, part after part."""
    flops, traffic = arithmetic.needed(spec, hw), gpu_work.network_values(spec, hw)
    share = ASSUMPTIONS["fp32_share" if precision == "fp32" else "tensor_share"]
    parts = {
        "backbone": flops.backbone,
        "neck": flops.neck,
        "categories": flops.categories,
        "towers": sum(flops.towers),
    }
    computing = {part: gflop / gpu.peak(precision) for part, gflop in parts.items()}
    moving = {part: traffic[part] * BYTES[precision] / (gpu.memory_gb_s * 1e6) for part in parts}
    kernels = gpu_work.network_kernels(spec)
    working_ms = sum(max(computing[p] / share, moving[p] / ASSUMPTIONS["memory_share"]) for p in parts)
    return {
        "kernels": kernels,
        "least_ms": round(max(sum(computing.values()), sum(moving.values())), 3),
        "estimate_ms": round(working_ms + kernels * ASSUMPTIONS["network_gap_us"] / 1e3, 3),
    }


def _kernels(gpu: Gpu, launches: list[Launch], costs: dict[str, Any]) -> dict[str, KernelEstimate]:
    found: dict[str, KernelEstimate] = {}
    for name in dict.fromkeys(launch.kernel for launch in launches):
        cost = costs[name][f"sm_{gpu.capability[0]}{gpu.capability[1]}"]
        mine = [launch for launch in launches if launch.kernel == name]
        resident = _resident_blocks(gpu, mine[0], cost)
        blocks = max(launch.blocks for launch in mine)
        filled = min(1.0, blocks / gpu.multiprocessors)
        found[name] = KernelEstimate(
            launches=len(mine),
            blocks=sum(launch.blocks for launch in mine),
            mega_operations=round(sum(launch.operations for launch in mine) / 1e6, 3),
            megabytes=round(sum(launch.bytes for launch in mine) / 1e6, 3),
            registers=cost["registers"],
            occupancy=round(resident * mine[0].threads / gpu.threads, 2),
            filled=round(min(1.0, blocks / (gpu.multiprocessors * resident)), 2),
            estimate_us=round(sum(_launch_us(gpu, launch, filled) for launch in mine), 2),
        )
    return found


def _launch_us(gpu: Gpu, launch: Launch, filled: float) -> float:
    """The longer of computing and moving, on as many multiprocessors as have a block; never less than a launch."""
    computing = launch.operations / (gpu.fp32 * 1e6 * ASSUMPTIONS["kernel_share"] * filled)
    moving = launch.bytes / (gpu.memory_gb_s * 1e3 * ASSUMPTIONS["memory_share"] * filled)
    return max(ASSUMPTIONS["launch_us"], computing, moving)


def _resident_blocks(gpu: Gpu, launch: Launch, cost: dict[str, int]) -> int:
    """How many blocks a multiprocessor holds: by threads, blocks, registers (eights a thread, by warp) and shared memory."""
    registers = -(-max(cost["registers"], 1) // 8) * 8 * launch.threads
    shared = cost["shared_bytes"] + launch.shared_bytes
    limits = [gpu.threads // launch.threads, gpu.blocks, REGISTERS // registers]
    if shared:
        limits.append((gpu.shared_kib << 10) // shared)
    return max(1, min(limits))


if __name__ == "__main__":
    sys.exit(main())
