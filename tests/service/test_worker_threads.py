"""Worker threads return every outcome to the event loop, and no outcome ends the loop."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Awaitable, Callable

import pytest
from solo_server.errors import EngineFailure
from solo_server.service.worker_threads import WorkerThreads


def run(scenario: Callable[[WorkerThreads], Awaitable[None]], count: int = 1) -> None:
    async def started() -> None:
        threads = WorkerThreads("test", count)
        try:
            await scenario(threads)
        finally:
            threads.stop()

    asyncio.run(started())


def raising(problem: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise problem

    return work


def test_each_caller_gets_its_own_result() -> None:
    async def scenario(threads: WorkerThreads) -> None:
        assert await asyncio.gather(*(threads.run(lambda n=n: n * n) for n in range(50))) == [n * n for n in range(50)]
        assert threads.is_idle

    run(scenario, 3)


def test_a_failure_is_raised_to_the_caller_and_the_thread_continues() -> None:
    async def scenario(threads: WorkerThreads) -> None:
        with pytest.raises(ValueError, match="wrong"):
            await threads.run(raising(ValueError("wrong")))
        for ending in (SystemExit(3), KeyboardInterrupt(), StopIteration()):
            with pytest.raises(EngineFailure, match=f"{type(ending).__name__} in a thread"):
                await threads.run(raising(ending))
        assert await threads.run(lambda: threading.current_thread().name) == "solo-test_0"

    run(scenario)


def test_no_more_threads_start_than_are_needed_or_allowed() -> None:
    async def scenario(threads: WorkerThreads) -> None:
        for _ in range(5):
            await threads.run(lambda: None)
        assert names() == {"solo-test_0"}
        meeting = threading.Barrier(3)
        await asyncio.gather(*(threads.run(lambda: meeting.wait(30)) for _ in range(3)))
        await asyncio.gather(*(threads.run(lambda: None) for _ in range(20)))
        assert names() == {"solo-test_0", "solo-test_1", "solo-test_2"}

    run(scenario, 3)
    assert names() == set()  # an idle one ends with `stop`


def names() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("solo-test")}


def test_work_cancelled_before_a_thread_takes_it_does_not_run() -> None:
    async def scenario(threads: WorkerThreads) -> None:
        gate, ran = threading.Event(), list[str]()
        first = asyncio.create_task(threads.run(lambda: gate.wait(30)))
        second = asyncio.create_task(threads.run(lambda: ran.append("second")))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        gate.set()
        await first
        await threads.run(lambda: ran.append("third"))
        assert ran == ["third"]

    run(scenario)


def test_a_result_whose_caller_was_cancelled_is_dropped() -> None:
    async def scenario(threads: WorkerThreads) -> None:
        gate = threading.Event()
        first = asyncio.create_task(threads.run(lambda: gate.wait(30)))
        await asyncio.sleep(0.01)
        first.cancel()
        gate.set()
        assert await threads.run(lambda: 5) == 5

    run(scenario)


def test_stop_cancels_waiting_work_and_does_not_wait_for_running_work() -> None:
    gate = threading.Event()

    async def scenario() -> None:
        threads = WorkerThreads("test", 1)
        first, second = (asyncio.create_task(threads.run(lambda: gate.wait(30))) for _ in range(2))
        await asyncio.sleep(0.01)
        threads.stop()
        assert not threads.is_idle
        with pytest.raises(asyncio.CancelledError):
            await second
        with pytest.raises(RuntimeError, match="have stopped"):
            await threads.run(lambda: None)
        gate.set()
        assert await first
        assert threads.is_idle

    asyncio.run(scenario())


def test_finished_work_is_freed_before_the_next_work_arrives() -> None:
    class Large:
        pass

    async def scenario(threads: WorkerThreads) -> None:
        large = Large()
        seen = weakref.ref(large)
        await threads.run(lambda large=large: None)
        del large
        await asyncio.sleep(0.05)  # the thread waits again
        gc.collect()
        assert seen() is None

    run(scenario)
