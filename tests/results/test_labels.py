"""Overlays show class names in most scripts; a name that no font can draw is replaced by the id of its class."""

import logging
from importlib.resources import files

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from solo_server.pipeline import labels
from solo_server.pipeline.labels import line, readable

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
    image = Image.new("L", (text.width + 20, text.ascent + text.descent + 20), 255)
    text.draw(ImageDraw.Draw(image.convert("RGB")), 0, 0, BLACK)  # works on any image
    canvas = image.convert("RGB")
    text.draw(ImageDraw.Draw(canvas), 10, 10 + text.ascent, BLACK)
    return np.asarray(canvas.convert("L"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_names_of_most_scripts_are_shown_as_they_are(script: str, caplog: pytest.LogCaptureFixture) -> None:
    assert readable((SCRIPTS[script],)) == (SCRIPTS[script],)
    assert not caplog.records


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
    np.testing.assert_array_equal(_drawn("\u05d0\u05d1"), _drawn("\u05d1", "\u05d0"))  # alef and bet, of Hebrew


def test_without_libraqm_names_from_right_to_left_are_replaced_by_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "_SHAPES", False)
    assert readable(("cat", "قطة", "חתול", "猫")) == ("cat", "#1", "#2", "猫")


def test_a_name_that_no_font_can_draw_is_replaced_by_its_id_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = ("cat", "𒀀𒀁", "dog 🛸", "কুকুর")
    with caplog.at_level(logging.WARNING, "solo_server"):
        assert readable(names) == readable(names) == ("cat", "#1", "#2", "#3")
    assert [record.getMessage() for record in caplog.records] == [
        "overlays show 3 of 4 classes by their ids, because no bundled font can draw their names: "
        "#1 '𒀀𒀁', #2 'dog 🛸', #3 'কুকুর'"
    ]


def test_the_log_names_a_few_of_many_names(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "solo_server"):
        readable(tuple("𒀀" * n for n in range(1, 1204)))
    (record,) = caplog.records
    assert "1203 of 1203" in record.getMessage()
    assert len(record.getMessage()) < 300


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
    assert readable((name,)) == (shown,)
    assert line((shown,), 20).width > 0


def test_every_font_has_its_licence_beside_it() -> None:
    folder = files("solo_server") / "pipeline" / "fonts"
    credit = (folder / "README.md").read_text()
    fonts = [file.name for file in folder.iterdir() if file.name.endswith((".ttf", ".ttc"))]
    assert sorted(fonts) == sorted(labels._FILES)
    assert all(f"`{font}`" in credit for font in fonts)
    for licence in ("LICENSE-DejaVu.txt", "LICENSE-Noto.txt"):
        assert f"`{licence}`" in credit
        assert len((folder / licence).read_text()) > 3000
