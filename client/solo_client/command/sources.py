"""Where results come from: a server over HTTP, or a model in this process. Both look the same to `segment`."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from solo_client import wire
from solo_client.command.errors import PictureFailed, Unusable
from solo_client.command.key_file import read_key
from solo_client.errors import ConnectionLost, InvalidArgument, ServerProblem, SoloClientError, TimedOut
from solo_client.query import Options, Query
from solo_client.types import Result

if TYPE_CHECKING:
    from solo_client.client import SoloClient

RETRIES = 3
INSTALL = "pip install -c constraints.txt -e '.[{}]' (in the checkout of solo-inference)"
_FAILS_FOR_EVERY_PICTURE = frozenset({"invalid_query", "unauthorized", "not_found", "model_not_found", "not_ready"})
_ARGUMENTS = {"api_key": "--api-key-file: the key", "model": "--model-name", "version": "--model-version"}


class Source(Protocol):
    """Something that segments encoded pictures. Both methods raise PictureFailed or Unusable."""

    def segment(self, body: bytes, options: Options) -> Result:
        """The instances in one picture."""
        ...

    def overlay(self, body: bytes, options: Options) -> bytes:
        """The picture with its instances drawn upon it, PNG."""
        ...


class LocalModel(Protocol):
    """What `solo_server.local.open_local` returns; its own exceptions carry `code` and `detail`."""

    def segment(self, body: bytes, query: dict[str, str | list[str]]) -> dict[str, object]:
        """The JSON object of `POST /segment`."""
        ...

    def overlay(self, body: bytes, query: dict[str, str | list[str]]) -> bytes:
        """PNG."""
        ...


@contextmanager
def open_source(
    bundle: Path | None,
    url: str | None,
    engine: str = "auto",
    api_key_file: Path | None = None,
    *,
    model_name: str | None = None,
    model_version: str | None = None,
) -> Iterator[Source]:
    """The server at `url`, else the model in `bundle`, else the demo model; `engine` runs it here.

    api_key_file: holds the key that the server asks for; model_name, model_version: which of the server's models to ask.

    Raises:
        Unusable: the extra for it is not installed, the URL or the key is none, there is no such bundle or it does not load.
        InvalidEnvironment: a variable for proxies or certificates is unusable.
    """
    if url is None:
        yield _LocalSource(_open_local(bundle, engine))
        return
    key = None if api_key_file is None else read_key(api_key_file)
    with _open_client(url, key, model_name, model_version) as client:
        yield _RemoteSource(client)


class _LocalSource:
    def __init__(self, model: LocalModel) -> None:
        self._model = model

    def segment(self, body: bytes, options: Options) -> Result:
        with _local_failures_sorted():
            answer = self._model.segment(body, Query(**options).to_parameters())
        return wire.parse_result(answer)

    def overlay(self, body: bytes, options: Options) -> bytes:
        with _local_failures_sorted():
            return self._model.overlay(body, Query(**options).to_parameters())


class _RemoteSource:
    def __init__(self, client: SoloClient) -> None:
        self._client = client

    def segment(self, body: bytes, options: Options) -> Result:
        with _remote_failures_sorted():
            return self._client.segment(body, **options)

    def overlay(self, body: bytes, options: Options) -> bytes:
        with _remote_failures_sorted():
            return self._client.overlay(body, **options)


def _open_client(url: str, api_key: str | None, model: str | None, version: str | None) -> SoloClient:
    try:
        from solo_client.client import SoloClient
    except ImportError as error:
        raise Unusable(f"--url needs the extra client ({error}): {INSTALL.format('client')}") from error
    try:
        return SoloClient(url, api_key=api_key, retries=RETRIES, model=model, version=version)
    except InvalidArgument as error:
        raise Unusable(f"{_ARGUMENTS.get(error.name, '--url')} {error.reason}") from error


def _open_local(bundle: Path | None, engine: str) -> LocalModel:
    if bundle is not None and not bundle.exists():
        raise Unusable(f"--model: {bundle}: no such bundle")
    try:
        model: LocalModel = importlib.import_module("solo_server.local").open_local(bundle, engine)
    except ImportError as error:
        raise Unusable(f"running a model here needs the extra server ({error}): {INSTALL.format('server')}") from error
    except Exception as error:  # whatever stops a bundle from loading; this package may not import the types
        model_name = str(bundle or "the demo model")
        reason = " ".join(str(error).split()).removeprefix(f"{model_name}: ") or type(error).__name__
        raise Unusable(f"{model_name}: {reason}") from error
    return model


@contextmanager
def _local_failures_sorted() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the server's errors are known by their attributes; this package may not import them
        code = getattr(error, "code", None)
        if code is None or not hasattr(error, "detail"):
            raise
        raise _failure(str(code), _one_line(error)) from error


@contextmanager
def _remote_failures_sorted() -> Iterator[None]:
    try:
        yield
    except ServerProblem as error:
        raise _failure(error.code, str(error)) from error
    except (ConnectionLost, TimedOut) as error:
        raise PictureFailed(str(error)) from error


def _failure(code: str, message: str) -> SoloClientError:
    return Unusable(message) if code in _FAILS_FOR_EVERY_PICTURE else PictureFailed(message)


def _one_line(error: Exception) -> str:
    """The error's `detail`, else its text, else its class name, on one line."""
    text = " ".join(str(getattr(error, "detail", "") or error).split())
    return text or type(error).__name__
