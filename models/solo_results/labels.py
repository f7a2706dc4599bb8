"""Text in overlays: class names of most scripts, each character in the first bundled font that has it (`fonts/README.md`)."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, features

_FOLDER = Path(__file__).parent / "fonts"
_FILES = ("DejaVuSans.ttf", "wqy-microhei.ttc", "NotoSansThai-Regular.ttf", "NotoSansDevanagari-Regular.ttf")
_NO_CHARACTER = "\uffff"
_TRIAL_SIZE = 24  # pixels, at which shapes of characters are compared
LONGEST = 60  # characters of a label
_RIGHT_TO_LEFT = ("R", "AL")
_SHAPES = features.check("raqm")  # orders and joins letters; Pillow's wheels have it


@lru_cache(maxsize=4096)
def readable(name: str, class_id: int) -> str:
    """The label of a class in a drawing: its name, or `#` and its id if no bundled font can draw the name."""
    text = " ".join("".join(c for c in name if unicodedata.category(c) != "Cc" or c.isspace()).split())
    if not text or not all(_has(c) for c in text):
        return f"#{class_id}"
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


@dataclass(frozen=True, slots=True)
class Text:
    """One line at a size in pixels. width, ascent, descent: of the drawn text, in pixels; at least those of Latin letters."""

    runs: tuple[tuple[str, ImageFont.FreeTypeFont], ...]
    width: int
    ascent: int
    descent: int

    def draw(self, drawing: ImageDraw.ImageDraw, x: int, baseline: int, colour: tuple[int, int, int]) -> None:
        """Draw from `x` to the right."""
        at = float(x)
        for part, font in self.runs:
            drawing.text((at, baseline), part, colour, font, anchor="ls")
            at += font.getlength(part)


def line(parts: tuple[str, ...], size: float) -> Text:
    """Set parts one after the other, so that each keeps its own direction; sizes are rounded down, to cache few fonts."""
    runs = tuple((text, _font(file, int(size))) for part in parts for file, text in _runs(part))
    boxes = [font.getbbox(text, anchor="ls") for text, font in (*runs, ("Ag", _font(_FILES[0], int(size))))]
    width = sum(font.getlength(text) for text, font in runs)
    return Text(runs, round(width), round(max(-box[1] for box in boxes)), round(max(box[3] for box in boxes)))


def _has(character: str) -> bool:
    """Whether a bundled font has the character, and its direction can be drawn."""
    if unicodedata.bidirectional(character) in _RIGHT_TO_LEFT and not _SHAPES:
        return False
    return _is_bare(character) or any(_is_in(file, character) for file in _FILES)


def _is_bare(character: str) -> bool:
    """Whether the character has no shape of its own: spaces, joiners, variation selectors."""
    return character.isspace() or unicodedata.category(character) == "Cf" or "\ufe00" <= character <= "\ufe0f"


@lru_cache(maxsize=16_384)
def _is_in(file: str, character: str) -> bool:
    """Whether a font has a shape for the character: a font draws all characters that it lacks in the same way."""
    return _shape(file, character) != _missing(file)


@cache
def _missing(file: str) -> bytes:
    return _shape(file, _NO_CHARACTER)


def _shape(file: str, character: str) -> bytes:
    image = Image.new("L", (4 * _TRIAL_SIZE, 4 * _TRIAL_SIZE))
    font = _font(file, _TRIAL_SIZE, ImageFont.Layout.BASIC)
    ImageDraw.Draw(image).text((_TRIAL_SIZE, 2 * _TRIAL_SIZE), character, 255, font, anchor="ls")
    return image.tobytes()


@lru_cache(maxsize=32)
def _font(file: str, size: int, layout: ImageFont.Layout | None = None) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(_FOLDER / file, size, layout_engine=layout)


def _runs(text: str) -> Iterator[tuple[str, str]]:
    """Split a text into pieces, each with its font; a piece continues while its font has the characters."""
    piece, file = "", ""
    for character in text:
        if not (file and (_is_bare(character) or _is_in(file, character))):
            found = next((name for name in _FILES if _is_in(name, character)), _FILES[0])
            if piece:
                yield file, piece
            piece, file = "", found
        piece += character
    if piece:
        yield file, piece
