"""The two clients: shells that send what `protocol` builds and sleep as long as it says. `transport` has httpx."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar, Unpack

import httpx

from solo_client.environment import proxy_for
from solo_client.errors import InvalidArgument, NoAnswer, ServerProblem
from solo_client.protocol import Call, Protocol, read_image
from solo_client.query import Options, Query
from solo_client.transport import arguments, checked_url, failures_named, open_transport, read_answer
from solo_client.types import Result

T = TypeVar("T")


class SoloClient:
    """A connection to a SOLO server. One client may be shared by threads; close it, or use it in a `with`.

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
        """timeout_s: seconds without any progress; retries: further tries after a 503 that names a Retry-After.

        model, version: which of the server's models to ask; None is its default model, and a model's highest version.
        transport: one of your own, for tests or special TLS settings; variables for proxies and certificates do not count then.

        Raises:
            InvalidArgument: an argument is unusable, named.
            InvalidEnvironment: a variable for proxies or certificates is unusable, named.
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
            InvalidArgument: an option is unusable.
            OSError: the file cannot be read.
            NoAnswer, ServerProblem, UnexpectedAnswer: see `errors`.
        """
        query = Query(**options)
        return self._exchange(self._protocol.segment(read_image(image), query))

    def overlay(self, image: bytes | str | Path, **options: Unpack[Options]) -> bytes:
        """The image with its instances drawn upon it, as the bytes of a PNG. Raises as `segment` does."""
        query = Query(**options)
        return self._exchange(self._protocol.overlay(read_image(image), query))

    def segment_and_draw(self, image: bytes | str | Path, **options: Unpack[Options]) -> tuple[Result, bytes]:
        """What `segment` and `overlay` return, of one request and one inference. Raises as `segment` does.

        Without a `score_threshold` the PNG shows the instances of at least 0.3, and the result has those of at least 0.05.
        """
        query = Query(**options)
        return self._exchange(self._protocol.segment_and_draw(read_image(image), query))

    def segment_many(self, images: Iterable[bytes | str | Path], **options: Unpack[Options]) -> Iterator[Result]:
        """Results in the order of `images`, one request an image, each sent when its result is asked for.

        Raises as `segment` does, at the image that failed; the iterator ends there.
        """
        for image in images:
            yield self.segment(image, **options)

    def segment_together(
        self, images: Sequence[bytes | str | Path], **options: Unpack[Options]
    ) -> list[Result | ServerProblem]:
        """Results of a few images sent in one request, in their order; an image that failed is its error, returned.

        Raises as `segment` does when the request as a whole fails. No images: an empty list, and nothing is sent.
        """
        query = Query(**options)
        bodies = [read_image(image) for image in images]
        return self._exchange(self._protocol.segment_together(bodies, query)) if bodies else []

    def model(self) -> dict[str, object]:
        """What the server says about this client's model. Raises NoAnswer, ServerProblem, UnexpectedAnswer."""
        return self._exchange(self._protocol.model())

    def ready(self) -> bool:
        """Whether the server takes images for this client's model now; a server that cannot be reached does not.

        Raises:
            ServerProblem: ModelNotFound if there is no such model; another one as `errors` has them.
            UnexpectedAnswer: what answers is another kind of server.
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
            request = self._http.build_request(**arguments(call))
            with failures_named(request.url, self._proxy):
                answer = read_answer(self._http.send(request))
                pause_s = self._protocol.pause_s(call, answer, tries)
                if pause_s is None:
                    return call.parse(answer)
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
        """Results in the order of `images`, one request an image, at most `concurrency` of them under way.

        `images` is read as far ahead as that, no further. Raises as `segment` does, at the image that failed; what is
        still under way then, or when the iterator is closed early, is cancelled.
        """
        if concurrency < 1:
            raise InvalidArgument("concurrency", f"must be at least 1, not {concurrency}")
        under_way: deque[asyncio.Task[Result]] = deque()
        try:
            for image in images:
                under_way.append(asyncio.create_task(self.segment(image, **options)))
                if len(under_way) == concurrency:
                    yield await under_way.popleft()
            while under_way:
                yield await under_way.popleft()
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

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
            request = self._http.build_request(**arguments(call))
            with failures_named(request.url, self._proxy):
                answer = read_answer(await self._http.send(request))
                pause_s = self._protocol.pause_s(call, answer, tries)
                if pause_s is None:
                    return call.parse(answer)
            await asyncio.sleep(pause_s)
            tries += 1
