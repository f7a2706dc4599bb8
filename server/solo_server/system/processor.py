"""What the processor supports, and every decision that depends on its instructions.

    LLVM's feature list ─► Processor ─► kernel_target, has_pair_products      (compiled kernels)
    OpenVINO's capabilities ─► has_bf16                                       (engine openvino)

The decisions take the processor as an argument, so that tests can pass other processors than this machine's.
`solo_server.system.cores` decides how many cores there are.
"""

from __future__ import annotations

import platform
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache

import llvmlite.binding as llvm

PORTABLE_TARGET = "x86-64-v3"
"""Target of x86 kernels: AVX2 and FMA, in processors since 2013."""
_X86 = ("x86_64", "amd64")
_PORTABLE_FEATURES = frozenset({"avx2", "fma", "bmi2", "f16c"})


@dataclass(frozen=True, slots=True)
class Processor:
    """machine: the architecture, as `platform.machine()` names it; features: LLVM's names, such as `avx2` or `avx512bf16`."""

    machine: str
    features: frozenset[str]

    @property
    def is_x86(self) -> bool:
        """Whether it is a 64-bit x86 processor."""
        return self.machine.lower() in _X86


@cache
def this_processor() -> Processor:
    """The processor that this process runs on."""
    features = llvm.get_host_cpu_features()
    return Processor(platform.machine(), frozenset(name for name, present in features.items() if present))


def kernel_target(processor: Processor) -> str | None:
    """The target that kernels are compiled for; `None`: numba's default, this very processor.

    With the portable target, kernels compiled while a container image is built run on other machines, with the same results.
    """
    return PORTABLE_TARGET if processor.is_x86 and processor.features >= _PORTABLE_FEATURES else None


def has_pair_products(processor: Processor) -> bool:
    """Whether 16-bit kernels may use AVX2's instruction that multiplies pairs of int16 and adds each pair.

    Without it they use plain multiplications and additions, which give the same numbers.
    """
    return processor.is_x86 and "avx2" in processor.features


def has_bf16(capabilities: Collection[str]) -> bool:
    """Whether OpenVINO computes in bfloat16 on this CPU. capabilities: `OPTIMIZATION_CAPABILITIES` of its device CPU.

    Without bf16 instructions (avx512_bf16, amx_bf16) OpenVINO computes in float32 and does not say so.
    """
    return "BF16" in capabilities
