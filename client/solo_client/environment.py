"""What the environment says about connections: proxies, and files of certificates. `transport` acts on it.

httpx reads the same variables. It raises exceptions that name none of them, stops at `[::1]` and `fd00::/8` in NO_PROXY,
and takes `10.0.0.0/8` for a single host. A client has one server, so that the question is only: which proxy leads there?
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
    """A proxy, and the environment variable that names it. url: with the scheme, and credentials if there are any."""

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
    """The proxy that leads to `url` (http or https); None: a direct connection.

    As with curl: `http_proxy` or `https_proxy` by the URL's scheme, else `all_proxy`, unless `no_proxy` lists the host.
    Names in capitals count too. Other variables, and what they hold, do not matter for this URL.

    Raises:
        InvalidEnvironment: the proxy's URL is not one that a client can use.
    """
    target = urlsplit(url)
    values = getproxies()
    for scheme in (target.scheme, "all"):
        if value := values.get(scheme, "").strip():
            return None if _is_excluded(target, values.get("no", "")) else _checked(_variable(scheme), value)
    return None


def check_certificates() -> None:
    """Check that the places that SSL_CERT_FILE and SSL_CERT_DIR name exist; the second counts without the first only.

    Raises:
        InvalidEnvironment: there is no such file or folder.
    """
    file, folders = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if file and not os.path.isfile(file):
        raise InvalidEnvironment("SSL_CERT_FILE", f"{file!r} is not a file; correct or unset it")
    if not file and folders and not any(map(os.path.isdir, folders.split(os.pathsep))):
        raise InvalidEnvironment("SSL_CERT_DIR", f"{folders!r} is not a folder; correct or unset it")


def certificates_unreadable(problem: OSError) -> InvalidEnvironment | None:
    """The error that names the variable with which TLS could not be prepared; None where no variable is the reason."""
    key_log = os.environ.get("SSLKEYLOGFILE")
    name = "SSLKEYLOGFILE" if key_log and problem.filename == key_log else "SSL_CERT_FILE"
    if not os.environ.get(name):
        return None
    reason = "holds no PEM certificates" if isinstance(problem, ssl.SSLError) else f"cannot be used: {problem.strerror}"
    return InvalidEnvironment(name, f"{os.environ[name]!r} {reason}; correct or unset it")


def _variable(scheme: str) -> str:
    """The variable's name as it is set; lower case counts before capitals, as in `getproxies`."""
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
    """Whether an entry of NO_PROXY means this host: `*`, a name with all names below it, an address, a network.

    A scheme in front and a port behind narrow it. What cannot be read means no host, as with curl.
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


def _is_within(host: str, wanted: str) -> bool:
    """Whether `wanted` (an address, a network or a name) has the host in it; both in lower case, without brackets."""
    try:
        address = ip_address(host)
    except ValueError:
        name = wanted.removeprefix("*").strip(".")
        return bool(name) and f".{host.rstrip('.')}".endswith(f".{name}")
    try:
        return host == wanted or address in ip_network(wanted, strict=False)
    except ValueError:
        return False
