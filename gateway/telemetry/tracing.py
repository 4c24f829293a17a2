"""Traces: one provider a worker, the server span by the Flask instrumentation, NATS spans by the bridge's observer.

W3C ``traceparent`` comes in by HTTP and goes out in every NATS message. Where no collector is configured nothing is
recorded, and ids are still made and passed on. An exporter whose collector is down loses spans, never requests: it
works in its own thread, gives up on a batch after a second and is shut down within a bound.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Literal

from flask import Flask
from opentelemetry import trace
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from bridge import BridgeError
from gateway.settings import Settings
from gateway.telemetry import metrics

_EXPORT_TIMEOUT_SECONDS = 1
_UNTRACED = r"^\w+://[^/?#]*/(?:livez|readyz|_?health|metrics)(?:\?|$)"
"""The probes' URLs. The instrumentation searches for it: unanchored, any query or host could switch tracing off."""
_MESSAGING_SYSTEM = "nats"

trace_id_wanted: ContextVar[str | None] = ContextVar("trace_id_wanted", default=None)
"""The trace id that a root span shall get: a client's ``X-Trace-ID`` without a ``traceparent``."""


class _GivenIdGenerator(RandomIdGenerator):
    """Makes the trace of a request with ``X-Trace-ID`` the trace of that id.

    Better than a made-up parent: the root span is a root, and the sampler decides as for any other.
    """

    def generate_trace_id(self) -> int:
        wanted = trace_id_wanted.get()
        return int(wanted, 16) if wanted else super().generate_trace_id()


class Tracing:
    """The tracer provider of this process. Made after the fork; `shutdown` before it ends."""

    def __init__(self, settings: Settings, exporter: SpanExporter | None = None) -> None:
        exporter = exporter or _exporter(settings)
        self.provider = TracerProvider(
            # Without a collector nothing is recorded; otherwise OTEL_TRACES_SAMPLER decides.
            sampler=None if exporter else ALWAYS_OFF,
            resource=Resource.create(
                {SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME", "beamline-gateway")}
            ),
            id_generator=_GivenIdGenerator(),
            shutdown_on_exit=False,
        )
        if exporter is not None:
            self.provider.add_span_processor(BatchSpanProcessor(exporter))
        self.tracer = self.provider.get_tracer("beamline.gateway")

    def instrument(self, app: Flask) -> None:
        """Give every request of ``app`` but the probes a server span."""
        os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
        FlaskInstrumentor().instrument_app(  # type: ignore[no-untyped-call]
            app,
            tracer_provider=self.provider,
            meter_provider=NoOpMeterProvider(),
            excluded_urls=_UNTRACED,
            enable_commenter=False,
        )

    def shutdown(self, timeout_seconds: float) -> None:
        """Flush and stop. With the collector down the SDK would block for half a minute, so it is left behind
        in a daemon thread after ``timeout_seconds``."""
        stopping = threading.Thread(target=self.provider.shutdown, daemon=True)
        stopping.start()
        stopping.join(timeout_seconds)


class NatsTelemetry:
    """Observer of the bridge: a span and a count for every message that leaves, ``traceparent`` in its headers."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracer = tracing.tracer
        self._propagator = TraceContextTextMapPropagator()

    @contextlib.contextmanager
    def sending(
        self, operation: Literal["request", "publish"], subject: str, headers: dict[str, str]
    ) -> Iterator[None]:
        """See `bridge.Observer`."""
        counter = metrics.NATS_PUBLISHES if operation == "publish" else metrics.NATS_REQUESTS
        with self._tracer.start_as_current_span(
            f"nats.{operation}",
            kind=SpanKind.PRODUCER if operation == "publish" else SpanKind.CLIENT,
            attributes=_attributes(operation, subject, headers),
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            self._propagator.inject(headers)
            try:
                yield
            except BridgeError as error:
                outcome = outcome_of(error)
                span.set_status(StatusCode.ERROR, outcome)
                span.set_attribute("error.type", outcome)
                counter.labels(subject, outcome).inc()
                raise
            counter.labels(subject, "ok").inc()


def outcome_of(error: BridgeError) -> str:
    """The label of an error of the bridge: its class in snake case."""
    return {
        "NotSent": "not_sent",
        "Unknown": "unknown",
        "Refused": "refused",
        "Closed": "closed",
    }.get(type(error).__name__, "unknown")


def current_trace_id() -> str | None:
    """The trace id of the span at work, 32 hex digits; None outside of any."""
    context = trace.get_current_span().get_span_context()
    return format(context.trace_id, "032x") if context.is_valid else None


def _attributes(operation: str, subject: str, headers: dict[str, str]) -> dict[str, str]:
    attributes = {
        "subject": subject,
        "messaging.system": _MESSAGING_SYSTEM,
        "messaging.destination.name": subject,
        "messaging.operation.name": operation,
        "messaging.operation.type": "send",
    }
    for name in ("tenant_id", "cp_phase"):
        if name in headers:
            attributes[name] = headers[name]
    return attributes


def _exporter(settings: Settings) -> SpanExporter | None:
    """The OTLP exporter that the standard variables describe: HTTP by default, gRPC if asked for."""
    if settings.otlp_endpoint is None:
        return None
    # The exporters read the variable themselves; it may have come by its alias, beside an empty one.
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = settings.otlp_endpoint
    protocol = os.environ.get(
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
    )
    # Imported here: each of them costs a worker some megabytes.
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
            OTLPSpanExporter as GrpcExporter,
        )

        return GrpcExporter(timeout=_EXPORT_TIMEOUT_SECONDS)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
        OTLPSpanExporter as HttpExporter,
    )

    return HttpExporter(timeout=_EXPORT_TIMEOUT_SECONDS)
