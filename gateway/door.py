"""The door: what happens around every view, in the order of precedence.

::

    arrive    ids, phase, deadline
    (span)    the Flask instrumentation starts the server span
    enter     the global limit of requests                          429
              the in-flight gate                                    503 overloaded
              unknown path or method                                404 / 405, before any credential is asked for
              authenticate                                          401, 503
              the tenant's limit of requests                        429
              tenant and permission of the principal                403, 503
              headers of the request                                400
    view      body → operation → answer
    answer    X-Request-ID, X-Trace-ID, X-RateLimit-*, metrics, access line
    leave     the gate

Whatever is raised on the way becomes the contract's one error body.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from flask import Flask, Request, Response, current_app, g, request
from flask.globals import request_ctx
from opentelemetry import trace
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from gateway import context as ctx
from gateway import json, server
from gateway.access import required_by
from gateway.admission import Admission
from gateway.context import RequestContext
from gateway.errors import ErrorCode, ErrorType, GatewayError, invalid_request
from gateway.gate import Gate
from gateway.limits import Limits
from gateway.settings import Settings
from gateway.telemetry.logging import access_log
from gateway.telemetry.metrics import declarations as metrics
from gateway.telemetry.tracing import http_spans
from gateway.telemetry.tracing.tracer import Tracing, current_trace_id, trace_id_wanted

_log = logging.getLogger(__name__)

PROBES: Final = frozenset(
    {"operational.livez", "operational.readyz", "operational.health", "operational.metrics_route"}
)
"""Always answered, even when the gate is shut; logged at debug level."""
OPEN_BLUEPRINTS: Final = frozenset({"docs", "operational"})
"""Need no credentials (design, section 6)."""


class Door:
    """Installs itself around an app's views; see the module's docstring."""

    def __init__(
        self,
        settings: Settings,
        admission: Admission,
        tracing: Tracing,
        gate: Gate,
        limits: Limits,
    ) -> None:
        self._settings = settings
        self._admission = admission
        self._tracing = tracing
        self._gate = gate
        self._limits = limits

    def install(self, app: Flask) -> None:
        """Register the hooks; the order of registration is the order of the steps."""
        app.before_request(self._arrive)
        http_spans.install(app, self._tracing)
        app.before_request(self._enter)
        app.after_request(self._answer)
        app.teardown_request(self._leave)
        app.register_error_handler(GatewayError, _error_response)
        app.register_error_handler(HTTPException, _http_error_response)
        app.register_error_handler(Exception, _internal_error_response)

    # -- the steps ----------------------------------------------------------------------------------

    def _arrive(self) -> None:
        now = time.monotonic()
        headers = request.headers
        # Each name behind a proxy of Flask's is looked up anew; a request's hooks ask for dozens.
        notes = g._get_current_object()
        notes.arrived_at = now
        notes.error = None
        notes.inside = False
        notes.replayed = False
        notes.first_span = None
        notes.sticky = None
        notes.limit_headers = {}
        notes.body_is_read = False
        given_trace = headers.get("X-Trace-ID")
        trace_id = ctx.normal_trace_id(given_trace) if given_trace is not None else None
        # Read by the id generator when the span that follows is a root.
        trace_id_wanted.set(trace_id)
        given_request = headers.get("X-Request-ID")
        valid_request = given_request is not None and ctx.ID_PATTERN.fullmatch(given_request)
        timeout_seconds, notes.bad_header = self._timeout(headers.get("X-Request-Timeout-Ms"))
        if given_trace is not None and trace_id is None:
            notes.bad_header = "X-Trace-ID must be 32 hex digits (not all zero) or a UUIDv4"
        if given_request is not None and not valid_request:
            notes.bad_header = (
                "X-Request-ID must be 1 to 128 printable ASCII characters without blanks"
            )
        notes.context = RequestContext(
            request_id=given_request if valid_request and given_request else ctx.new_request_id(),
            trace_id=trace_id or "",
            trace_id_given=trace_id is not None,
            cp_phase=ctx.cp_phase_of(headers.get("X-CP-Phase"), self._settings.default_cp_phase),
            timeout_seconds=timeout_seconds,
            deadline=now + timeout_seconds,
        )

    def _enter(self) -> None:
        notes, asked = g._get_current_object(), request_ctx.request
        context: RequestContext = notes.context
        if not context.trace_id:
            context = context._replace(trace_id=current_trace_id() or ctx.new_trace_id())
            notes.context = context
        if asked.endpoint in PROBES:
            return
        # Before anything can refuse: refused requests are looked for by their phase, too.
        trace.get_current_span().set_attribute("cp_phase", context.cp_phase)
        notes.limit_headers |= self._limits.check_global()
        notes.inside = self._gate.enter()
        if not notes.inside:
            raise GatewayError(
                ErrorCode.OVERLOADED, "This worker is at its limit of requests at work; try again."
            )
        if asked.routing_exception is not None or OPEN_BLUEPRINTS & {*asked.blueprints}:
            return
        self._admit(context, notes, asked)
        if notes.bad_header is not None:
            raise invalid_request(notes.bad_header + ".")

    def _answer(self, response: Response) -> Response:
        notes, asked = g._get_current_object(), request_ctx.request
        context: RequestContext = notes.context
        response.headers["X-Request-ID"] = context.request_id
        response.headers["X-Trace-ID"] = context.trace_id
        response.headers.update(notes.limit_headers)
        if not notes.body_is_read and _may_be_long(asked):
            server.close_after_answer()
        seconds = time.monotonic() - notes.arrived_at
        route = asked.url_rule.rule if asked.url_rule is not None else "none"
        method = metrics.method_label(asked.method)
        status = response.status_code
        metrics.CP_REQUESTS.labels(context.cp_phase, route, method, str(status)).inc()
        metrics.CP_LATENCY.labels(context.cp_phase, route, method).observe(seconds)
        error: GatewayError | None = notes.error
        if error is not None:
            metrics.ERRORS.labels(error.error_type, error.code).inc()
        http_spans.describe(context, error)
        self._log(response, route, method, notes, asked)
        return response

    def _log(self, response: Response, route: str, method: str, notes: Any, asked: Request) -> None:
        context, error, arrived_at = notes.context, notes.error, notes.arrived_at
        fields = {
            "tenant": context.tenant_id,
            "key": context.principal.key_prefix if context.principal else None,
            "request_id": context.request_id,
            "trace_id": context.trace_id,
            "cp_phase": context.cp_phase,
            "sticky": notes.sticky,
            "replayed": notes.replayed,
            "error_type": error and error.error_type,
            "error_code": error and error.code,
            "request_bytes": asked.content_length,
            "response_bytes": response.content_length,
            "client_address": asked.remote_addr if self._settings.log_client_address else None,
        }
        is_probe = asked.endpoint in PROBES

        def write() -> None:
            access_log.write(
                route=route,
                method=method,
                status=response.status_code,
                seconds=time.monotonic() - arrived_at,
                fields=fields,
                is_probe=is_probe,
            )

        if response.mimetype == "text/event-stream":
            # Its line tells how long it was open, or else that it was opened would be all that is ever known.
            response.call_on_close(write)
        else:
            write()

    def _leave(self, _error: BaseException | None) -> None:
        if g.pop("inside", False):
            self._gate.leave()
        trace_id_wanted.set(None)

    # -- their details --------------------------------------------------------------------------------

    def _admit(self, context: RequestContext, notes: Any, asked: Request) -> None:
        required = required_by(current_app.view_functions[asked.endpoint or ""])
        headers, peer = asked.headers, asked.remote_addr or ""
        principal = self._admission.identify(headers, peer, context.deadline, basic=required.basic)
        notes.context = context.of(principal)
        trace.get_current_span().set_attribute("tenant_id", principal.tenant_id)
        notes.limit_headers |= self._limits.check_tenant(principal.tenant_id)
        admitted = self._admission.admit(principal, headers, required.permission, context.deadline)
        notes.context = context.of(admitted)

    def _timeout(self, header: str | None) -> tuple[float, str | None]:
        """The request's time in seconds, and what is wrong with the header if something is."""
        most_ms = self._settings.router_timeout_ms
        if header is None:
            return most_ms / 1000, None
        if not (header.isascii() and header.isdigit() and len(header) <= 9 and int(header) > 0):
            return most_ms / 1000, "X-Request-Timeout-Ms must be a whole number of milliseconds"
        return min(int(header), most_ms) / 1000, None


