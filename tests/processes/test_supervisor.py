"""Who gets a connection, what happens to a dead worker's connections, when the next worker starts: with fake workers."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from solo_server.processes.supervisor import Delays, Supervisor, exit_text
from solo_server.processes.worker_handle import WorkerHandle, by_preference

WAIT_S = 30


class FakeWorker:
    """A worker process played by the test: the signals it gets, and how it ends."""

    def __init__(self, number: int, channel: socket.socket) -> None:
        self.pid, self.number = 1000 + number, number
        self.channel = channel.dup()
        self.channel.setblocking(False)
        self.signals: list[int] = []
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def send(self, *lines: str) -> None:
        self.channel.sendall("".join(f"{line}\n" for line in lines).encode())

    async def taken(self) -> socket.socket:
        """Receive the next connection and confirm it."""
        await until(self.has_connection)
        _, descriptors, _, _ = socket.recv_fds(self.channel, 1, 1)
        self.send("took 1")
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


class FakeServer:
    """A supervisor with its fake workers in the order of their starts, and the pauses it made."""

    def __init__(self, count: int, listener: socket.socket, drain_seconds: float = 20) -> None:
        self.address = listener.getsockname()
        self.workers: list[FakeWorker] = []
        self.pauses: list[float] = []
        self.restarts = 0
        self.status: int | None = None
        self.ended: list[int] = []
        self._handlers: dict[int, Callable[[], object]] = {}
        asyncio.get_running_loop().add_signal_handler = self._handle  # type: ignore[method-assign]
        self.supervisor = Supervisor(
            listener, count, self._start, drain_seconds, on_end=self.ended.append, on_restart=self._restarted,
            pause=self._pause,
        )  # fmt: skip

    async def _start(self, number: int, channel: socket.socket) -> FakeWorker:
        self.workers.append(FakeWorker(number, channel))
        return self.workers[-1]

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def signal(self, number: int) -> None:
        """Call the supervisor's handler of a signal; a real signal could end the process that runs the tests."""
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


@asynccontextmanager
async def supervised(count: int, drain_seconds: float = 20) -> AsyncIterator[FakeServer]:
    """A supervisor while the block runs; at its end all workers that are left end normally, and `status` is set."""
    server = FakeServer(count, socket.create_server(("127.0.0.1", 0)), drain_seconds)
    running = asyncio.create_task(server.supervisor.run())
    try:
        await server.started(count)
        yield server
    finally:
        server.supervisor.stop()
        for worker in server.workers:
            worker.end(0)
        server.status = await running


@pytest.fixture
def make() -> Iterator[Callable[..., WorkerHandle]]:
    """Makes worker handles whose channel has another end that nobody reads."""
    ends: list[socket.socket] = []

    def worker(number: int, **state: Any) -> WorkerHandle:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        ends.extend((ours, theirs))
        return WorkerHandle(number, Silent(), ours, **state)

    yield worker
    for end in ends:
        end.close()


class Silent:
    """A process that does nothing."""

    pid = 1

    def send_signal(self, signal: int, /) -> None:
        raise ProcessLookupError

    async def wait(self) -> int:
        raise AssertionError("nobody waits for it")


def test_the_ready_worker_with_the_fewest_connections_is_first_and_equals_take_turns(
    make: Callable[..., WorkerHandle],
) -> None:
    ready = [make(0, unready=None, connections=2), make(1, unready=None, connections=1, turn=9),
             make(2, unready=None, connections=1, turn=4)]  # fmt: skip
    others = [make(3, unready="warming"), make(4), make(5, unready=None, is_leaving=True)]
    assert [w.number for w in by_preference([*ready, *others])] == [2, 1, 0]


def test_without_a_ready_worker_one_that_can_answer_gets_the_connection(make: Callable[..., WorkerHandle]) -> None:
    assert [w.number for w in by_preference([make(0), make(1, unready="warming")])] == [1]
    assert by_preference([make(0), make(1, unready="draining", is_leaving=True)]) == []


