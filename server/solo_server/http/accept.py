"""Choosing the form of an answer of `/segment`, JSON or overlay, by the `Accept` header (RFC 9110, 12.5.1)."""

from __future__ import annotations

from collections.abc import Iterator

from solo_server.errors import NotAcceptable

_PNG = ("image/png", "image/*")
_JSON = ("application/json", "application/*", "*/*")


def is_overlay_requested(accept: str, is_overlay: bool) -> bool:
    """Whether the answer is the overlay. is_overlay: whether the parameters ask for it.

    The media type with the highest weight that the server has decides: PNG means the overlay, JSON leaves it to the parameters.
    Where the server has none of the types, and none is an image, the parameters decide too.

    Raises:
        NotAcceptable: an image is accepted, but neither PNG nor JSON.
    """
    accepted = [media_type for _, media_type in sorted(_weighted(accept), key=lambda pair: -pair[0])]
    for media_type in accepted:
        if media_type in _PNG:
            return True
        if media_type in _JSON:
            return is_overlay
    if any(media_type.startswith("image/") for media_type in accepted):
        raise NotAcceptable("overlays are PNG; send `Accept: image/png` for one, `Accept: application/json` for masks")
    return is_overlay


def _weighted(accept: str) -> Iterator[tuple[float, str]]:
    """Weight and media type, in lower case, of each element, in the order of the header."""
    for element in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in element.split(";"))
        weight = next((_weight(text[2:]) for text in parameters if text.startswith("q=")), 1.0)
        if weight > 0:
            yield weight, media_type


def _weight(text: str) -> float:
    """An invalid weight counts as 1, like a missing one."""
    try:
        return float(text)
    except ValueError:
        return 1.0
