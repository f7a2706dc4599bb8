"""Lets an iterator run ahead in a thread of its own, up to a number of items."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

T = TypeVar("T")

_POLL_S = 0.1  # how long a waiting thread needs to see that it should stop
_END = object()


def prefetched(
    items: Iterable[T], depth: int, is_abandoned: Callable[[], bool] = lambda: False
) -> Generator[T, None, None]:
    """Yield the items, which a thread produces up to `depth` ahead. An exception of theirs is raised in its place.

    is_abandoned: asked while no item comes; if true, the rest is not waited for. When the generator is closed the thread ends
    after the item that it is producing.
    """
    queue: Queue[Any] = Queue(depth)
    stopped = Event()
    thread = Thread(target=_produce, args=(items, queue, stopped), daemon=True)
    thread.start()
    try:
        while (item := _next(queue, is_abandoned)) is not _END:
            if isinstance(item, _Raised):
                raise item.error
            yield item
            del item  # it can be large, and it may be long until the next
    finally:
        stopped.set()
        thread.join(_POLL_S * 20)


class _Raised:
    def __init__(self, error: BaseException) -> None:
        self.error = error


def _next(queue: Queue[Any], is_abandoned: Callable[[], bool]) -> Any:
    while True:
        try:
            return queue.get(timeout=_POLL_S)
        except Empty:
            if is_abandoned():
                return _END


def _produce(items: Iterable[Any], queue: Queue[Any], stopped: Event) -> None:
    try:
        for item in items:
            if not _put(queue, item, stopped):
                return
            del item
        _put(queue, _END, stopped)
    except BaseException as error:  # the consumer's thread raises it
        _put(queue, _Raised(error), stopped)


def _put(queue: Queue[Any], item: Any, stopped: Event) -> bool:
    while not stopped.is_set():
        try:
            queue.put(item, timeout=_POLL_S)
            return True
        except Full:
            continue
    return False
