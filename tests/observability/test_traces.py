"""Spans: one for each request, one for each stage of each image, in the client's trace if it has one."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from time import monotonic

import pytest
from fastapi import Request, Response
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from solo_models.install import install_command
from solo_server.errors import SettingsError
from solo_server.observability.logs import Access
from solo_server.observability.telemetry import RequestTelemetry
from solo_server.observability.traces import ImageTrace, Stage, Traces, open_traces
from solo_server.settings import Settings
from support.small_app import ask, make_telemetry, small_app

ACCESS = Access("POST", "/segment", 200, "ok", 50.0, 1000, 2000, 1, 7)
NOWHERE = "http://127.0.0.1:1"
GRPC = {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
BEGUN_NS = 1_700_000_000_000_000_000
MS = 1_000_000
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def traces(exporter: InMemorySpanExporter) -> Iterator[Traces]:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    traces = Traces(provider)
    yield traces
    traces.close()


def request_and_stages(exporter: InMemorySpanExporter) -> tuple[ReadableSpan, list[ReadableSpan]]:
    """The request's span, and those below it."""
    spans = exporter.get_finished_spans()
    requests = [s for s in spans if s.kind is SpanKind.SERVER]
    assert len(requests) == 1
    return requests[0], [s for s in spans if s.kind is not SpanKind.SERVER]


