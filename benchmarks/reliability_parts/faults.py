"""SIGTERM to a server, and kill -9 of a worker, under load: what happens to the requests.

A request counts as accepted when the server has sent `100 Continue`, that is, has admitted it and wants its body.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from time import monotonic, sleep
from typing import Any

from solo_server.bench.load.loops import Load, Shot
from solo_server.bench.load.server_process import Address, ServerProcess

from reliability_parts.loads import TIMEOUT_S, served, warm_up
from reliability_parts.run_options import RunOptions, log

CALLERS = 12
CONTINUE, OK = b"HTTP/1.1 100", b"HTTP/1.1 200"
WORKERS = 2


def faults(options: RunOptions) -> dict[str, Any]:
    """Run both faults."""
    return {"terminated": terminated(options), "worker_killed": worker_killed(options)}


def terminated(options: RunOptions) -> dict[str, Any]:
    """SIGTERM during a load, several times."""
    rounds, seconds = int(options.pick(5, 1)), options.pick(5, 2)
    counts: Counter[str] = Counter()
    statuses = []
    for _ in range(rounds):
        with served() as server:
            counts += asyncio.run(_until_terminated(options, server, seconds))
            statuses.append(server.exit_status(30))
        log(f"faults: SIGTERM: {dict(counts)}, exit status {statuses[-1]}")
    found = {name: counts[name] for name in ("accepted", "answered", "lost", "other")}
    return {"rounds": rounds, "callers": CALLERS, **found, "exit_statuses": statuses}


async def _until_terminated(options: RunOptions, server: ServerProcess, seconds: float) -> Counter[str]:
    counts: Counter[str] = Counter()
    body = next(iter(options.images().values()))
    callers = [asyncio.create_task(_call(server.address, body, counts)) for _ in range(CALLERS)]
    await asyncio.sleep(seconds)
    server.send(signal.SIGTERM)
    await asyncio.gather(*callers)
    return counts


async def _call(address: Address, body: bytes, counts: Counter[str]) -> None:
    """Send one request after the other, each on a new connection, until one is not accepted.

    A connection that the kernel accepted and the server did not is reset when the server stops listening: not accepted.
    """
    head = f"POST /segment HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    while True:
        is_accepted = False
        try:
            reader, writer = await asyncio.open_connection(address.host, address.port)
        except OSError:
            return  # the server no longer listens
        try:
            writer.write(head)
            if not (await reader.read(4096)).startswith(CONTINUE):
                return
            counts["accepted"] += 1
            is_accepted = True
            writer.write(body)
            answer = await reader.read(64)
            counts["answered" if answer.startswith(OK) else "other" if answer else "lost"] += 1
        except OSError:
            counts["lost"] += is_accepted
            return
        finally:
            writer.close()


def worker_killed(options: RunOptions) -> dict[str, Any]:
    """kill -9 of one of two workers, under load."""
    if not has_workers_option():
        log("faults: NOT RUN: solo serve has no --workers")
        return {"not_run": "solo serve has no --workers"}
    with served("--workers", str(WORKERS), "--threads", "1") as server:
        sleep(options.pick(8, 3))  # the server is ready with the first worker: wait for the second
        warm_up(options.target(server.address), server)
        found = asyncio.run(_kill_one(options, server))
    log(f"faults: worker killed: {found}")
    return found


async def _kill_one(options: RunOptions, server: ServerProcess) -> dict[str, Any]:
    seconds = options.pick(60, 12)
    load = Load(options.target(server.address), TIMEOUT_S)
    running = asyncio.create_task(load.closed(CALLERS, seconds))
    await asyncio.sleep(seconds / 4)
    before = set(server.children())
    killed = min(before)
    killed_at, killed_s = monotonic(), seconds / 4
    os.kill(killed, signal.SIGKILL)
    begun_s = await _until_replaced(server, before, killed_at, seconds)
    await running
    load.close()
    return {
        "workers": len(before),
        "callers": CALLERS,
        "new_process_after_s": begun_s,
        "full_speed_after_s": full_speed_after_s(load.shots, killed_s),
        "outcomes": dict(Counter(shot.code or "ok" for shot in load.shots)),
        "supervisor_goes_on": server.exit_status(0) is None,
    }


async def _until_replaced(server: ServerProcess, before: set[int], since: float, limit_s: float) -> float | None:
    """Seconds until there are as many children as before, with a new one; `None` if not within the limit."""
    while monotonic() - since < limit_s:
        now = set(server.children())
        if len(now) >= len(before) and now - before:
            return round(monotonic() - since, 2)
        await asyncio.sleep(0.05)
    return None


def full_speed_after_s(shots: list[Shot], killed_s: float, share: float = 0.9) -> float | None:
    """Seconds from the kill to the first second back at `share` of the earlier rate; 0 if no second was below, None if never."""
    good = [shot.due_s + shot.latency_ms / 1e3 for shot in shots if not shot.code]
    rate = sum(1 <= at < killed_s for at in good) / (killed_s - 1)
    seconds = range(int(killed_s), int(max(good, default=0.0)))
    fast = [sum(second <= at < second + 1 for at in good) >= share * rate for second in seconds]
    if all(fast):
        return 0.0
    back = next((n for n in range(fast.index(False), len(fast)) if fast[n]), None)
    return None if back is None else float(back)


def has_workers_option() -> bool:
    """Whether `solo serve` has the option --workers."""
    command = [sys.executable, "-m", "solo_models.cli", "serve", "--help"]
    return "--workers" in subprocess.run(command, capture_output=True, text=True, check=False).stdout
