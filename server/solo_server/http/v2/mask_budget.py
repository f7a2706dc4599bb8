"""How much memory masks as arrays may take, in all answers that are not sent yet: a caller that reads slowly holds its own."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from solo_server.errors import AnswerTooLarge, Overloaded
from solo_server.observability.observer import Observer

PIECE_BYTES = 1 << 20


class MaskBudget:
    """Counts bytes. Of the event loop's thread."""

    def __init__(self, limit_bytes: int, observer: Observer) -> None:
        self._limit_bytes, self._observer = limit_bytes, observer
        self.size_bytes = 0

    def occupy(self, size_bytes: int) -> None:
        """Room for the masks of one answer, before they are made.

        Raises:
            AnswerTooLarge: it never has room.
            Overloaded: `masks_full`.
        """
        if size_bytes > self._limit_bytes:
            told = "ask for PACKED_MASKS as binary, for fewer instances, or for RLE, which has no such limit"
            raise AnswerTooLarge(f"the masks take {size_bytes} bytes; at most {self._limit_bytes} are made: {told}")
        if self.size_bytes + size_bytes > self._limit_bytes:
            problem = Overloaded("the masks of other answers are not sent yet", "masks_full")
            self._observer.refused(problem.code, problem.reason)
            raise problem
        self.size_bytes += size_bytes

    def leave(self, size_bytes: int) -> None:
        """Room that is free again."""
        self.size_bytes -= size_bytes


class HeldResponse(Response):
    """An answer that leaves its room once it has been sent, or nobody reads it any more."""

    def __init__(
        self, content: bytes, headers: Mapping[str, str], media_type: str, room: MaskBudget, size_bytes: int
    ) -> None:
        super().__init__(content, headers=headers, media_type=media_type)
        self._room, self._size_bytes = room, size_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it piece by piece: all at once it would lie in the connection's buffer, and look as if it were sent."""
        body = bytes(self.body)
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for start in range(0, len(body), PIECE_BYTES):
                end = start + PIECE_BYTES
                await send({"type": "http.response.body", "body": body[start:end], "more_body": end < len(body)})
        finally:
            self._room.leave(self._size_bytes)
