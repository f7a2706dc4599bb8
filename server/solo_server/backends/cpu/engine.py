"""The interface of an engine: one bundle's network, loaded into a CPU runtime.

images ─► runtime: features graph ─► level features ─► head: category scores now, mask features of some levels later

The runtime that runs the graphs is described in `runtimes/base.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from solo_server.types import Float32, Int64, UInt8


class ImageOutput(Protocol):
    """The network's output for one image of a batch."""

    @property
    def scores(self) -> Float32:
        """Category scores after points-NMS, `(cells, C)`."""
        ...

    def mask_features(self, levels: Sequence[int]) -> Sequence[Sequence[Float32]]:
        """The outputs of the mask towers for each of `levels`, `[(channels, h, w)]`; computed by this call."""
        ...


class Engine(Protocol):
    """A loaded network. `run` may be called from several threads."""

    @property
    def description(self) -> str:
        """Runtime, version, device and executed precision, for `/model` and the log."""
        ...

    def run(self, images: UInt8, image_hw: Int64) -> Sequence[ImageOutput]:
        """Run images of one padded size, `(N, h, w, 3) uint8`; image_hw: their sizes without padding, `(N, 2)`.

        Raises:
            EngineFailure: the runtime failed.
        """
        ...
