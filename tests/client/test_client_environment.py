"""Proxy and certificate variables: which proxy a client uses, and how an invalid variable is reported."""

from __future__ import annotations

import argparse
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import certifi
import httpx
import pytest
from solo_client import AsyncSoloClient, InvalidEnvironment, SoloClient, UnexpectedAnswer, Unreachable, segment
from solo_client.environment import proxy_for

Set = pytest.MonkeyPatch
SERVER = "http://solo.test:8000"
KINDS = pytest.mark.parametrize("kind", [SoloClient, AsyncSoloClient])


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: Set) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE"):
            monkeypatch.delenv(name)


def _set(monkeypatch: Set, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("url", "variables", "expected"),
    [
        (SERVER, {}, None),
        (SERVER, {"HTTP_PROXY": "http://p:3128"}, ("HTTP_PROXY", "http://p:3128")),
        (SERVER, {"http_proxy": "http://p:3128/"}, ("http_proxy", "http://p:3128/")),
        (SERVER, {"HTTP_PROXY": "http://capitals", "http_proxy": "http://small"}, ("http_proxy", "http://small")),
        (SERVER, {"HTTP_PROXY": "http://capitals", "http_proxy": ""}, None),
        (SERVER, {"HTTP_PROXY": ""}, None),
        (SERVER, {"HTTP_PROXY": " p:3128 "}, ("HTTP_PROXY", "http://p:3128")),
        (SERVER, {"HTTPS_PROXY": "http://p"}, None),
        ("https://solo.test", {"HTTPS_PROXY": "http://p"}, ("HTTPS_PROXY", "http://p")),
        (SERVER, {"ALL_PROXY": "socks5h://p:1080"}, ("ALL_PROXY", "socks5h://p:1080")),
        (SERVER, {"ALL_PROXY": "socks://p", "HTTP_PROXY": "http://p"}, ("HTTP_PROXY", "http://p")),
        ("https://solo.test", {"HTTP_PROXY": "garbage://"}, None),
        (SERVER, {"ALL_PROXY": "socks://p", "NO_PROXY": "solo.test"}, None),
        (SERVER, {"HTTP_PROXY": "http://[::1]:3128"}, ("HTTP_PROXY", "http://[::1]:3128")),
    ],
)
def test_the_proxy_is_the_one_of_the_urls_scheme(
    monkeypatch: Set, url: str, variables: dict[str, str], expected: tuple[str, str] | None
) -> None:
    _set(monkeypatch, variables)
    proxy = proxy_for(url)
    assert (proxy and (proxy.variable, proxy.url)) == expected


