"""What a caller sends: the body, within its limit; its form; and whether anyone still waits for the answer.

Whatever takes more than a moment with a large body is done in a worker, not on the event loop: joining it, parsing it, and giving
its memory back to the system at the end (8 ms for 40 MB).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.types import Scope

from solo_server.errors import BodyTooLarge, EmptyBody
from solo_server.http.forms import Form, is_form, parse_form

T = TypeVar("T")
LARGE_BYTES = 256 << 10  # the parser takes a millisecond or two for so much
HELD_BYTES = 2 << 20  # freeing so much takes half a millisecond


class InWorker(Protocol):
    """Runs work in a thread."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]:
        """What `work` returns or raises."""
        ...


def first_header(scope: Scope, name: bytes) -> str | None:
    """The value of a header, `None` where there is none. name: in small letters. `Headers` takes four times as long."""
    for found, value in scope["headers"]:
        if found == name:
            return str(value, "latin-1")
    return None


def hold(request: Request, size_bytes: int, *bodies: object) -> None:
    """Leave it to `RequestMiddleware` to free these, if their bytes are many: whoever else drops them is not the last."""
    if size_bytes > HELD_BYTES:
        request.scope.setdefault("state", {}).setdefault("held", []).extend(bodies)


async def read_body(request: Request, limit_bytes: int, in_worker: InWorker) -> bytes:
    """The whole body.

    Raises:
        BodyTooLarge: it has more than `limit_bytes`; known from its length, or as soon as they are passed.
        EmptyBody: it has none.
        ClientDisconnect: the caller went away.
    """
    length = first_header(request.scope, b"content-length") or ""
    if length.isdecimal() and int(length) > limit_bytes:
        raise BodyTooLarge(f"the body has {length} bytes; at most {limit_bytes} are accepted")
    chunks, size, is_complete = list[bytes](), 0, False
    while not is_complete:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit_bytes:
            raise BodyTooLarge(f"the body has more than {limit_bytes} bytes")
        is_complete = not message.get("more_body", False)
    if size == 0:
        raise EmptyBody("the request has no body; send the bytes of one image")
    if size <= LARGE_BYTES:
        return b"".join(chunks)
    body = await in_worker(lambda: _joined(chunks))
    hold(request, size, body)
    return body


async def form_of(request: Request, body: bytes, max_files: int, in_worker: InWorker) -> Form | None:
    """The form of a multipart request; `None` where the body is the image itself. Raises what `parse_form` raises."""
    if not is_form(first_header(request.scope, b"content-type") or ""):
        return None
    headers = request.headers
    if len(body) <= LARGE_BYTES:
        return await parse_form(headers, body, max_files)
    form = await in_worker(lambda: asyncio.run(parse_form(headers, body, max_files)))
    hold(request, len(body), *form.files)
    return form


@contextmanager
def while_connected(request: Request) -> Iterator[None]:
    """Cancels what is done within as soon as the caller has gone. The body must have been read.

    Raises:
        ClientDisconnect: it has.
    """
    task, gone = asyncio.current_task(), False

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass  # uvicorn may tell once more that the body is complete
        gone = True
        if task is not None:
            task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if not gone or task is None:
            raise
        task.uncancel()
        raise ClientDisconnect from None
    finally:
        watcher.cancel()


def _joined(chunks: list[bytes]) -> bytes:
    body = b"".join(chunks)
    chunks.clear()  # here, not on the event loop
    return body
