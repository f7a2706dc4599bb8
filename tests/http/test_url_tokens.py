"""Tokens for hosts of images: which requests have them, what a bad file does, and that no value is ever printed."""

from pathlib import Path

import pytest
from solo_server.errors import SettingsError
from solo_server.http.image_urls import ImageUrls
from solo_server.http.url_rules import parse_url
from solo_server.http.url_tokens import authorization, read_tokens
from solo_server.settings import Settings

SECRET = "0123456789abcdef"  # noqa: S105  # of this test


def _file(folder: Path, text: str) -> Path:
    file = folder / "tokens"
    file.write_text(text)
    return file


@pytest.fixture
def tokens_file(tmp_path: Path) -> Path:
    text = f"# Label Studio\n\nhttp://10.0.0.5:8080/ Token {SECRET}\r\n  http://10.0.0.5:8080/b/   Basic b  \n"
    return _file(tmp_path, text)


@pytest.mark.parametrize(
    ("url", "value"),
    [
        ("http://10.0.0.5:8080/a.jpg", f"Token {SECRET}"),
        ("http://10.0.0.5:8080/b/a.jpg", "Basic b"),
        ("http://10.0.0.5:8080/bc/a.jpg", f"Token {SECRET}"),
        ("http://10.0.0.5/a.jpg", None),
        ("https://10.0.0.5:8080/a.jpg", None),
        ("http://10.0.0.6:8080/a.jpg", None),
    ],
)
def test_only_urls_below_a_prefix_get_its_token(tokens_file: Path, url: str, value: str | None) -> None:
    assert authorization(read_tokens(tokens_file), parse_url(url)) == value


def test_without_a_file_there_is_no_token() -> None:
    assert read_tokens(None) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file"),
        (f"http://10.0.0.5/\n{SECRET}", "line 1: a URL prefix, a space and the value"),
        (f"http://10.0.0.5/ Token {SECRET}\n{SECRET}", "line 2: a URL prefix, a space and the value"),
        (f"Token {SECRET}", "line 1: does not begin with a URL prefix"),
        (f"http://10.0.0.5 {SECRET}", "line 1: does not begin with a URL prefix"),
        (f"http://10.0.0.5/a {SECRET}", "line 1: does not begin with a URL prefix"),
        (f"http://{SECRET}@10.0.0.5/ a", "line 1: does not begin with a URL prefix"),
        (f"http://10.0.0.5/ {SECRET}\x00", "line 1: a URL prefix, a space and the value"),
        (f"http://10.0.0.5/ {SECRET}é", "line 1: a URL prefix, a space and the value"),
        (f"#{SECRET}" * (1 << 17), "is larger than"),
    ],
)
def test_a_bad_file_stops_the_start_and_no_value_is_printed(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "nothing" if text is None else _file(tmp_path, text)
    with pytest.raises(SettingsError, match=message) as caught:
        ImageUrls.read(Settings(image_urls_token_file=file))
    assert str(caught.value).startswith("SOLO_IMAGE_URLS_TOKEN_FILE: ")
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_token_shows_in_no_repr(tokens_file: Path) -> None:
    urls = ImageUrls.read(Settings(image_urls_token_file=tokens_file))
    assert len(urls.tokens) == 2
    assert SECRET not in repr(urls)
