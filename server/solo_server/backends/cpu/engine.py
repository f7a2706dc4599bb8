"""What the pipeline asks of an engine, and what an engine asks of a runtime, whichever is behind it.

images ─► runtime: features graph ─► level features ─► head: category scores now, mask features of some levels later
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from solo_server.types import Float32, Int64, UInt8


class ImageOutput(Protocol):
    """The network's output for one image of a batch."""

    @property
    def scores(self) -> Float32:
        """Category scores after points-NMS, `(cells, C)`."""
        ...

    def mask_features(self, levels: Sequence[int]) -> Sequence[Sequence[Float32]]:
        """For each of `levels` the outputs of the mask towers, `[(channels, h, w)]`; computed now."""
        ...


class Engine(Protocol):
    """A loaded network. `run` may be called from several threads."""

    @property
    def description(self) -> str:
        """Runtime, version, device and executed precision, for `/model` and the log."""
        ...

    def run(self, images: UInt8, image_hw: Int64) -> Sequence[ImageOutput]:
        """Images of one padded size, `(N, h, w, 3) uint8`, and what of each is not padding, `(N, 2)`.

        Raises:
            EngineFailure: the runtime failed.
        """
        ...


class Graph(Protocol):
    """One loaded graph. May be called from several threads."""

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> Sequence[Float32]:
        """All outputs, in the graph's order.

        Raises:
            EngineFailure: the runtime failed.
        """
        ...


class Runtime(Protocol):
    """Loads and runs ONNX graphs."""

    @property
    def description(self) -> str:
        """Runtime, version, precision where it is the runtime's choice, and device."""
        ...

    def load(self, content: bytes, name: str) -> Graph:
        """Load a serialized graph; `name` is for messages.

        Raises:
            BundleError: the runtime cannot load it.
        """
        ...