@pytest.mark.parametrize(
    ("url", "no_proxy", "is_direct"),
    [
        ("http://solo.test", "solo.test", True),
        ("http://Solo.Test", "sOLO.tEST", True),
        ("http://solo.test.", "solo.test", True),
        ("http://a.solo.test", "solo.test", True),
        ("http://a.solo.test", ".solo.test", True),
        ("http://a.solo.test", "*.solo.test", True),
        ("http://notsolo.test", "solo.test", False),
        ("http://solo.test", "a.solo.test", False),
        ("http://solo.test", "x, , y.test,solo.test", True),
        ("http://solo.test", "x solo.test", True),
        ("http://solo.test", "x,*", True),
        ("http://solo.test", "", False),
        ("http://solo.test.", ".", False),
        ("http://solo.test", "*.", False),
        ("http://solo.test:8000", "solo.test:8000", True),
        ("http://solo.test:8000", "solo.test:80", False),
        ("http://solo.test", "solo.test:80", True),
        ("https://solo.test", "solo.test:443", True),
        ("http://solo.test", "http://solo.test", True),
        ("https://solo.test", "http://solo.test", False),
        ("https://solo.test", "all://solo.test:443", True),
        ("http://localhost:8000", "localhost,127.0.0.0/8,::1", True),
        ("http://127.0.0.1:8000", "localhost,127.0.0.0/8,::1", True),
        ("http://[::1]:8000", "localhost,127.0.0.0/8,::1", True),
        ("http://[::1]:8000", "[::1]", True),
        ("http://[::1]:8000", "[::1]:8000", True),
        ("http://[::1]:8000", "[::1]:8001", False),
        ("http://[0:0:0:0:0:0:0:1]", "::1", True),
        ("http://10.1.2.3", "10.0.0.0/8", True),
        ("http://11.1.2.3", "10.0.0.0/8", False),
        ("http://10.1.2.3", "10.1.2.3/32", True),
        ("http://10.1.2.3", "10.1.2.99/24", True),
        ("http://10.1.2.3", "2.3", False),
        ("http://10.1.2.3", "10.1.2.3", True),
        ("http://[fd07:b51a::5]", "fd07:b51a::/64", True),
        ("http://[fd07:b51a::5]", "[fd07:b51a::/64]", True),
        ("http://[fd07:b51b::5]", "fd07:b51a::/64", False),
        ("http://[fd07:b51a::5]", "10.0.0.0/8", False),
        ("http://10.1.2.3", "::/0", False),
        ("http://[fe80::1%25eth0]", "fe80::/10", True),
        ("http://solo.test", "10.0.0.0/99,[::1,localhost:port,<local>,ü,a|b,:,/,//,[],solo.test:99999", False),
        ("http://10.1.2.3", "10.0.0.0/99,[::1,localhost:port,<local>,ü,a|b,:,/,//,[],10.1.2.3:99999", False),
    ],
)
def test_no_proxy_covers_these_hosts(monkeypatch: Set, url: str, no_proxy: str, is_direct: bool) -> None:
    _set(monkeypatch, {"ALL_PROXY": "http://p:3128", "NO_PROXY": no_proxy})
    assert (proxy_for(url) is None) is is_direct


@KINDS
@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("ALL_PROXY", "socks://127.0.0.1:1080/", "'socks://127.0.0.1:1080/' has a scheme that is none of http,"),
        ("all_proxy", "socks4://p:1080", "has a scheme that is none of"),
        ("HTTP_PROXY", "ftp://p:1", "has a scheme that is none of"),
        ("HTTP_PROXY", "::::", "'http://::::' is not a proxy's URL"),
        ("HTTP_PROXY", "::1", "is not a proxy's URL"),
        ("HTTP_PROXY", "http://", "is not a proxy's URL"),
        ("HTTP_PROXY", "http://p:port", "is not a proxy's URL"),
        ("HTTP_PROXY", "http://p:99999", "is not a proxy's URL"),
        ("HTTP_PROXY", "http://p:0", "is not a proxy's URL"),
        ("HTTP_PROXY", "http://[::1", "is not a proxy's URL"),
        ("HTTP_PROXY", "http://p\x07q", "is not a proxy's URL"),
        ("HTTP_PROXY", "http://user:se#cret@p:port", "'http://***@p:port' is not a proxy's URL"),
        (
            "ALL_PROXY",
            "socks5://user:secret@p:1080",
            r"'socks5://***@p:1080' needs a package: pip install 'httpx[socks]'",
        ),
    ],
)
def test_a_proxy_that_cannot_be_used_is_an_error_that_names_the_variable(
    monkeypatch: Set, kind: type[SoloClient], name: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidEnvironment) as caught:
        kind(SERVER)
    assert caught.value.name == name
    assert reason in caught.value.reason
    assert str(caught.value).startswith(f"{name}: ")
    assert "cret" not in str(caught.value)
    assert str(caught.value).endswith("list the server's host in NO_PROXY")


@KINDS
def test_a_desktops_proxy_settings_do_not_stop_a_local_client(monkeypatch: Set, kind: type[SoloClient]) -> None:
    """GNOME's proxy settings; httpx on its own raises at `socks://`, at `[::1]` and at a network."""
    _set(monkeypatch, {"ALL_PROXY": "socks://127.0.0.1:1080/", "NO_PROXY": "localhost,127.0.0.0/8,[::1],fd00::/8"})
    for host in ("localhost", "127.0.0.5", "[::1]", "[fd00::7]"):
        kind(f"http://{host}:8000")


