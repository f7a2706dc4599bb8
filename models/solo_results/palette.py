"""Colours of instances and classes. They stay apart for people who are colour-blind (tests simulate three kinds).

The page (`solo_server/http/page`) uses the same values; a test compares them.
"""

from __future__ import annotations

from functools import lru_cache

Colour = tuple[int, int, int]
"""Red, green, blue: 0..255, sRGB."""

PALETTE = (
    "#0ea6ff", "#fe7802", "#c0018e", "#0ff6a7", "#fde819", "#980ffc", "#008362", "#cc113a",
    "#eca6c4", "#91ad6f", "#ccbcfc", "#6063aa", "#1ca597", "#c25c19", "#c9c16a", "#9367e9",
)  # fmt: skip
"""The first eight differ by at least 14 (CIEDE2000) for everyone, all sixteen by at least 8; found by a search over OKLCH."""


def colour(key: int) -> Colour:
    """The colour of an instance's rank, a class id or a track id; keys beyond the palette start again."""
    return _COLOURS[key % len(_COLOURS)]


@lru_cache(maxsize=64)
def text_colour(background: Colour) -> Colour:
    """Black or white, whichever has the higher contrast."""
    light = luminance(background)
    return (0, 0, 0) if (light + 0.05) / 0.05 >= 1.05 / (light + 0.05) else (255, 255, 255)


def luminance(of: Colour) -> float:
    """Relative luminance, 0..1 (WCAG 2.2)."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in of))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _rgb(text: str) -> Colour:
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


_COLOURS = tuple(_rgb(text) for text in PALETTE)