def _may_be_long(request: Request) -> bool:
    """Whether the request has a body that is, or may be, more than what gunicorn reads away."""
    length = request.content_length or 0
    return length > server.UNREAD_BYTES_MAX or "Transfer-Encoding" in request.headers


def respond(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(json.dumps(body), status, headers, mimetype="application/json")


def _error_response(error: GatewayError) -> Response:
    g.error = error
    context: RequestContext = g.context
    body = error.body({**context.correlation(), "tenant_id": context.tenant_id})
    return respond(body, error.status, error.headers)


_HTTP_CODES: Final = {
    400: ErrorCode.INVALID_REQUEST,
    404: ErrorCode.NOT_FOUND,
    405: ErrorCode.METHOD_NOT_ALLOWED,
    413: ErrorCode.PAYLOAD_TOO_LARGE,
    415: ErrorCode.UNSUPPORTED_MEDIA_TYPE,
}
_SENTENCES: Final = {
    404: "There is nothing at this path.",
    405: "This path does not take that method.",
}


def _http_error_response(error: HTTPException) -> Response:
    """What Flask and Werkzeug raise themselves, in the contract's body."""
    status = error.code or 500
    if status < 400:
        return Response(status=status, headers=error.get_headers(request.environ))
    if status >= 500:
        return _internal_error_response(error)
    headers = {}
    if isinstance(error, MethodNotAllowed) and error.valid_methods:
        headers["Allow"] = ", ".join(sorted(error.valid_methods))
    sentence = _SENTENCES.get(status, "The request cannot be read.")
    # Beside the contract's own there are the likes of 416, of a range in a static file: the client's mistake, too.
    code = _HTTP_CODES.get(status, ErrorCode.INVALID_REQUEST)
    return _error_response(GatewayError(code, sentence, status=status, headers=headers))


def _internal_error_response(error: Exception) -> Response:
    _log.exception("a view failed", exc_info=error)
    return _error_response(
        GatewayError(
            ErrorCode.INTERNAL,
            "The gateway failed; the request's trace id finds it in the log.",
            error_type=ErrorType.INTERNAL_GATEWAY,
        )
    )
