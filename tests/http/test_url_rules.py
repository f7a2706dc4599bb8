"""Which URLs are allowed: every trick with hosts, ports, paths and addresses is refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solo_server.errors import SettingsError, UrlNotAllowed
from solo_server.http.app import create_app
from solo_server.http.url_rules import MAX_URL_CHARACTERS, AllowList, is_public, parse_url
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import Settings

ENTRY = "https://images.example.org/photos/"
ALLOWED = AllowList.parse([ENTRY, "http://10.0.0.5:8080/", "http://[fd00::5]/a/"])


@pytest.mark.parametrize(
    "url",
    [
        ENTRY, f"{ENTRY}cat.jpg", f"{ENTRY}a/b/c%20d.jpg", f"{ENTRY}caf%C3%A9.jpg", f"{ENTRY}cat.jpg?w=3&h=/../x%2e",
        "https://images.example.org:443/photos/cat.jpg", f"{ENTRY}..cat.jpg", f"{ENTRY}a..b/...", f"{ENTRY}a;v=1",
        "http://10.0.0.5:8080/", "http://10.0.0.5:8080/data/upload/1/x.png?d=1", "http://[fd00::5]/a/b", f"{ENTRY}a@b:c",
    ],
)  # fmt: skip
def test_a_url_below_an_entry_is_allowed(url: str) -> None:
    assert ALLOWED.check(url).text == url.replace(":443", "")


@pytest.mark.parametrize(
    "url",
    [
        "https://images.example.org/", "https://images.example.org/photos", "https://images.example.org/photosx/a",
        "https://images.example.org/Photos/a", "http://images.example.org/photos/a", "https://images.example.org:8443/photos/a",
        "https://images.example.org:80/photos/a", "https://example.org/photos/a", "https://x.images.example.org/photos/a",
        "https://images.example.org.evil.net/photos/a", "https://images.example.org/%70hotos/a", "http://10.0.0.5/",
        "http://10.0.0.6:8080/", "http://[fd00::6]/a/b", "https://images.example.org/x?/photos/", "http://localhost/",
        "https://images-example.org/photos/a", "https://imagesxexample.org/photos/a",
    ],
)  # fmt: skip
def test_a_url_that_is_not_below_an_entry_is_not_allowed(url: str) -> None:
    parse_url(url)  # it is a URL
    with pytest.raises(UrlNotAllowed, match="not below one"):
        ALLOWED.check(url)


@pytest.mark.parametrize(
    "url",
    [
        "", "cat.jpg", "/photos/cat.jpg", "//images.example.org/photos/a", "images.example.org/photos/a", "https:/a", "https://",
        "https:///photos/a", "file:///etc/passwd", "ftp://images.example.org/photos/a", "gopher://images.example.org/photos/a",
        "data:image/png;base64,AAAA", "unix:///run/x", "javascript:1",
        "https://images.example.org",  # no path
        # who reads the host otherwise
        "https://images.example.org@evil.net/photos/a", "https://a:b@images.example.org/photos/a",
        "https://evil.net#@images.example.org/photos/a", "https://evil.net\\@images.example.org/photos/a",
        "https://images.example.org\\photos/a", "https:\\\\images.example.org/photos/a",
        "https://images.example.org%2fevil.net/photos/a", "https://images.example.org%00.evil.net/photos/a",
        "https://images.example.org,evil.net/photos/a", "https://images.example.org evil.net/photos/a",
        # the same host, written in another way
        "https://images.example.org./photos/a", "https://IMAGES.example.org/photos/a", "HTTPS://images.example.org/photos/a",
        "https://images。example.org/photos/a", "https://ímages.example.org/photos/a", "https://images.example.org:0443/photos/a",
        "https://images.example.org:/photos/a", "https://images.example.org:0/photos/a",
        "https://images.example.org:65536/photos/a",
        "https://images.example.org:443:443/photos/a", "https://images.example.org:+443/photos/a",
        "https://.images.example.org/photos/a",
        "https://images..example.org/photos/a", "https://-images.example.org/photos/a", "https://images_.example.org/photos/a",
        # the same address, written in another way
        "http://10.0.0.5.:8080/", "http://10.0.5:8080/", "http://167772165:8080/", "http://0xa000005:8080/",
        "http://012.0.0.5:8080/",
        "http://10.0.0.005:8080/", "http://0x0a.0.0.5:8080/", "http://[::ffff:10.0.0.5]:8080/", "http://[FD00::5]/a/b",
        "http://[fd00:0::5]/a/b", "http://[fd00::5%25eth0]/a/b", "http://[fd00::5%eth0]/a/b", "http://[fd00::5/a/b",
        "http://fd00::5/a/b",
        "http://[v1.a]/a/b", "http://1.2.3.4.5/", "http://10.0.0.256:8080/", "http://①0.0.0.5:8080/",
        # the same path, written in another way
        f"{ENTRY}../secret", f"{ENTRY}./a", f"{ENTRY}..", f"{ENTRY}.", f"{ENTRY}a/..", f"{ENTRY}%2e%2e/secret",
        f"{ENTRY}%2E%2E/secret",
        f"{ENTRY}.%2e/secret", f"{ENTRY}..%2fsecret", f"{ENTRY}..%5csecret", f"{ENTRY}..\\secret", f"{ENTRY}%252e%252e/secret",
        f"{ENTRY}..;/secret", f"{ENTRY}..;a=b/secret", f"{ENTRY}.;/a", f"{ENTRY}/a", f"{ENTRY}a//b", f"{ENTRY}a%00.jpg",
        f"{ENTRY}a%0d%0ab",
        f"{ENTRY}a%", f"{ENTRY}a%2", f"{ENTRY}a%zz", f"{ENTRY}a%u002e",
        # what would break the request
        f"{ENTRY}a b", f"{ENTRY}a\tb", f"{ENTRY}a\r\nHost: evil.net", f"{ENTRY}a\n", f"\n{ENTRY}a", f" {ENTRY}a", f"{ENTRY}a ",
        f"{ENTRY}a\x00",
        f"{ENTRY}a\x7f", f"{ENTRY}é.jpg", f"{ENTRY}a?b\r\nc", f"{ENTRY}a?b c", f"{ENTRY}a?b%", f"{ENTRY}a#b", f"{ENTRY}a?b#c",
        f'{ENTRY}a"b',
        f"{ENTRY}{'a' * MAX_URL_CHARACTERS}",
    ],
)  # fmt: skip
def test_a_url_that_could_be_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(UrlNotAllowed, match="is refused"):
        ALLOWED.check(url)


@given(
    st.text(max_size=40), st.sampled_from(["", "https://", ENTRY, "http://10.0.0.5:8080", "https://images.example.org"])
)
def test_any_text_is_refused_or_is_below_an_entry(text: str, begin: str) -> None:
    try:
        url = ALLOWED.check(begin + text)
    except UrlNotAllowed:
        return
    assert url.text.replace(":443/", "/") == (begin + text).replace(":443/", "/")
    assert url.text.startswith((ENTRY, "http://10.0.0.5:8080/", "http://[fd00::5]/a/"))
    assert url.text.isascii()
    assert url.text.isprintable()


@given(st.from_regex(r"(\.|%2[eEfF5]|/|;|a|%25|\\){1,8}", fullmatch=True))
def test_no_spelling_of_dots_and_slashes_leaves_the_folder(path: str) -> None:
    try:
        url = ALLOWED.check(ENTRY + path)
    except UrlNotAllowed:
        return
    segments = url.path.split("/")
    assert not {"..", "."} & {segment.split(";")[0] for segment in segments}
    assert "%" not in url.path


@pytest.mark.parametrize(
    "text",
    [
        "https://images.example.org", "https://images.example.org/photos", "https://images.example.org/a.jpg",
        "images.example.org/",
        f"{ENTRY}?a=b", f"{ENTRY}?", f"{ENTRY}#", "https://*.example.org/", "*", "ftp://example.org/", "https://Example.org/",
        "https://user@example.org/", "https://example.org/../", "https://example.org./", "http://127.1/", f"{ENTRY},",
        "http://a b/",
    ],
)  # fmt: skip
def test_a_bad_entry_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^SOLO_IMAGE_URLS: '.*' is no URL prefix such as"):
        AllowList.parse(Settings.read({"SOLO_IMAGE_URLS": text}).image_urls)


def test_a_bad_entry_stops_the_start(solo_bundle: Path) -> None:
    with pytest.raises(SettingsError, match=r"^SOLO_IMAGE_URLS: "):
        create_app(Pipeline.open(solo_bundle, threads=1), Settings(image_urls=(ENTRY, "*")))


def test_entries_are_separated_by_commas() -> None:
    texts = Settings.read({"SOLO_IMAGE_URLS": f"{ENTRY}, http://localhost:9000/"}).image_urls
    assert [prefix.text for prefix in AllowList.parse(texts).prefixes] == [ENTRY, "http://localhost:9000/"]
    assert Settings.read({}).image_urls == Settings.read({"SOLO_IMAGE_URLS": ""}).image_urls == ()


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_an_ordinary_address_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
        "169.254.169.254", "0.0.0.0",  # noqa: S104  # no socket is opened
        "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255", "192.88.99.1", "168.63.129.16", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "fe80::1", "fe80::1%eth0", "fec0::1",
        "fc00::1",
        "fd00:ec2::254", "ff02::1", "ff0e::1", "2001::1", "2001:db8::1", "2002:7f00:1::", "2002:808:808::", "3fff::1",
        "5f00::1", "100::1",
    ],
)  # fmt: skip
def test_a_special_address_is_not_public(address: str) -> None:
    assert not is_public(address)
