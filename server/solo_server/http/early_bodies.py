"""Bodies that are received before their request is admitted, since they name the model or hold the API key.

    ready? ─► one of few places ─► body, JSON ─► key in it ─► the place is free again ─► admission

Callers whose key is not known yet have places of their own, so that they cannot keep out callers with a key in a header.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import Request

from solo_server.errors import NotReady, Overloaded
from solo_server.http.key_places import is_key_awaited
from solo_server.service.service import Service

MAX_WITHOUT_KEY = 8
"""Bodies received at a time from callers whose key is not known yet."""


class EarlyBodies:
    """Counts such bodies. Used in the event loop's thread only."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._counts = {False: 0, True: 0}  # by whether the caller's key is awaited
        self._limits = {False: service.settings.max_waiting, True: MAX_WITHOUT_KEY}

    @contextmanager
    def place(self, request: Request) -> Iterator[None]:
        """A place for one body while it is received and parsed.

        Raises:
            NotReady: no request is accepted now.
            Overloaded: `bodies_full`.
        """
        is_awaited = is_key_awaited(request)
        if not self._service.is_ready:
            raise self._refusal(self._service.not_ready())
        if self._counts[is_awaited] >= self._limits[is_awaited]:
            raise self._refusal(Overloaded("too many bodies are being received", "bodies_full"))
        self._counts[is_awaited] += 1
        try:
            yield
        finally:
            self._counts[is_awaited] -= 1

    def _refusal(self, problem: NotReady | Overloaded) -> NotReady | Overloaded:
        self._service.observer.refused(problem.code, problem.reason)
        return problem
