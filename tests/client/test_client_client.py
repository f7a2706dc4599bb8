"""Both clients against httpx.MockTransport; every test that uses `call` runs once with each."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from solo_client import (
    AsyncSoloClient,
    ConnectionLost,
    ImageDamaged,
    InvalidArgument,
    ModelNotFound,
    NotReady,
    Overloaded,
    Result,
    ServerProblem,
    SoloClient,
    TimedOut,
    UnexpectedAnswer,
    Unreachable,
)

CallBoth = Callable[..., Any]
Json = dict[str, Any]
JPEG = b"\xff\xd8\xff\xe0image"


class Recorder:
    """Returns the given responses in turn, repeats the last one, and records the requests."""

    def __init__(self, *responses: httpx.Response) -> None:
        self.requests: list[httpx.Request] = []
        self._responses = list(responses)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        response = self._responses.pop(0) if len(self._responses) > 1 else self._responses[0]
        return httpx.Response(response.status_code, headers=response.headers, content=response.content)


def _failure(problem: Json, **headers: str) -> httpx.Response:
    kind = {"Content-Type": "application/problem+json"}
    return httpx.Response(problem["status"], json=problem, headers=kind | headers)


def test_segment_sends_the_image_as_the_body(call: CallBoth, answer: Json) -> None:
    server = Recorder(httpx.Response(200, json=answer))
    result = call(server, "segment", JPEG)
    (request,) = server.requests
    assert (request.method, str(request.url)) == ("POST", "http://solo.test/api/segment")
    assert request.headers["Content-Type"] == "image/jpeg"
    assert request.headers["Accept"] == "application/json"
    assert request.content == JPEG
    assert isinstance(result, Result)
    assert result.instances[0].label == "person"


def test_segment_sends_the_options_as_the_query(call: CallBoth, answer: Json) -> None:
    server = Recorder(httpx.Response(200, json=answer))
    call(server, "segment", JPEG, score_threshold=0.5, max_instances=3, classes=["person", "traffic light"], nms="none")
    assert dict(server.requests[0].url.params) == {
        "score_threshold": "0.5",
        "max_instances": "3",
        "classes": "person,traffic light",
        "nms": "none",
    }


def test_classes_with_a_comma_are_sent_as_separate_parameters(call: CallBoth, answer: Json) -> None:
    server = Recorder(httpx.Response(200, json=answer))
    call(server, "segment", JPEG, classes=["cat, black", "dog"])
    assert server.requests[0].url.params.multi_items() == [("classes", "cat, black"), ("classes", "dog")]


@pytest.mark.parametrize(
    ("chosen", "below"),
    [
        ({"model": "cats"}, "/models/cats"),
        ({"model": "cats", "version": "2"}, "/models/cats/versions/2"),
        ({"model": "cats & dogs", "version": "1/2"}, "/models/cats%20%26%20dogs/versions/1%2F2"),
        ({"model": "100%25"}, "/models/100%2525"),
    ],
)
def test_every_method_uses_the_chosen_model(
    call: CallBoth, answer: Json, png: bytes, chosen: dict[str, str], below: str
) -> None:
    several = {"results": [answer | {"filename": "image"}] * 2}
    for method, arguments, response in (
        ("segment", [JPEG], httpx.Response(200, json=answer)),
        ("segment_many", [[JPEG]], httpx.Response(200, json=answer)),
        ("segment_together", [[JPEG, JPEG]], httpx.Response(200, json=several)),
        ("overlay", [JPEG], httpx.Response(200, content=png)),
        ("model", [], httpx.Response(200, json={})),
    ):
        server = Recorder(response)
        call(server, method, *arguments, client=chosen)
        path = f"/api{below}" if method == "model" else f"/api{below}/segment"
        assert [request.url.raw_path.decode() for request in server.requests] == [path]


@pytest.mark.parametrize(
    ("statuses", "is_ready", "asked"),
    [
        ((200, 200), True, ["/api/readyz", "/api/models/cats"]),
        ((200, 503), False, ["/api/readyz", "/api/models/cats"]),
        ((503, 200), False, ["/api/readyz"]),
    ],
)
def test_a_chosen_model_is_ready_when_the_server_and_the_model_are(
    call: CallBoth, statuses: tuple[int, int], is_ready: bool, asked: list[str]
) -> None:
    server = Recorder(*(httpx.Response(status, json={}) for status in statuses))
    assert call(server, "ready", client={"model": "cats", "retries": 2}) is is_ready
    assert [request.url.path for request in server.requests] == asked


def test_readiness_of_a_model_that_is_not_there_is_an_error(call: CallBoth, problem: Callable[..., Json]) -> None:
    server = Recorder(httpx.Response(200, json={}), _failure(problem("model_not_found", 404)))
    with pytest.raises(ModelNotFound):
        call(server, "ready", client={"model": "cats"})


@pytest.mark.parametrize("kind", [str, Path])
def test_segment_reads_the_file_at_a_path(call: CallBoth, answer: Json, tmp_path: Path, kind: type) -> None:
    (tmp_path / "photo.txt").write_bytes(JPEG)
    server = Recorder(httpx.Response(200, json=answer))
    call(server, "segment", kind(tmp_path / "photo.txt"))
    assert server.requests[0].content == JPEG
    assert server.requests[0].headers["Content-Type"] == "image/jpeg"


def test_a_missing_file_is_an_oserror(call: CallBoth, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        call(Recorder(), "segment", tmp_path / "none.jpg")


def test_an_invalid_option_is_refused_before_anything_is_sent(call: CallBoth) -> None:
    server = Recorder()
    with pytest.raises(InvalidArgument):
        call(server, "segment", JPEG, score_threshold=2)
    assert server.requests == []


def test_an_unknown_option_is_a_type_error(call: CallBoth) -> None:
    with pytest.raises(TypeError, match="treshold"):
        call(Recorder(), "segment", JPEG, treshold=0.5)


def test_the_api_key_goes_into_the_authorization_header(call: CallBoth, answer: Json) -> None:
    server = Recorder(httpx.Response(200, json=answer))
    call(server, "segment", JPEG, client={"api_key": "k1"})
    assert server.requests[0].headers["Authorization"] == "Bearer k1"


def test_overlay_asks_for_and_returns_a_png(call: CallBoth, png: bytes) -> None:
    server = Recorder(httpx.Response(200, content=png))
    assert call(server, "overlay", JPEG, score_threshold=0.5) == png
    assert server.requests[0].headers["Accept"] == "image/png"
    assert server.requests[0].url.params["score_threshold"] == "0.5"


def test_an_overlay_that_is_not_a_png_is_refused(call: CallBoth, answer: Json) -> None:
    with pytest.raises(UnexpectedAnswer, match=r"is not a PNG .*application/json"):
        call(Recorder(httpx.Response(200, json=answer)), "overlay", JPEG)


def test_segment_many_keeps_the_order(call: CallBoth, answer: Json) -> None:
    def server(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=answer | {"model": {"name": request.content.decode(), "version": "1"}})

    results = call(server, "segment_many", (str(n).encode() for n in range(20)), max_instances=3)
    assert [r.model_name for r in results] == [str(n) for n in range(20)]


@pytest.mark.parametrize(
    ("method", "images", "kept"), [("segment", b"one", [b"one"]), ("segment_many", [b"one", b"two"], [None, None])]
)
def test_only_the_result_of_one_image_keeps_its_image(
    call: CallBoth, answer: Json, method: str, images: Any, kept: list[bytes | None]
) -> None:
    results = call(Recorder(*[httpx.Response(200, json=answer)] * len(kept)), method, images)
    assert [result.image for result in ([results] if method == "segment" else results)] == kept


def test_segment_many_of_nothing_is_nothing(call: CallBoth) -> None:
    assert call(Recorder(), "segment_many", []) == []


def test_segment_many_raises_at_the_image_that_failed(
    call: CallBoth, answer: Json, problem: Callable[..., Json]
) -> None:
    def server(request: httpx.Request) -> httpx.Response:
        bad = request.content == b"3"
        return _failure(problem("image_damaged", 400)) if bad else httpx.Response(200, json=answer)

    with pytest.raises(ImageDamaged):
        call(server, "segment_many", [b"1", b"2", b"3", b"4"])


def test_segment_together_sends_one_multipart_body(
    call: CallBoth, answer: Json, problem: Callable[..., Json], tmp_path: Path
) -> None:
    (tmp_path / "photo.jpg").write_bytes(JPEG)
    failed = {"filename": "image", "error": problem("image_damaged", 400)}
    server = Recorder(httpx.Response(200, json={"results": [answer | {"filename": "photo.jpg"}, failed]}))
    first, second = call(server, "segment_together", [tmp_path / "photo.jpg", b"broken"], max_instances=1)
    (request,) = server.requests
    assert request.headers["Content-Type"].startswith("multipart/form-data")
    assert request.url.params["max_instances"] == "1"
    parts = request.content.split(b"--" + request.headers["Content-Type"].partition("boundary=")[2].encode())[1:-1]
    assert b'name="file"; filename="photo.jpg"\r\nContent-Type: image/jpeg\r\n\r\n' + JPEG in parts[0]
    assert b'name="file"; filename="image"\r\nContent-Type: application/octet-stream\r\n\r\nbroken' in parts[1]
    assert isinstance(first, Result)
    assert first.image == JPEG
    assert isinstance(second, ImageDamaged)


def test_segment_together_of_nothing_sends_nothing(call: CallBoth) -> None:
    server = Recorder()
    assert call(server, "segment_together", []) == []
    assert server.requests == []


def test_model_returns_the_servers_description(call: CallBoth) -> None:
    server = Recorder(httpx.Response(200, json={"name": "demo-person", "classes": ["person"]}))
    assert call(server, "model") == {"name": "demo-person", "classes": ["person"]}
    assert (server.requests[0].method, server.requests[0].url.path) == ("GET", "/api/model")


def test_a_server_that_answers_200_is_ready(call: CallBoth) -> None:
    server = Recorder(httpx.Response(200, text="ok"))
    assert call(server, "ready") is True
    assert server.requests[0].url.path == "/api/readyz"


def test_a_server_that_answers_503_is_not_ready(call: CallBoth) -> None:
    assert call(Recorder(httpx.Response(503, headers={"Retry-After": "0"})), "ready", client={"retries": 3}) is False


def test_a_server_that_is_not_reached_is_not_ready(call: CallBoth) -> None:
    def server(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    assert call(server, "ready") is False


def test_readiness_of_another_kind_of_server_is_an_error(call: CallBoth) -> None:
    with pytest.raises(UnexpectedAnswer, match="404"):
        call(Recorder(httpx.Response(404, text="nothing here")), "ready")


@pytest.mark.parametrize(
    ("code", "status", "name"),
    [
        ("empty_body", 400, "EmptyBody"),
        ("unsupported_media_type", 415, "UnsupportedMediaType"),
        ("image_damaged", 400, "ImageDamaged"),
        ("image_too_large", 413, "ImageTooLarge"),
        ("body_too_large", 413, "BodyTooLarge"),
        ("invalid_query", 422, "InvalidQuery"),
        ("not_found", 404, "NotFound"),
        ("overloaded", 503, "Overloaded"),
        ("not_ready", 503, "NotReady"),
        ("deadline_exceeded", 504, "DeadlineExceeded"),
        ("internal", 500, "InternalError"),
        ("unauthorized", 401, "Unauthorized"),
        ("model_not_found", 404, "ModelNotFound"),
        ("from_the_future", 418, "CallerFault"),
        ("from_the_future", 503, "Unavailable"),
    ],
)
@pytest.mark.parametrize("method", ["segment", "overlay"])
def test_every_code_raises_its_own_error(
    call: CallBoth, problem: Callable[..., Json], method: str, code: str, status: int, name: str
) -> None:
    with pytest.raises(ServerProblem) as caught:
        call(Recorder(_failure(problem(code, status))), method, JPEG)
    assert type(caught.value).__name__ == name
    assert caught.value.problem.request_id == "r-1"
    assert f"what went wrong: {code}" in str(caught.value)


def test_overloaded_has_the_retry_delay(call: CallBoth, problem: Callable[..., Json]) -> None:
    with pytest.raises(Overloaded) as caught:
        call(Recorder(_failure(problem("overloaded", 503), **{"Retry-After": "3"})), "segment", JPEG)
    assert caught.value.retry_after_s == 3


def test_problem_type_may_name_its_charset(call: CallBoth, problem: Callable[..., Json]) -> None:
    response = _failure(problem("not_ready", 503), **{"Content-Type": "application/problem+json; charset=utf-8"})
    with pytest.raises(NotReady):
        call(Recorder(response), "segment", JPEG)


@pytest.mark.parametrize(
    ("response", "field"),
    [
        (httpx.Response(200, text="<html>"), "body"),
        (httpx.Response(200, json=[]), "body"),
        (httpx.Response(200, json={}), "image"),
        (httpx.Response(204), "status"),
        (httpx.Response(301, headers={"Location": "/login"}), "status"),
        (httpx.Response(502, text="<html>Bad Gateway"), "Content-Type"),
        (httpx.Response(404, json={"detail": "Not Found"}), "Content-Type"),
        (httpx.Response(400, content=b"{}", headers={"Content-Type": "application/problem+json"}), "type"),
        (httpx.Response(400, content=b"<", headers={"Content-Type": "application/problem+json"}), "body"),
        (httpx.Response(400, content=b"[]", headers={"Content-Type": "application/problem+json"}), "body"),
    ],
)
def test_a_malformed_response_names_the_field(call: CallBoth, response: httpx.Response, field: str) -> None:
    with pytest.raises(UnexpectedAnswer) as caught:
        call(Recorder(response), "segment", JPEG)
    assert caught.value.field == field


def test_a_body_with_a_broken_compression_is_unexpected(call: CallBoth) -> None:
    def server(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=httpx.ByteStream(b"no gzip"))

    with pytest.raises(UnexpectedAnswer, match="body cannot be read"):
        call(server, "segment", JPEG)


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (httpx.ConnectError("connection refused"), Unreachable),
        (httpx.ConnectTimeout(""), Unreachable),
        (httpx.RemoteProtocolError("server disconnected"), ConnectionLost),
        (httpx.ReadError(""), ConnectionLost),
        (httpx.ReadTimeout(""), TimedOut),
        (httpx.WriteTimeout(""), TimedOut),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_a_failed_connection_names_the_url(call: CallBoth, cause: Exception, expected: type[Exception]) -> None:
    def server(_: httpx.Request) -> httpx.Response:
        raise cause

    with pytest.raises(expected, match=r"^http://solo\.test/api/segment: \w+") as caught:
        call(server, "segment", JPEG, max_instances=3)
    assert caught.value.__cause__ is cause


def test_a_closed_port_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with SoloClient(f"http://user:secret@127.0.0.1:{port}") as client, pytest.raises(Unreachable) as caught:
        client.segment(JPEG)
    assert str(caught.value).startswith(f"http://127.0.0.1:{port}/segment: ")


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".test"])
def test_a_host_that_no_resolver_takes_is_unreachable(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with SoloClient(f"http://{host}") as client, pytest.raises(Unreachable, match="no such host"):
        client.segment(JPEG)


@pytest.fixture
def pauses_s(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The pauses that a client would have made; it does not really sleep."""
    pauses: list[float] = []

    async def sleep(pause_s: float) -> None:
        pauses.append(pause_s)

    with monkeypatch.context() as patch:
        patch.setattr("solo_client.client.time.sleep", pauses.append)
        patch.setattr("solo_client.client.asyncio.sleep", sleep)
        yield pauses


