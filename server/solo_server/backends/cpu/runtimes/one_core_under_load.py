"""Every graph loaded twice: to run on all cores, and to run on one core while every core has an image of its own.

On two cores a small network takes about a quarter more processor time than on one: threads wait for each other at every operator.
All cores give a single image its result soonest; one core per image gives the highest throughput under load.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from solo_server.backends.cpu.runtimes.base import Graph, Runtime
from solo_server.types import Float32


@dataclass(frozen=True, slots=True)
class OneCoreUnderLoadRuntime:
    """Two runtimes of one kind, with equal outputs bit for bit. See `Runtime`.

    is_under_load: whether every core has an image of its own; called before each run.
    """

    on_all_cores: Runtime
    on_one_core: Runtime
    is_under_load: Callable[[], bool]

    @property
    def description(self) -> str:
        """See `Runtime.description`."""
        return self.on_all_cores.description

    def load(self, content: bytes, name: str) -> Graph:
        """See `Runtime.load`; takes twice the memory for weights."""
        loaded = self.on_all_cores.load(content, name), self.on_one_core.load(content, name)
        return _OneCoreUnderLoadGraph(*loaded, self.is_under_load)


@dataclass(frozen=True, slots=True)
class _OneCoreUnderLoadGraph:
    on_all_cores: Graph
    on_one_core: Graph
    is_under_load: Callable[[], bool]

    def __call__(self, feeds: Mapping[str, NDArray[Any]]) -> Sequence[Float32]:
        graph = self.on_one_core if self.is_under_load() else self.on_all_cores
        return graph(feeds)