def test_a_request_is_a_span_with_its_stages_below_it_one_after_another(
    traces: Traces, exporter: InMemorySpanExporter
) -> None:
    stages = [Stage("queue", 3.0), Stage("decode", 5.0), Stage("preprocess", 1.0), Stage("categories", 20.0)]
    traces.record(ACCESS, BEGUN_NS, [ImageTrace(BEGUN_NS + 2 * MS, "tiny", "ok", stages)], {})
    request, below = request_and_stages(exporter)
    assert (request.name, request.start_time, request.end_time) == ("POST /segment", BEGUN_NS, BEGUN_NS + 50 * MS)
    assert request.parent is None
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 200
    assert request.attributes["http.route"] == "/segment"
    assert request.attributes["solo.instances"] == 7
    assert [s.name for s in below] == ["decode", "preprocess", "queue", "categories"]
    starts = [((s.start_time or 0) - BEGUN_NS) // MS for s in below]
    ends = [((s.end_time or 0) - BEGUN_NS) // MS for s in below]
    assert (starts, ends) == ([2, 7, 8, 11], [7, 8, 11, 31])
    assert all(s.parent is not None and s.parent.span_id == request.context.span_id for s in below)


def test_the_clients_trace_is_continued(traces: Traces, exporter: InMemorySpanExporter) -> None:
    image = ImageTrace(BEGUN_NS, "tiny", "ok", [Stage("decode", 1.0)])
    traces.record(ACCESS, BEGUN_NS, [image], {"traceparent": PARENT, "tracestate": "vendor=1"})
    request, (decode,) = request_and_stages(exporter)
    assert request.parent is not None
    assert (f"{request.context.trace_id:032x}", f"{request.parent.span_id:016x}") == (TRACE, "b7ad6b7169203331")
    assert decode.context.trace_id == request.context.trace_id
    assert request.context.trace_state.get("vendor") == "1"


@pytest.mark.parametrize("sent", ["", "x", PARENT.replace("b7ad", "zzzz"), f"00-{'0' * 32}-{'0' * 16}-01"])
def test_a_broken_traceparent_starts_a_new_trace(traces: Traces, exporter: InMemorySpanExporter, sent: str) -> None:
    traces.record(ACCESS, BEGUN_NS, [], {"traceparent": sent})
    request, _ = request_and_stages(exporter)
    assert request.parent is None
    assert request.context.trace_id


def test_a_trace_that_the_client_does_not_sample_is_not_sent(traces: Traces, exporter: InMemorySpanExporter) -> None:
    image = ImageTrace(BEGUN_NS, "tiny", "ok", [Stage("decode", 1.0)])
    traces.record(ACCESS, BEGUN_NS, [image], {"traceparent": PARENT[:-2] + "00"})
    assert exporter.get_finished_spans() == ()


@pytest.mark.parametrize(
    ("status", "code"), [(500, StatusCode.ERROR), (503, StatusCode.ERROR), (422, StatusCode.UNSET)]
)
def test_only_server_failures_are_errors(
    traces: Traces, exporter: InMemorySpanExporter, status: int, code: StatusCode
) -> None:
    traces.record(Access("POST", "/segment", status, "a_code", 1.0, 0, 0, 0, 0), BEGUN_NS, [], {})
    request, _ = request_and_stages(exporter)
    assert request.status.status_code is code
    assert request.attributes is not None
    assert request.attributes["solo.code"] == "a_code"


def test_each_image_of_a_request_has_its_own_stages(traces: Traces, exporter: InMemorySpanExporter) -> None:
    telemetry = make_telemetry(traces)

    async def image(ms: float) -> None:
        await asyncio.sleep(0.001)
        telemetry.answered("tiny", "ok", 3 * ms, 1, {"decode": ms, "encode": ms + 0.5})

    async def segment(_: Request) -> Response:
        await asyncio.gather(image(1.0), image(4.0))
        return Response(b"x")

    ask(
        small_app(telemetry, segment),
        ("POST", "/segment", {"headers": {"traceparent": PARENT}}),
        ("GET", "/healthz", {}),
    )
    request, below = request_and_stages(exporter)  # the probe has none
    assert f"{request.context.trace_id:032x}" == TRACE
    found: dict[object, list[tuple[str, float]]] = {}
    for span in below:
        assert span.attributes is not None
        length_ms = ((span.end_time or 0) - (span.start_time or 0)) / MS
        found.setdefault(span.attributes["solo.image"], []).append((span.name, length_ms))
    assert sorted(found.values()) == [[("decode", 1.0), ("encode", 1.5)], [("decode", 4.0), ("encode", 4.5)]]


def test_without_traces_no_stages_are_kept() -> None:
    telemetry, kept = make_telemetry(), []

    async def segment(_: Request) -> Response:
        from solo_server.observability.telemetry import CURRENT_REQUEST

        telemetry.answered("tiny", "ok", 2.0, 1, {"decode": 1.0})
        record = CURRENT_REQUEST.get()
        assert record is not None
        kept.append((record.images, list(record.traced)))
        return Response(b"x")

    assert ask(small_app(telemetry, segment), ("POST", "/segment", {}))[0].status_code == 200
    assert kept == [(1, [])]


@pytest.mark.parametrize(
    ("switch", "environment"),
    [
        ("auto", {}),
        ("off", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}),
        ("on", {"OTEL_SDK_DISABLED": "true"}),
        ("on", {"OTEL_TRACES_EXPORTER": "none"}),
        ("auto", {"OTEL_TRACES_EXPORTER": ""}),
    ],
)
def test_traces_are_off_by_default_and_when_disabled(switch: str, environment: dict[str, str]) -> None:
    assert open_traces(switch, environment) is None


@pytest.mark.parametrize(
    ("switch", "environment"),
    [
        ("on", {}),
        ("auto", {"OTEL_TRACES_EXPORTER": "otlp"}),
        ("auto", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}),
    ],
)
def test_traces_are_on_by_the_switch_or_a_standard_variable(switch: str, environment: dict[str, str]) -> None:
    traces = open_traces(switch, environment)
    assert traces is not None
    traces.close()


def test_the_service_has_a_name_and_the_standard_variable_wins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for given, name in ((None, "solo-inference"), ("cameras", "cameras")):
        if given is not None:
            monkeypatch.setenv("OTEL_SERVICE_NAME", given)
        traces = open_traces("on", {"OTEL_TRACES_EXPORTER": "console"})
        assert traces is not None
        traces.record(ACCESS, BEGUN_NS, [], {})
        traces.close()
        assert f'"service.name": "{name}"' in capsys.readouterr().out


