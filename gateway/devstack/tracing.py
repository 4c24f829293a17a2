"""Traces of the devstack's own services: where a collector is set, they continue the gateway's.

The variables are the gateway's (``OTEL_EXPORTER_OTLP_ENDPOINT``, …) but for the service's name, which is its own. The
services themselves use OpenTelemetry's API only, which does nothing where no collector is set.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Final

from opentelemetry import trace
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from bridge import Message, Observer
from gateway.environment import declared, parse
from gateway.telemetry.tracing.settings import TracingSettings, forget_empty

if TYPE_CHECKING:
    from gateway.telemetry.tracing.tracer import Tracing

_SHUTDOWN_SECONDS: Final = 1.5
_ATTRIBUTES: Final = ("tenant_id", "cp_phase")
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_log = logging.getLogger(__name__)


class ServiceTracing:
    """The traces of one service. ``observer`` is for its bridge; None where nothing is recorded."""

    def __init__(self, name: str, environ: MutableMapping[str, str]) -> None:
        self.observer: Observer | None = None
        self._tracing: Tracing | None = None
        forget_empty(environ)
        values, problems = parse(tuple(declared(TracingSettings)), environ)
        for problem in problems.values():
            _log.warning("%s; no traces", problem)
        settings = TracingSettings(**values)
        if problems or settings.traces_url is None:
            return
        # Only now: without a collector there is nothing to import.
        from gateway.telemetry.tracing.nats_spans import NatsSpans
        from gateway.telemetry.tracing.tracer import Tracing

        self._tracing = Tracing(settings, service=name)
        assert self._tracing.provider is not None
        trace.set_tracer_provider(self._tracing.provider)
        self.observer = NatsSpans(self._tracing)

    def close(self) -> None:
        """Send what is recorded, within a bound."""
        if self._tracing is not None:
            self._tracing.shutdown(_SHUTDOWN_SECONDS)


@contextlib.contextmanager
def handling(name: str, message: Message, kind: SpanKind) -> Iterator[None]:
    """A span around what is done about ``message``, in the trace of whoever sent it."""
    tracer = trace.get_tracer("beamline.devstack")
    with tracer.start_as_current_span(name, _PROPAGATOR.extract(message.headers), kind) as span:
        if span.is_recording():
            known = {key: message.headers[key] for key in _ATTRIBUTES if key in message.headers}
            span.set_attributes({"subject": message.subject, **known})
        yield


def continued(headers: Mapping[str, str]) -> dict[str, str]:
    """``headers`` with the trace context of the span at work, where it is recorded."""
    own = dict(headers)
    if trace.get_current_span().is_recording():
        _PROPAGATOR.inject(own)
    return own
