"""API keys: who may call. Read from a file or the environment, kept as hashes only, read again when the file changes.

    SOLO_API_KEYS_FILE   one key a line, `name:key` or the key alone; empty lines and lines that begin with `#` are skipped
    SOLO_API_KEYS        the same, separated by commas

Logs, errors and `repr` contain names and line numbers, never a key or anything that one could be guessed from.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from solo_server.errors import SettingsError, Unauthorized
from solo_server.http.problems import problem_response
from solo_server.http.secret_file import read_lines
from solo_server.http.stream_handshake import key_of
from solo_server.settings import Settings

LOG = logging.getLogger("solo_server")
PROBE_PATHS = frozenset({"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"})
"""Open without a key: probes send none, and learn nothing."""
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
METRICS_PATH = "/metrics"
MIN_KEY_LENGTH, MAX_KEY_LENGTH = 16, 512
CHECK_SECONDS = 1.0
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The key of one caller. digest: its SHA-256."""

    name: str
    digest: bytes = field(repr=False)


class KeyRing:
    """All accepted keys; empty where no key is required.

    clock: in seconds; limits how often the file is checked for changes.
    """

    def __init__(self, keys: Iterable[ApiKey] = (), file: Path | None = None, clock: Callable[[], float] = monotonic):
        self._fixed, self._file, self._clock = tuple(keys), file, clock
        self._from_file: tuple[ApiKey, ...] = ()
        self._checked_at = clock()
        self._file_version = _version(file) if file else None
        if file:
            self._from_file = parse_keys(read_lines(file))
        _refuse_duplicates(self._all)

    @classmethod
    def read(cls, settings: Settings) -> KeyRing:
        """The keys that the settings name.

        Raises:
            SettingsError: the file cannot be read, or a key is invalid; names the variable and the line, never the key.
        """
        try:
            fixed = parse_keys(settings.api_keys.split(","), "entry") if settings.api_keys else ()
        except ValueError as problem:
            raise SettingsError(f"SOLO_API_KEYS: {problem}") from None
        try:
            return cls(fixed, settings.api_keys_file)
        except ValueError as problem:
            raise SettingsError(f"SOLO_API_KEYS_FILE: {settings.api_keys_file}: {problem}") from None

    @property
    def is_empty(self) -> bool:
        """Whether no key is required."""
        return not self._all

    def log_access(self, host: str) -> None:
        """Log who may call a server that listens on `host`."""
        if not self.is_empty:
            LOG.info("API keys: required; known are %s", ", ".join(key.name for key in self._all))
        elif host not in LOOPBACK:
            LOG.warning("API keys: none are required; anyone who reaches %s may call: docs/security.md", host)

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(key.name for key in self._all)})"

    def holder(self, key: str) -> str | None:
        """The name of the key's holder, or `None`. The time does not depend on whether, and where, the key is in the list."""
        return self._holder_of_digest(_digest(key))

    def watch(self, key: str) -> Callable[[], bool]:
        """A function that says whether the key is still known; it holds the key's hash only."""
        digest = _digest(key)
        return lambda: self.is_empty or self._holder_of_digest(digest) is not None

    def _holder_of_digest(self, digest: bytes) -> str | None:
        self._reload_if_changed()
        name = None
        for known in self._all:
            if hmac.compare_digest(known.digest, digest):
                name = known.name
        return name

    def reload(self) -> None:
        """Read the file again. If that fails, the previous keys stay in use, and the log says why."""
        if self._file is None:
            return
        self._file_version = _version(self._file)
        try:
            keys = parse_keys(read_lines(self._file))
            _refuse_duplicates((*self._fixed, *keys))
        except ValueError as problem:
            LOG.error("API keys: %s: %s; the previous keys stay in use", self._file, problem)
            return
        self._from_file = keys
        LOG.info("API keys: %d read from %s", len(keys), self._file)

    @property
    def _all(self) -> tuple[ApiKey, ...]:
        return (*self._fixed, *self._from_file)

    def _reload_if_changed(self) -> None:
        now = self._clock()
        if self._file is None or now - self._checked_at < CHECK_SECONDS:
            return
        self._checked_at = now
        if _version(self._file) != self._file_version:
            self.reload()


def parse_keys(lines: Iterable[str], line_word: str = "line") -> tuple[ApiKey, ...]:
    """Parse lines of `name:key` or a key alone, which is named `key-` and its line number.

    Raises:
        ValueError: a line is invalid; names the line (`line_word` and its number from 1) and the reason, never the key.
    """
    keys = []
    for number, line in enumerate(lines, 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, colon, key = line.rpartition(":")
        if colon and not NAME.fullmatch(name):
            raise ValueError(
                f"{line_word} {number}: a name has letters, digits and . _ - only, 64 at most, then `:` and the key"
            )
        if not MIN_KEY_LENGTH <= len(key) <= MAX_KEY_LENGTH:
            raise ValueError(
                f"{line_word} {number}: a key has {MIN_KEY_LENGTH} to {MAX_KEY_LENGTH} characters; try: openssl rand -hex 32"
            )
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError(f"{line_word} {number}: a key is printable ASCII without spaces")
        keys.append(ApiKey(name if colon else f"key-{number}", _digest(key)))
    if not keys:
        raise ValueError("no key in it")
    _refuse_duplicates(keys)
    return tuple(keys)


class ApiKeyMiddleware:
    """Passes requests with a known key, `Authorization: Bearer KEY` or `X-API-Key: KEY`.

    A browser that opens a stream sends its key as a subprotocol. Sets `scope["state"]["api_key"]` to the caller's name and, for
    streams, `key_is_known` to a function that says whether the key still is. open_paths, and what begins with one of
    open_folders: need no key.
    """

    def __init__(self, app: ASGIApp, keys: KeyRing, open_paths: Set[str], open_folders: tuple[str, ...]) -> None:
        self._app, self._keys = app, keys
        self._open_paths, self._open_folders = open_paths, open_folders

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401 before the body is read."""
        if scope["type"] == "lifespan" or (scope["type"] == "http" and self._is_open(scope["path"])):
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        key = _key(Headers(scope=scope)) or key_of(scope.get("subprotocols", ()))
        name = self._keys.holder(key)
        if name is None:
            problem = Unauthorized("send a known key as `Authorization: Bearer KEY` or `X-API-Key: KEY`")
            await problem_response(problem, state.get("request_id", ""), scope["path"])(scope, receive, send)
            return
        state["api_key"] = name
        if scope["type"] == "websocket":
            state["key_is_known"] = self._keys.watch(key)
        await self._app(scope, receive, send)

    def _is_open(self, path: str) -> bool:
        return path in self._open_paths or path.startswith(self._open_folders)


def _key(headers: Headers) -> str:
    scheme, _, bearer = headers.get("authorization", "").partition(" ")
    return bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")


def _refuse_duplicates(keys: Iterable[ApiKey]) -> None:
    names: dict[bytes, str] = {}
    for key in keys:
        if key.digest in names:
            raise ValueError(f"{names[key.digest]} and {key.name} are the same key")
        names[key.digest] = key.name


def _version(file: Path) -> tuple[int, int, int] | None:
    """Modification time, size and inode, which differ when the file has changed; `None` if there is no file."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
