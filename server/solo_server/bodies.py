"""What a caller sends: the body, within its limit; the files of a form; and whether anyone still waits for the answer.

Whatever takes more than a moment with a large body is done in a worker, not on the event loop: joining it, parsing it, and giving
its memory back to the system at the end (8 ms for 40 MB).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.types import Scope

from solo_server.errors import BodyTooLarge, EmptyBody, InvalidQuery

T = TypeVar("T")
LARGE_BYTES = 256 << 10  # the parser takes a millisecond or two for so much
HELD_BYTES = 2 << 20  # freeing so much takes half a millisecond

File = tuple[str, bytes]
"""Name and bytes."""


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
    """Leave it to `Edge` to free these, if their bytes are many: whoever else drops them is not the last."""
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
        raise EmptyBody("the request has no body; send the bytes of one picture")
    if size <= LARGE_BYTES:
        return b"".join(chunks)
    body = await in_worker(lambda: _joined(chunks))
    hold(request, size, body)
    return body


async def files_of(request: Request, body: bytes, max_files: int, in_worker: InWorker) -> list[File] | None:
    """The files of a multipart request; `None` where the body is the picture itself.

    Raises:
        InvalidQuery: the form is broken, or holds too many files.
        EmptyBody: it holds none.
    """
    if not (first_header(request.scope, b"content-type") or "").startswith("multipart/form-data"):
        return None
    headers = request.headers
    if len(body) <= LARGE_BYTES:
        return await _parse(headers, body, max_files)
    files = await in_worker(lambda: asyncio.run(_parse(headers, body, max_files)))
    hold(request, len(body), *files)
    return files


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


async def _parse(headers: Headers, body: bytes, max_files: int) -> list[File]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        parser = MultiPartParser(headers, stream(), max_files=max_files, max_fields=max_files)
        parser.spool_max_size = len(body) + 1  # the body is in memory already and bounded; nothing goes to disk
        form = await parser.parse()
    except MultiPartException as problem:
        raise InvalidQuery(f"the multipart body cannot be read: {problem.message}") from problem
    except KeyError as problem:
        raise InvalidQuery("the multipart body cannot be read: the boundary is missing") from problem
    files = [(v.filename or "", await v.read()) for _, v in form.multi_items() if isinstance(v, UploadFile)]
    await form.close()
    if not files:
        raise EmptyBody("the multipart body holds no file")
    return files