def test_retries_wait_as_long_as_the_server_says(
    call: CallBoth, answer: Json, problem: Callable[..., Json], pauses_s: list[float]
) -> None:
    busy = problem("overloaded", 503)
    server = Recorder(
        _failure(busy, **{"Retry-After": "2"}), _failure(busy, **{"Retry-After": "5"}), httpx.Response(200, json=answer)
    )
    assert call(server, "segment", JPEG, client={"retries": 2}).width == 3
    assert pauses_s == [2, 5]
    assert [r.content for r in server.requests] == [JPEG] * 3


def test_retries_end(call: CallBoth, problem: Callable[..., Json], pauses_s: list[float]) -> None:
    server = Recorder(_failure(problem("overloaded", 503), **{"Retry-After": "2"}))
    with pytest.raises(Overloaded):
        call(server, "segment", JPEG, client={"retries": 2})
    assert pauses_s == [2, 2]
    assert len(server.requests) == 3


def test_by_default_nothing_is_sent_twice(call: CallBoth, problem: Callable[..., Json], pauses_s: list[float]) -> None:
    server = Recorder(_failure(problem("overloaded", 503), **{"Retry-After": "2"}))
    with pytest.raises(Overloaded):
        call(server, "segment", JPEG)
    assert (len(server.requests), pauses_s) == (1, [])


