"""What Ray's proxy answers itself, in our form; answers of applications pass unchanged."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from solo_server.ray_serve.proxy import CALLBACK_PATH, OneRequestId, RayProblems, middlewares
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send


def _ask(app: ASGIApp, path: str = "/segment", **headers: str) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(RayProblems(app), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://solo") as client:
            return await client.post(path, headers={name.replace("_", "-"): text for name, text in headers.items()})

    return asyncio.run(ask())


def _problem(response: httpx.Response) -> tuple[int, str, str | None]:
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["request_id"] == response.headers["x-request-id"]
    return response.status_code, response.json()["code"], response.json().get("reason")


def test_ray_finds_the_callback() -> None:
    module, _, name = CALLBACK_PATH.rpartition(".")
    assert (module, name) == (middlewares.__module__, middlewares.__name__)
    assert [one.cls for one in middlewares()] == [RayProblems]


def test_a_full_queue_is_our_503_with_retry_after() -> None:
    answer = _ask(PlainTextResponse("Request dropped due to backpressure", 503))
    assert _problem(answer) == (503, "overloaded", "queue_full")
    assert answer.headers["retry-after"] == "1"


def test_a_deadline_of_the_proxy_is_our_504() -> None:
    assert _problem(_ask(PlainTextResponse("Request timed out", 408))) == (504, "deadline_exceeded", None)


@pytest.mark.parametrize("raises", [False, True])
def test_a_replica_that_ends_with_a_request_is_our_503(raises: bool) -> None:
    async def lost(scope: Scope, receive: Receive, send: Send) -> None:
        if raises:
            raise RuntimeError("the actor died")

    answer = _ask(lost, x_request_id="abc")
    assert _problem(answer) == (503, "not_ready", "lost")
    assert answer.json()["request_id"] == "abc"


def test_below_v2_the_same_is_an_error_of_that_protocol() -> None:
    answer = _ask(PlainTextResponse("Request dropped due to backpressure", 503), "/v2/models/cats/infer")
    assert answer.json()["error"] == "every replica is busy"


@pytest.mark.parametrize(
    "own",
    [
        PlainTextResponse("ours", 503, headers={"x-content-type-options": "nosniff"}),
        Response(b"{}", 503, media_type="application/json"),
        PlainTextResponse("not there", 404),
        PlainTextResponse("fine"),
    ],
)
def test_other_answers_pass_unchanged(own: Response) -> None:
    answer = _ask(own)
    assert (answer.status_code, answer.content) == (own.status_code, own.body)


def test_rays_own_health_check_passes_unchanged() -> None:
    assert _ask(PlainTextResponse("draining", 503), "/-/healthz").text == "draining"


@pytest.mark.parametrize(("sent", "is_kept"), [("abc-1", True), ("a b", False), ("x" * 65, False), ("", False)])
def test_ray_and_the_application_get_one_valid_id(sent: str, is_kept: bool) -> None:
    seen: list[Any] = []

    async def echo(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append([value for name, value in scope["headers"] if name == b"x-request-id"])
        await PlainTextResponse("fine")(scope, receive, send)

    _ask(echo, x_request_id=sent)
    ((only,),) = seen
    assert (only.decode() == sent) is is_kept
    assert is_kept or len(only) == 32


@pytest.mark.parametrize(("answered", "left"), [("abc", 0), ("another", 1)])
def test_the_id_that_ray_adds_is_left_out(answered: str, left: int) -> None:
    response = _ask(OneRequestId(PlainTextResponse("fine", headers={"x-request-id": answered})), x_request_id="abc")
    assert len(response.headers.get_list("x-request-id")) == left
