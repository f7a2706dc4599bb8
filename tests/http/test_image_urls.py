"""Images by URL, from a real HTTP server: what is fetched, what never is, and what a hostile host cannot do."""

import asyncio
import functools
import json
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from solo_server.errors import BodyTooLarge, UrlNotAllowed, UrlUnreachable
from solo_server.http import image_urls
from solo_server.http.app import create_app
from solo_server.http.connections import uvicorn_options
from solo_server.http.image_urls import MAX_REDIRECTS, ImageUrls
from solo_server.http.url_rules import AllowList, parse_prefix
from solo_server.http.url_tokens import UrlToken
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import Settings
from support.images import encoded, smooth_image
from support.serving import serving
from support.url_host import CERTIFICATE, Scripted, UrlHost, redirect, response, url_host

PNG = encoded(smooth_image(60, 80))
LIMIT = 1 << 20


@pytest.fixture
def host() -> Iterator[UrlHost]:
    with url_host() as one:
        yield one


def fetch(urls: ImageUrls, url: str) -> bytes:
    return asyncio.run(urls.fetch_image(url))


def allowing(*prefixes: str, **options: Any) -> ImageUrls:
    return ImageUrls(AllowList.parse(prefixes), **{"max_bytes": LIMIT, **options})


def resolving(*addresses: str, names: list[str] | None = None) -> Any:
    """A resolver that gives these addresses for every name, and writes down the names."""

    async def resolve(name: str, port: int) -> list[str]:
        if names is not None:
            names.append(name)
        return list(addresses)

    return resolve


# what is fetched


