"""`solo serve` with a task in its event loop that wakes every millisecond and notes how late it was.

    python benchmarks/reliability_parts/probed_server.py FILE --host H --port P

Written to FILE when the server ends: for each wake-up the clock (`time.monotonic`), how late it was in wall time, and for how much
of that, at most, the event loop's thread had a core, both in milliseconds. The second is what callbacks of ours took; the first
also holds what the thread waited for a core or for the interpreter lock.
"""

from __future__ import annotations

import asyncio
import sys
from array import array
from pathlib import Path
from time import monotonic, thread_time
from typing import Any

import uvicorn
from solo_models import cli

EVERY_S = 0.001


async def probe(found: array[float]) -> None:
    """For ever."""
    while True:
        due, used = monotonic() + EVERY_S, thread_time()
        await asyncio.sleep(EVERY_S)
        now = monotonic()
        late_s = max(0.0, now - due)
        found.extend((now, late_s * 1e3, min(late_s, thread_time() - used) * 1e3))


def main() -> int:
    """Serve as `solo serve` does; exit status."""
    path, found, startup = Path(sys.argv[1]), array("d"), uvicorn.Server.startup
    running: list[asyncio.Task[None]] = []

    async def probed(server: uvicorn.Server, *arguments: Any, **options: Any) -> None:
        running.append(asyncio.create_task(probe(found)))
        await startup(server, *arguments, **options)

    uvicorn.Server.startup = probed  # type: ignore[method-assign]
    try:
        return cli.main(["serve", *sys.argv[2:]])
    finally:
        path.write_bytes(found.tobytes())


if __name__ == "__main__":
    sys.exit(main())
