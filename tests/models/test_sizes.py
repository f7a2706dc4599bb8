"""A size is typed in one order; whatever could be misread is refused with what to type."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solo_models.sizes import LARGEST, SMALLEST, SizeError, oriented_text, parse_oriented, parse_size, size_text

SIDES = st.integers(SMALLEST, LARGEST)


def test_the_longer_side_comes_first() -> None:
    assert parse_size("1333x800") == (1333, 800)
    assert parse_size("512x512") == (512, 512)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("800x1333", "800x1333: the longer side comes first, for portrait images too: 1333x800"),
        ("", "'' is not LONGxSHORT, such as 1333x800"),
        ("1333", "'1333' is not LONGxSHORT"),
        ("1333x800x3", "'1333x800x3' is not LONGxSHORT"),
        ("-1333x800", "'-1333x800' is not LONGxSHORT"),
        ("\u0661\u0662\u0668x64", "is not LONGxSHORT"),  # digits, but not 0 to 9
        ("1333x31", "1333x31: 31 is not within 32..16384 pixels"),
        ("0x0", "0x0: 0 is not within 32..16384 pixels"),
        ("16385x800", "16385x800: 16385 is not within 32..16384 pixels"),
    ],
)
def test_invalid_sizes_are_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(SizeError) as caught:
        parse_size(text)
    assert message in str(caught.value)


@given(SIDES, SIDES)
def test_every_size_is_read_back_from_its_text(first: int, second: int) -> None:
    long, short = max(first, second), min(first, second)
    assert parse_size(size_text((first, second))) == (long, short)


@given(SIDES, SIDES)
def test_the_shorter_side_first_is_refused_with_the_text_that_is_accepted(first: int, second: int) -> None:
    long, short = max(first, second), min(first, second)
    if long == short:
        assert parse_size(f"{short}x{long}") == (long, short)
        return
    with pytest.raises(SizeError) as caught:
        parse_size(f"{short}x{long}")
    assert parse_size(str(caught.value).rpartition(": ")[2]) == (long, short)


@given(SIDES, SIDES)
def test_an_input_is_read_back_from_its_text(height: int, width: int) -> None:
    assert parse_oriented(oriented_text((height, width))) == ((height, width),)


def test_a_size_stands_for_both_orientations_unless_a_word_says_which() -> None:
    assert parse_oriented("1088x800") == ((800, 1088), (1088, 800))  # (height, width)
    assert parse_oriented("1088x800:landscape") == ((800, 1088),)
    assert parse_oriented("1088x800:portrait") == ((1088, 800),)
    assert parse_oriented("512x512") == ((512, 512),)


@pytest.mark.parametrize("text", ["1088x800:", "1088x800:up", "1088x800:Portrait", "800x1088:portrait", ":portrait"])
def test_another_word_or_order_is_refused(text: str) -> None:
    with pytest.raises(SizeError):
        parse_oriented(text)
