"""Sizes as users type and read them: LONGxSHORT, the longer side first, in pixels.

A network has one input size for landscape and portrait images, so the order of the sides does not give the orientation. Where the
orientation matters it is a word: `1088x800:portrait`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

SMALLEST, LARGEST = 32, 16_384
"""Pixels of a side: the largest stride of the network, and the longest side of an image by default."""
LANDSCAPE, PORTRAIT = "landscape", "portrait"

Size = tuple[int, int]


class SizeError(argparse.ArgumentTypeError):
    """Invalid text for a size; the message is one line. argparse shows it after the option's name."""


def parse_size(text: str) -> Size:
    """`1333x800` to `(1333, 800)`: the longer and the shorter side.

    Raises:
        SizeError: not of this form, the shorter side first, or a side out of range.
    """
    match = re.fullmatch(r"([0-9]{1,9})x([0-9]{1,9})", text)
    if match is None:
        raise SizeError(f"{text!r} is not LONGxSHORT, such as 1333x800")
    long, short = int(match[1]), int(match[2])
    for side in (long, short):
        if not SMALLEST <= side <= LARGEST:
            raise SizeError(f"{text}: {side} is not within {SMALLEST}..{LARGEST} pixels")
    if long < short:
        raise SizeError(f"{text}: the longer side comes first, for portrait images too: {short}x{long}")
    return long, short


def parse_oriented(text: str) -> tuple[Size, ...]:
    """Sizes `(height, width)`: landscape and portrait of `1088x800`, portrait alone of `1088x800:portrait`.

    Raises:
        SizeError: see `parse_size`; the word is neither `landscape` nor `portrait`.
    """
    size, colon, word = text.partition(":")
    long, short = parse_size(size)
    both = {LANDSCAPE: (short, long), PORTRAIT: (long, short)}
    if not colon:
        return tuple(dict.fromkeys(both.values()))
    if word not in both:
        raise SizeError(f"{text!r}: {word!r} is neither {LANDSCAPE} nor {PORTRAIT}")
    return (both[word],)


def size_text(sides: Sequence[int]) -> str:
    """Two sides in either order to `1333x800`."""
    return f"{max(sides)}x{min(sides)}"


def oriented_text(hw: Size) -> str:
    """`(height, width)` to `1088x800:portrait`, which `parse_oriented` reads."""
    return f"{size_text(hw)}:{LANDSCAPE if hw[1] >= hw[0] else PORTRAIT}"
