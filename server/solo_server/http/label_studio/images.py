"""The images of tasks: `data:` URIs, URLs of the allow-list, and files of Label Studio itself, which tasks name by their path."""

from __future__ import annotations

from solo_server.errors import InvalidQuery
from solo_server.http.base64_images import DATA_URI, decode_base64
from solo_server.http.remote_images import fetch
from solo_server.settings import Settings


async def image_of_uri(uri: str, field: str, settings: Settings) -> bytes:
    """The bytes of a task's image. field: its place in the request, for errors.

    Raises:
        InvalidQuery: not such a URI, or nothing can be fetched from it.
    """
    if uri.startswith(DATA_URI):
        return decode_base64(uri, field)
    if uri.startswith(("http://", "https://")):
        return await fetch(uri, field, settings)
    if not uri.startswith("/"):
        raise InvalidQuery(f"{field}: is neither a URL nor a path of Label Studio; its storages can presign URLs")
    if settings.label_studio_url is None:
        raise InvalidQuery(f"{field}: is a path of Label Studio; SOLO_LABEL_STUDIO_URL must say where that is")
    return await fetch(settings.label_studio_url.rstrip("/") + uri, field, settings)