def test_the_bytes_at_an_allowed_url_are_fetched_with_one_plain_request(
    host: UrlHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    host.answers["/a/b%20c.png?d=/e"] = response(PNG, Set_Cookie="a=b")
    assert fetch(allowing(f"{host.url}a/"), f"{host.url}a/b%20c.png?d=/e") == PNG
    (head,) = host.requests
    request_line, *headers = head.strip().split("\r\n")
    assert request_line == "GET /a/b%20c.png?d=/e HTTP/1.1"
    assert f"Host: 127.0.0.1:{host.port}" in headers
    assert not {"cookie", "authorization", "referer"} & {header.split(":")[0].lower() for header in headers}


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\n\r\nabc", b"de"],
        [b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nabcde"],
        [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n",
         b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabcde"],
        [bytes([byte]) for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde"],
    ],
    ids=["chunked", "to the end of the connection", "http 1.0", "after interim answers", "byte by byte"],
)  # fmt: skip
def test_every_framing_of_http_is_read(host: UrlHost, pieces: Iterable[bytes]) -> None:
    host.answers["/a"] = Scripted(pieces)
    assert fetch(allowing(host.url), f"{host.url}a") == b"abcde"


def test_a_connection_that_the_host_keeps_open_is_not_waited_for(host: UrlHost) -> None:
    host.answers["/a"] = Scripted([b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"], stays_open=True)
    assert fetch(allowing(host.url), f"{host.url}a") == b"abc"
    assert host.has_closed.wait(10)


def test_localhost_is_allowed_where_the_operator_names_it(host: UrlHost) -> None:
    host.answers["/a"] = response(PNG)
    base = f"http://localhost:{host.port}/"
    assert fetch(allowing(base, resolve=resolving("127.0.0.1")), f"{base}a") == PNG
    with pytest.raises(UrlNotAllowed):
        fetch(allowing(base, resolve=resolving("127.0.0.1", "10.0.0.1")), f"{base}a")


# addresses


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"], ["10.0.0.1"], ["169.254.169.254"], ["::1"], ["fd00::1"], ["fe80::1%eth0"], ["::ffff:127.0.0.1"],
        ["0.0.0.0"],  # noqa: S104  # no socket is opened
        ["224.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["127.0.0.1", "8.8.8.8"], [],
    ],
)  # fmt: skip
def test_a_name_with_a_special_address_is_never_connected_to(
    host: UrlHost, monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    connected: list[Any] = []
    monkeypatch.setattr(asyncio, "open_connection", lambda *all_, **_: connected.append(all_))
    base = f"http://images.example.org:{host.port}/"
    with pytest.raises(UrlNotAllowed) as caught:
        fetch(allowing(base, resolve=resolving(*addresses)), f"{base}a")
    assert connected == []
    assert host.requests == []
    assert not any(address in caught.value.detail for address in addresses)


def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is asked for once cannot have a second answer (DNS rebinding)."""
    names: list[str] = []
    connected: list[Any] = []

    async def open_connection(*arguments: Any, **options: Any) -> Any:
        connected.append((*arguments, options.get("server_hostname")))
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncio, "open_connection", open_connection)
    urls = allowing("https://images.example.org/", resolve=resolving("8.8.8.8", "2606:4700::1", names=names))
    with pytest.raises(UrlUnreachable):
        fetch(urls, "https://images.example.org/a")
    assert names == ["images.example.org"]
    assert connected == [("8.8.8.8", 443, "images.example.org"), ("2606:4700::1", 443, "images.example.org")]


def test_an_address_in_the_list_is_not_looked_up(host: UrlHost) -> None:
    host.answers["/a"] = response(PNG)
    names: list[str] = []
    assert fetch(allowing(host.url, resolve=resolving("8.8.8.8", names=names)), f"{host.url}a") == PNG
    assert names == []


def test_the_next_address_is_tried_if_one_takes_no_connection(host: UrlHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_urls, "is_public", lambda _: True)
    host.answers["/a"] = response(PNG)
    base = f"http://images.example.org:{host.port}/"
    assert fetch(allowing(base, resolve=resolving("127.0.0.99", "127.0.0.1")), f"{base}a") == PNG
    assert f"Host: images.example.org:{host.port}\r\n" in host.requests[0]


# redirects


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_redirects_within_the_list_are_followed(host: UrlHost, status: str) -> None:
    host.answers |= {
        "/a/1": redirect("2?x=y", status),
        "/a/2?x=y": redirect("/a/b/../3", status),
        "/a/3": redirect(f"{host.url}a/4", status),
        "/a/4": response(PNG),
    }
    assert fetch(allowing(f"{host.url}a/"), f"{host.url}a/1") == PNG
    assert len(host.requests) == MAX_REDIRECTS + 1


def test_a_redirect_more_is_one_too_many(host: UrlHost) -> None:
    host.answers["/a"] = redirect("/a")
    with pytest.raises(UrlUnreachable, match="redirects more than 3 times"):
        fetch(allowing(host.url), f"{host.url}a")
    assert len(host.requests) == MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    "target",
    [
        "{url}b/a", "/b/a", "../b/a", "/a/%2e%2e/b", "http://localhost:{port}/a/1", "http://127.1:{port}/a/1",
        "//169.254.169.254/a/",
        "http://user@127.0.0.1:{port}/a/1", "https://127.0.0.1:{port}/a/1", "file:///etc/passwd", "data:image/png,a", "/a/x#y",
        "\\\\127.0.0.1\\a", "http://[::ffff:127.0.0.1]:{port}/a/1", "/a/\xe9", "http://[", "http://127.0.0.1:x/",
    ],
)  # fmt: skip
def test_a_redirect_out_of_the_list_is_not_followed(host: UrlHost, target: str) -> None:
    host.answers["/a/1"] = redirect(target.format(url=host.url, port=host.port))
    with pytest.raises(UrlNotAllowed, match="the target of its redirect"):
        fetch(allowing(f"{host.url}a/"), f"{host.url}a/1")
    assert len(host.requests) == 1


def test_a_redirect_to_a_name_with_a_private_address_is_not_followed(host: UrlHost) -> None:
    target = f"http://images.example.org:{host.port}/"
    host.answers["/a"] = redirect(f"{target}a")
    with pytest.raises(UrlNotAllowed):
        fetch(allowing(host.url, target, resolve=resolving("127.0.0.1")), f"{host.url}a")
    assert len(host.requests) == 1


def test_a_token_goes_to_its_own_prefix_and_not_with_a_redirect(host: UrlHost) -> None:
    host.answers |= {"/a/1": redirect("/b/1"), "/b/1": response(PNG)}
    tokens = (UrlToken(parse_prefix(f"{host.url}a/"), "Token secret"),)
    assert fetch(allowing(host.url, tokens=tokens), f"{host.url}a/1") == PNG
    first, second = host.requests
    assert "\r\nAuthorization: Token secret\r\n" in first
    assert "Authorization" not in second


# hostile and broken hosts


def test_an_image_over_the_limit_is_refused_by_its_header(host: UrlHost) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {LIMIT + 1}\r\n\r\n".encode()
    host.answers["/a"] = Scripted([head], stays_open=True)
    with pytest.raises(BodyTooLarge):
        fetch(allowing(host.url), f"{host.url}a")


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"])
def test_an_endless_image_is_cut_off_at_the_limit(host: UrlHost, head: bytes) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield head
        while True:
            piece = b"x" * 65536
            sent += len(piece)
            yield piece if b"chunked" not in head else b"10000\r\n" + piece + b"\r\n"

    host.answers["/a"] = Scripted(endless())
    with pytest.raises(BodyTooLarge):
        fetch(allowing(host.url), f"{host.url}a")
    assert host.has_closed.wait(10)
    assert sent < LIMIT + (16 << 20)  # what the system's buffers of a connection hold


def test_an_image_of_exactly_the_limit_is_fetched(host: UrlHost) -> None:
    host.answers["/a"] = response(b"x" * LIMIT)
    assert len(fetch(allowing(host.url), f"{host.url}a")) == LIMIT


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 50_000],
        [b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;" + b"x" * 300_000],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 50_000],
        [b"HTTP/1.1 200 " + b"O" * 300_000],
    ],
    ids=["headers", "interim answers", "chunk extension", "trailers", "status line"],
)
def test_endless_framing_is_cut_off(host: UrlHost, pieces: Iterable[bytes]) -> None:
    host.answers["/a"] = Scripted(pieces, stays_open=True)
    with pytest.raises(UrlUnreachable):
        fetch(allowing(host.url), f"{host.url}a")
    assert host.has_closed.wait(10)


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b"HTTP/1.1 200 OK\r\n"],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc"],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc"],
        [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc"],
        [b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc"],
        [b"HTTP/1.1 204 No Content\r\n\r\n"],
        [b"HTTP/1.1 404 Not Found\r\ncontent-length: 3\r\n\r\nabc"],
        [b"HTTP/1.1 302 Found\r\ncontent-length: 3\r\n\r\nabc"],
        [b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n"],
        [b"HTTP/1.1 100 Continue\r\n\r\n"],
        [b"SSH-2.0-OpenSSH_9.2\r\n"],
        [b"\x00" * 100],
        [PNG],
    ],
)
def test_what_is_no_whole_image_is_unreachable(host: UrlHost, pieces: Iterable[bytes]) -> None:
    host.answers["/a"] = Scripted(pieces)
    with pytest.raises(UrlUnreachable):
        fetch(allowing(host.url), f"{host.url}a")


@pytest.mark.parametrize(
    "pieces",
    [[], [b"HTTP/1.1 200 OK\r\n"], [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabc"]],
    ids=["silent", "in the headers", "in the image"],
)
def test_a_host_that_stops_is_left_after_the_deadline(host: UrlHost, pieces: Iterable[bytes]) -> None:
    host.answers["/a"] = Scripted(pieces, stays_open=True)
    with pytest.raises(UrlUnreachable, match=r"not there within 0\.2 s"):
        fetch(allowing(host.url, seconds=0.2), f"{host.url}a")
    assert host.has_closed.wait(10)


def test_a_host_that_trickles_is_left_after_the_deadline(host: UrlHost) -> None:
    def trickle() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n"
        while True:
            time.sleep(0.02)
            yield b"x"

    host.answers["/a"] = Scripted(trickle())
    with pytest.raises(UrlUnreachable, match="not there within"):
        fetch(allowing(host.url, seconds=0.3), f"{host.url}a")
    assert host.has_closed.wait(10)


def test_where_nobody_listens_the_url_is_unreachable_and_no_address_is_told() -> None:
    with url_host() as host:
        url = host.url
    with pytest.raises(UrlUnreachable) as caught:
        fetch(allowing(url), f"{url}a")
    assert "127.0.0.1" not in caught.value.detail


def test_a_name_that_does_not_exist_is_unreachable() -> None:
    with pytest.raises(UrlUnreachable, match=r"not known|no connection"):
        fetch(allowing("http://nothing.invalid/"), "http://nothing.invalid/a")


# TLS


@pytest.mark.parametrize(
    ("name", "is_trusted", "is_fetched"),
    [("images.example.org", True, True), ("other.example.org", True, False), ("images.example.org", False, False)],
    ids=["its own", "another host's", "of nobody"],
)
def test_the_certificate_must_be_trusted_and_the_hosts_own(
    monkeypatch: pytest.MonkeyPatch, name: str, is_trusted: bool, is_fetched: bool
) -> None:
    monkeypatch.setattr(image_urls, "is_public", lambda _: True)
    monkeypatch.setattr(
        image_urls, "_tls", functools.partial(ssl.create_default_context, cafile=CERTIFICATE if is_trusted else None)
    )
    with url_host({"/a": response(PNG)}, tls=True) as host:
        base = f"https://{name}:{host.port}/"
        urls = allowing(base, resolve=resolving("127.0.0.1"))
        if is_fetched:
            assert fetch(urls, f"{base}a") == PNG
            return
        with pytest.raises(UrlUnreachable, match="no trusted TLS"):
            fetch(urls, f"{base}a")
        assert host.requests == []


# `POST /segment`


@pytest.fixture(scope="module")
def pipeline(solo_bundle: Path) -> Pipeline:
    return Pipeline.open(solo_bundle, threads=1)


@pytest.fixture(scope="module")
def images() -> Iterator[UrlHost]:
    with url_host({"/in/a.png": response(PNG), "/in/page": response(b"<html>", Content_Type="image/png")}) as host:
        yield host


@pytest.fixture(scope="module")
def http(pipeline: Pipeline, images: UrlHost) -> Iterator[httpx.Client]:
    settings = Settings.read({"SOLO_IMAGE_URLS": f"{images.url}in/"})
    with serving(create_app(pipeline, settings), **uvicorn_options(settings)) as client:
        yield client


def test_an_image_by_url_is_answered_as_its_bytes_are(http: httpx.Client, images: UrlHost) -> None:
    query = {"max_instances": "3"}
    by_url = http.post("/segment", json={"url": f"{images.url}in/a.png"}, params=query)
    by_bytes = http.post("/segment", content=PNG, params=query)
    assert by_url.status_code == 200
    assert by_url.json()["instances"] == by_bytes.json()["instances"]
    overlay = http.post("/segment", json={"url": f"{images.url}in/a.png"}, headers={"accept": "image/png"})
    assert overlay.headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("in/page", 415, "unsupported_media_type"),
        ("in/nothing", 422, "url_unreachable"),
        ("out/a.png", 403, "url_not_allowed"),
        ("in/../out/a.png", 403, "url_not_allowed"),
    ],
)
def test_what_is_wrong_with_a_url_has_a_code(
    http: httpx.Client, images: UrlHost, path: str, status: int, code: str
) -> None:
    answer = http.post("/segment", json={"url": images.url + path})
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    "body",
    ["{", "{}", '{"url": 1}', '{"url": null}', '{"url": ["a"]}', '{"url": "a", "nms": "none"}', '["a"]', '"http://a/"', "[" * 5000,
     json.dumps({"url": "a" * 20_000})],
)  # fmt: skip
def test_other_json_is_refused(http: httpx.Client, body: str) -> None:
    answer = http.post("/segment", content=body, headers={"content-type": "application/json; charset=utf-8"})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_query")


def test_an_image_is_an_image_whatever_its_type_says(http: httpx.Client) -> None:
    assert http.post("/segment", content=PNG, headers={"content-type": "application/json"}).status_code == 200


def test_a_url_is_none_unless_its_type_says_so(http: httpx.Client, images: UrlHost) -> None:
    answer = http.post("/segment", content=json.dumps({"url": f"{images.url}in/a.png"}))
    assert answer.json()["code"] == "unsupported_media_type"


def test_unless_urls_are_allowed_none_is_fetched_and_the_answer_says_so(pipeline: Pipeline, images: UrlHost) -> None:
    before = len(images.requests)
    with serving(create_app(pipeline, Settings())) as client:
        answer = client.post("/segment", json={"url": f"{images.url}in/a.png"})
        assert (answer.status_code, answer.json()["code"]) == (403, "url_not_allowed")
        assert "switched off" in answer.json()["detail"]
        assert client.post("/segment", json={"anything": 1}).json()["code"] == "unsupported_media_type"
        content = client.get("/openapi.json").json()["paths"]["/segment"]["post"]["requestBody"]["content"]
        assert "application/json" not in content
    assert len(images.requests) == before


def test_the_document_has_the_body_where_urls_are_allowed(http: httpx.Client) -> None:
    content = http.get("/openapi.json").json()["paths"]["/segment"]["post"]["requestBody"]["content"]
    assert content["application/json"]["schema"]["required"] == ["url"]


def test_a_caller_that_hangs_up_ends_the_download(http: httpx.Client, images: UrlHost) -> None:
    images.answers["/in/slow"] = Scripted([b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"], stays_open=True)
    images.has_closed.clear()
    with pytest.raises(httpx.ReadTimeout):
        http.post("/segment", json={"url": f"{images.url}in/slow"}, timeout=0.5)
    assert images.has_closed.wait(10)


def test_the_requests_deadline_ends_the_download(http: httpx.Client, images: UrlHost) -> None:
    images.answers["/in/slow"] = Scripted([b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"], stays_open=True)
    images.has_closed.clear()
    answer = http.post("/segment", json={"url": f"{images.url}in/slow"}, headers={"x-request-timeout-ms": "300"})
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
    assert images.has_closed.wait(10)


def test_other_callers_are_answered_while_a_host_is_slow(http: httpx.Client, images: UrlHost) -> None:
    may_go_on = threading.Event()

    def slow() -> Iterator[bytes]:
        yield f"HTTP/1.1 200 OK\r\ncontent-length: {len(PNG)}\r\n\r\n".encode()
        may_go_on.wait(60)
        yield PNG

    statuses: list[int] = []

    def ask(path: str) -> None:
        statuses.append(httpx.post(f"{http.base_url}/segment", json={"url": images.url + path}, timeout=60).status_code)

    paths = [f"in/{number}" for number in range(8)]
    images.answers |= {f"/{path}": Scripted(slow()) for path in paths}
    threads = [threading.Thread(target=ask, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    assert http.post("/segment", content=PNG).status_code == 200
    assert statuses == []  # those still wait
    may_go_on.set()
    for thread in threads:
        thread.join()
    assert statuses == [200] * len(paths)
