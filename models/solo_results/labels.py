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
_LARGEST_CACHED = 48  # pixels; letters of large images take much memory
LONGEST = 60  # characters of a label
_RIGHT_TO_LEFT = ("R", "AL")
_SHAPES = features.check("raqm")  # orders and joins letters; Pillow's wheels have it


@lru_cache(maxsize=4096)
def readable(name: str, class_id: int) -> str:
    """The label of a class in a drawing: its name, or `#` and its id if no bundled font can draw the name."""
    text = one_line(name)
    return text if text and all(_has(c) for c in text[:LONGEST]) else f"#{class_id}"


def one_line(text: str) -> str:
    """The text without control characters and line breaks, cut to `LONGEST` characters."""
    short = " ".join("".join(c for c in text if unicodedata.category(c) != "Cc" or c.isspace()).split())
    return short if len(short) <= LONGEST else short[: LONGEST - 1] + "…"


@dataclass(frozen=True, slots=True)
class Run:
    """A piece of text in one font. opacity: the drawn letters, `L`; left, top: of it, from the start of the baseline, in pixels."""

    opacity: Image.Image
    left: int
    top: int
    advance: float


@dataclass(frozen=True, slots=True)
class Text:
    """One line at a size in pixels. width, ascent, descent: of the drawn text, in pixels; at least those of Latin letters."""

    runs: tuple[Run, ...]
    width: int
    ascent: int
    descent: int

    def draw(self, canvas: Image.Image, x: int, baseline: int, colour: tuple[int, int, int]) -> None:
        """Draw on an RGB image, from `x` to the right."""
        at = float(x)
        for run in self.runs:
            left, top = round(at) + run.left, baseline + run.top
            canvas.paste(colour, (left, top, left + run.opacity.width, top + run.opacity.height), run.opacity)
            at += run.advance


def line(parts: tuple[str, ...], size: float) -> Text:
    """Set parts one after the other, so that each keeps its own direction; sizes are rounded down, to cache few fonts."""
    pixels = int(size)
    make = _cached_run if pixels <= _LARGEST_CACHED else _run
    runs = tuple(make(file, text, pixels) for part in parts for file, text in _pieces(part))
    latin = _cached_run(_FILES[0], "Ag", pixels)
    return Text(
        runs,
        round(sum(run.advance for run in runs)),
        max(-run.top for run in (*runs, latin)),
        max(run.top + run.opacity.height for run in (*runs, latin)),
    )


def _run(file: str, text: str, size: int) -> Run:
    font = _font(file, size)
    left, top, right, bottom = (round(side) for side in font.getbbox(text, anchor="ls"))
    opacity = Image.new("L", (max(right - left, 1), max(bottom - top, 1)))
    ImageDraw.Draw(opacity).text((-left, -top), text, 255, font, anchor="ls")
    return Run(opacity, left, top, font.getlength(text))


_cached_run = lru_cache(maxsize=256)(_run)


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


@lru_cache(maxsize=1024)
def _pieces(text: str) -> tuple[tuple[str, str], ...]:
    """The pieces of a text, each after its font; a piece continues while its font has the characters."""
    return tuple(_split(text))


def _split(text: str) -> Iterator[tuple[str, str]]:
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
