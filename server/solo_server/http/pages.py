"""What browsers open: the page at `/`, the API reference at `/docs`, and the OpenAPI document that it shows.

All of it is open without an API key, since it has no images, results or secrets. URLs in the pages are relative, so that they work
below any path prefix.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import orjson
from fastapi import FastAPI, Request
from starlette.responses import Response

from solo_server.http.static_files import INDEX, file_response, read_folder

PAGE_FILES, DOCS_FILES = "/page/", "/docs/"
"""Where the files of the page and of the API reference are."""
OPEN_PATHS = frozenset({"", "/", "/docs", "/openapi.json"})
"""Open without a key, as everything below `PAGE_FILES` and `DOCS_FILES` is. Empty: a path prefix alone, which is redirected."""
_BASE_POLICY = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "script-src 'self'; connect-src 'self'"
)
PAGE_POLICY = (
    f"{_BASE_POLICY}; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob: mediastream:; "
    "worker-src 'self'"
)
"""`connect-src 'self'` allows WebSockets to the same host too (CSP 3)."""
DOCS_POLICY = f"{_BASE_POLICY}; style-src 'self'; img-src 'self' blob: data:"
"""Swagger UI has icons as data, and shows an answer that is an image as a blob."""
_HERE = Path(__file__).parent
_KEY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "an API key of this server"},
    "x-api-key": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "the same key in another header; one of the two is enough",
    },
}


def add_pages(app: FastAPI, prefix: str, *, has_keys: bool, open_paths: frozenset[str]) -> None:
    """Add the routes. prefix: what a reverse proxy puts before all paths; open_paths: of operations that need no key."""
    page, docs = read_folder(_HERE / "page"), read_folder(_HERE / "docs")

    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> Response:
        return file_response(request, page, INDEX, PAGE_POLICY)

    @app.get(PAGE_FILES + "{name:path}", include_in_schema=False)
    async def page_file(request: Request, name: str) -> Response:
        return file_response(request, page, name, PAGE_POLICY)

    @app.get("/docs", include_in_schema=False)
    async def reference(request: Request) -> Response:
        return file_response(request, docs, INDEX, DOCS_POLICY)

    @app.get(DOCS_FILES + "{name:path}", include_in_schema=False)
    async def reference_file(request: Request, name: str) -> Response:
        if not name:
            return Response(status_code=307, headers={"location": f"{prefix}/docs"})
        return file_response(request, docs, name, DOCS_POLICY)

    @cache
    def document() -> bytes:
        content = app.openapi()
        if prefix:
            content = {**content, "servers": [{"url": prefix}]}
        return orjson.dumps(_with_keys(content, open_paths) if has_keys else content)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi(_: Request) -> Response:
        return Response(document(), media_type="application/json")


def _with_keys(document: dict[str, Any], open_paths: frozenset[str]) -> dict[str, Any]:
    """The OpenAPI document of a server with API keys: any of the two headers, for every operation but those of `open_paths`."""
    components = {**document.get("components", {}), "securitySchemes": _KEY_SCHEMES}
    paths = {
        path: {method: {**operation, "security": []} for method, operation in methods.items()}
        if path in open_paths
        else methods
        for path, methods in document["paths"].items()
    }
    return {**document, "components": components, "paths": paths, "security": [{name: []} for name in _KEY_SCHEMES]}
