"""Real requests as an operator sees them: metrics as Prometheus parses them, access lines, traces."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from solo_server.http.app import create_app
from solo_server.observability.logs import json_line
from solo_server.observability.traces import Traces
from solo_server.pipeline.pipeline import Pipeline
from solo_server.settings import Settings
from support.images import encoded, smooth_image
from support.serving import serving
from support.small_app import Samples, samples, value

PNG = encoded(smooth_image(90, 120))
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
def pipeline(solo_bundle: Path) -> Pipeline:
    return Pipeline.open(solo_bundle, threads=1)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def http(pipeline: Pipeline, exporter: InMemorySpanExporter) -> Iterator[httpx.Client]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with serving(create_app(pipeline, Settings(max_files=4), traces=Traces(provider))) as client:
        yield client


def _scraped(http: httpx.Client) -> Samples:
    response = http.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return samples(response.text)


def test_one_image_is_counted_in_every_stage(http: httpx.Client, pipeline: Pipeline) -> None:
    answer = http.post("/segment", content=PNG).json()
    found = _scraped(http)
    stages = ("decode", "preprocess", "queue", *pipeline.backend.stages, "answer")
    counts = {
        stage: value(found, "solo_stage_duration_seconds_count", model="tiny-solo", stage=stage) for stage in stages
    }
    assert counts == dict.fromkeys(stages, 1)
    assert {dict(labels)["stage"] for name, labels in found if name == "solo_stage_duration_seconds_count"} == set(
        stages
    )
    reported_s = answer["timings_ms"]["categories"] / 1e3
    assert value(found, "solo_stage_duration_seconds_sum", model="tiny-solo", stage="categories") == pytest.approx(
        reported_s, abs=1e-5
    )
    assert value(found, "solo_requests_total", route="/segment", outcome="ok", code="ok") == 1
    assert value(found, "solo_images_total", model="tiny-solo", outcome="ok") == 1
    assert value(found, "solo_instances_total") == len(answer["instances"]) > 0
    assert value(found, "solo_batch_images_count", model="tiny-solo") == 1
    assert value(found, "solo_received_bytes_total") == len(PNG)
    assert value(found, "solo_waiting_images") == value(found, "solo_waiting_pixels") == 0


def test_the_scrape_itself_is_the_only_request_in_progress(http: httpx.Client) -> None:
    assert value(_scraped(http), "solo_requests_in_progress") == 1


def test_metrics_have_the_model_and_its_readiness(http: httpx.Client, pipeline: Pipeline) -> None:
    found = _scraped(http)
    assert value(found, "solo_ready") == 1
    bundle, engine = pipeline.bundle, pipeline.backend.description
    info = {"name": bundle.name, "version": bundle.version, "precision": "fp32", "engine": engine}
    assert value(found, "solo_model_info", **info) == 1


def test_metrics_are_openmetrics_if_accept_asks_for_it(http: httpx.Client) -> None:
    response = http.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")


def test_refusals_and_outcomes_of_images_are_counted_by_code(http: httpx.Client) -> None:
    http.post("/segment", content=b"no image")
    http.post("/segment", content=PNG, params={"nms": "soft"})
    http.get("/nowhere/at/all")
    http.post("/segment", files=[("f", ("a.png", PNG)), ("f", ("b.png", PNG[:300]))])
    found = _scraped(http)
    for code in ("unsupported_media_type", "invalid_query"):
        labels = {"route": "/segment", "outcome": "client_error", "code": code}
        assert value(found, "solo_requests_total", **labels) == 1
    assert value(found, "solo_requests_total", route="unmatched", outcome="client_error", code="not_found") == 1
    assert value(found, "solo_requests_total", route="/segment", outcome="ok", code="ok") == 1
    assert value(found, "solo_images_total", model="tiny-solo", outcome="image_damaged") == 1
    assert value(found, "solo_request_images_sum") == 3  # one body that is no image, and a form with two


def test_before_the_model_is_warm_metrics_have_no_model_and_refusals_have_a_reason(pipeline: Pipeline) -> None:
    with serving(create_app(pipeline), lifespan="off") as client:
        assert client.post("/segment", content=PNG).status_code == 503
        found = _scraped(client)
    assert value(found, "solo_ready") == 0
    assert not [name for name, _ in found if name == "solo_model_info"]
    assert value(found, "solo_refused_total", code="not_ready", reason="warming") == 1
    assert value(found, "solo_requests_total", route="/segment", outcome="unavailable", code="not_ready") == 1


def test_every_request_has_one_access_line_with_its_id(http: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    lines: list[dict[str, object]] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(json_line(record)))

    handler = Lines()
    logging.getLogger("solo_server").addHandler(handler)
    try:
        with caplog.at_level(logging.INFO, "solo_server"):
            answer = http.post("/segment", content=PNG, headers={"x-request-id": "abc-1"}).json()
            http.post("/segment?q=%1b[2J", content=b"secret\nINFO forged", headers={"x-request-id": "abc-2"})
            http.get("/nowhere%0aINFO/at all")
            http.get("/healthz")  # has no line; when it is answered, the line before is written
    finally:
        logging.getLogger("solo_server").removeHandler(handler)
    access = [line for line in lines if line["logger"] == "solo_server.access"]
    assert [(a["method"], a["route"], a["status"], a["code"]) for a in access] == [
        ("POST", "/segment", 200, "ok"),
        ("POST", "/segment", 422, "invalid_query"),
        ("GET", "unmatched", 404, "not_found"),
    ]
    assert [a["request_id"] for a in access[:2]] == ["abc-1", "abc-2"]
    assert (access[0]["bytes_in"], access[0]["images"]) == (len(PNG), 1)
    assert access[0]["instances"] == len(answer["instances"])
    assert "secret" not in json.dumps(lines)
    assert "forged" not in json.dumps(lines)


def test_a_request_is_a_part_of_its_callers_trace(http: httpx.Client, exporter: InMemorySpanExporter) -> None:
    http.post("/segment", content=PNG, headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})
    http.get("/healthz")  # a request is recorded after its answer is sent, before the next one is served
    spans = exporter.get_finished_spans()
    request = next(s for s in spans if s.kind is SpanKind.SERVER)
    below = [s for s in spans if s is not request]
    assert {f"{s.context.trace_id:032x}" for s in spans} == {TRACE}
    assert [s.name for s in below] == [
        "decode", "preprocess", "queue", "categories", "towers", "masks", "nms", "encode", "answer",
    ]  # fmt: skip
    begun, ended = request.start_time or 0, request.end_time or 0
    slack_ns = 5_000_000  # two clocks, and gaps between stages
    assert all(begun - slack_ns <= (s.start_time or 0) <= (s.end_time or 0) <= ended + slack_ns for s in below)
