"""CORS and API keys, in front of the routes; and the content security policy of `/docs`.

CORS comes before the keys, since a browser's preflight request has no key.
"""

from __future__ import annotations

import base64
import hashlib
import re
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse

from solo_server.http.api_keys import ApiKeyMiddleware, KeyRing
from solo_server.settings import Settings

_CORS_REQUEST_HEADERS = ("authorization", "x-api-key", "content-type", "x-request-id", "x-request-timeout-ms",
                         "inference-header-content-length")  # fmt: skip
_CORS_RESPONSE_HEADERS = ("x-request-id", "retry-after", "inference-header-content-length")


def add_guards(app: FastAPI, settings: Settings, keys: KeyRing) -> None:
    """Add the middleware; middleware that is added later is outside of it."""
    if not keys.is_empty:
        app.add_middleware(ApiKeyMiddleware, keys=keys, metrics_open=settings.metrics_open)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=_CORS_REQUEST_HEADERS,
            expose_headers=_CORS_RESPONSE_HEADERS,
            allow_credentials=False,
        )


def add_docs(app: FastAPI) -> None:
    """`/docs` with a policy of its own that allows the scripts of that page only."""
    page = get_swagger_ui_html(openapi_url="/openapi.json", title=app.title, swagger_favicon_url="data:,")
    headers = {"content-security-policy": page_policy(bytes(page.body).decode())}

    @app.get("/docs", include_in_schema=False)
    async def docs(_: Request) -> HTMLResponse:
        return HTMLResponse(page.body, headers=headers)


def page_policy(html: str) -> str:
    """The strictest Content-Security-Policy that `html` works with: its inline scripts by hash, and the hosts that it names."""
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts]
    script_hosts = _origins(re.findall(r'<script src="([^"]+)"', html))
    links = re.findall(r'<link [^>]*rel="([^"]+)"[^>]* href="([^"]+)"', html)
    style_hosts = _origins([url for rel, url in links if rel == "stylesheet"])
    icon_hosts = _origins([url for rel, url in links if "icon" in rel])
    return "; ".join(
        (
            "default-src 'none'",
            " ".join(("script-src", *hashes, *script_hosts)),
            " ".join(("style-src 'unsafe-inline'", *style_hosts)),  # Swagger UI sets styles on its elements
            " ".join(("img-src 'self' data: blob:", *icon_hosts)),
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def _origins(urls: list[str]) -> list[str]:
    parts = [urlsplit(url) for url in urls]
    return sorted({f"{part.scheme}://{part.netloc}" if part.netloc else "'self'" for part in parts})
