"""The listening socket, and its address in the log: a URL that works on this machine."""

import errno
import logging
import re
import shlex
import socket
from typing import Any

import pytest
from solo_server.errors import SettingsError
from solo_server.system import listener as module
from solo_server.system.listener import announce, listen

EVERY_IPV4 = "0.0.0.0"  # noqa: S104 - of no socket


class Bound:
    """A listener that reports the address `name`; only_ipv6: what the system says of IPV6_V6ONLY."""

    def __init__(self, name: tuple[Any, ...], only_ipv6: bool = True) -> None:
        self._name, self._only_ipv6 = name, only_ipv6
        self.family = socket.AF_INET6 if ":" in name[0] else socket.AF_INET

    def getsockname(self) -> tuple[Any, ...]:
        return self._name

    def getsockopt(self, level: int, option: int) -> int:
        assert (level, option) == (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        return int(self._only_ipv6)


def announced(bound: Bound, caplog: pytest.LogCaptureFixture, path: str = "/segment") -> list[str]:
    with caplog.at_level(logging.INFO, "solo_server"):
        announce(bound, path)  # type: ignore[arg-type]  # of a socket only what `Bound` has is used
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("name", "url"),
    [
        (("127.0.0.1", 8000), "http://127.0.0.1:8000"),
        (("192.0.2.7", 80), "http://192.0.2.7:80"),
        ((EVERY_IPV4, 8000), "http://127.0.0.1:8000"),
        (("::1", 8000, 0, 0), "http://[::1]:8000"),
        (("::", 8000, 0, 0), "http://[::1]:8000"),
        (("2001:db8::7", 80, 0, 0), "http://[2001:db8::7]:80"),
        (("fe80::1%eth0", 80, 0, 2), "http://[fe80::1%25eth0]:80"),
        (("::ffff:127.0.0.1", 80, 0, 0), "http://[::ffff:127.0.0.1]:80"),
    ],
)
def test_the_log_has_a_url_that_can_be_opened(
    name: tuple[Any, ...], url: str, caplog: pytest.LogCaptureFixture
) -> None:
    *_, line = announced(Bound(name), caplog, "/models/cats/segment")
    shown, command = line.split("  try: ")
    assert shown == url
    assert shlex.split(command) == ["curl", "--data-binary", "@photo.jpg", f"{url}/models/cats/segment"]
    assert ("'" in command) == ("[" in url)  # which zsh would take for a pattern


@pytest.mark.parametrize(
    ("name", "only_ipv6", "said"),
    [
        ((EVERY_IPV4, 80), True, "0.0.0.0:80: all addresses of this machine, IPv4 only (IPv6 as well: --host ::)"),
        (("::", 80, 0, 0), False, "[::]:80: all addresses of this machine, IPv6 and IPv4"),
        (("::", 80, 0, 0), True, "[::]:80: all addresses of this machine, IPv6 only: this system does not accept IPv4"),
    ],
)
def test_the_log_says_which_address_families_are_accepted(
    name: tuple[Any, ...], only_ipv6: bool, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, _ = announced(Bound(name, only_ipv6), caplog)
    assert first.startswith(f"listening on {said}")


@pytest.mark.parametrize("has_both", [True, False])
@pytest.mark.parametrize(
    ("host", "family", "is_every"),
    [
        ("::", socket.AF_INET6, True),
        ("0:0:0:0:0:0:0:0", socket.AF_INET6, True),
        ("::1", socket.AF_INET6, False),
        (EVERY_IPV4, socket.AF_INET, False),
        ("127.0.0.1", socket.AF_INET, False),
    ],
)
def test_all_ipv6_addresses_accept_ipv4_if_the_system_can(
    host: str, family: int, is_every: bool, has_both: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    with socket.socket() as made:
        monkeypatch.setattr(module.socket, "has_dualstack_ipv6", lambda: has_both)
        monkeypatch.setattr(module.socket, "create_server", lambda *a, **options: calls.append((a, options)) or made)
        assert listen(host, 80) is made
    options = {"family": family, "backlog": 1024, "dualstack_ipv6": is_every and has_both}
    assert calls == [(((host, 80),), options)]


def test_a_client_over_ipv4_reaches_a_server_on_all_ipv6_addresses() -> None:
    """On a machine without IPv6, the start says so instead."""
    if not socket.has_dualstack_ipv6():
        with pytest.raises(SettingsError, match=r"cannot listen on \[::\]:0: this system has no IPv6"):
            listen("::", 0)
        return
    with listen("::", 0) as bound:
        port = bound.getsockname()[1]
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port), timeout=10):
                bound.accept()[0].close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::"])
@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EADDRINUSE, "another process uses this port; stop it"),
        (errno.EACCES, "permission denied; choose a port above 1023"),
        (errno.EADDRNOTAVAIL, "this machine has no such address"),
        (errno.EAFNOSUPPORT, "this system has no IPv6"),
        (errno.ENOMEM, "no memory at all"),
    ],
)
def test_an_address_that_cannot_be_bound_is_one_line(
    host: str, number: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object, **options: object) -> socket.socket:
        raise OSError(number, "no memory at all (while attempting to bind on address)")

    monkeypatch.setattr(module.socket, "create_server", refused)
    shown = "[::]:80" if host == "::" else "127.0.0.1:80"
    with pytest.raises(SettingsError, match=f"cannot listen on {re.escape(shown)}: {said}"):
        listen(host, 80)
