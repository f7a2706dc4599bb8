"""The worker's end of the channel: it serves connections that arrive as descriptors, and reports every change."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import cast

import pytest
from solo_server.processes.worker_channel import WorkerChannel
from solo_server.settings import Settings

WAIT_S = 30
LOOPS = (("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True}))


class Echo(asyncio.Protocol):
    """Sends back what it receives, and whether TCP_NODELAY is on."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        connection = transport.get_extra_info("socket")
        self.no_delay = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data + (b" at once" if self.no_delay else b" delayed"))


class FakeSupervisor:
    """Plays the supervisor: hands connections over, reads the reports."""

    def __init__(self) -> None:
        self.channel, theirs = socket.socketpair()
        self.channel.setblocking(False)
        self.worker = WorkerChannel(1, theirs)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.received = b""
        self.orphaned = 0

    def open(self) -> None:
        def orphaned() -> None:
            self.orphaned += 1

        self.worker.open(self.worker.reporting(Echo), orphaned)

    def hand_over(self) -> socket.socket:
        """The client's end of a new connection."""
        caller = socket.create_connection(self.listener.getsockname(), timeout=WAIT_S)
        caller.setblocking(False)
        accepted, _ = self.listener.accept()
        with accepted:
            socket.send_fds(self.channel, [b"c"], [accepted.fileno()])
        return caller

    async def expect(self, *lines: str) -> None:
        """Wait for exactly these lines, counted from the start."""
        expected = "".join(f"{line}\n" for line in lines).encode()
        await until(lambda: len(self.read()) >= len(expected))
        assert self.received == expected

    def read(self) -> bytes:
        with suppress(BlockingIOError):
            self.received += self.channel.recv(1 << 20)
        return self.received

    def close(self) -> None:
        for end in (self.channel, self.worker._channel, self.listener):
            end.close()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not is_so():
            await asyncio.sleep(0.001)


@pytest.fixture
def supervisor() -> Iterator[FakeSupervisor]:
    supervisor = FakeSupervisor()
    yield supervisor
    supervisor.close()


@pytest.mark.parametrize("anyio_backend", LOOPS, ids=["asyncio", "uvloop"])
@pytest.mark.anyio
async def test_a_connection_that_is_handed_over_is_served_and_its_end_is_reported(supervisor: FakeSupervisor) -> None:
    supervisor.open()
    running = asyncio.get_running_loop()
    with supervisor.hand_over() as first, supervisor.hand_over() as second:
        for caller in (first, second):
            await running.sock_sendall(caller, b"hello")
            assert await running.sock_recv(caller, 100) == b"hello at once"
    await until(lambda: supervisor.read().count(b"closed") == 2)
    assert sorted(supervisor.received.split(b"\n")) == [
        b"",
        b"closed 1",
        b"closed 1",
        b"took 1",
        b"took 1",
        b"unready warming",
    ]


@pytest.mark.anyio
async def test_readiness_is_reported_when_it_changes(supervisor: FakeSupervisor) -> None:
    supervisor.open()
    supervisor.worker.report_path("/models/cats/segment")
    for unready in ("warming", None, None, "stalled", None):
        supervisor.worker.report(unready)
    await supervisor.expect("unready warming", "answers /models/cats/segment", "ready", "unready stalled", "ready")


@pytest.mark.anyio
async def test_a_leaving_worker_finishes_its_connections_and_takes_no_more(supervisor: FakeSupervisor) -> None:
    supervisor.open()
    running = asyncio.get_running_loop()
    with supervisor.hand_over() as caller:
        await until(lambda: b"took 1" in supervisor.read())
        await supervisor.worker.leave()
        with supervisor.hand_over() as other:
            await running.sock_sendall(other, b"hello")
            await running.sock_sendall(caller, b"hello")
            assert await running.sock_recv(caller, 100) == b"hello at once"
            with pytest.raises(BlockingIOError):
                other.recv(100)
        await supervisor.expect("unready warming", "took 1", "leaving")


@pytest.mark.parametrize("anyio_backend", LOOPS, ids=["asyncio", "uvloop"])
@pytest.mark.anyio
async def test_the_end_of_the_supervisor_is_noticed_once(supervisor: FakeSupervisor) -> None:
    supervisor.open()
    supervisor.channel.close()
    await until(lambda: supervisor.orphaned > 0)
    supervisor.worker.report(None)  # to nobody
    await asyncio.sleep(0.01)
    assert supervisor.orphaned == 1


@pytest.mark.parametrize("anyio_backend", LOOPS, ids=["asyncio", "uvloop"])
@pytest.mark.anyio
async def test_lines_that_do_not_fit_into_the_socket_are_sent_later_and_in_order(supervisor: FakeSupervisor) -> None:
    supervisor.worker._channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    supervisor.open()
    lines = ["unready warming"]
    for number in range(2000):
        lines.append(f"unready {number}")
        supervisor.worker.report(f"{number}")
    assert supervisor.worker._unsent
    await supervisor.expect(*lines)


def test_a_refusal_is_one_line(supervisor: FakeSupervisor) -> None:
    supervisor.worker.refuse(ValueError("no such file:\nmasks.onnx"))
    assert supervisor.read() == b"refused no such file: masks.onnx\n"


def test_each_worker_has_its_share_of_the_cores_and_a_gpu_of_its_own(
    supervisor: FakeSupervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("solo_server.system.cores.cores", lambda: 7)
    shared = supervisor.worker.own_settings(Settings(workers=3, gpu=2))
    assert (shared.threads, shared.gpu) == (2, 3)
    assert supervisor.worker.own_settings(Settings(workers=3, threads=5)).threads == 5
    assert supervisor.worker.own_settings(Settings(workers=8)).threads == 1
    assert supervisor.worker.own_settings(Settings(workers=2, replicas=2)).threads == 1
