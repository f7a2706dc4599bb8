"""Limits for bodies that stall or trickle: on each wait for more of a body, and on all waits of one body together.

Only the time spent waiting for the caller counts, not the server's own; once the body is complete, nothing is limited here.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from starlette.types import Message, Receive

from solo_server.errors import RequestTimeout
from solo_server.service.deadline import Deadline


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """timeout_s: longest wait, and the time that any body may take; bytes_per_s: lowest rate beyond that time."""

    timeout_s: float
    bytes_per_s: float


class Upload:
    """The body of one request while it is received. size_bytes: received so far; has_disconnected: the caller has."""

    __slots__ = ("_is_complete", "_limits", "_receive", "_waited_s", "has_disconnected", "size_bytes")

    def __init__(self, receive: Receive, limits: UploadLimits) -> None:
        self._receive, self._limits = receive, limits
        self._waited_s, self._is_complete = 0.0, False
        self.size_bytes, self.has_disconnected = 0, False

    async def receive(self) -> Message:
        """The next message; see ASGI.

        Raises:
            RequestTimeout: the body is slower than `UploadLimits` allow.
        """
        if self._is_complete:
            message = await self._receive()
            self.has_disconnected |= message["type"] == "http.disconnect"
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
            raise RequestTimeout(f"the body arrived too slowly; {self.size_bytes} bytes were received") from problem
        self._waited_s += loop.time() - start
        self.size_bytes += len(message.get("body", b""))
        self.has_disconnected = message["type"] == "http.disconnect"
        self._is_complete = not message.get("more_body", False)
        return message