def test_messages_of_a_worker_may_arrive_in_pieces(make: Callable[..., WorkerHandle]) -> None:
    worker = make(0)
    with socket.socket() as first, socket.socket() as second:
        assert worker.hand_over(first, 1)
        assert worker.hand_over(second, 2)
        assert worker.path == "/segment"
        for piece in (
            b"unready war",
            b"ming\ntook",
            b" 2\nanswers /models/cat%20",
            b"s/segment\nready\nclosed 1\nleav",
        ):
            worker.process_lines(piece)
        assert (worker.connections, worker.unready, worker.has_been_ready) == (1, None, True)
        assert worker.path == "/models/cat%20s/segment"
        assert first.fileno() == second.fileno() == -1  # our copies are closed
    assert not worker.is_leaving
    worker.process_lines(b"ing\nrefused no such file\n")
    assert (worker.is_leaving, worker.refusal) == (True, "no such file")


def test_a_worker_that_does_not_read_is_skipped_without_waiting(make: Callable[..., WorkerHandle]) -> None:
    worker = make(0, unready=None)
    worker.channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    with socket.socket() as connection:
        given = sum(worker.hand_over(connection, turn) for turn in range(10_000))
        assert given < 10_000
        assert worker.connections == len(worker.unconfirmed) == given


def test_the_next_start_comes_at_once_or_after_growing_delays() -> None:
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
def test_the_log_says_in_words_how_a_process_ended(status: int, words: str) -> None:
    assert exit_text(status) == words


@pytest.mark.anyio
async def test_long_lived_connections_are_spread_evenly() -> None:
    async with supervised(2) as server:
        first, second = server.workers
        first.send("unready warming", "ready")
        second.send("unready warming", "ready")
        await until(lambda: len(by_preference(server.supervisor._workers.values())) == 2)
        callers = [server.call() for _ in range(8)]
        taken = [(await first.taken(), await second.taken()) for _ in range(4)]
        assert not first.has_connection()
        assert not second.has_connection()
        second.send("closed 3")
        await until(lambda: server.supervisor._workers[1].connections == 1)
        callers += [server.call() for _ in range(3)]
        taken += [(await second.taken(), await second.taken()), (await second.taken(),)]  # type: ignore[list-item]  # one alone
        for connection in [*callers, *(c for pair in taken for c in pair)]:
            connection.close()
    assert server.status == 0


@pytest.mark.anyio
async def test_connections_wait_until_a_worker_can_take_them() -> None:
    async with supervised(2) as server:
        with server.call(b"hello") as caller:
            await asyncio.sleep(0.05)
            assert not any(worker.has_connection() for worker in server.workers)
            server.workers[1].send("unready warming")
            with await server.workers[1].taken() as connection:
                assert connection.recv(5) == b"hello"
                connection.sendall(b"warming")
            assert caller.recv(7) == b"warming"
    assert server.status == 0


@pytest.mark.anyio
async def test_unconfirmed_connections_of_a_dead_worker_go_to_another() -> None:
    async with supervised(2) as server:
        first, second = server.workers
        first.send("unready warming", "ready")
        await until(lambda: server.supervisor._workers[0].unready is None)
        with server.call(b"taken") as lost, server.call(b"not taken") as kept:
            with await first.taken():
                await until(lambda: len(server.supervisor._workers[0].unconfirmed) == 1)
                second.send("unready warming", "ready")
            first.end(-9)
            with await second.taken() as connection:
                assert connection.recv(100) == b"not taken"
                connection.sendall(b"answer")
            assert kept.recv(100) == b"answer"
            with suppress(ConnectionResetError):
                assert lost.recv(100) == b""  # the one with the worker that it had is closed, here and there
        await server.started(3)
        assert (server.workers[2].number, server.pauses, server.ended) == (0, [], [0])
        assert server.restarts == 1
    assert server.status == 0


