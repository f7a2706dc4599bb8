"""`asyncio.timeout` at a quarter of its cost, for what every request has: a time to be received in, and one to be answered in."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Deadline:
    """Cancels the task that is within when its time has come; leaving it raises TimeoutError then.

    when: by the event loop's clock.
    """

    __slots__ = ("_cancelling", "_task", "_timer", "has_rung", "when")

    def __init__(self, when: float) -> None:
        self.when, self.has_rung = when, False

    def __enter__(self) -> Deadline:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("an alarm is for a task")
        self._task, self._cancelling = task, task.cancelling()
        self._timer = task.get_loop().call_at(self.when, self._ring)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, _: TracebackType | None
    ) -> None:
        self._timer.cancel()
        # whoever else has cancelled the task is not to be told of a timeout instead
        if self.has_rung and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from problem

    def reschedule(self, when: float) -> None:
        """Another time, while it has not rung."""
        self._timer.cancel()
        self.when = when
        self._timer = self._task.get_loop().call_at(when, self._ring)

    def _ring(self) -> None:
        self.has_rung = True
        self._task.cancel()
