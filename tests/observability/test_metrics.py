"""What each metric counts, in which unit; and that no client can create a series."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import Request, Response
from solo_server.observability.logs import Access
from solo_server.observability.metrics import Metrics, ModelInfo, outcome
from starlette.middleware import Middleware
from starlette.types import Receive, Scope, Send
from support.small_app import MODEL, ask, make_telemetry, samples, small_app, value

Call = tuple[str, str, dict[str, Any]]
PROBLEM = b'{"code":"overloaded","status":503}'


class Guard:
    """A middleware that refuses every request."""

    def __init__(self, app: object) -> None:
        pass

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Response(b"no", 401)(scope, receive, send)


def scraped(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    metrics.fold()
    return samples(metrics.text()[0].decode())


def fresh() -> Metrics:
    return Metrics(lambda: [MODEL])


def access(**changed: object) -> Access:
    given = {"method": "POST", "route": "/segment", "status": 200, "code": "ok", "ms": 30.0, "bytes_in": 100,
             "bytes_out": 50, "images": 1, "instances": 3}  # fmt: skip
    return Access(**(given | changed))  # type: ignore[arg-type]  # as the fields are


def test_a_request_is_counted_by_route_outcome_and_code_and_timed_in_seconds() -> None:
    metrics = fresh()
    metrics.begun()
    assert value(scraped(metrics), "solo_requests_in_progress") == 1
    metrics.ended(access())
    found = scraped(metrics)
    assert value(found, "solo_requests_in_progress") == 0
    assert value(found, "solo_requests_total", route="/segment", outcome="ok", code="ok") == 1
    assert value(found, "solo_request_duration_seconds_sum", route="/segment") == pytest.approx(0.03)
    assert value(found, "solo_request_duration_seconds_bucket", route="/segment", le="0.025") == 0
    assert value(found, "solo_request_duration_seconds_bucket", route="/segment", le="0.05") == 1
    assert value(found, "solo_received_bytes_total") == 100
    assert value(found, "solo_sent_bytes_total") == 50
    assert value(found, "solo_request_images_sum") == 1


def test_a_request_without_images_is_not_in_the_histogram_of_images() -> None:
    metrics = fresh()
    metrics.begun()
    metrics.ended(access(images=0, route="/model"))
    assert value(scraped(metrics), "solo_request_images_count") == 0


@pytest.mark.parametrize(
    ("status", "word"),
    [(200, "ok"), (307, "ok"), (400, "client_error"), (422, "client_error"), (499, "gone"), (500, "server_error"),
     (503, "unavailable"), (504, "unavailable")],
)  # fmt: skip
def test_the_outcome_says_who_has_to_act(status: int, word: str) -> None:
    assert outcome(status) == word


def test_refusals_stages_batches_and_outcomes_of_images_are_counted_separately() -> None:
    metrics = fresh()
    metrics.refused("overloaded", "queue_full")
    metrics.refused("overloaded", "pixels_full")
    metrics.refused("overloaded", "pixels_full")
    metrics.batched("tiny", 3, 120.0)
    metrics.answered("tiny", "ok", 900.0, 3, {"decode": 2.0, "queue": 700.0})
    metrics.answered("tiny", "gone", 10.0)
    metrics.waiting(5, 1_000_000)
    found = scraped(metrics)
    assert value(found, "solo_refused_total", code="overloaded", reason="queue_full") == 1
    assert value(found, "solo_refused_total", code="overloaded", reason="pixels_full") == 2
    assert value(found, "solo_stage_duration_seconds_sum", model="tiny", stage="queue") == pytest.approx(0.7)
    assert value(found, "solo_stage_duration_seconds_count", model="tiny", stage="decode") == 1
    assert value(found, "solo_instances_total") == 3
    assert value(found, "solo_batch_images_bucket", model="tiny", le="2.0") == 0
    assert value(found, "solo_batch_images_bucket", model="tiny", le="4.0") == 1
    assert value(found, "solo_batch_duration_seconds_sum", model="tiny") == pytest.approx(0.12)
    assert value(found, "solo_images_total", model="tiny", outcome="gone") == 1
    assert value(found, "solo_image_duration_seconds_count", model="tiny") == 2
    assert value(found, "solo_waiting_images") == 5
    assert value(found, "solo_waiting_pixels") == 1_000_000


def test_labels_describe_the_model_and_ready_means_all_models() -> None:
    models: list[ModelInfo] = []
    metrics = Metrics(lambda: models)
    assert value(scraped(metrics), "solo_ready") == 0
    models.append(MODEL)
    found = scraped(metrics)
    assert value(found, "solo_ready") == 1
    labels = {"name": "tiny", "version": "0123", "precision": "fp32", "engine": "onnxruntime 1.32.0 cpu"}
    assert value(found, "solo_model_info", **labels) == 1
    models.append(ModelInfo("other", "1", "fp32", "onnxruntime", ready=False))
    assert value(scraped(metrics), "solo_ready") == 0


def test_memory_and_start_are_those_of_the_process() -> None:
    found = scraped(fresh())
    assert (value(found, "process_resident_memory_bytes") or 0) > 1 << 20
    assert (value(found, "process_start_time_seconds") or 0) > 1_600_000_000


def test_every_application_has_its_own_counters() -> None:
    first, second = fresh(), fresh()
    first.refused("overloaded", "queue_full")
    assert value(scraped(second), "solo_refused_total", code="overloaded", reason="queue_full") is None


def test_series_without_labels_exist_from_the_start() -> None:
    found = scraped(fresh())
    for name in (
        "solo_waiting_images",
        "solo_waiting_pixels",
        "solo_instances_total",
        "solo_log_lines_lost_total",
    ):
        assert value(found, name) == 0


def test_openmetrics_is_sent_to_clients_that_accept_it() -> None:
    content, media_type = fresh().text("application/openmetrics-text; version=1.0.0")
    assert content.endswith(b"# EOF\n")
    assert media_type.startswith("application/openmetrics-text; version=1.0.0")
    assert fresh().text("text/html")[1].startswith("text/plain; version=0.0.4")


def test_the_code_of_a_refusal_is_taken_from_the_response() -> None:
    async def refuse(_: Request) -> Response:
        return Response(PROBLEM, 503, media_type="application/problem+json")

    async def refuse_in_words(_: Request) -> Response:
        return Response(b"no", 503, media_type="text/plain")

    for segment, code in ((refuse, "overloaded"), (refuse_in_words, "http_503")):
        telemetry = make_telemetry()
        ask(small_app(telemetry, segment), ("POST", "/segment", {"content": b"x"}))
        assert (
            value(scraped(telemetry.metrics), "solo_requests_total", route="/segment", outcome="unavailable", code=code)
            == 1
        )


def test_a_refusal_before_routing_is_counted_under_the_path_if_there_is_such_a_route() -> None:
    async def never(_: Request) -> Response:
        raise AssertionError("the guard refuses every request")

    telemetry = make_telemetry()
    app = small_app(telemetry, never)
    app.user_middleware.append(Middleware(Guard))
    ask(app, ("POST", "/segment", {}), ("POST", "/segment2", {}), ("GET", "/items/a", {}))
    found = scraped(telemetry.metrics)
    labels = {"outcome": "client_error", "code": "http_401"}
    assert value(found, "solo_requests_total", route="/segment", **labels) == 1
    assert value(found, "solo_requests_total", route="unmatched", **labels) == 2


def test_a_failure_that_only_the_outermost_layer_answers_is_a_server_error() -> None:
    async def fail(_: Request) -> Response:
        raise RuntimeError("unforeseen")

    telemetry = make_telemetry()
    assert ask(small_app(telemetry, fail), ("POST", "/segment", {}))[0].status_code == 500
    found = scraped(telemetry.metrics)
    assert value(found, "solo_requests_total", route="/segment", outcome="server_error", code="internal") == 1
    assert value(found, "solo_requests_in_progress") == 0


def test_a_client_that_disconnects_is_gone_and_not_an_error() -> None:
    async def wait(request: Request) -> Response:
        raise asyncio.CancelledError

    telemetry = make_telemetry()
    with pytest.raises(asyncio.CancelledError):
        ask(small_app(telemetry, wait), ("POST", "/segment", {}))
    assert value(scraped(telemetry.metrics), "solo_requests_total", route="/segment", outcome="gone", code="gone") == 1


def test_bytes_images_and_instances_are_in_the_access_line(caplog: pytest.LogCaptureFixture) -> None:
    telemetry = make_telemetry()

    async def one_of_two(name: str, instances: int) -> None:
        telemetry.answered("tiny", name, 2.0, instances, {"decode": 1.0})

    async def segment(request: Request) -> Response:
        await request.body()
        await asyncio.gather(one_of_two("ok", 4), one_of_two("image_damaged", 0))
        return Response(b"12345")

    with caplog.at_level("INFO", "solo_server.access"):
        ask(small_app(telemetry, segment), ("POST", "/segment", {"content": b"123"}))
    line = next(r.access for r in caplog.records if hasattr(r, "access"))
    assert (line.bytes_in, line.bytes_out, line.images, line.instances) == (3, 5, 2, 4)
    assert (line.method, line.route, line.status, line.code) == ("POST", "/segment", 200, "ok")
    assert line.ms > 0


def test_nothing_that_a_client_sends_becomes_a_label() -> None:
    async def answer(_: Request) -> Response:
        return Response(b"x")

    def series_after(*requests: Call) -> int:
        telemetry = make_telemetry()
        ask(small_app(telemetry, answer), *requests)
        return len(scraped(telemetry.metrics))

    one_of_each: list[Call] = [("GET", "/nowhere", {}), ("GET", "/items/a", {}), ("POST", "/segment", {})]
    many: list[Call] = [("GET", f"/{where}/{i}", {}) for i in range(5) for where in ("nowhere", "items")]
    many += [("POST", f"/segment?q={i}", {"headers": {"x-request-id": f"{i}", "host": f"h{i}"}}) for i in range(5)]
    assert series_after(*one_of_each, *many) == series_after(*one_of_each)
