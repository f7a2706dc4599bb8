"""CUDA graphs of batch shapes that recur, in a table of fixed size: the graph used longest ago is replaced."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from solo_server.backends.gpu.driver.base import Graph, Stream

SEEN_PER_GRAPH = 4  # keys remembered without a graph, for each graph that the table may hold
# How often a key is used before it is captured. A key that replaces another must be worth its capture: more shapes in turn
# than the table holds would be captured again and again, and hardly replayed.
USES_BEFORE_CAPTURE, USES_BEFORE_REPLACING = 2, 16
REFUSED = -1


@dataclass(frozen=True, slots=True)
class _CapturedGraph:
    """keeps: what the graph uses, which must live as long as the graph."""

    graph: Graph
    keeps: object


class CudaGraphs:
    """The graphs of one slot, at most `most`. No graph may run when one is added or all are freed.

    most: 0 turns graphs off; otherwise at least as many as one batch queues, so that none is freed while it is queued.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._graphs: OrderedDict[Hashable, _CapturedGraph] = OrderedDict()
        self._uses: OrderedDict[Hashable, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._graphs)

    def launch(self, key: Hashable, stream: Stream) -> bool:
        """Queue the graph of `key`. Returns false if there is none."""
        if key not in self._graphs:
            return False
        self._graphs.move_to_end(key)
        self._graphs[key].graph.launch(stream)
        return True

    def is_due(self, key: Hashable) -> bool:
        """Whether to capture now: whether `key` was used often enough without a graph, and not refused."""
        uses = self._uses.get(key, 0)
        if self._most == 0 or uses == REFUSED:
            return False
        self._remember(key, uses + 1)
        return uses + 1 >= (USES_BEFORE_CAPTURE if len(self._graphs) < self._most else USES_BEFORE_REPLACING)

    def add(self, key: Hashable, graph: Graph, keeps: object) -> None:
        """Replay `graph` from now on; where the table is full, it replaces the graph used longest ago."""
        self._graphs[key] = _CapturedGraph(graph, keeps)
        self._remember(key, 0)
        if len(self._graphs) > self._most:
            self._graphs.popitem(last=False)[1].graph.free()

    def refuse(self, key: Hashable) -> None:
        """Never capture `key`."""
        self._remember(key, REFUSED)

    def close(self) -> None:
        """Free all graphs."""
        while self._graphs:
            self._graphs.popitem()[1].graph.free()

    def _remember(self, key: Hashable, uses: int) -> None:
        self._uses[key] = uses
        self._uses.move_to_end(key)
        if len(self._uses) > SEEN_PER_GRAPH * self._most:
            self._uses.popitem(last=False)
