"""The images of tasks: `data:` URIs, URLs of the allow-list, and files of Label Studio itself, which tasks name by their path."""

from __future__ import annotations

from dataclasses import dataclass

from solo_server.errors import InvalidQuery, SettingsError
from solo_server.http.base64_images import DATA_URI, decode_base64
from solo_server.http.bodies import InWorker, in_worker_if_large
from solo_server.http.image_urls import ImageUrls
from solo_server.http.url_rules import parse_prefix
from solo_server.settings import Settings


@dataclass(frozen=True, slots=True)
class TaskImages:
    """Where images of tasks come from. label_studio_url: what paths are below; the allow-list must have it too."""

    image_urls: ImageUrls
    label_studio_url: str | None
    in_worker: InWorker

    @classmethod
    def read(cls, settings: Settings, image_urls: ImageUrls, in_worker: InWorker) -> TaskImages:
        """Raises SettingsError: Label Studio's address is no URL, or has a query."""
        address = settings.label_studio_url
        if address is not None:
            try:
                parse_prefix(f"{address.rstrip('/')}/")
            except ValueError as problem:
                raise SettingsError(f"SOLO_LABEL_STUDIO_URL: {problem}") from None
        return cls(image_urls, address, in_worker)

    async def image_of(self, uri: str) -> bytes:
        """The bytes of an image.

        Raises:
            InvalidQuery: neither such a URI nor a path, or a path where Label Studio's address is not set.
            UrlNotAllowed, UrlUnreachable, BodyTooLarge: see `ImageUrls.fetch_image`.
        """
        if uri.startswith(DATA_URI):
            return await in_worker_if_large(self.in_worker, len(uri), lambda: decode_base64(uri, "the image"))
        if uri.startswith(("http://", "https://")):
            return await self.image_urls.fetch_image(uri)
        if not uri.startswith("/"):
            raise InvalidQuery("the image is neither a URL nor a path of Label Studio; its storages can presign URLs")
        if self.label_studio_url is None:
            raise InvalidQuery("the image is a path of Label Studio; SOLO_LABEL_STUDIO_URL must say where that is")
        return await self.image_urls.fetch_image(self.label_studio_url.rstrip("/") + uri)
