"""Which of its two forms an answer of `/segment` has: JSON or an overlay, by `Accept` (RFC 9110, 12.5.1)."""

from __future__ import annotations

from collections.abc import Iterator

from solo_server.errors import NotAcceptable

_PNG = ("image/png", "image/*")
_JSON = ("application/json", "application/*", "*/*")


def is_overlay_wanted(accept: str, is_overlay: bool) -> bool:
    """Whether the answer is the overlay. is_overlay: the parameters ask for it, whatever is accepted.

    The most wanted media type that the server has decides; where it has none of them, and no image is asked for, the parameters do.

    Raises:
        NotAcceptable: images are accepted, but neither PNG nor JSON.
    """
    wanted = [media_type for _, media_type in sorted(_weighted(accept), key=lambda pair: -pair[0])]
    for media_type in wanted:
        if media_type in _PNG:
            return True
        if media_type in _JSON:
            return is_overlay
    if any(media_type.startswith("image/") for media_type in wanted):
        raise NotAcceptable("overlays are PNG; send `Accept: image/png` for one, `Accept: application/json` for masks")
    return is_overlay


def _weighted(accept: str) -> Iterator[tuple[float, str]]:
    """Weight and media type of each that is accepted, as they stand in the header; names do not depend on case."""
    for element in accept.lower().split(","):
        media_type, *parameters = (part.strip() for part in element.split(";"))
        weight = next((_weight(text[2:]) for text in parameters if text.startswith("q=")), 1.0)
        if weight > 0:
            yield weight, media_type


def _weight(text: str) -> float:
    """What cannot be read counts as 1, as if it was absent."""
    try:
        return float(text)
    except ValueError:
        return 1.0
