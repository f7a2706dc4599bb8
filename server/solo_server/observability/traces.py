"""OpenTelemetry traces: one span per request, and below it one per stage of each image. Needs the extra `otel`.

Spans are made from measured times after the request has ended: nothing waits for a trace, and a request that is not sampled costs
nothing. The standard `OTEL_*` variables choose exporter, sampler, service name and limits.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from solo_models.install import install_command

from solo_server.errors import SettingsError
from solo_server.observability.logs import Access

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

LOG = logging.getLogger("solo_server")
VARIABLES = ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""`SOLO_TRACES=auto` is on if one of these is set."""
PROTOCOL = "http/protobuf"
CLOSE_SECONDS = 3.0
BEFORE_QUEUE = ("decode", "preprocess")
"""Stages that run first, although `timings_ms` has the queue before them."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of an image, and its time."""

    name: str
    ms: float


@dataclass(frozen=True, slots=True)
class ImageTrace:
    """One image. begun_ns: when it was accepted, in nanoseconds since 1970; model: its name; stages: in order."""

    begun_ns: int
    model: str
    outcome: str
    stages: list[Stage] = field(default_factory=list)


def open_traces(switch: str, environment: Mapping[str, str] | None = None) -> Traces | None:
    """Open traces as the settings say. switch: `on`, `off`, or `auto`: on if an `OTEL_*` variable says where spans go.

    `OTEL_*` variables are often set for a whole cluster. An exporter that is not available is skipped with a warning; if none
    is left, `auto` leaves traces off.

    Raises:
        SettingsError: the switch is `on`, and a package is missing or no exporter is available.
    """
    environment = os.environ if environment is None else environment
    if not _is_enabled(switch, environment):
        return None
    try:
        return Traces(_provider(environment))
    except SettingsError as problem:
        if switch == "on":
            raise
        LOG.warning("traces are off: %s", problem)
        return None


class Traces:
    """Makes the spans of finished requests."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("solo_server")
        self._propagator = TraceContextTextMapPropagator()

    def record(self, access: Access, begun_ns: int, images: Sequence[ImageTrace], carrier: Mapping[str, str]) -> None:
        """Record the spans of one request. carrier: its headers `traceparent` and `tracestate`, whose trace it continues."""
        from opentelemetry.trace import SpanKind, Status, StatusCode

        span = self._tracer.start_span(
            f"{access.method} {access.route}",
            self._propagator.extract(carrier),
            SpanKind.SERVER,
            {
                "http.request.method": access.method,
                "http.route": access.route,
                "http.response.status_code": access.status,
                "http.request.body.size": access.bytes_in,
                "http.response.body.size": access.bytes_out,
                "solo.code": access.code,
                "solo.images": access.images,
                "solo.instances": access.instances,
            },
            start_time=begun_ns,
        )
        if span.is_recording():
            for number, image in enumerate(images):
                self._record_image(span, number, image)
        if access.status >= 500:
            span.set_status(Status(StatusCode.ERROR, access.code))
        span.end(begun_ns + int(access.ms * 1e6))

    def close(self) -> None:
        """Send the remaining spans, for at most three seconds."""
        sending = threading.Thread(target=self._provider.shutdown, name="solo-traces", daemon=True)
        sending.start()
        sending.join(CLOSE_SECONDS)

    def _record_image(self, request: Span, number: int, image: ImageTrace) -> None:
        """Spans of the stages, one directly after another from the image's acceptance: lengths are measured, gaps are not shown."""
        from opentelemetry.trace import set_span_in_context

        parent, at_ns = set_span_in_context(request), image.begun_ns
        for stage in sorted(image.stages, key=lambda stage: stage.name not in BEFORE_QUEUE):
            attributes: dict[str, str | int] = {
                "solo.image": number,
                "solo.model": image.model,
                "solo.outcome": image.outcome,
            }
            span = self._tracer.start_span(stage.name, parent, attributes=attributes, start_time=at_ns)
            at_ns += int(stage.ms * 1e6)
            span.end(at_ns)


def _is_enabled(switch: str, environment: Mapping[str, str]) -> bool:
    is_disabled = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if switch == "off" or is_disabled or environment.get("OTEL_TRACES_EXPORTER") == "none":
        return False
    return switch == "on" or any(environment.get(name) for name in VARIABLES)


def _provider(environment: Mapping[str, str]) -> TracerProvider:
    """A provider with all available exporters. Raises SettingsError: no exporter, a missing package or a bad value."""
    try:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporters = _exporters(environment)
        provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        for exporter in exporters:
            provider.add_span_processor(BatchSpanProcessor(exporter))
    except ImportError as problem:
        raise SettingsError(
            f"SOLO_TRACES: {problem.name} is missing; {install_command('otel')}, or switch traces off: SOLO_TRACES=off"
        ) from problem
    except ValueError as problem:  # the package itself reads further variables, such as limits
        raise SettingsError(f"OTEL_*: {problem}") from problem
    return provider


def _exporters(environment: Mapping[str, str]) -> list[SpanExporter]:
    exporters, problems = [], []
    for kind in (environment.get("OTEL_TRACES_EXPORTER") or "otlp").split(","):
        try:
            exporters.append(_exporter(kind.strip(), environment))
        except SettingsError as problem:
            problems.append(str(problem))
    if not exporters:
        raise SettingsError("; ".join(problems))
    for text in problems:
        LOG.warning("%s; this exporter is skipped", text)
    return exporters


def _exporter(kind: str, environment: Mapping[str, str]) -> SpanExporter:
    if kind == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter(out=sys.stdout)
    if kind != "otlp":
        raise SettingsError(f"OTEL_TRACES_EXPORTER: {kind!r} is none of otlp, console, none")
    names = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    name = next((name for name in names if environment.get(name)), names[0])  # the first wins
    if environment.get(name, "") not in ("", PROTOCOL):
        raise SettingsError(f"{name}: {environment[name]!r} is not supported; use {PROTOCOL} ({names[0]})")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def _resource() -> Resource:
    """From `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`, with a default name."""
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource

    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
        return resource.merge(Resource({SERVICE_NAME: "solo-inference"}))
    return resource
