"""Environment variables for connections: proxies and certificate files. `transport` uses what is read here.

httpx reads the same variables, but its errors name none of them, it fails at `[::1]` and `fd00::/8` in NO_PROXY, and takes
`10.0.0.0/8` for a single host. A client has one server, so only one question is left: which proxy leads to it?
"""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from urllib.parse import SplitResult, urlsplit
from urllib.request import getproxies

from solo_client.errors import InvalidEnvironment

_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_CREDENTIALS = re.compile(r"//.*@")
_NO_PROXY_SEPARATOR = re.compile(r"[\s,]+")
_HOST_AND_PORT = re.compile(r"(?:\[(?P<bracketed>[^\]]+)\]|(?P<plain>[^:]+))(?::(?P<port>\d+))?")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and the environment variable that it comes from. url: with the scheme, and with credentials if it has any."""

    variable: str
    url: str = field(repr=False)

    @property
    def shown(self) -> str:
        """The URL for messages, without credentials."""
        return _CREDENTIALS.sub("//***@", self.url)

    def unusable(self, reason: str) -> InvalidEnvironment:
        """The error that says why this proxy cannot be used."""
        way_out = "correct or unset it, or list the server's host in NO_PROXY"
        return InvalidEnvironment(self.variable, f"{self.shown!r} {reason}; {way_out}")


def proxy_for(url: str) -> Proxy | None:
    """The proxy for `url` (http or https); None for a direct connection.

    As with curl: `http_proxy` or `https_proxy` by the URL's scheme, else `all_proxy`, unless `no_proxy` lists the host.
    Upper-case names count too. All other variables are ignored.

    Raises:
        InvalidEnvironment: a client cannot use the proxy's URL.
    """
    target = urlsplit(url)
    values = getproxies()
    for scheme in (target.scheme, "all"):
        if value := values.get(scheme, "").strip():
            return None if _is_excluded(target, values.get("no", "")) else _checked(_variable(scheme), value)
    return None


def check_certificates() -> None:
    """Check that SSL_CERT_FILE, or without it SSL_CERT_DIR, names something that exists.

    Raises:
        InvalidEnvironment: there is no such file or folder.
    """
    file, folders = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if file and not os.path.isfile(file):
        raise InvalidEnvironment("SSL_CERT_FILE", f"{file!r} is not a file; correct or unset it")
    if not file and folders and not any(map(os.path.isdir, folders.split(os.pathsep))):
        raise InvalidEnvironment("SSL_CERT_DIR", f"{folders!r} is not a folder; correct or unset it")


def certificates_unreadable(problem: OSError) -> InvalidEnvironment | None:
    """The error that names the variable because of which TLS cannot be set up; None if no variable is the cause."""
    key_log = os.environ.get("SSLKEYLOGFILE")
    name = "SSLKEYLOGFILE" if key_log and problem.filename == key_log else "SSL_CERT_FILE"
    if not os.environ.get(name):
        return None
    reason = "holds no PEM certificates" if isinstance(problem, ssl.SSLError) else f"cannot be used: {problem.strerror}"
    return InvalidEnvironment(name, f"{os.environ[name]!r} {reason}; correct or unset it")


def _variable(scheme: str) -> str:
    """The variable's name as it is set; lower case wins over upper case, as in `getproxies`."""
    name = f"{scheme}_proxy"
    set_names = sorted((n for n, value in os.environ.items() if n.lower() == name and value), key=lambda n: n != name)
    return set_names[0] if set_names else "the system's proxy settings"


def _checked(variable: str, value: str) -> Proxy:
    proxy = Proxy(variable, value if "://" in value else f"http://{value}")
    try:
        parts = urlsplit(proxy.url)
        is_address = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise proxy.unusable(
            "is not a proxy's URL, such as http://proxy:3128"
        ) from None  # the cause can hold a password
    if parts.scheme not in _PROXY_SCHEMES:
        raise proxy.unusable(f"has a scheme that is none of {', '.join(_PROXY_SCHEMES)}")
    if not is_address:
        raise proxy.unusable("is not a proxy's URL, such as http://proxy:3128")
    return proxy


def _is_excluded(target: SplitResult, no_proxy: str) -> bool:
    return any(_covers(entry.lower(), target) for entry in _NO_PROXY_SEPARATOR.split(no_proxy) if entry)


def _covers(entry: str, target: SplitResult) -> bool:
    """Whether an entry of NO_PROXY covers this host: `*`, a domain with its subdomains, an address, or a network.

    A scheme before it and a port after it restrict it. An entry that cannot be parsed covers no host, as with curl.
    """
    if entry == "*":
        return True
    scheme, _, rest = entry.rpartition("://")
    found = _HOST_AND_PORT.fullmatch(rest)
    host, port = (found["bracketed"] or found["plain"], found["port"]) if found else (rest, None)
    if scheme not in ("", "all", target.scheme):
        return False
    if port is not None and int(port) != (target.port or _DEFAULT_PORTS[target.scheme]):
        return False
    return _is_within(target.hostname or "", host)


def _is_within(host: str, excluded: str) -> bool:
    """Whether `excluded` (an address, a network or a domain) contains the host; both in lower case, without brackets."""
    try:
        address = ip_address(host)
    except ValueError:
        name = excluded.removeprefix("*").strip(".")
        return bool(name) and f".{host.rstrip('.')}".endswith(f".{name}")
    try:
        return host == excluded or address in ip_network(excluded, strict=False)
    except ValueError:
        return False
