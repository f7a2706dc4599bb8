"""What stands around the application, from the outside in: security headers, CORS, API keys, slow bodies.

The headers come first so that also a refusal has them; CORS before the keys, since a browser's preflight brings none.
"""

from __future__ import annotations

import base64
import hashlib
import re
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from solo_server.keys import AskForKey, KeyRing
from solo_server.problems import SECURITY_HEADERS
from solo_server.settings import Settings
from solo_server.uploads import SlowUploads, UploadLimits

_RAW_HEADERS = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]
_CORS_REQUEST_HEADERS = ("authorization", "x-api-key", "content-type", "x-request-id", "x-request-timeout-ms",
                         "inference-header-content-length")  # fmt: skip
_CORS_ANSWER_HEADERS = ("x-request-id", "retry-after", "inference-header-content-length")


def add_guards(app: FastAPI, settings: Settings, keys: KeyRing) -> None:
    """Put the guards around `app`; whatever is added later stands outside of them."""
    app.add_middleware(SlowUploads, limits=UploadLimits(settings.body_timeout_s, settings.body_bytes_per_s))
    if not keys.is_empty:
        app.add_middleware(AskForKey, keys=keys, metrics_open=settings.metrics_open)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=_CORS_REQUEST_HEADERS,
            expose_headers=_CORS_ANSWER_HEADERS,
            allow_credentials=False,
        )
    app.add_middleware(SecurityHeaders)


def add_docs(app: FastAPI) -> None:
    """`/docs` with a policy of its own: that page's scripts and nothing else."""
    page = get_swagger_ui_html(openapi_url="/openapi.json", title=app.title, swagger_favicon_url="data:,")
    headers = {"content-security-policy": page_policy(bytes(page.body).decode())}

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page.body, headers=headers)


def page_policy(html: str) -> str:
    """The narrowest Content-Security-Policy under which `html` works: its own inline scripts by hash, the hosts that it names."""
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


class SecurityHeaders:
    """Adds to every answer those of `SECURITY_HEADERS` that it does not set itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; the answer gets its headers on the way out."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                present = {name.lower() for name, _ in headers}
                message["headers"] = headers + [pair for pair in _RAW_HEADERS if pair[0] not in present]
            await send(message)

        await self._app(scope, receive, send_guarded)


def _origins(urls: list[str]) -> list[str]:
    parts = [urlsplit(url) for url in urls]
    return sorted({f"{part.scheme}://{part.netloc}" if part.netloc else "'self'" for part in parts})
