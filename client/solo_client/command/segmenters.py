"""What segments the images: a server over HTTP, or a model in this process; both behind one interface."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from solo_results.types import Result

from solo_client import wire
from solo_client.command.errors import ImageFailed, Unusable, local_problem
from solo_client.command.key_file import read_key
from solo_client.errors import ConnectionLost, InvalidArgument, ServerProblem, SoloError, TimedOut
from solo_client.field import Field
from solo_client.query import Options, Query

if TYPE_CHECKING:
    from solo_client.client import SoloClient

RETRIES = 8  # per image: with several requests in flight a server's short queue is full at times
REQUESTS = 8  # in flight: as in `AsyncSoloClient.segment_many`; enough to keep a server's cores busy
INSTALL = "pip install -c constraints.txt -e '.[{}]' (in the checkout of solo-inference)"
_FAILS_FOR_EVERY_IMAGE = frozenset({"invalid_query", "unauthorized", "not_found", "model_not_found", "not_ready"})
_ARGUMENTS = {"api_key": "--api-key-file: the key", "model": "--model-name", "version": "--model-version"}


class Segmenter(Protocol):
    """Segments encoded images; up to `max_concurrency` threads may call it. Its methods raise ImageFailed or Unusable."""

    @property
    def max_concurrency(self) -> int:
        """How many images to segment at a time."""
        ...

    def class_names(self) -> Sequence[str]:
        """The model's class names, in the order of `class_id`."""
        ...

    def segment(self, body: bytes, options: Options) -> Result:
        """The instances in one image."""
        ...

    def segment_and_draw(self, body: bytes, options: Options) -> tuple[Result, bytes]:
        """The instances, and the image with them drawn on it (PNG), from one inference."""
        ...


class LocalModel(Protocol):
    """What `solo_server.commands.local.open_local` returns; its exceptions have `code`, `detail`, `title` and `status`."""

    @property
    def max_concurrency(self) -> int:
        """How many threads should call at a time."""
        ...

    @property
    def class_names(self) -> Sequence[str]:
        """The class names, in the order of `class_id`."""
        ...

    def segment(self, body: bytes, query: Mapping[str, str | list[str]]) -> dict[str, object]:
        """The JSON object that `POST /segment` returns."""
        ...

    def segment_and_draw(self, body: bytes, query: Mapping[str, str | list[str]]) -> tuple[dict[str, object], bytes]:
        """That JSON object, and the overlay as PNG."""
        ...


@contextmanager
def open_segmenter(
    bundle: Path | None,
    url: str | None,
    engine: str = "auto",
    api_key_file: Path | None = None,
    *,
    model_name: str | None = None,
    model_version: str | None = None,
    several: bool = False,
) -> Iterator[Segmenter]:
    """Open the server at `url`, else the model in `bundle`, else the demo model; `engine` runs a model in this process.

    api_key_file: holds the key for the server; model_name, model_version: which of the server's models to use;
    several: whether there is more than one image.

    Raises:
        Unusable: the extra is not installed, the URL or the key is invalid, or the bundle is missing or does not load.
        InvalidEnvironment: a proxy or certificate variable is invalid.
    """
    if url is None:
        yield _LocalSegmenter(_open_local(bundle, engine, several))
        return
    key = None if api_key_file is None else read_key(api_key_file)
    with _open_client(url, key, model_name, model_version) as client:
        yield _RemoteSegmenter(client)


class _LocalSegmenter:
    def __init__(self, model: LocalModel) -> None:
        self._model = model
        self.max_concurrency = model.max_concurrency

    def class_names(self) -> Sequence[str]:
        return self._model.class_names

    def segment(self, body: bytes, options: Options) -> Result:
        with _local_errors_translated():
            result = self._model.segment(body, Query(**options).to_parameters())
        return wire.parse_result(result)

    def segment_and_draw(self, body: bytes, options: Options) -> tuple[Result, bytes]:
        with _local_errors_translated():
            result, png = self._model.segment_and_draw(body, Query(**options).to_parameters())
        return wire.parse_result(result), png


class _RemoteSegmenter:
    max_concurrency = REQUESTS

    def __init__(self, client: SoloClient) -> None:
        self._client = client

    def class_names(self) -> Sequence[str]:
        with _remote_errors_translated():
            model = Field("model", self._client.model())
        return [name.text() for name in model.member("classes").items()]

    def segment(self, body: bytes, options: Options) -> Result:
        with _remote_errors_translated():
            return self._client.segment(body, **options)

    def segment_and_draw(self, body: bytes, options: Options) -> tuple[Result, bytes]:
        with _remote_errors_translated():
            return self._client.segment_and_draw(body, **options)


def _open_client(url: str, api_key: str | None, model: str | None, version: str | None) -> SoloClient:
    try:
        from solo_client.client import SoloClient
    except ImportError as error:
        raise Unusable(f"--url needs the extra client ({error}): {INSTALL.format('client')}") from error
    try:
        return SoloClient(url, api_key=api_key, retries=RETRIES, model=model, version=version)
    except InvalidArgument as error:
        raise Unusable(f"{_ARGUMENTS.get(error.name, '--url')} {error.reason}") from error


def _open_local(bundle: Path | None, engine: str, several: bool) -> LocalModel:
    if bundle is not None and not bundle.exists():
        raise Unusable(f"--model: {bundle}: no such bundle")
    try:
        model: LocalModel = importlib.import_module("solo_server.commands.local").open_local(
            bundle, engine, several=several
        )
    except ImportError as error:
        raise Unusable(f"running a local model needs the extra server ({error}): {INSTALL.format('server')}") from error
    except Exception as error:  # any reason why a bundle does not load; this package may not import the types
        model_name = str(bundle or "the demo model")
        reason = " ".join(str(error).split()).removeprefix(f"{model_name}: ") or type(error).__name__
        raise Unusable(f"{model_name}: {reason}") from error
    return model


@contextmanager
def _local_errors_translated() -> Iterator[None]:
    try:
        yield
    except (
        Exception
    ) as error:  # the server's errors are recognised by their attributes; this package may not import them
        code = getattr(error, "code", None)
        if code is None or not hasattr(error, "detail"):
            raise
        raise _failure(str(code), _one_line(error), _problem_of(error, str(code))) from error


@contextmanager
def _remote_errors_translated() -> Iterator[None]:
    try:
        yield
    except ServerProblem as error:
        raise _failure(error.code, str(error), asdict(error.problem)) from error
    except ConnectionLost as error:
        raise ImageFailed(str(error), local_problem("connection_lost", "Connection lost", str(error))) from error
    except TimedOut as error:
        raise ImageFailed(str(error), local_problem("timed_out", "No response in time", str(error))) from error


def _failure(code: str, message: str, problem: Mapping[str, object]) -> SoloError:
    return Unusable(message) if code in _FAILS_FOR_EVERY_IMAGE else ImageFailed(message, problem)


def _problem_of(error: Exception, code: str) -> dict[str, object]:
    """The problem that the server would return, without a request id."""
    problem = local_problem(code, str(getattr(error, "title", code)), _one_line(error))
    status = getattr(error, "status", None)
    return problem if status is None else problem | {"status": status}


def _one_line(error: Exception) -> str:
    """The error's `detail`, else its message, else its class name, on one line."""
    text = " ".join(str(getattr(error, "detail", "") or error).split())
    return text or type(error).__name__
