"""The interface of a CPU runtime: loads and runs ONNX graphs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from solo_server.types import Float32


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
        """Runtime, version, device, and the precision where the runtime chooses it."""
        ...

    def load(self, content: bytes, name: str) -> Graph:
        """Load a serialized graph; name: for messages.

        Raises:
            BundleError: the runtime cannot load it.
        """
        ...
