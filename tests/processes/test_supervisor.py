"""Who takes a connection, what a dead worker leaves behind, when the next one starts: with workers that are only spoken for."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

import pytest
from solo_server.processes.supervisor import Delays, Supervisor, told
from solo_server.processes.worker_handle import Worker, in_order_of_choice

WAIT_S = 30


class Played:
    """A worker process whose part the test plays: what it was sent, and how it ends."""

    def __init__(self, number: int, channel: socket.socket) -> None:
        self.pid, self.number = 1000 + number, number
        self.channel = channel.dup()
        self.channel.setblocking(False)
        self.signals: list[int] = []
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def say(self, *lines: str) -> None:
        self.channel.sendall("".join(f"{line}\n" for line in lines).encode())

    async def taken(self) -> socket.socket:
        """The next connection, which it confirms."""
        await until(self.has_connection)
        _, descriptors, _, _ = socket.recv_fds(self.channel, 1, 1)
        self.say("took 1")
        return socket.socket(fileno=descriptors[0])

    def has_connection(self) -> bool:
        with suppress(BlockingIOError):
            return bool(self.channel.recv(1, socket.MSG_PEEK))
        return False

    def end(self, status: int) -> None:
        self.channel.close()
        if not self._ended.done():
            self._ended.set_result(status)

    def send_signal(self, signal: int, /) -> None:
        self.signals.append(signal)
        if signal == 9:
            self.end(-9)

    async def wait(self) -> int:
        return await self._ended


class Stage:
    """A supervisor, its workers in the order in which they were started, and the pauses that it made."""

    def __init__(self, count: int, listener: socket.socket, drain_seconds: float = 20) -> None:
        self.address = listener.getsockname()
        self.workers: list[Played] = []
        self.pauses: list[float] = []
        self.restarts = 0
        self.ended: list[int] = []
        self._handlers: dict[int, Callable[[], object]] = {}
        asyncio.get_running_loop().add_signal_handler = self._handle  # type: ignore[method-assign]
        self.supervisor = Supervisor(
            listener, count, self._start, drain_seconds, on_end=self.ended.append, on_restart=self._restarted,
            pause=self._pause,
        )  # fmt: skip

    async def _start(self, number: int, channel: socket.socket) -> Played:
        self.workers.append(Played(number, channel))
        return self.workers[-1]

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def hear(self, number: int) -> None:
        """As if the supervisor's process had this signal; a real one could end the process that runs the tests."""
        self._handlers[number]()

    def _handle(self, number: int, handler: Callable[..., object], *arguments: object) -> None:
        self._handlers[number] = lambda: handler(*arguments)

    def _restarted(self) -> None:
        self.restarts += 1

    async def started(self, count: int) -> None:
        await until(lambda: len(self.workers) == count)

    def call(self, text: bytes = b"") -> socket.socket:
        caller = socket.create_connection(self.address, timeout=WAIT_S)
        caller.sendall(text)
        return caller


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not is_so():
            await asyncio.sleep(0.001)


def played(count: int, play: Callable[[Stage], Awaitable[None]], drain_seconds: float = 20) -> int:
    """The exit status of a supervisor while `play` goes on; whoever is left after it ends in order."""

    async def run() -> int:
        stage = Stage(count, socket.create_server(("127.0.0.1", 0)), drain_seconds)
        running = asyncio.create_task(stage.supervisor.run())
        try:
            await stage.started(count)
            await play(stage)
        finally:
            stage.supervisor.stop()
            for worker in stage.workers:
                worker.end(0)
        return await running

    return asyncio.run(run())


@pytest.fixture
def make() -> Iterator[Callable[..., Worker]]:
    """Workers with a channel whose other end nobody reads."""
    ends: list[socket.socket] = []

    def worker(number: int, **state: Any) -> Worker:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        ends.extend((ours, theirs))
        return Worker(number, Silent(), ours, **state)

    yield worker
    for end in ends:
        end.close()


class Silent:
    """A process that the test says nothing of."""

    pid = 1

    def send_signal(self, signal: int, /) -> None:
        raise ProcessLookupError

    async def wait(self) -> int:
        raise AssertionError("nobody waits for it")


def test_the_ready_worker_with_the_fewest_connections_is_first_and_equals_take_turns(
    make: Callable[..., Worker],
) -> None:
    ready = [make(0, unready=None, connections=2), make(1, unready=None, connections=1, turn=9),
             make(2, unready=None, connections=1, turn=4)]  # fmt: skip
    others = [make(3, unready="warming"), make(4), make(5, unready=None, is_leaving=True)]
    assert [w.number for w in in_order_of_choice([*ready, *others])] == [2, 1, 0]


