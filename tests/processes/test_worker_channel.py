"""A worker's end: connections that come as descriptors are served like accepted ones, and every change is told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, cast

import pytest
import uvloop
from solo_server.processes.worker_channel import WorkerChannel
from solo_server.settings import Settings

WAIT_S = 30
LOOPS = (asyncio.new_event_loop, uvloop.new_event_loop)


class Echo(asyncio.Protocol):
    """Sends back what comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        connection = transport.get_extra_info("socket")
        self.no_delay = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data + (b" at once" if self.no_delay else b" delayed"))


class Boss:
    """The supervisor's part, played: hands connections over, hears what is said."""

    def __init__(self) -> None:
        self.channel, theirs = socket.socketpair()
        self.channel.setblocking(False)
        self.worker = WorkerChannel(1, theirs)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.heard = b""
        self.orphaned = 0

    def open(self) -> None:
        def orphaned() -> None:
            self.orphaned += 1

        self.worker.open(self.worker.reporting(Echo), orphaned)

    def hand_over(self) -> socket.socket:
        """The caller's end of a new connection."""
        caller = socket.create_connection(self.listener.getsockname(), timeout=WAIT_S)
        caller.setblocking(False)
        accepted, _ = self.listener.accept()
        with accepted:
            socket.send_fds(self.channel, [b"c"], [accepted.fileno()])
        return caller

    async def hears(self, *lines: str) -> None:
        """Exactly these so far."""
        told = "".join(f"{line}\n" for line in lines).encode()
        await until(lambda: len(self.hear()) >= len(told))
        assert self.heard == told

    def hear(self) -> bytes:
        with suppress(BlockingIOError):
            self.heard += self.channel.recv(1 << 20)
        return self.heard

    def close(self) -> None:
        for end in (self.channel, self.worker._channel, self.listener):
            end.close()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not is_so():
            await asyncio.sleep(0.001)


def played(play: Callable[[Boss], Coroutine[Any, Any, None]], loop: Any = asyncio.new_event_loop) -> None:
    boss = Boss()
    try:
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(asyncio.wait_for(play(boss), WAIT_S))
    finally:
        boss.close()


@pytest.mark.parametrize("loop", LOOPS)
def test_a_connection_that_is_handed_over_is_served_and_its_end_is_told(loop: Any) -> None:
    async def play(boss: Boss) -> None:
        boss.open()
        running = asyncio.get_running_loop()
        with boss.hand_over() as first, boss.hand_over() as second:
            for caller in (first, second):
                await running.sock_sendall(caller, b"hello")
                assert await running.sock_recv(caller, 100) == b"hello at once"
        await until(lambda: boss.hear().count(b"closed") == 2)
        assert sorted(boss.heard.split(b"\n")) == [
            b"",
            b"closed 1",
            b"closed 1",
            b"took 1",
            b"took 1",
            b"unready warming",
        ]

    played(play, loop)


def test_readiness_is_told_when_it_changes() -> None:
    async def play(boss: Boss) -> None:
        boss.open()
        boss.worker.tell_path("/models/cats/segment")
        for unready in ("warming", None, None, "stalled", None):
            boss.worker.report(unready)
        await boss.hears("unready warming", "answers /models/cats/segment", "ready", "unready stalled", "ready")

    played(play)


def test_who_leaves_finishes_what_it_took_and_takes_no_more() -> None:
    async def play(boss: Boss) -> None:
        boss.open()
        running = asyncio.get_running_loop()
        with boss.hand_over() as caller:
            await until(lambda: b"took 1" in boss.hear())
            await boss.worker.leave()
            with boss.hand_over() as other:
                await running.sock_sendall(other, b"hello")
                await running.sock_sendall(caller, b"hello")
                assert await running.sock_recv(caller, 100) == b"hello at once"
                with pytest.raises(BlockingIOError):
                    other.recv(100)
            await boss.hears("unready warming", "took 1", "leaving")

    played(play)


@pytest.mark.parametrize("loop", LOOPS)
def test_the_end_of_the_supervisor_is_noticed_once(loop: Any) -> None:
    async def play(boss: Boss) -> None:
        boss.open()
        boss.channel.close()
        await until(lambda: boss.orphaned > 0)
        boss.worker.report(None)  # to nobody
        await asyncio.sleep(0.01)
        assert boss.orphaned == 1

    played(play, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_what_the_supervisor_has_no_room_for_is_told_later_and_in_order(loop: Any) -> None:
    async def play(boss: Boss) -> None:
        boss.worker._channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        boss.open()
        told = ["unready warming"]
        for number in range(2000):
            told.append(f"unready {number}")
            boss.worker.report(f"{number}")
        assert boss.worker._unsent
        await boss.hears(*told)

    played(play, loop)


def test_a_refusal_is_one_line() -> None:
    boss = Boss()
    try:
        boss.worker.refuse(ValueError("no such file:\nmasks.onnx"))
        assert boss.hear() == b"refused no such file: masks.onnx\n"
    finally:
        boss.close()


def test_each_worker_has_its_share_of_the_cores_and_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solo_server.system.cores.cores", lambda: 7)
    boss = Boss()
    try:
        shared = boss.worker.share(Settings(workers=3, gpu=2))
        assert (shared.threads, shared.gpu) == (2, 3)
        assert boss.worker.share(Settings(workers=3, threads=5)).threads == 5
        assert boss.worker.share(Settings(workers=8)).threads == 1
        assert boss.worker.share(Settings(workers=2, replicas=2)).threads == 1
    finally:
        boss.close()
