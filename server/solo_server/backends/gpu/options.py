"""What a user can choose for an engine on a GPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from solo_models.sizes import Size

from solo_server.backends.gpu.postprocess.memory import CudaLimits
from solo_server.errors import SettingsError

MAX_BATCH = 8
MAX_CUDA_GRAPHS = 16  # a batch needs up to four: categories and three groups of masks


@dataclass(frozen=True, slots=True)
class CudaOptions:
    """Options of the engines `tensorrt` and `cuda`.

    device: number of the GPU; max_batch: images in one batch; shapes: exact padded sizes that TensorRT optimises for, beside the
    two ranges; slots: batches on the device at a time, `None` for the engine's default; graphs: CUDA graphs that a slot keeps, 0
    for none; build: whether a missing TensorRT engine is built; cache: folder of engines and kernels, `None` for the default;
    workspace_mib: GPU memory of TensorRT's builder, `None` for all; limits: of post-processing.
    """

    device: int = 0
    max_batch: int = MAX_BATCH
    shapes: tuple[Size, ...] = ()
    slots: int | None = None
    graphs: int = MAX_CUDA_GRAPHS
    build: bool = True
    cache: Path | None = None
    workspace_mib: int | None = None
    limits: CudaLimits = field(default_factory=CudaLimits)

    def __post_init__(self) -> None:
        for name, least in (("device", 0), ("max_batch", 1), ("slots", 1), ("graphs", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise SettingsError(f"{name}: {value} is below {least}")
