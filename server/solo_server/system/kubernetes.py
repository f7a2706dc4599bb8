"""The environment variables that Kubernetes adds to every container of a namespace, one group for each Service.

For a Service called `solo` or `solo-inference` their names begin with `SOLO_`, as the names of settings do. The forms are those
of `pkg/kubelet/envvars/envvars.go`; N is the Service's name in capitals, with `_` for `-`:

    N_SERVICE_HOST=10.0.0.1                       N_SERVICE_PORT=8000   N_SERVICE_PORT_HTTP=8000
    N_PORT=tcp://10.0.0.1:8000                    N_PORT_8000_TCP=tcp://10.0.0.1:8000
    N_PORT_8000_TCP_ADDR=10.0.0.1                 N_PORT_8000_TCP_PORT=8000   N_PORT_8000_TCP_PROTO=tcp
"""

from __future__ import annotations

import re
from ipaddress import ip_address

_NUMBER = r"[0-9]{1,5}"
_URL = rf"(?:tcp|udp|sctp)://(?P<address>[0-9.]+|\[[0-9a-fA-F:.]+\]):{_NUMBER}"
_ADDRESS = r"(?P<address>[0-9a-fA-F:.]+)"
_LINK = rf"_PORT_{_NUMBER}_(?:TCP|UDP|SCTP)"
_SERVICE = r"[A-Z](?:[A-Z0-9_]*[A-Z0-9])?"
_FORMS = tuple(
    (re.compile(_SERVICE + name), re.compile(value))
    for name, value in (
        (r"_SERVICE_HOST", _ADDRESS),
        (r"_SERVICE_PORT(?:_[A-Z0-9](?:[A-Z0-9_]*[A-Z0-9])?)?", _NUMBER),
        (r"_PORT", _URL),
        (_LINK, _URL),
        (_LINK + "_ADDR", _ADDRESS),
        (_LINK + "_PORT", _NUMBER),
        (_LINK + "_PROTO", r"tcp|udp|sctp"),
    )
)


def is_service_variable(name: str, value: str) -> bool:
    """Whether Kubernetes sets this variable for a Service: name and value both have one of its forms."""
    return any(
        names.fullmatch(name) and (match := values.fullmatch(value)) and _is_address(match.groupdict().get("address"))
        for names, values in _FORMS
    )


def _is_address(text: str | None) -> bool:
    """Whether it is an IP address, with or without brackets; true for `None`: a value without an address."""
    try:
        return text is None or bool(ip_address(text.strip("[]")))
    except ValueError:
        return False
