"""`solo serve` with a task in its event loop that wakes every millisecond and records how late it is.

    python benchmarks/reliability_parts/probed_server.py FILE --host H --port P

When the server exits, FILE has for each wake-up: the clock (`time.monotonic`), the lateness in wall time, and an upper bound of the
processor time of the event loop's thread within it, both in milliseconds. The latter is the time of callbacks; the former also
includes waiting for a core or for the interpreter lock.
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
    """Record wake-ups forever."""
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