def test_where_none_is_ready_whoever_is_there_says_why(make: Callable[..., Worker]) -> None:
    assert [w.number for w in in_order_of_choice([make(0), make(1, unready="warming")])] == [1]
    assert in_order_of_choice([make(0), make(1, unready="draining", is_leaving=True)]) == []


def test_what_a_worker_says_may_come_in_pieces(make: Callable[..., Worker]) -> None:
    worker = make(0)
    with socket.socket() as first, socket.socket() as second:
        assert worker.give(first, 1)
        assert worker.give(second, 2)
        assert worker.path == "/segment"
        for piece in (
            b"unready war",
            b"ming\ntook",
            b" 2\nanswers /models/cat%20",
            b"s/segment\nready\nclosed 1\nleav",
        ):
            worker.hear(piece)
        assert (worker.connections, worker.unready, worker.has_been_ready) == (1, None, True)
        assert worker.path == "/models/cat%20s/segment"
        assert first.fileno() == second.fileno() == -1  # our copies are closed
    assert not worker.is_leaving
    worker.hear(b"ing\nrefused no such file\n")
    assert (worker.is_leaving, worker.refusal) == (True, "no such file")


def test_a_worker_that_does_not_read_is_passed_over_without_waiting(make: Callable[..., Worker]) -> None:
    worker = make(0, unready=None)
    worker.channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    with socket.socket() as connection:
        given = sum(worker.give(connection, turn) for turn in range(10_000))
        assert given < 10_000
        assert worker.connections == len(worker.untaken) == given


