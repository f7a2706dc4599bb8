"""What the pipeline asks of an engine, whichever runtime is behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from solo_server.types import Float32, Int64, UInt8

ENGINES = ("auto", "onnxruntime", "openvino")
PRECISIONS = ("fp32", "fp16", "bf16", "int8")


class PictureOutput(Protocol):
    """The network's output for one picture of a batch."""

    @property
    def scores(self) -> Float32:
        """Category scores after points-NMS, `(cells, C)`."""
        ...

    def mask_features(self, level: int) -> Sequence[Float32]:
        """Outputs of the mask towers at one level, `[(channels, h, w)]`; may be computed now."""
        ...


class Engine(Protocol):
    """A loaded network. `run` may be called from several threads."""

    @property
    def description(self) -> str:
        """Runtime, version, device and executed precision, for `/model` and the log."""
        ...

    def run(self, images: UInt8, image_hw: Int64) -> Sequence[PictureOutput]:
        """Pictures of one padded size, `(N, h, w, 3) uint8`, and what of each is not padding, `(N, 2)`.

        Raises:
            EngineFailure: the runtime failed.
        """
        ...