@KINDS
@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("SSL_CERT_FILE", "{}/none.pem", "'{}/none.pem' is not a file; correct or unset it"),
        ("SSL_CERT_FILE", "{}", "'{}' is not a file"),
        ("SSL_CERT_FILE", "{}/empty.pem", "'{}/empty.pem' holds no PEM certificates"),
        ("SSL_CERT_DIR", "{}/none", "'{}/none' is not a folder"),
        ("SSL_CERT_DIR", "{}/none:{}/empty.pem", "is not a folder"),
        ("SSLKEYLOGFILE", "{}/none/keys.log", "'{}/none/keys.log' cannot be used: No such file or directory"),
    ],
)
def test_certificates_that_are_not_there_are_an_error_that_names_variable_and_file(
    monkeypatch: Set, tmp_path: Path, kind: type[SoloClient], name: str, value: str, reason: str
) -> None:
    (tmp_path / "empty.pem").touch()
    monkeypatch.setenv(name, value.replace("{}", str(tmp_path)))
    with pytest.raises(InvalidEnvironment) as caught:
        kind(SERVER)
    assert caught.value.name == name
    assert caught.value.reason.startswith(reason.replace("{}", str(tmp_path))) or reason in caught.value.reason


@KINDS
def test_existing_certificates_are_used(monkeypatch: Set, tmp_path: Path, kind: type[SoloClient]) -> None:
    monkeypatch.setenv("SSL_CERT_DIR", f"{tmp_path}/none:{tmp_path}")
    kind(SERVER)
    monkeypatch.setenv("SSL_CERT_DIR", f"{tmp_path}/none")
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    kind(SERVER)


@KINDS
def test_with_a_transport_the_environment_does_not_matter(monkeypatch: Set, kind: type[SoloClient]) -> None:
    _set(monkeypatch, {"ALL_PROXY": "socks://p", "SSL_CERT_FILE": "/none"})
    kind(SERVER, transport=httpx.MockTransport(lambda _: httpx.Response(200)))


@pytest.fixture
def proxy() -> Iterator[tuple[str, list[str]]]:
    """A proxy that always returns 503 with a page. Its URL, and the URLs requested from it."""
    requested: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            requested.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(503)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", requested
        server.shutdown()


def test_requests_go_through_the_proxy_and_the_error_names_it(monkeypatch: Set, proxy: tuple[str, list[str]]) -> None:
    url, requested = proxy
    monkeypatch.setenv("HTTP_PROXY", url.replace("//", "//user:secret@"))
    with SoloClient(SERVER) as client, pytest.raises(UnexpectedAnswer) as caught:
        client.segment(b"image")
    assert requested == [f"{SERVER}/segment"]
    shown = url.replace("//", "//***@")
    assert str(caught.value) == (
        "unexpected response: Content-Type is text/html, not application/problem+json, with status 503"
        f" (through the proxy {shown} from HTTP_PROXY)"
    )


@pytest.mark.parametrize("host", ["no..host", "127.0.0.1"])
def test_a_proxy_that_is_not_reached_is_named(monkeypatch: Set, host: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setenv("ALL_PROXY", f"http://user:secret@{host}:{port}")
    with SoloClient(SERVER) as client, pytest.raises(Unreachable) as caught:
        client.segment(b"image")
    assert str(caught.value).startswith(f"{SERVER}/segment: ")
    assert str(caught.value).endswith(f" (through the proxy http://***@{host}:{port} from ALL_PROXY)")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks://127.0.0.1:1080"),
        ("HTTP_PROXY", "::::"),
        ("SSL_CERT_FILE", "none.pem"),
        ("SSL_CERT_DIR", "no"),
    ],
)
def test_the_command_reports_it_in_one_line_with_code_2(
    monkeypatch: Set, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    (tmp_path / "a.jpg").write_bytes(b"a")
    parser = argparse.ArgumentParser()
    segment.add_arguments(parser)
    assert segment.run(parser.parse_args([str(tmp_path / "a.jpg"), "--url", SERVER])) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"solo segment: {name}: ")
    assert value in captured.err
    assert captured.err.count("\n") == 1
