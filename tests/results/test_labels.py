"""Drawings show class names in most scripts; a name that no font can draw is replaced by the id of its class."""

from importlib.resources import files

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from solo_results import labels
from solo_results.labels import LONGEST, line, one_line, readable

BLACK = (0, 0, 0)
SCRIPTS = {
    "Latin": "person",
    "Vietnamese": "người đi bộ",
    "Japanese": "猫と信号機トラック",
    "simplified Chinese": "红绿灯汽车",
    "traditional Chinese": "紅綠燈機車",
    "Korean": "고양이 뷁",
    "Russian": "светофор",
    "Greek": "γάτα",
    "Arabic": "قطة سيارة",
    "Persian": "گربه",
    "Hebrew": "חתול",
    "Hindi": "बिल्ली क्षत्रिय",
    "Thai": "แมวน้ำ รถยนต์ที่",
    "Armenian": "կատու",
    "Georgian": "კატა",
    "an emoji": "🐱",
    "several at once": "猫 cat قطة แมว",
}


@pytest.fixture(autouse=True)
def _fresh() -> None:
    readable.cache_clear()


def _drawn(*parts: str, size: float = 32) -> NDArray[np.uint8]:
    """The text in black on white."""
    text = line(parts, size)
    canvas = Image.new("RGB", (text.width + 20, text.ascent + text.descent + 20), (255, 255, 255))
    text.draw(canvas, 10, 10 + text.ascent, BLACK)
    return np.asarray(canvas.convert("L"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_names_of_most_scripts_are_shown_as_they_are(script: str) -> None:
    assert readable(SCRIPTS[script], 3) == SCRIPTS[script]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("size", [10, 33, 114])
def test_a_label_is_drawn_inside_its_measured_size(script: str, size: int) -> None:
    drawn = _drawn(SCRIPTS[script], " 0.87", size=size)
    rows, columns = np.nonzero(drawn < 200)
    assert rows.min() >= 9
    assert rows.max() <= drawn.shape[0] - 10
    assert columns.min() >= 9 - size // 8
    assert columns.max() <= drawn.shape[1] - 10 + size // 8


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_character_is_drawn_as_a_placeholder_box(script: str) -> None:
    """Different characters look different; placeholder boxes do not."""
    letters = [c for c in dict.fromkeys(SCRIPTS[script]) if c.isalpha()]
    shapes = {_drawn(letter).tobytes() for letter in letters}
    assert len(shapes) == len(letters)
    assert _drawn("\uffff").tobytes() not in shapes


def test_arabic_letters_are_joined_and_drawn_from_right_to_left() -> None:
    lam, alef = "\u0644", "\u0627"
    joined = _drawn(lam + alef)  # by libraqm, part of all Pillow wheels: one shape, half as wide as two
    assert joined.shape[1] < _drawn(lam + "\u200c" + alef).shape[1]
    alef, bet = "\u05d0", "\u05d1"
    together, reordered, as_written = _drawn(alef + bet), _drawn(bet, alef), _drawn(alef, bet)
    assert 3 * _difference(together, reordered) < _difference(together, as_written)


def _difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """The mean difference; whole pixels between two runs blur it a little."""
    return float(np.abs(one.astype(int) - other).mean())


def test_without_libraqm_names_from_right_to_left_are_replaced_by_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "_SHAPES", False)
    shown = [readable(name, class_id) for class_id, name in enumerate(("cat", "قطة", "חתול", "猫"))]
    assert shown == ["cat", "#1", "#2", "猫"]


@pytest.mark.parametrize("name", ["𒀀𒀁", "dog 🛸", "কুকুর"])
def test_a_name_that_no_font_can_draw_is_replaced_by_its_id(name: str) -> None:
    assert readable(name, 7) == "#7"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("traffic\nlight", "traffic light"),
        ("  a\t b ", "a b"),
        ("a\x00b\x1b[0m", "ab[0m"),
        ("", "#0"),
        ("\n", "#0"),
        ("a" * 100, "a" * 59 + "…"),
        ("#0", "#0"),
        ("e\u0301 \u2764\ufe0f", "e\u0301 \u2764\ufe0f"),
    ],
)
def test_odd_names_are_shown_on_one_line(name: str, shown: str) -> None:
    assert readable(name, 0) == shown
    assert line((shown,), 20).width > 0


def test_a_caption_is_one_line_and_not_long() -> None:
    assert one_line("person\n#12 \x00 0.87") == "person #12 0.87"
    assert len(one_line("x" * 1000)) == LONGEST


def test_letters_of_large_images_are_not_kept() -> None:
    labels._cached_run.cache_clear()
    line(("person",), labels._LARGEST_CACHED)
    before = labels._cached_run.cache_info().currsize
    line(("bicycle",), labels._LARGEST_CACHED + 1)
    assert labels._cached_run.cache_info().currsize == before + 1  # the Latin letters that give the height


def test_every_font_has_its_licence_beside_it() -> None:
    folder = files("solo_results") / "fonts"
    credit = (folder / "README.md").read_text()
    fonts = [file.name for file in folder.iterdir() if file.name.endswith((".ttf", ".ttc"))]
    assert sorted(fonts) == sorted(labels._FILES)
    assert all(f"`{font}`" in credit for font in fonts)
    for licence in ("LICENSE-DejaVu.txt", "LICENSE-Noto.txt"):
        assert f"`{licence}`" in credit
        assert len((folder / licence).read_text()) > 3000
