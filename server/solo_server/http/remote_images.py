"""Images that a request names by URL. They are fetched from hosts of the operator's allow-list only."""

from __future__ import annotations

from solo_server.errors import InvalidQuery
from solo_server.settings import Settings


async def fetch(url: str, field: str, settings: Settings) -> bytes:
    """The bytes behind a URL. field: its place in the request, for errors.

    Raises:
        InvalidQuery: the URL is not one of the allow-list, or nothing can be fetched from it.
    """
    raise InvalidQuery(f"{field}: this server fetches no images by URL; send the image itself")
