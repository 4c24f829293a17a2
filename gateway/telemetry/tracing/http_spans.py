"""Server spans: OpenTelemetry's instrumentation of Flask, and what the gateway adds to its span.

Probes have none. Where nothing is recorded the instrumentation is left out, for it costs a request about 0.1 ms, and so
it is for the requests that the sampler drops; the caller's trace context is continued all the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable
from contextvars import Token
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from flask import Flask, Request, g, request
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util import types

from gateway.context import RequestContext, normal_trace_id
from gateway.errors import GatewayError
from gateway.telemetry.tracing.tracer import Tracing, current_trace_id, link_to, trace_id_wanted

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_DROPPED: Final = "dropped"
"""What the instrumentation takes for the URL of a request that the sampler dropped. No path: it has no slash."""
_PASSED_ON: Final = "beamline.passed_on"
"""In the WSGI environment of such a request: the context that it is answered in."""
_TRACE_ID: Final = "beamline.trace_id"
"""In that of another one: the trace id that the sampler was asked with."""
_UNTRACED: Final = rf"^(?:{_DROPPED}|/(?:livez|readyz|_?health|metrics))$"
"""Those and the probes' paths. The instrumentation searches for it: unanchored, any path could switch tracing off."""


def install(app: Flask, tracing: Tracing) -> None:
    """Give every request of ``app`` but the probes a server span, from the hooks registered before on."""
    if tracing.provider is None:
        _Passing(tracing.tracer).install(app)
        return
    # They read the environment when they are imported: not before it has been looked at.
    from opentelemetry.instrumentation.flask import FlaskInstrumentor
    from opentelemetry.instrumentation.wsgi import wsgi_getter
    from opentelemetry.metrics import NoOpMeterProvider
    from opentelemetry.propagate import extract
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON, DEFAULT_ON

    from gateway.telemetry.tracing.discretion import ATTRIBUTES

    app.request_class = _TracedRequest
    # Of those that drop next to none the question costs more than it saves.
    sampling = None
    if tracing.provider.sampler not in (ALWAYS_ON, DEFAULT_ON):
        sampling = _Sampling(tracing.tracer, partial(extract, getter=wsgi_getter), app)
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    FlaskInstrumentor().instrument_app(  # type: ignore[no-untyped-call]
        app,
        tracer_provider=_Sparing(tracing.provider, ATTRIBUTES),
        meter_provider=NoOpMeterProvider(),
        excluded_urls=_UNTRACED,
        enable_commenter=False,
    )
    if sampling is not None:
        sampling.lead_past(app)


def describe(context: RequestContext, error: GatewayError | None) -> None:
    """Add what the request's end knows of it to its span: its ids, and the notes in ``g``."""
    span = trace.get_current_span()
    if not span.is_recording():
        return
    span.set_attribute("request_id", context.request_id)
    if context.trace_id != current_trace_id():
        span.set_attribute("trace_id", context.trace_id)
    if error is not None:
        span.set_attribute("error_code", error.code)
    if g.sticky is not None:
        span.set_attribute("sticky", g.sticky)
    if g.replayed:
        span.set_attribute("idempotency.replayed", True)
        if g.first_span is not None:
            link_to(g.first_span)


class _Sparing(trace.TracerProvider):
    """Has the instrumentation record what may leave (`gateway.telemetry.tracing.discretion`), and that once.

    It sets every attribute that it finds twice, when the span starts and again, each time under the span's lock; and
    most of them (addresses, ports, the user agent) are left out when the span is sent.
    """

    def __init__(self, provider: trace.TracerProvider, kept: Container[str]) -> None:
        self._provider = provider
        self._kept = kept

    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        """See `opentelemetry.trace.TracerProvider`."""
        return _SparingTracer(self._provider.get_tracer(*args, **kwargs), self._kept)


class _SparingTracer(trace.NoOpTracer):
    def __init__(self, tracer: trace.Tracer, kept: Container[str]) -> None:
        self._tracer = tracer
        self._kept = kept

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: trace.SpanKind = trace.SpanKind.INTERNAL,
        attributes: types.Attributes = None,
        *args: Any,
        **kwargs: Any,
    ) -> trace.Span:
        """See `opentelemetry.trace.Tracer`. Takes ``attributes`` from the caller, who would set them again."""
        kept = {key: value for key, value in (attributes or {}).items() if key in self._kept}
        if isinstance(attributes, dict):
            attributes.clear()
        return self._tracer.start_span(name, context, kind, kept, *args, **kwargs)


class _TracedRequest(Request):
    """Its `url` is the path alone. The instrumentation alone asks for it, to leave out probes, at every request; to put
    together what a client thinks that it called costs more than the rest of the span.

    And it has a `response`, for which the instrumentation looks, too, in vain.
    """

    response = None

    @property
    def url(self) -> str:
        """The path."""
        return _DROPPED if _PASSED_ON in self.environ else self.path


class _Passing:
    """Makes the caller's trace, or a new one, that of the request."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        self._propagator = TraceContextTextMapPropagator()

    def install(self, app: Flask) -> None:
        app.before_request(self._enter)
        app.teardown_request(_detach)

    def _enter(self) -> None:
        caller = self._propagator.extract(request.headers)
        span = self._tracer.start_span("", caller)
        _attach(trace.set_span_in_context(span, caller))


class _Sampling:
    """Asks the sampler before the instrumentation does its work, and leads past it what is dropped."""

    def __init__(
        self, tracer: trace.Tracer, extract: Callable[[WSGIEnvironment], Context], app: Flask
    ) -> None:
        self._tracer = tracer
        self._extract = extract
        self._past = app.wsgi_app
        app.before_request(self._enter)
        app.teardown_request(_detach)

    def lead_past(self, app: Flask) -> None:
        """Call it when the app has the instrumentation."""
        self._through = app.wsgi_app
        app.wsgi_app = self._choose  # type: ignore[method-assign]

    def _choose(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        trace_id_wanted.set(normal_trace_id(environ.get("HTTP_X_TRACE_ID", "")))
        caller = self._extract(environ)
        span = self._tracer.start_span("", caller, trace.SpanKind.SERVER)
        if not span.is_recording():
            environ[_PASSED_ON] = trace.set_span_in_context(span, caller)
            return self._past(environ, start_response)
        # Never ended, so never sent. The instrumentation's gets its trace, and with it the sampler's decision.
        environ[_TRACE_ID] = f"{span.get_span_context().trace_id:032x}"
        return self._through(environ, start_response)

    @staticmethod
    def _enter() -> None:
        passed_on = request.environ.get(_PASSED_ON)
        if passed_on is None:
            trace_id_wanted.set(request.environ[_TRACE_ID])
        else:
            _attach(passed_on)


def _attach(context: Context) -> None:
    g.trace_token = otel_context.attach(context)


def _detach(_error: BaseException | None) -> None:
    token: Token[Context] | None = g.pop("trace_token", None)
    if token is not None:
        otel_context.detach(token)
