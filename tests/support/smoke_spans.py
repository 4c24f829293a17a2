"""Spans as a gateway would send them, by OpenTelemetry's own SDK and exporters, with one thing wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Attributes = dict[str, Any]
_ROUTES: Final = {
    "/api/v1/usage": ("nats.publish",),
    "/api/v1/routes/decide": ("nats.request",),
    "/api/v1/assignments": ("nats.publish", "nats.consume"),
}


@dataclass
class Told:
    """A span before it is recorded; a script may change it, or return None for none."""

    name: str
    attributes: Attributes
    detached: bool = False
    """In the trace, and not below the request's span."""


def _as_it_is(told: Told) -> Told | None:
    return told


@dataclass(frozen=True)
class SpanScript:
    """What is wrong with the spans. ``follows``: whether the caller's trace is continued."""

    change: Callable[[Told], Told | None] = _as_it_is
    follows: bool = True
    loses_first: bool = False
    """The first trace of each route is lost on its way, as a batch is while a collector comes back."""


class ScriptedSpans:
    """Records the spans of requests and sends each at once; a context manager."""

    def __init__(self, exporter: SpanExporter, script: SpanScript) -> None:
        self._script = script
        self._seen: set[str] = set()
        self._provider = TracerProvider(shutdown_on_exit=False)
        self._provider.add_span_processor(SimpleSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("scripted")

    def record(
        self, route: str, traceparent: str, *, tenant: str, cp_phase: str, subject: str
    ) -> None:
        """The spans of one request."""
        first = route not in self._seen
        self._seen.add(route)
        if first and self._script.loses_first:
            return
        everywhere: Attributes = {"tenant_id": tenant, "cp_phase": cp_phase}
        carrier = {"traceparent": traceparent} if self._script.follows else {}
        caller = TraceContextTextMapPropagator().extract(carrier)
        server = self._script.change(
            Told(
                f"POST {route}",
                {**everywhere, "http.route": route, "http.response.status_code": 202},
            )
        )
        if server is None:
            below = caller
        else:
            span = self._tracer.start_span(
                server.name, caller, kind=SpanKind.SERVER, attributes=server.attributes
            )
            span.end()
            below = trace.set_span_in_context(span)
        for name in _ROUTES[route]:
            attributes = {**everywhere, "subject": subject}
            if name == "nats.consume":
                attributes |= {"durable": "gateway-results", "redelivery_count": 0}
            told = self._script.change(Told(name, attributes))
            if told is not None:
                context = caller if told.detached else below
                self._tracer.start_span(told.name, context, attributes=told.attributes).end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._provider.shutdown()
