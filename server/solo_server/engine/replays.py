"""CUDA graphs of the batch shapes that come again, in a table that does not grow: what was used longest ago makes room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from solo_server.cuda.base import Graph, Stream

SEEN_PER_GRAPH = 4  # keys remembered without a graph, for each graph that the table may hold


@dataclass(frozen=True, slots=True)
class _Replay:
    """keeps: what the graph works with and must live as long as it does."""

    graph: Graph
    keeps: object


class Replays:
    """The graphs of one slot, at most `most`; none of them may still run when one is kept or all are freed.

    most: 0 turns graphs off; otherwise at least as many as one batch queues, or it would free what it has just queued.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._replays: OrderedDict[Hashable, _Replay] = OrderedDict()
        self._capturable: OrderedDict[Hashable, bool] = OrderedDict()

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
        """Whether to capture now: when `key` is asked for again, and was not refused."""
        if self._most == 0:
            return False
        due = self._capturable.get(key)
        if due is None:
            self._remember(key, True)
        return due or False

    def keep(self, key: Hashable, graph: Graph, keeps: object) -> None:
        """Replay `graph` from now on, instead of the one used longest ago where the table is full."""
        self._replays[key] = _Replay(graph, keeps)
        if len(self._replays) > self._most:
            self._replays.popitem(last=False)[1].graph.free()

    def refuse(self, key: Hashable) -> None:
        """Never capture `key`."""
        self._remember(key, False)

    def close(self) -> None:
        """Free all graphs."""
        while self._replays:
            self._replays.popitem()[1].graph.free()

    def _remember(self, key: Hashable, is_capturable: bool) -> None:
        self._capturable[key] = is_capturable
        self._capturable.move_to_end(key)
        if len(self._capturable) > SEEN_PER_GRAPH * self._most:
            self._capturable.popitem(last=False)
