"""Work queued on the fake device, run in any order that CUDA allows.

Work runs when the host waits, or earlier by chance; work of other streams may run first, or not at all. The host may only rely on
work that it has waited for: `Work.known`.
"""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from support.gpu.fake_memory import Block


@dataclass(eq=False)
class Work:
    """One piece. before: earlier work that it depends on; blocks: memory it uses; confirm: called once the host has waited."""

    name: str
    run: Callable[[], None]
    blocks: tuple[Block, ...] = ()
    confirm: Callable[[], None] | None = None
    before: list[Work] = field(default_factory=list)
    number: int = -1
    known: bool = False

    @property
    def done(self) -> bool:
        """Whether it has run."""
        return self.number >= 0


class Queues:
    """The queues of all streams."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)  # noqa: S311  # not for secrets
        self._eager = self._chance.choice((0.0, 0.0, 0.3, 0.8))
        self._waiting: dict[int, deque[Work]] = {}
        self._last: dict[int, Work] = {}
        self._users: dict[Block, list[Work]] = {}
        self._numbers = itertools.count()

    def add(self, stream: int, work: Work) -> None:
        """Queue work at the end of its stream."""
        if stream in self._last:
            work.before.append(self._last[stream])
        self._last[stream] = work
        self._waiting.setdefault(stream, deque()).append(work)
        for block in work.blocks:
            self._users[block] = [user for user in self._users.get(block, ()) if not user.known] + [work]
        if self._chance.random() < self._eager:
            self._run_one(self._ready())

    def last(self, stream: int) -> Work | None:
        """The work that was queued last."""
        return self._last.get(stream)

    def users(self, block: Block) -> list[Work]:
        """Work that uses a block and is not known to be done."""
        return [work for work in self._users.get(block, ()) if not work.known]

    def unfinished(self) -> list[Work]:
        """All work that the host has not waited for."""
        return [work for last in self._last.values() for work in _unknown(last)]

    def finish(self, work: Work) -> None:
        """Run `work` and at least everything that it depends on; the host then knows that they are done."""
        others = self._chance.choice(("none", "first", "between"))
        if others == "first":
            while heads := self._ready(without=work):
                self._run_one(heads)
        while not work.done:
            self._run_one(self._needed(work) if others == "none" else self._ready())
        finished = sorted(_unknown(work), key=lambda piece: piece.number)
        for piece in finished:
            piece.known, piece.before = True, []
        for piece in finished:
            if piece.confirm is not None:
                piece.confirm()

    def _ready(self, without: Work | None = None) -> list[Work]:
        """First work of each queue whose dependencies are done."""
        heads = [queue[0] for queue in self._waiting.values() if queue and (without is None or without not in queue)]
        return [head for head in heads if all(earlier.done for earlier in head.before)]

    def _needed(self, work: Work) -> list[Work]:
        return [piece for piece in _unknown(work) if not piece.done and all(earlier.done for earlier in piece.before)]

    def _run_one(self, heads: list[Work]) -> None:
        if not heads:
            return
        work = self._chance.choice(heads)
        for queue in self._waiting.values():
            if queue and queue[0] is work:
                queue.popleft()
        work.number = next(self._numbers)
        work.run()


def _unknown(last: Work) -> list[Work]:
    """`last` and all that it depends on, except work that is known to be done."""
    found: dict[Work, None] = {}
    todo = [last]
    while todo:
        work = todo.pop()
        if not work.known and work not in found:
            found[work] = None
            todo += work.before
    return list(found)
