"""Text is read alike with and without a byte order mark."""

import codecs

import pytest
from solo_models.text_file import decoded


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("text", ["", "cat\r\ndog", "\u732b\n\u72ac\n"])
def test_the_mark_is_no_part_of_the_text(text: str, encoding: str) -> None:
    assert decoded(text.encode(encoding)) == text


def test_either_order_of_bytes_is_read() -> None:
    assert decoded(codecs.BOM_UTF16_BE + "cat".encode("utf-16-be")) == "cat"
    assert decoded(codecs.BOM_UTF16_LE + "cat".encode("utf-16-le")) == "cat"


@pytest.mark.parametrize("content", [b"\xff", b"\x89PNG", "k\xe4fer".encode("latin-1"), codecs.BOM_UTF16_LE + b"x"])
def test_other_encodings_are_refused(content: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        decoded(content)
