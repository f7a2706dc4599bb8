"""A memory budget for masks as arrays, shared by all responses that are not sent yet; slow readers keep their share reserved."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from solo_server.errors import AnswerTooLarge, Overloaded
from solo_server.observability.observer import Observer

CHUNK_BYTES = 1 << 20


class MaskBudget:
    """Counts reserved bytes. Used in the event loop's thread only."""

    def __init__(self, limit_bytes: int, observer: Observer) -> None:
        self._limit_bytes, self._observer = limit_bytes, observer
        self.size_bytes = 0

    def reserve(self, size_bytes: int) -> None:
        """Reserve memory for the masks of one response, before they are made.

        Raises:
            AnswerTooLarge: more than the whole budget.
            Overloaded: more than is free now (`masks_full`).
        """
        if size_bytes > self._limit_bytes:
            advice = "request PACKED_MASKS as binary, fewer instances, or RLE, which has no such limit"
            raise AnswerTooLarge(f"the masks take {size_bytes} bytes; the limit is {self._limit_bytes}: {advice}")
        if self.size_bytes + size_bytes > self._limit_bytes:
            problem = Overloaded("the memory for masks is used by responses that are not sent yet", "masks_full")
            self._observer.refused(problem.code, problem.reason)
            raise problem
        self.size_bytes += size_bytes

    def release(self, size_bytes: int) -> None:
        """Free reserved memory."""
        self.size_bytes -= size_bytes


class BudgetedResponse(Response):
    """A response that releases its share of the budget once it is sent, or the caller has disconnected."""

    def __init__(
        self, content: bytes, headers: Mapping[str, str], media_type: str, budget: MaskBudget, size_bytes: int
    ) -> None:
        super().__init__(content, headers=headers, media_type=media_type)
        self._budget, self._size_bytes = budget, size_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send in chunks: in one piece the body would be copied to the connection's buffer, and would look sent before it is."""
        body = bytes(self.body)
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for start in range(0, len(body), CHUNK_BYTES):
                end = start + CHUNK_BYTES
                await send({"type": "http.response.body", "body": body[start:end], "more_body": end < len(body)})
        finally:
            self._budget.release(self._size_bytes)
