"""The address that the server listens on: bound before a model is loaded, and written to the log as a URL that works."""

from __future__ import annotations

import errno
import logging
import shlex
import socket
from ipaddress import ip_address

from solo_server.errors import SettingsError

LOG = logging.getLogger("solo_server")
BACKLOG = 1024
_ADVICE = {
    errno.EADDRINUSE: "another process uses this port; stop it, or choose another port (--port, SOLO_PORT)",
    errno.EACCES: "permission denied; choose a port above 1023 (--port, SOLO_PORT)",
    errno.EADDRNOTAVAIL: "this machine has no such address (--host, SOLO_HOST)",
    errno.EAFNOSUPPORT: "this system has no IPv6 (--host, SOLO_HOST)",
    socket.EAI_NONAME: "not an address, and not a known host name (--host, SOLO_HOST)",
}


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. `::` accepts IPv4 as well, if the system has such sockets.

    Raises:
        SettingsError: the address cannot be bound.
    """
    is_ipv6 = ":" in host
    try:
        listener = socket.create_server(
            (host, port),
            family=socket.AF_INET6 if is_ipv6 else socket.AF_INET,
            backlog=BACKLOG,
            dualstack_ipv6=is_ipv6 and _is_every_address(host) and socket.has_dualstack_ipv6(),
        )
    except OSError as problem:
        raise SettingsError(f"cannot listen on {_authority(host, port)}: {_advice(problem)}") from problem
    listener.set_inheritable(True)
    return listener


def announce(listener: socket.socket, path: str) -> None:
    """Log the server's URL, with an example. path: the path that takes images.

    A listener on all addresses gets a line of its own; the URL then has the loopback address, which works on this machine.
    """
    host, port = listener.getsockname()[:2]
    if _is_every_address(host):
        LOG.info("listening on %s: all addresses of this machine, %s", _authority(host, port), _families(listener))
    url = _url(host, port)
    LOG.info("%s  try: curl --data-binary @photo.jpg %s", url, shlex.quote(url + path))


def _url(host: str, port: int) -> str:
    """A URL that works on this machine. host: as `getsockname` returns it."""
    if _is_every_address(host):
        host = "::1" if ":" in host else "127.0.0.1"
    return (
        f"http://{_authority(host.replace('%', '%25'), port)}"  # %25: the interface of a link-local address, RFC 6874
    )


def _families(listener: socket.socket) -> str:
    if listener.family != socket.AF_INET6:
        return "IPv4 only (IPv6 as well: --host ::)"
    if listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        return "IPv6 only: this system does not accept IPv4 on the same socket (IPv4: --host 0.0.0.0)"
    return "IPv6 and IPv4"


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_every_address(host: str) -> bool:
    """Whether it is `0.0.0.0` or `::`, in any notation; an empty name is `0.0.0.0`."""
    try:
        return ip_address(host or "0.0.0.0").is_unspecified  # noqa: S104 - compared, not bound
    except ValueError:
        return False


def _advice(problem: OSError) -> str:
    return _ADVICE.get(problem.errno or 0) or str(problem.strerror).partition(" (while")[0]
