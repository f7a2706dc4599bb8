"""`SOLO_ROOT_PATH`: the server below a path of another host, behind a reverse proxy.

    https://example.org/solo/segment ─► proxy ─┬─► /segment         the proxy removes the prefix
                                               └─► /solo/segment    it does not: removed here

Both ways work, at the same time. Inside the server no path has the prefix. It is put before the paths that the server sends: in
`Location`, and as the server of the OpenAPI document. Pages have relative URLs.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.routing import BaseRoute
from starlette.types import Scope

from solo_server.errors import SettingsError


def remove_prefix(scope: Scope, prefix: str) -> None:
    """Remove the prefix from the path of a request, if it has it; of the prefix alone nothing is left.

    `root_path` stays empty: Starlette would look for the prefix again, in a path that has none.
    """
    path: str = scope["path"]
    if path == prefix or path.startswith(f"{prefix}/"):
        scope["path"] = path[len(prefix) :]


def refuse_own_paths(prefix: str, routes: Iterable[BaseRoute]) -> None:
    """Refuse a prefix that begins as a path of the server does: whether the proxy has removed it could not be known.

    Raises:
        SettingsError: it does.
    """
    first = prefix.split("/")[1] if prefix else ""
    if first and first in {getattr(route, "path", "/").split("/")[1] for route in routes}:
        raise SettingsError(f"SOLO_ROOT_PATH: /{first} is the beginning of paths of the server's own; use another")
