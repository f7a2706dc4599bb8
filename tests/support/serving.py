"""A real server on a free port, and a real client to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import httpx
import uvicorn


@contextmanager
def serving(
    app: Any, lifespan: Literal["on", "off"] = "on", *, warm: bool = True, **options: Any
) -> Iterator[httpx.Client]:
    """A real server on a free loopback port, and a real client to it.

    warm: once it takes requests; options: of `uvicorn.Config`.
    """
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan=lifespan, **options))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the server did not start")
        time.sleep(0.01)
    while warm and lifespan == "on" and not app.state.service.is_ready:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()
