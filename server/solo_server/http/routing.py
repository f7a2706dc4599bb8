"""Routes without FastAPI's own work for each request: `Routes` finds a path's endpoint, `DirectRoute` calls it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import orjson
from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute, APIRouter
from starlette.exceptions import HTTPException
from starlette.routing import Match, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send


class DirectRoute(APIRoute):
    """A route that calls its endpoint with the request and the path's parameters; failures are left to `ProblemMiddleware`.

    FastAPI's own route would validate arguments and responses and keep exit stacks, which no endpoint here needs and which take
    time.
    """

    def __init__(self, path: str, endpoint: Callable[..., Awaitable[Response]], **options: Any) -> None:
        super().__init__(path, endpoint, **options)

        async def respond(scope: Scope, receive: Receive, send: Send) -> None:
            response = await endpoint(Request(scope, receive, send), **scope["path_params"])
            await response(scope, receive, send)

        self.app = respond


class Routes:
    """The routes of a router. A path without parameters is looked up in a table; for any other the router tries every route."""

    def __init__(self, router: APIRouter) -> None:
        self._router = router
        fixed = (route for route in router.routes if isinstance(route, DirectRoute) and not route.param_convertors)
        self._fixed = {(method, route.path): route for route in fixed for method in route.methods or ()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request to its route. HEAD is answered as GET: uvicorn leaves the body out."""
        if scope["type"] == "websocket":
            await self._open_stream(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._router(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD"
        route = self._fixed.get(("GET" if is_head else scope["method"], scope["path"]))
        if route is not None:
            scope["route"], scope["path_params"] = route, {}
            await route.app(scope, receive, send)
        elif is_head:
            await self._route_as_get(scope, receive, send)
        else:
            await self._router(scope, receive, send)

    async def _open_stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Through the router's WebSocket routes; any other path is answered 404, as for other requests."""
        for route in self._router.routes:
            if isinstance(route, WebSocketRoute) and route.matches(scope)[0] is Match.FULL:
                scope["route"], scope["path_params"] = route, {}
                await route.app(scope, receive, send)
                return
        raise HTTPException(404)

    async def _route_as_get(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Through a copy of the scope: uvicorn must still see HEAD, and the metrics need the route."""
        as_get = {**scope, "method": "GET"}
        try:
            await self._router(as_get, receive, send)
        finally:
            scope["route"] = as_get.get("route")


def redirect_from_slash(router: APIRouter, prefix: str) -> ASGIApp:
    """What answers a path that no route has: a redirect to the same path without its last slash, if there is one; else 404.

    The prefix alone, of which no path is left, is redirected to the page, whose relative URLs need the slash.
    Starlette's own redirect would name the scheme and the host that the server sees, which behind a proxy are others.
    """

    async def respond(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].rstrip("/") or "/"
        can_redirect = scope["type"] == "http" and path != scope["path"] and not path.startswith("//")
        if not can_redirect or all(route.matches({**scope, "path": path})[0] is Match.NONE for route in router.routes):
            await router.not_found(scope, receive, send)
            return
        query = scope["query_string"].decode("latin-1")
        location = f"{prefix}{quote(path)}{'?' if query else ''}{query}"
        await Response(status_code=307, headers={"location": location})(scope, receive, send)

    return respond


def json_response(content: Any, status: int = 200) -> Response:
    """A response in JSON."""
    return Response(orjson.dumps(content), status, media_type="application/json")
