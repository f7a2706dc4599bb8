"""The two clients: thin shells that send the calls of `protocol` and wait between retries. httpx is used through `transport`."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar, Unpack

import httpx
from solo_results.types import Result

from solo_client.environment import proxy_for
from solo_client.errors import InvalidArgument, NoAnswer, ServerProblem
from solo_client.protocol import Call, Protocol, read_image
from solo_client.query import Options, Query
from solo_client.transport import checked_url, errors_translated, open_transport, request_arguments, to_response

T = TypeVar("T")


class SoloClient:
    """A connection to a SOLO server. Threads may share one client. Close it, or use it as a context manager.

    An image is the bytes of an encoded image, or a path to one. The options of the methods are `score_threshold`,
    `max_instances`, `classes` and `nms`, see `Query`.
    """

    def __init__(
        self,
        base_url: str,
        *,
        timeout_s: float = 60.0,
        api_key: str | None = None,
        retries: int = 0,
        model: str | None = None,
        version: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """timeout_s: seconds without any progress; retries: how often a request is repeated after a 503 with Retry-After.

        model, version: which of the server's models to use; None is the default model, and a model's highest version.
        transport: your own, for tests or special TLS settings; proxy and certificate variables are then ignored.

        Raises:
            InvalidArgument: an argument is invalid; the message names it.
            InvalidEnvironment: a proxy or certificate variable is invalid; the message names it.
        """
        self._protocol = Protocol(base_url, timeout_s, api_key, retries, model, version)
        url = checked_url(base_url)
        self._proxy = proxy_for(base_url) if transport is None else None
        self._http = httpx.Client(
            base_url=url,
            timeout=timeout_s,
            headers=self._protocol.common_headers(),
            transport=transport or open_transport(httpx.HTTPTransport, self._proxy),
        )

    def segment(self, image: bytes | str | Path, **options: Unpack[Options]) -> Result:
        """The instances in one image.

        Raises:
            InvalidArgument: an option is invalid.
            OSError: the file cannot be read.
            NoAnswer, ServerProblem, UnexpectedAnswer: see `errors`.
        """
        query = Query(**options)
        return self._exchange(self._protocol.segment(read_image(image), query))

    def overlay(self, image: bytes | str | Path, **options: Unpack[Options]) -> bytes:
        """The image with its instances drawn on it, as the bytes of a PNG. Raises the same errors as `segment`."""
        query = Query(**options)
        return self._exchange(self._protocol.overlay(read_image(image), query))

    def segment_and_draw(self, image: bytes | str | Path, **options: Unpack[Options]) -> tuple[Result, bytes]:
        """What `segment` and `overlay` return, from one request and one inference. Raises the same errors as `segment`.

        Without a `score_threshold` the PNG shows instances that score at least 0.3, and the result has those of at least 0.05.
        """
        query = Query(**options)
        return self._exchange(self._protocol.segment_and_draw(read_image(image), query))

    def segment_many(self, images: Iterable[bytes | str | Path], **options: Unpack[Options]) -> Iterator[Result]:
        """Yield results in the order of `images`, one request per image, sent when its result is needed.

        Raises the same errors as `segment`, at the image that failed; the iterator ends there.
        """
        for image in images:
            yield self.segment(image, **options)

    def segment_together(
        self, images: Sequence[bytes | str | Path], **options: Unpack[Options]
    ) -> list[Result | ServerProblem]:
        """Segment a few images in one request; results in their order. For an image that failed the list has its error.

        Raises the same errors as `segment` when the whole request fails. Without images nothing is sent: an empty list.
        """
        query = Query(**options)
        bodies = [read_image(image) for image in images]
        return self._exchange(self._protocol.segment_together(bodies, query)) if bodies else []

    def model(self) -> dict[str, object]:
        """The server's description of this client's model. Raises NoAnswer, ServerProblem, UnexpectedAnswer."""
        return self._exchange(self._protocol.model())

    def ready(self) -> bool:
        """Whether the server accepts images for this client's model now; False if the server cannot be reached.

        Raises:
            ServerProblem: ModelNotFound if there is no such model; others, see `errors`.
            UnexpectedAnswer: this is not a SOLO server.
        """
        try:
            return all(self._exchange(call) for call in self._protocol.ready())
        except NoAnswer:
            return False

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> SoloClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _exchange(self, call: Call[T]) -> T:
        tries = 1
        while True:
            request = self._http.build_request(**request_arguments(call))
            with errors_translated(request.url, self._proxy):
                response = to_response(self._http.send(request))
                pause_s = self._protocol.pause_s(call, response, tries)
                if pause_s is None:
                    return call.parse(response)
            time.sleep(pause_s)
            tries += 1


class AsyncSoloClient:
    """`SoloClient` for asyncio: the same methods, awaited. Close it, or use it in an `async with`."""

    def __init__(
        self,
        base_url: str,
        *,
        timeout_s: float = 60.0,
        api_key: str | None = None,
        retries: int = 0,
        model: str | None = None,
        version: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """See `SoloClient`."""
        self._protocol = Protocol(base_url, timeout_s, api_key, retries, model, version)
        url = checked_url(base_url)
        self._proxy = proxy_for(base_url) if transport is None else None
        self._http = httpx.AsyncClient(
            base_url=url,
            timeout=timeout_s,
            headers=self._protocol.common_headers(),
            transport=transport or open_transport(httpx.AsyncHTTPTransport, self._proxy),
        )

    async def segment(self, image: bytes | str | Path, **options: Unpack[Options]) -> Result:
        """See `SoloClient.segment`."""
        query = Query(**options)
        return await self._exchange(self._protocol.segment(await asyncio.to_thread(read_image, image), query))

    async def overlay(self, image: bytes | str | Path, **options: Unpack[Options]) -> bytes:
        """See `SoloClient.overlay`."""
        query = Query(**options)
        return await self._exchange(self._protocol.overlay(await asyncio.to_thread(read_image, image), query))

    async def segment_and_draw(self, image: bytes | str | Path, **options: Unpack[Options]) -> tuple[Result, bytes]:
        """See `SoloClient.segment_and_draw`."""
        query = Query(**options)
        body = await asyncio.to_thread(read_image, image)
        return await self._exchange(self._protocol.segment_and_draw(body, query))

    async def segment_many(
        self, images: Iterable[bytes | str | Path], *, concurrency: int = 8, **options: Unpack[Options]
    ) -> AsyncGenerator[Result, None]:
        """Yield results in the order of `images`, one request per image, at most `concurrency` of them in flight.

        `images` is read that far ahead, no further. Raises the same errors as `segment`, at the image that failed. Requests
        still in flight then, or when the iterator is closed early, are cancelled.
        """
        if concurrency < 1:
            raise InvalidArgument("concurrency", f"must be at least 1, not {concurrency}")
        in_flight: deque[asyncio.Task[Result]] = deque()
        try:
            for image in images:
                in_flight.append(asyncio.create_task(self.segment(image, **options)))
                if len(in_flight) == concurrency:
                    yield await in_flight.popleft()
            while in_flight:
                yield await in_flight.popleft()
        finally:
            for task in in_flight:
                task.cancel()
            await asyncio.gather(*in_flight, return_exceptions=True)

    async def segment_together(
        self, images: Sequence[bytes | str | Path], **options: Unpack[Options]
    ) -> list[Result | ServerProblem]:
        """See `SoloClient.segment_together`."""
        query = Query(**options)
        bodies = [await asyncio.to_thread(read_image, image) for image in images]
        return await self._exchange(self._protocol.segment_together(bodies, query)) if bodies else []

    async def model(self) -> dict[str, object]:
        """See `SoloClient.model`."""
        return await self._exchange(self._protocol.model())

    async def ready(self) -> bool:
        """See `SoloClient.ready`."""
        try:
            for call in self._protocol.ready():
                if not await self._exchange(call):
                    return False
            return True
        except NoAnswer:
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncSoloClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _exchange(self, call: Call[T]) -> T:
        tries = 1
        while True:
            request = self._http.build_request(**request_arguments(call))
            with errors_translated(request.url, self._proxy):
                response = to_response(await self._http.send(request))
                pause_s = self._protocol.pause_s(call, response, tries)
                if pause_s is None:
                    return call.parse(response)
            await asyncio.sleep(pause_s)
            tries += 1
