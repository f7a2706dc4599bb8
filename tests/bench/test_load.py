"""The load generator against a small server that responds, stalls, refuses, hangs up or dies."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from solo_server.bench.errors import EndedEarly
from solo_server.bench.load.connection import Target, post
from solo_server.bench.load.loops import LOST_IN_A_ROW, Load
from solo_server.bench.load.points import Point

Respond = Callable[[int], Awaitable[bytes | None]]  # number of the request -> response; None: hang up
Drive = Callable[[Load], Awaitable[None]]

GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


def _problem(code: str) -> bytes:
    body = json.dumps({"code": code}).encode()
    return b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


class SmallServer:
    """Reads requests with a body; `respond` decides what to send."""

    def __init__(self, respond: Respond) -> None:
        self._respond = respond
        self.connections = self.requests = 0
        self.bodies: list[bytes] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    def stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
                self.bodies.append(await reader.readexactly(length))
                self.requests += 1
                reply = await self._respond(self.requests)
                if reply is None:
                    break
                writer.write(reply)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the load generator has disconnected
        finally:
            writer.close()


def _run(respond: Respond, drive: Drive, timeout_s: float = 5.0) -> tuple[Load, SmallServer, EndedEarly | None]:
    """Drive a load against a small server; also returns EndedEarly if it was raised."""

    async def run() -> tuple[Load, SmallServer, EndedEarly | None]:
        server = SmallServer(respond)
        port = await server.start()
        requests = tuple(post("x", port, "/segment", body) for body in (b"one", b"two"))
        load = Load(Target("127.0.0.1", port, requests, ("one", "two")), timeout_s)
        ended = None
        try:
            await drive(load)
        except EndedEarly as problem:
            ended = problem
        finally:
            load.close()
            server.stop_listening()
        await asyncio.sleep(0.01)
        return load, server, ended

    return asyncio.run(run())


async def _good(_: int) -> bytes:
    return GOOD


def test_a_closed_loop_keeps_one_connection_per_caller_and_cycles_through_the_images() -> None:
    async def slowly(_: int) -> bytes:
        await asyncio.sleep(0.01)
        return GOOD

    load, server, ended = _run(slowly, lambda load: load.closed(3, 0.15))
    assert ended is None
    assert server.connections == 3
    assert server.requests == len(load.shots) > 6
    assert set(server.bodies) == {b"one", b"two"}
    assert all(shot.code == "" and shot.latency_ms >= 10 for shot in load.shots)


def test_an_open_loop_sends_at_its_rate() -> None:
    load, _, _ = _run(_good, lambda load: load.open(100, 0.1))
    assert [shot.due_s for shot in sorted(load.shots, key=lambda s: s.due_s)] == pytest.approx(
        [i / 100 for i in range(10)], abs=1e-3
    )


def test_latency_counts_from_the_schedule_so_a_stall_is_not_hidden() -> None:
    stalled = asyncio.Event()

    async def stall_once(number: int) -> bytes:
        if number == 1:
            await asyncio.sleep(0.2)
            stalled.set()
        else:
            await stalled.wait()  # one at a time, like an engine
        return GOOD

    load, _, _ = _run(stall_once, lambda load: load.open(50, 0.1))
    latencies = [shot.latency_ms for shot in sorted(load.shots, key=lambda s: s.due_s)]
    for number, latency_ms in enumerate(latencies):  # due 20 ms apart, none answered before the stall ends
        assert latency_ms >= 199 - 20 * number


def test_refusals_are_counted_by_their_code() -> None:
    async def refuse_half(number: int) -> bytes:
        return _problem("overloaded") if number % 2 else GOOD

    load, _, ended = _run(refuse_half, lambda load: load.in_sequence(6))
    assert ended is None
    point = Point("closed", 1, load.shots)
    figures = point.figures()
    assert figures["errors"] == {"overloaded": 3}
    assert figures["requests"] == 6
    assert figures["throughput"] == pytest.approx(3 / point.elapsed_s(), abs=1e-3)


def test_a_failure_without_a_code_is_counted_by_its_status() -> None:
    async def plain(_: int) -> bytes:
        return b"HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\noops"

    load, _, _ = _run(plain, lambda load: load.in_sequence(1))
    assert load.shots[0].code == "http_500"


def test_a_connection_that_the_server_closes_is_reopened() -> None:
    async def close_after(_: int) -> bytes:
        return GOOD.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")

    load, server, _ = _run(close_after, lambda load: load.in_sequence(3))
    assert [shot.code for shot in load.shots] == ["", "", ""]
    assert server.connections == 3


def test_one_lost_response_is_an_error_and_many_in_a_row_end_the_run() -> None:
    async def lose_the_second(number: int) -> bytes | None:
        return None if number == 2 else GOOD

    load, _, ended = _run(lose_the_second, lambda load: load.in_sequence(3))
    assert ([shot.code for shot in load.shots], ended) == (["", "connection_lost", ""], None)

    async def lose_all(_: int) -> None:
        return None

    load, _, ended = _run(lose_all, lambda load: load.in_sequence(100))
    assert "closed" in str(ended)
    assert len(load.shots) == LOST_IN_A_ROW - 1


def test_a_server_that_stops_responding_ends_the_run() -> None:
    async def hang_after_two(number: int) -> bytes:
        await asyncio.sleep(0 if number <= 2 else 60)
        return GOOD

    load, _, ended = _run(hang_after_two, lambda load: load.closed(2, 10), timeout_s=0.2)
    assert "no response from the server for 0.2 s" in str(ended)
    assert [shot.code for shot in load.shots] == ["", ""]


def test_a_single_slow_response_is_a_timeout() -> None:
    async def slow_first(number: int) -> bytes:
        await asyncio.sleep(60 if number == 1 else 0.01)
        return GOOD

    load, _, ended = _run(slow_first, lambda load: load.closed(2, 0.3), timeout_s=0.2)
    assert ended is None
    assert [shot.code for shot in load.shots].count("timeout") == 1


def test_a_dying_server_ends_the_run_and_earlier_results_are_kept() -> None:
    async def drive(load: Load) -> None:
        await load.in_sequence(2)
        servers[0].stop_listening()
        await load.in_sequence(5)

    servers: list[SmallServer] = []

    async def die_after_two(number: int) -> bytes | None:
        return GOOD if number <= 2 else None

    async def run() -> tuple[Load, str]:
        servers.append(SmallServer(die_after_two))
        load = Load(Target("127.0.0.1", await servers[0].start(), (post("x", 1, "/", b"one"),), ("one",)), 5)
        with pytest.raises(EndedEarly) as ended:
            await drive(load)
        load.close()
        await asyncio.sleep(0.01)
        return load, str(ended.value)

    load, message = asyncio.run(run())
    assert [shot.code for shot in load.shots] == ["", "", "connection_lost"]
    assert "no longer accepts connections (Connection refused)" in message


def test_figures_without_a_good_response_are_none_not_zero() -> None:
    figures = Point("open", 5).figures()
    assert figures["p99_ms"] is None
    assert figures["throughput"] == 0