def test_the_next_attempt_comes_at_once_or_after_growing_delays() -> None:
    delays = Delays()
    assert delays.after(ready=True) == 0
    assert [delays.after(ready=False) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert delays.after(ready=True) == 0
    assert delays.after(ready=False) == 1


@pytest.mark.parametrize(
    ("status", "words"),
    [(-9, "was killed by SIGKILL"), (-63, "was killed by signal 63"), (75, "ended with status 75 (the GPU is lost)"),
     (0, "ended with status 0")],
)  # fmt: skip
def test_the_end_of_a_process_is_told_in_words(status: int, words: str) -> None:
    assert told(status) == words


def test_connections_are_shared_evenly_among_callers_that_stay() -> None:
    async def play(stage: Stage) -> None:
        first, second = stage.workers
        first.say("unready warming", "ready")
        second.say("unready warming", "ready")
        await until(lambda: len(in_order_of_choice(stage.supervisor._workers.values())) == 2)
        callers = [stage.call() for _ in range(8)]
        taken = [(await first.taken(), await second.taken()) for _ in range(4)]
        assert not first.has_connection()
        assert not second.has_connection()
        second.say("closed 3")
        await until(lambda: stage.supervisor._workers[1].connections == 1)
        callers += [stage.call() for _ in range(3)]
        taken += [(await second.taken(), await second.taken()), (await second.taken(),)]  # type: ignore[list-item]  # one alone
        for connection in [*callers, *(c for pair in taken for c in pair)]:
            connection.close()

    assert played(2, play) == 0


def test_while_nobody_is_there_connections_wait_and_then_are_served_by_whoever_comes() -> None:
    async def play(stage: Stage) -> None:
        with stage.call(b"hello") as caller:
            await asyncio.sleep(0.05)
            assert not any(worker.has_connection() for worker in stage.workers)
            stage.workers[1].say("unready warming")
            with await stage.workers[1].taken() as connection:
                assert connection.recv(5) == b"hello"
                connection.sendall(b"warming")
            assert caller.recv(7) == b"warming"

    assert played(2, play) == 0


def test_what_a_dead_worker_had_not_taken_goes_to_another() -> None:
    async def play(stage: Stage) -> None:
        first, second = stage.workers
        first.say("unready warming", "ready")
        await until(lambda: stage.supervisor._workers[0].unready is None)
        with stage.call(b"taken") as lost, stage.call(b"not taken") as kept:
            with await first.taken():
                await until(lambda: len(stage.supervisor._workers[0].untaken) == 1)
                second.say("unready warming", "ready")
            first.end(-9)
            with await second.taken() as connection:
                assert connection.recv(100) == b"not taken"
                connection.sendall(b"answer")
            assert kept.recv(100) == b"answer"
            with suppress(ConnectionResetError):
                assert lost.recv(100) == b""  # the one with the worker that it had is closed, here and there
        await stage.started(3)
        assert (stage.workers[2].number, stage.pauses, stage.ended) == (0, [], [0])
        assert stage.restarts == 1

    assert played(2, play) == 0


def test_a_worker_that_leaves_of_its_own_accord_gets_no_more() -> None:
    async def play(stage: Stage) -> None:
        first, second = stage.workers
        first.say("unready warming", "ready", "unready draining", "leaving")
        second.say("unready warming")
        await until(lambda: stage.supervisor._workers[0].is_leaving and stage.supervisor._workers[1].can_take)
        with stage.call(), await second.taken():
            assert not first.has_connection()

    assert played(2, play) == 0


def test_a_worker_that_dies_before_it_is_ready_is_started_after_growing_delays(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def play(stage: Stage) -> None:
        stage.workers[0].say("unready warming", "ready")
        stage.workers[0].end(-11)
        for count, status in ((2, 1), (3, 2), (4, 70)):
            await stage.started(count)
            stage.workers[-1].say("unready warming", *(["refused the bundle is damaged"] if status == 2 else []))
            stage.workers[-1].end(status)
        await stage.started(5)
        assert stage.pauses == [1, 2, 4]

    assert played(1, play) == 0
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert said == [
        "worker 0 (pid 1000) was killed by SIGSEGV; another one starts now",
        "worker 0 (pid 1000) ended with status 1 (the log has a traceback); another one starts in 1 s",
        "worker 0 (pid 1000) ended with status 2 (a setting, the bundle or the engine is wrong): the bundle is damaged; "
        "another one starts in 2 s",
        "worker 0 (pid 1000) ended with status 70 (the engine hangs); another one starts in 4 s",
    ]


def test_a_worker_that_refuses_to_start_at_first_stops_everything() -> None:
    async def play(stage: Stage) -> None:
        refusing, other = stage.workers
        refusing.say("unready warming", "refused the bundle is damaged")
        refusing.end(2)
        await until(lambda: other.signals == [signal.SIGTERM])
        assert stage.supervisor.refusal == "the bundle is damaged"

    assert played(2, play) == 2


def test_a_worker_that_does_not_end_in_time_is_killed_and_the_exit_status_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("solo_server.processes.supervisor.KILL_AFTER_S", 0.0)

    async def play(stage: Stage) -> None:
        stage.supervisor.stop()
        await until(lambda: stage.workers[0].signals == [signal.SIGTERM, signal.SIGKILL])

    assert played(1, play, drain_seconds=0) == 1


def test_a_worker_that_leaves_and_does_not_end_is_killed_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solo_server.processes.supervisor.KILL_AFTER_S", 0.0)

    async def play(stage: Stage) -> None:
        stage.workers[0].say("unready warming", "ready", "unready stalled", "leaving")
        await stage.started(2)
        assert stage.workers[0].signals == [signal.SIGKILL]

    assert played(1, play, drain_seconds=0) == 0


def test_signals_are_passed_on_to_the_workers_that_can_hear_them() -> None:
    async def play(stage: Stage) -> None:
        first, second = stage.workers
        first.say("unready warming")
        await until(lambda: stage.supervisor._workers[0].can_take)
        stage.hear(signal.SIGHUP)
        assert first.signals == [signal.SIGHUP]
        assert second.signals == []  # it has no handler yet, and would die of it
        stage.hear(signal.SIGINT)
        assert first.signals == [signal.SIGHUP, signal.SIGTERM]
        stage.hear(signal.SIGTERM)
        stage.hear(signal.SIGINT)
        assert first.signals[2:] == [signal.SIGINT]
        assert second.signals == [signal.SIGTERM, signal.SIGINT]

    assert played(2, play) == 0


def test_a_process_that_cannot_be_started_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async def play(stage: Stage) -> None:
        start, failures = stage.supervisor._start, [OSError("no memory"), OSError("no memory")]

        def failing(number: int, channel: socket.socket) -> Coroutine[Any, Any, Any]:
            if failures:
                raise failures.pop()
            return start(number, channel)  # type: ignore[return-value]  # as `Stage` has it

        stage.supervisor._start = failing
        stage.workers[0].say("unready warming", "ready")
        stage.workers[0].end(0)
        await stage.started(2)
        assert stage.pauses == [1, 2]

    assert played(1, play) == 0
    assert "worker 0 cannot be started: no memory" in caplog.text