UNAVAILABLE = [
    ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER: 'zipkin' is none of otlp, console, none"),
    ({"OTEL_TRACES_EXPORTER": "otlp", **GRPC}, "OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' is not supported"),
    ({"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE, **GRPC}, "OTEL_EXPORTER_OTLP_PROTOCOL: 'grpc' is not supported"),
    (
        {"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"},
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: 'http/json' is not supported; use http/protobuf",
    ),
]


@pytest.mark.parametrize(("environment", "message"), UNAVAILABLE)
def test_an_unavailable_exporter_stops_the_start_if_traces_are_switched_on(
    environment: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        open_traces("on", environment)


@pytest.mark.parametrize(("environment", "message"), UNAVAILABLE)
def test_an_unavailable_exporter_of_the_cluster_is_a_warning(
    environment: dict[str, str], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert open_traces("auto", environment) is None
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith(f"traces are off: {message}")


@pytest.mark.parametrize("switch", ["auto", "on"])
def test_of_several_exporters_the_available_ones_are_used(
    switch: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    traces = open_traces(switch, {"OTEL_TRACES_EXPORTER": "otlp, console,zipkin", **GRPC})
    assert traces is not None
    traces.record(ACCESS, BEGUN_NS, [], {})
    traces.close()
    assert '"name": "POST /segment"' in capsys.readouterr().out
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert all(line.endswith("; this exporter is skipped") for line in said)


def test_the_protocol_for_traces_wins_over_the_general_one(caplog: pytest.LogCaptureFixture) -> None:
    own = {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": NOWHERE}
    traces = open_traces("auto", {**own, **GRPC})
    assert traces is not None
    traces.close()
    assert not caplog.records


def test_values_that_the_package_refuses_are_reported_in_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many")  # which the package looks up itself
    assert open_traces("auto", {"OTEL_TRACES_EXPORTER": "otlp"}) is None
    assert "traces are off: OTEL_*: OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT" in caplog.text
    with pytest.raises(SettingsError, match="OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"):
        open_traces("on", {})


PACKAGES = ["opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter"]


@pytest.mark.parametrize("missing", PACKAGES)
def test_missing_packages_stop_the_start_and_say_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SettingsError, match=r"SOLO_TRACES: .* pip install -c constraints\.txt -e '\.\[otel\]'"):
        open_traces("on", {})


@pytest.mark.parametrize("missing", PACKAGES)
def test_missing_packages_are_a_warning_if_only_the_cluster_asks_for_traces(
    missing: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    assert open_traces("auto", {"OTEL_EXPORTER_OTLP_ENDPOINT": NOWHERE}) is None
    assert "traces are off: SOLO_TRACES: " in caplog.text
    assert install_command("otel") in caplog.text


def test_a_wrong_value_of_solo_traces_stops_the_start() -> None:
    with pytest.raises(SettingsError, match="SOLO_TRACES: 'maybe' is none of auto, on, off"):
        Settings.read({"SOLO_TRACES": "maybe"})


def test_spans_reach_a_collector_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        try:
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
            traces = open_traces("auto")
            assert traces is not None
            traces.record(ACCESS, BEGUN_NS, [ImageTrace(BEGUN_NS, "tiny", "ok", [Stage("decode", 1.0)])], {})
            traces.close()
        finally:
            collector.shutdown()
            thread.join()
    ((path, body),) = received
    assert path == "/v1/traces"
    (resource,) = ExportTraceServiceRequest.FromString(body).resource_spans
    assert {span.name for span in resource.scope_spans[0].spans} == {"decode", "POST /segment"}


def test_without_a_collector_requests_are_answered_and_closing_is_quick(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def segment(_: Request) -> Response:
        return Response(b"x")

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", NOWHERE)
    traces = open_traces("auto")
    assert traces is not None
    answer = ask(small_app(RequestTelemetry(make_telemetry().metrics, traces), segment), ("POST", "/segment", {}))[0]
    assert answer.status_code == 200
    start = monotonic()
    traces.close()
    assert monotonic() - start < 5  # where the exporter itself would try for ten seconds
