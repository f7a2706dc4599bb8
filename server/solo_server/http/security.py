"""CORS and API keys, in front of the routes.

CORS comes before the keys, since a browser's preflight request has no key.
"""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from solo_server.http import pages
from solo_server.http.api_keys import METRICS_PATH, PROBE_PATHS, ApiKeyMiddleware, KeyRing
from solo_server.settings import Settings

_CORS_REQUEST_HEADERS = ("authorization", "x-api-key", "content-type", "x-request-id", "x-request-timeout-ms",
                         "inference-header-content-length")  # fmt: skip
_CORS_RESPONSE_HEADERS = ("x-request-id", "retry-after", "inference-header-content-length")


def add_guards(app: FastAPI, settings: Settings, keys: KeyRing) -> None:
    """Add the middleware; middleware that is added later is outside of it."""
    if not keys.is_empty:
        app.add_middleware(
            ApiKeyMiddleware,
            keys=keys,
            open_paths=open_paths(settings),
            open_folders=(pages.PAGE_FILES, pages.DOCS_FILES),
        )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=_CORS_REQUEST_HEADERS,
            expose_headers=_CORS_RESPONSE_HEADERS,
            allow_credentials=False,
        )


def open_paths(settings: Settings) -> frozenset[str]:
    """The paths that need no key, besides the files of the pages."""
    return PROBE_PATHS | pages.OPEN_PATHS | ({METRICS_PATH} if settings.metrics_open else set())
