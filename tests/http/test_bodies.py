"""What large bodies leave behind is freed in a worker, when nobody else holds it any more."""

import asyncio
import threading
from contextlib import suppress

import pytest
from fastapi import FastAPI
from solo_server.http.bodies import HELD_BYTES, hold
from solo_server.http.request_middleware import RequestMiddleware
from solo_server.http.uploads import UploadLimits
from solo_server.service.worker_threads import WorkerThreads
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send
from support.small_app import make_telemetry


class Body:
    """Tells which thread freed it."""

    def __init__(self, freed_in: list[str]) -> None:
        self._freed_in = freed_in

    def __del__(self) -> None:
        self._freed_in.append(threading.current_thread().name)


async def unused(*_: Message) -> Message:
    raise NotImplementedError  # for good: the application of this test neither receives nor sends


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(("size_bytes", "thread"), [(HELD_BYTES + 1, "solo-free_0"), (HELD_BYTES, "MainThread")])
def test_only_what_is_large_is_freed_in_a_worker(size_bytes: int, thread: str, fails: bool) -> None:
    freed_in: list[str] = []

    def endpoint(scope: Scope) -> None:
        body = Body(freed_in)
        hold(Request(scope), size_bytes, body)
        if fails:
            raise LookupError(body)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(LookupError):  # as the handlers of errors do, within all middleware
            endpoint(scope)

    async def run() -> None:
        threads = WorkerThreads("free", 1)

        async def free(held: list[object]) -> None:
            await threads.run(held.clear)

        edge = RequestMiddleware(application, make_telemetry(), UploadLimits(1.0, 1.0), free)
        await edge(
            {"type": "http", "method": "POST", "path": "/", "headers": [], "route": None, "app": FastAPI()},
            unused,
            unused,
        )
        threads.stop()

    asyncio.run(run())
    assert freed_in == [thread]
