"""Every graph twice: for an image that has all cores, and for images enough to keep all cores busy, each on one.

A small network on two cores takes about a quarter more processor time than on one: threads wait for each other at every operator.
Alone, an image is answered sooner on all of them; where enough others keep the cores busy, everything is, one core each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from solo_server.backends.cpu.pool import Pool
from solo_server.backends.cpu.runtimes.base import Graph, Runtime
from solo_server.types import Float32


@dataclass(frozen=True, slots=True)
class OneCoreUnderLoadRuntime:
    """Two of one kind, whose outputs are the same to the last bit. See `Runtime`; pool: knows how many images are at work."""

    alone: Runtime
    crowded: Runtime
    pool: Pool

    @property
    def description(self) -> str:
        """See `Runtime.description`."""
        return self.alone.description

    def load(self, content: bytes, name: str) -> Graph:
        """See `Runtime.load`; takes the memory of the weights twice."""
        return _EitherGraph(self.alone.load(content, name), self.crowded.load(content, name), self.pool)


@dataclass(frozen=True, slots=True)
class _EitherGraph:
    alone: Graph
    crowded: Graph
    pool: Pool

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> Sequence[Float32]:
        graph = self.crowded if self.pool.is_crowded else self.alone
        return graph(feeds)
