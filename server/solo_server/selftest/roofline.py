"""The least time of a network on a GPU, by the peak of its data sheet.

    GFLOP of the bundle (`solo_models.arithmetic`) / peak of its precision ─► least milliseconds of any implementation

Peaks are the vendor's, dense, at boost clock, which is not sustained for long.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gpu:
    """One model. Peaks in TFLOP/s (int8: TOPS), memory in GB/s; limits of a multiprocessor: threads, blocks, shared KiB.

    names: parts of the driver's name for it; all of them must occur.
    """

    title: str
    names: tuple[str, ...]
    capability: tuple[int, int]
    fp32: float
    fp16: float
    int8: float
    memory_gb_s: float
    multiprocessors: int
    threads: int
    blocks: int
    shared_kib: int
    source: str

    def peak(self, precision: str) -> float:
        """TFLOP/s of the bundle's precision."""
        return {"fp32": self.fp32, "fp16": self.fp16, "int8": self.int8}[precision]


GPUS = (
    Gpu(
        "V100 SXM2", ("V100", "SXM2"), (7, 0), 15.7, 125.0, 62.8, 900.0, 80, 2048, 32, 96,
        "NVIDIA V100 Tensor Core GPU data sheet (2020): 15.7 and 125 TFLOPS, 900 GB/s; NVIDIA Tesla V100 GPU Architecture white "
        "paper (WP-08608-001): 80 SMs and their room; INT8 is four DP4A products a lane, four times FP32",
    ),
    Gpu(
        "A10", ("A10",), (8, 6), 31.2, 125.0, 250.0, 600.0, 72, 1536, 16, 100,
        "NVIDIA A10 Tensor Core GPU data sheet (2021), without sparsity: 31.2 and 125 TFLOPS, 250 TOPS, 600 GB/s; NVIDIA Ampere "
        "GA102 GPU Architecture white paper: 72 SMs of the A10 and their room",
    ),
    Gpu(
        "H100 SXM5", ("H100", "HBM3"), (9, 0), 67.0, 989.5, 1979.0, 3350.0, 132, 2048, 32, 228,
        "NVIDIA H100 Tensor Core GPU data sheet (2023), SXM, half of its figures with sparsity: 67 and 989.5 TFLOPS, 1979 TOPS, "
        "3.35 TB/s; NVIDIA H100 Tensor Core GPU Architecture white paper: 132 SMs and their room",
    ),
)  # fmt: skip


def known_gpu(name: str) -> Gpu | None:
    """By the driver's name, such as `Tesla V100-SXM2-16GB`; `None` for a model without a data sheet here."""
    words = name.upper().replace("-", " ").split()
    return next((gpu for gpu in GPUS if set(gpu.names) <= set(words)), None)


def least_ms(gflop: float, gpu: Gpu, precision: str) -> float:
    """Milliseconds at the peak, for arithmetic alone."""
    return gflop / gpu.peak(precision)
