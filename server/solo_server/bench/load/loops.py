"""Closed loop: a number of callers, each sends its next request after the response. Open loop: requests are sent at a fixed rate,
evenly spaced or at random (a Poisson process, like independent callers).

In the open loop latency counts from the moment when a request was due, so that a stalled server cannot hide its delay by holding
back the next request ("coordinated omission"). How late it was sent is recorded too, and shows if the generator cannot keep up.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import inf
from time import perf_counter

from solo_server.bench.errors import EndedEarly
from solo_server.bench.load.connection import Connection, ConnectionLost, Target

MAX_CONNECTIONS = 512
LOST_IN_A_ROW = 20


@dataclass(frozen=True, slots=True)
class Shot:
    """One request. due_s: when it was due, from the start; latency_ms: from then to the response; code: "" for a 200 response.

    status: HTTP status, 0 without a response; late_ms: from when it was due until it was sent on an open connection.
    """

    due_s: float
    latency_ms: float
    code: str
    status: int = 0
    late_ms: float = 0.0


class Load:
    """Sends requests to one server; `shots` grows with every response, so results survive an error. on_shot: called for each."""

    def __init__(self, target: Target, timeout_s: float, on_shot: Callable[[Shot], None] = lambda _: None) -> None:
        self.shots: list[Shot] = []
        self._target, self._timeout_s, self._on_shot = target, timeout_s, on_shot
        self._free: list[Connection] = []
        self._connections: list[Connection] = []
        self._slots = asyncio.Semaphore(MAX_CONNECTIONS)
        self._sent = 0
        self._start = self._last_answer = perf_counter()
        self._lost_in_a_row = 0

    async def closed(self, concurrency: int, seconds: float, count: float = inf) -> None:
        """`concurrency` callers for `seconds`, or until `count` requests are sent; then waits for the pending responses.

        Raises:
            EndedEarly: the server has died or no longer responds.
        """
        self._start = self._last_answer = perf_counter()
        before = self._sent

        async def caller() -> None:
            while perf_counter() - self._start < seconds and self._sent - before < count:
                await self._shoot(perf_counter())

        async with _together() as callers:
            for _ in range(concurrency):
                callers.create_task(caller())

    async def open(self, rate: float, seconds: float, poisson_seed: int | None = None) -> None:
        """`rate` requests per second for `seconds`, evenly spaced, or at random with a seed. Raises as `closed`."""
        offsets = _evenly(rate, seconds) if poisson_seed is None else _at_random(rate, seconds, poisson_seed)
        self._start = self._last_answer = perf_counter()
        async with _together() as requests:
            for offset in offsets:
                due = self._start + offset
                await asyncio.sleep(max(0.0, due - perf_counter()))
                requests.create_task(self._shoot(due))

    async def in_sequence(self, count: int) -> None:
        """`count` requests one after the other. Raises as `closed`."""
        self._start = self._last_answer = perf_counter()
        for _ in range(count):
            await self._shoot(perf_counter())

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.close()

    async def _shoot(self, due: float) -> None:
        """Send one request that was due at the clock time `due`."""
        request = self._target.requests[self._sent % len(self._target.requests)]
        self._sent += 1
        async with self._slots:
            connection = await self._connection()
            late_ms = (perf_counter() - due) * 1e3
            status, code = await self._outcome(connection, request)
        latency_ms = (perf_counter() - due) * 1e3
        shot = Shot(round(due - self._start, 4), round(latency_ms, 3), code, status, round(late_ms, 3))
        self.shots.append(shot)
        self._on_shot(shot)

    async def _outcome(self, connection: Connection, request: bytes) -> tuple[int, str]:
        try:
            reply = await asyncio.wait_for(connection.exchange(request), self._timeout_s)
        except TimeoutError:
            connection.close()
            return 0, self._timed_out()
        except ConnectionLost:
            return 0, self._lost()
        self._last_answer, self._lost_in_a_row = perf_counter(), 0
        if connection.is_open:
            self._free.append(connection)
        return reply.status, reply.code

    def _timed_out(self) -> str:
        if perf_counter() - self._last_answer >= self._timeout_s:
            raise EndedEarly(f"no response from the server for {self._timeout_s:g} s")
        return "timeout"

    def _lost(self) -> str:
        self._lost_in_a_row += 1
        if self._lost_in_a_row >= LOST_IN_A_ROW:
            raise EndedEarly(f"the server closed {LOST_IN_A_ROW} connections in a row without a response")
        return "connection_lost"

    async def _connection(self) -> Connection:
        """A free connection, or a new one."""
        while self._free:
            free = self._free.pop()
            if free.is_open:
                return free
        self._connections = [c for c in self._connections if c.is_open]
        opening = asyncio.get_running_loop().create_connection(Connection, self._target.host, self._target.port)
        try:
            _, connection = await asyncio.wait_for(opening, self._timeout_s)
        except (OSError, TimeoutError) as problem:
            raise EndedEarly(f"the server no longer accepts connections ({_reason(problem)})") from problem
        self._connections.append(connection)
        return connection


def _evenly(rate: float, seconds: float) -> list[float]:
    """When requests are due: seconds from the start, evenly spaced."""
    return [number / rate for number in range(max(1, round(rate * seconds)))]


def _at_random(rate: float, seconds: float, seed: int) -> list[float]:
    """When requests of independent callers are due: seconds from the start, with exponential gaps."""
    rng, offsets, at = random.Random(seed), [], 0.0  # noqa: S311  # reproducible, not secret
    while (at := at + rng.expovariate(rate)) < seconds:
        offsets.append(at)
    return offsets or [0.0]


@asynccontextmanager
async def _together() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group in which the first EndedEarly cancels all tasks and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except ExceptionGroup as problems:
        ended, others = problems.split(EndedEarly)
        if others is not None or ended is None:
            raise
        raise EndedEarly(str(ended.exceptions[0])) from problems


def _reason(problem: Exception) -> str:
    """The system's message, without asyncio's list of addresses."""
    number = problem.errno if isinstance(problem, OSError) else None
    return os.strerror(number) if number else type(problem).__name__
