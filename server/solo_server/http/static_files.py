"""Files that browsers load: a folder is read once, at the start, and served from memory.

    folder ─► read_folder ─► {name: StaticFile} ─► GET ─► 200 with an ETag, or 304

A name in a URL is looked up among the files that were read, never in the file system.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from solo_server.http.bodies import first_header

MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
}
"""By suffix; files with any other suffix are not served."""
INDEX = "index.html"


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file. etag: quoted, made of the content."""

    content: bytes
    media_type: str
    etag: str


def read_folder(folder: Path) -> Mapping[str, StaticFile]:
    """The files below a folder that have a suffix of `MEDIA_TYPES`, by their path in it with `/`. Empty if there are none.

    Raises:
        OSError: a file cannot be read.
    """
    paths = (path for path in sorted(folder.rglob("*")) if path.suffix in MEDIA_TYPES and path.is_file())
    return {path.relative_to(folder).as_posix(): _read(path) for path in paths}


def file_response(request: Request, files: Mapping[str, StaticFile], name: str, policy: str) -> Response:
    """A file, or 304 if the browser has this version of it. Browsers ask again each time, so that an upgrade shows at once.

    policy: the Content-Security-Policy.

    Raises:
        HTTPException: 404, no such file.
    """
    file = files.get(name)
    if file is None:
        raise HTTPException(404)
    headers = {"etag": file.etag, "cache-control": "no-cache", "content-security-policy": policy}
    if _has_version(first_header(request.scope, b"if-none-match") or "", file.etag):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)


def _read(path: Path) -> StaticFile:
    content = path.read_bytes()
    return StaticFile(content, MEDIA_TYPES[path.suffix], f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def _has_version(if_none_match: str, etag: str) -> bool:
    """Whether the header names this version; as a weak tag too, which nginx makes of it where it compresses."""
    sent = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return etag in sent or sent == {"*"}
