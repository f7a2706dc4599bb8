"""Bodies that stall or trickle: every wait for more of a body is bounded, and so are all waits of one body together.

Only the time spent waiting for the caller counts, not the server's own; once the body is complete nothing is bounded here any more.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.types import Message, Receive

from solo_server.errors import RequestTimeout
from solo_server.service.deadline import Deadline


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """timeout_s: longest gap, and what a body may take before its rate counts; bytes_per_s: least rate beyond that."""

    timeout_s: float
    bytes_per_s: float


class Upload:
    """One body on its way. size_bytes: of it that has come; is_gone: the caller went away."""

    __slots__ = ("_is_complete", "_limits", "_receive", "_waited_s", "is_gone", "size_bytes")

    def __init__(self, receive: Receive, limits: UploadLimits) -> None:
        self._receive, self._limits = receive, limits
        self._waited_s, self._is_complete = 0.0, False
        self.size_bytes, self.is_gone = 0, False

    async def receive(self) -> Message:
        """The next message; see ASGI.

        Raises:
            RequestTimeout: the body does not come as `UploadLimits` ask.
        """
        if self._is_complete:
            message = await self._receive()
            self.is_gone |= message["type"] == "http.disconnect"
            return message
        allowed_s = self._limits.timeout_s
        left_s = allowed_s + self.size_bytes / self._limits.bytes_per_s - self._waited_s
        loop = asyncio.get_running_loop()
        start = loop.time()
        try:
            with Deadline(start + min(allowed_s, left_s)):
                message = await self._receive()
        except TimeoutError as problem:
            self._is_complete = True
            raise RequestTimeout(f"the body came too slowly; {self.size_bytes} bytes of it arrived") from problem
        self._waited_s += loop.time() - start
        self.size_bytes += len(message.get("body", b""))
        self.is_gone = message["type"] == "http.disconnect"
        self._is_complete = not message.get("more_body", False)
        return message
