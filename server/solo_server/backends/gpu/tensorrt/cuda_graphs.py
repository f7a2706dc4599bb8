"""CUDA graphs of the batch shapes that come again, in a table that does not grow: what was used longest ago makes room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from solo_server.backends.gpu.driver.base import Graph, Stream

SEEN_PER_GRAPH = 4  # keys remembered without a graph, for each graph that the table may hold
# How often a key is asked for before it is captured. One that takes another's place must be worth its capture: more shapes in turn
# than the table holds would be captured again and again, and hardly replayed.
ASKED, ASKED_WHEN_FULL = 2, 16
REFUSED = -1


@dataclass(frozen=True, slots=True)
class _Replay:
    """keeps: what the graph works with and must live as long as it does."""

    graph: Graph
    keeps: object


class CudaGraphs:
    """The graphs of one slot, at most `most`; none of them may still run when one is kept or all are freed.

    most: 0 turns graphs off; otherwise at least as many as one batch queues, or it would free what it has just queued.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._replays: OrderedDict[Hashable, _Replay] = OrderedDict()
        self._asked: OrderedDict[Hashable, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._replays)

    def launch(self, key: Hashable, stream: Stream) -> bool:
        """Queue the graph of `key`; false where there is none."""
        if key not in self._replays:
            return False
        self._replays.move_to_end(key)
        self._replays[key].graph.launch(stream)
        return True

    def is_due(self, key: Hashable) -> bool:
        """Whether to capture now: when `key` was asked for often enough without a graph, and not refused."""
        asked = self._asked.get(key, 0)
        if self._most == 0 or asked == REFUSED:
            return False
        self._remember(key, asked + 1)
        return asked + 1 >= (ASKED if len(self._replays) < self._most else ASKED_WHEN_FULL)

    def keep(self, key: Hashable, graph: Graph, keeps: object) -> None:
        """Replay `graph` from now on, instead of the one used longest ago where the table is full."""
        self._replays[key] = _Replay(graph, keeps)
        self._remember(key, 0)
        if len(self._replays) > self._most:
            self._replays.popitem(last=False)[1].graph.free()

    def refuse(self, key: Hashable) -> None:
        """Never capture `key`."""
        self._remember(key, REFUSED)

    def close(self) -> None:
        """Free all graphs."""
        while self._replays:
            self._replays.popitem()[1].graph.free()

    def _remember(self, key: Hashable, asked: int) -> None:
        self._asked[key] = asked
        self._asked.move_to_end(key)
        if len(self._asked) > SEEN_PER_GRAPH * self._most:
            self._asked.popitem(last=False)
