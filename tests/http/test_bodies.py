"""Large bodies are freed in a worker, when nothing else refers to them."""

import asyncio
import threading
from contextlib import suppress

import pytest
from fastapi import FastAPI
from solo_server.http.bodies import FREED_IN_WORKER_BYTES, free_in_worker
from solo_server.http.request_middleware import RequestMiddleware
from solo_server.http.uploads import UploadLimits
from solo_server.service.worker_threads import WorkerThreads
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send
from support.small_app import make_telemetry


class Body:
    """Records which thread freed it."""

    def __init__(self, freed_in: list[str]) -> None:
        self._freed_in = freed_in

    def __del__(self) -> None:
        self._freed_in.append(threading.current_thread().name)


async def unused(*_: Message) -> Message:
    raise NotImplementedError  # the application of this test neither receives nor sends


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(
    ("size_bytes", "thread"), [(FREED_IN_WORKER_BYTES + 1, "solo-free_0"), (FREED_IN_WORKER_BYTES, "MainThread")]
)
def test_only_large_bodies_are_freed_in_a_worker(size_bytes: int, thread: str, fails: bool) -> None:
    freed_in: list[str] = []

    def endpoint(scope: Scope) -> None:
        body = Body(freed_in)
        free_in_worker(Request(scope), size_bytes, body)
        if fails:
            raise LookupError(body)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(LookupError):  # as error handling does, inside of the middleware
            endpoint(scope)

    async def run() -> None:
        threads = WorkerThreads("free", 1)

        async def free(bodies: list[object]) -> None:
            await threads.run(bodies.clear)

        middleware = RequestMiddleware(application, make_telemetry(), UploadLimits(1.0, 1.0), free)
        await middleware(
            {"type": "http", "method": "POST", "path": "/", "headers": [], "route": None, "app": FastAPI()},
            unused,
            unused,
        )
        threads.stop()

    asyncio.run(run())
    assert freed_in == [thread]