@pytest.mark.parametrize("kind", [SoloClient, AsyncSoloClient])
@pytest.mark.parametrize("url", ["localhost:8000", "http://solo.test:port", "http://so lo.test\n"])
def test_an_invalid_base_url_is_refused(kind: Callable[[str], object], url: str) -> None:
    with pytest.raises(InvalidArgument, match="base_url"):
        kind(url)


class _Counting(httpx.AsyncBaseTransport):
    """Responds after a moment and counts how many requests are in flight."""

    def __init__(self, answer: Json) -> None:
        self.now = self.most = self.begun = self.cancelled = 0
        self._answer = answer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.begun += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.now -= 1
        return httpx.Response(200, json=self._answer, request=request)


def test_async_segment_many_keeps_to_its_concurrency(answer: Json) -> None:
    transport = _Counting(answer)

    async def ask_many() -> int:
        async with AsyncSoloClient("http://solo.test", transport=transport) as client:
            return len([r async for r in client.segment_many([JPEG] * 12, concurrency=3)])

    assert asyncio.run(ask_many()) == 12
    assert transport.most == 3


def test_async_segment_many_reads_an_endless_iterable_no_further_than_needed(answer: Json) -> None:
    transport = _Counting(answer)

    def endless() -> Iterator[bytes]:
        while True:
            yield JPEG

    async def ask_twice() -> None:
        async with AsyncSoloClient("http://solo.test", transport=transport) as client:
            results = client.segment_many(endless(), concurrency=4)
            await anext(results)
            await anext(results)
            await results.aclose()

    asyncio.run(ask_twice())
    assert transport.begun <= 5
    assert transport.now == 0


def test_async_segment_many_needs_a_concurrency(answer: Json) -> None:
    async def ask_many() -> None:
        async with AsyncSoloClient("http://solo.test", transport=_Counting(answer)) as client:
            await anext(client.segment_many([JPEG], concurrency=0))

    with pytest.raises(InvalidArgument, match="concurrency"):
        asyncio.run(ask_many())
