"""Traces: the tracer of this process, what its trace ids are, and its end.

Each process makes its own, after the fork. Where a collector is configured, OpenTelemetry's SDK records and a thread
of its own exports (`recording`): a collector that is down, or hangs, costs spans, never requests. Where none is,
nothing is recorded and the SDK is not even imported; trace ids are still made, and a caller's trace context is passed
on as it came, so that whoever records behind the gateway continues the caller's trace.
"""

from __future__ import annotations

import random
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext

from gateway.telemetry.tracing.settings import TracingSettings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter

_SCOPE: Final = "beamline.gateway"

trace_id_wanted: ContextVar[str | None] = ContextVar("trace_id_wanted", default=None)
"""The trace id that a root span shall get: one that a client or a message names without a ``traceparent``."""


class Tracing:
    """The tracer of this process. Made after the fork; `shutdown` before it ends.

    ``provider`` is OpenTelemetry's; None where nothing is recorded. ``service`` is the name of who sends the spans;
    None: what the environment says, or the gateway's. ``exporter`` takes the place of the one that the settings
    describe.
    """

    def __init__(
        self,
        settings: TracingSettings,
        exporter: SpanExporter | None = None,
        *,
        service: str | None = None,
    ) -> None:
        self.provider: TracerProvider | None = None
        self.tracer: trace.Tracer = _PassingTracer()
        if exporter is not None or settings.traces_url is not None:
            from gateway.telemetry.tracing.recording import recording_provider

            self.provider = recording_provider(settings, exporter, service)
            self.tracer = self.provider.get_tracer(_SCOPE)

    def shutdown(self, timeout_seconds: float) -> None:
        """Send what is recorded and stop, within the bound: with the collector down the SDK would take half a minute,
        so it is left behind in a daemon thread."""
        if self.provider is None:
            return
        stopping = threading.Thread(target=self.provider.shutdown, daemon=True)
        stopping.start()
        stopping.join(timeout_seconds)


def current_trace_id() -> str | None:
    """The trace id of the span at work, 32 hex digits; None outside of any."""
    context = trace.get_current_span().get_span_context()
    return format(context.trace_id, "032x") if context.is_valid else None


def recorded_span() -> str | None:
    """The span at work, to be linked to later: ``<trace id>-<span id>`` in hex; None where it is not recorded."""
    span = trace.get_current_span()
    if not span.is_recording():
        return None
    context = span.get_span_context()
    return f"{context.trace_id:032x}-{context.span_id:016x}"


def link_to(span: str) -> None:
    """Link the span at work to another one, in the form of `recorded_span`; what is no such form is left out."""
    trace_id, _, span_id = span.partition("-")
    try:
        context = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True)
    except ValueError:
        return
    trace.get_current_span().add_link(context)


class _PassingTracer(trace.NoOpTracer):
    """Records nothing: each span is its parent once more, or the root of a trace that nobody records."""

    def start_span(self, name: str, context: Context | None = None, *_: Any, **__: Any) -> Span:
        """See `opentelemetry.trace.Tracer`."""
        parent = trace.get_current_span(context).get_span_context()
        return NonRecordingSpan(parent if parent.is_valid else _root())


def _root() -> SpanContext:
    wanted = trace_id_wanted.get()
    return SpanContext(int(wanted, 16) if wanted else _id(128), _id(64), is_remote=False)


def _id(bits: int) -> int:
    """Random, and not 0, which would be no id."""
    return random.getrandbits(bits) or 1
