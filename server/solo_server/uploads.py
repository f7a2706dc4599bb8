"""Bodies that stall or trickle: every wait for more of a body is bounded, and so are all waits of one body together.

Stands around the application. Only the time spent waiting for the caller counts, not the server's own; once the body is complete
nothing is bounded here any more.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from time import monotonic

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from solo_server.errors import RequestTimeout


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """timeout_s: longest gap, and what a body may take before its rate counts; bytes_per_s: least rate beyond that."""

    timeout_s: float
    bytes_per_s: float


class SlowUploads:
    """Raises `RequestTimeout` in whoever waits for a body that does not come as `UploadLimits` ask."""

    def __init__(self, app: ASGIApp, limits: UploadLimits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a bounded `receive`."""
        bounded = _Upload(receive, self._limits).receive if scope["type"] == "http" else receive
        await self._app(scope, bounded, send)


class _Upload:
    """One body on its way."""

    def __init__(self, receive: Receive, limits: UploadLimits) -> None:
        self._receive, self._limits = receive, limits
        self._waited_s, self._size_bytes, self._complete = 0.0, 0, False

    async def receive(self) -> Message:
        if self._complete:
            return await self._receive()
        allowed_s = self._limits.timeout_s
        left_s = allowed_s + self._size_bytes / self._limits.bytes_per_s - self._waited_s
        start = monotonic()
        try:
            async with asyncio.timeout(min(allowed_s, left_s)):
                message = await self._receive()
        except TimeoutError as problem:
            self._complete = True
            raise RequestTimeout(f"the body came too slowly; {self._size_bytes} bytes of it arrived") from problem
        self._waited_s += monotonic() - start
        self._size_bytes += len(message.get("body", b""))
        self._complete = not message.get("more_body", False)
        return message