@pytest.mark.anyio
async def test_a_leaving_worker_gets_no_more_connections() -> None:
    async with supervised(2) as server:
        first, second = server.workers
        first.send("unready warming", "ready", "unready draining", "leaving")
        second.send("unready warming")
        await until(lambda: server.supervisor._workers[0].is_leaving and server.supervisor._workers[1].can_take)
        with server.call(), await second.taken():
            assert not first.has_connection()
    assert server.status == 0


@pytest.mark.anyio
async def test_a_worker_that_dies_before_it_is_ready_is_started_after_growing_delays(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with supervised(1) as server:
        server.workers[0].send("unready warming", "ready")
        server.workers[0].end(-11)
        for count, status in ((2, 1), (3, 2), (4, 70)):
            await server.started(count)
            server.workers[-1].send("unready warming", *(["refused the bundle is damaged"] if status == 2 else []))
            server.workers[-1].end(status)
        await server.started(5)
        assert server.pauses == [1, 2, 4]
    assert server.status == 0
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert said == [
        "worker 0 (pid 1000) was killed by SIGSEGV; its replacement starts now",
        "worker 0 (pid 1000) ended with status 1 (the log has a traceback); its replacement starts in 1 s",
        "worker 0 (pid 1000) ended with status 2 (a setting, the bundle or the engine is wrong): the bundle is damaged; "
        "its replacement starts in 2 s",
        "worker 0 (pid 1000) ended with status 70 (the engine hangs); its replacement starts in 4 s",
    ]


@pytest.mark.anyio
async def test_a_worker_that_refuses_to_start_at_first_stops_everything() -> None:
    async with supervised(2) as server:
        refusing, other = server.workers
        refusing.send("unready warming", "refused the bundle is damaged")
        refusing.end(2)
        await until(lambda: other.signals == [signal.SIGTERM])
        assert server.supervisor.refusal == "the bundle is damaged"
    assert server.status == 2


@pytest.mark.anyio
async def test_a_worker_that_does_not_end_in_time_is_killed_and_the_exit_status_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("solo_server.processes.supervisor.KILL_AFTER_S", 0.0)

    async with supervised(1, drain_seconds=0) as server:
        server.supervisor.stop()
        await until(lambda: server.workers[0].signals == [signal.SIGTERM, signal.SIGKILL])
    assert server.status == 1


@pytest.mark.anyio
async def test_a_worker_that_leaves_and_does_not_end_is_killed_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solo_server.processes.supervisor.KILL_AFTER_S", 0.0)

    async with supervised(1, drain_seconds=0) as server:
        server.workers[0].send("unready warming", "ready", "unready stalled", "leaving")
        await server.started(2)
        assert server.workers[0].signals == [signal.SIGKILL]
    assert server.status == 0


@pytest.mark.anyio
async def test_signals_are_passed_on_to_workers_that_have_handlers() -> None:
    async with supervised(2) as server:
        first, second = server.workers
        first.send("unready warming")
        await until(lambda: server.supervisor._workers[0].can_take)
        server.signal(signal.SIGHUP)
        assert first.signals == [signal.SIGHUP]
        assert second.signals == []  # it has no handler yet, and would die of it
        server.signal(signal.SIGINT)
        assert first.signals == [signal.SIGHUP, signal.SIGTERM]
        server.signal(signal.SIGTERM)
        server.signal(signal.SIGINT)
        assert first.signals[2:] == [signal.SIGINT]
        assert second.signals == [signal.SIGTERM, signal.SIGINT]
    assert server.status == 0


@pytest.mark.anyio
async def test_a_worker_that_cannot_be_started_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async with supervised(1) as server:
        start, failures = server.supervisor._start, [OSError("no memory"), OSError("no memory")]

        def failing(number: int, channel: socket.socket) -> Coroutine[Any, Any, Any]:
            if failures:
                raise failures.pop()
            return start(number, channel)  # type: ignore[return-value]  # as `FakeServer` has it

        server.supervisor._start = failing
        server.workers[0].send("unready warming", "ready")
        server.workers[0].end(0)
        await server.started(2)
        assert server.pauses == [1, 2]
    assert server.status == 0
    assert "worker 0 cannot be started: no memory" in caplog.text
