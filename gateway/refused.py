"""The answer to a request that the server refuses before the application sees it, and what is told of it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from gateway import context as ctx
from gateway import json
from gateway.errors import ErrorCode, GatewayError
from gateway.telemetry.logging import access_log
from gateway.telemetry.metrics import declarations as metrics
from gateway.telemetry.metrics.labels import OTHER

_NO_ROUTE: Final = "none"


def answer(status: HTTPStatus, sentence: str, *, reason: str, address: str | None = None) -> bytes:
    """The whole HTTP answer, with the contract's error body; counted, and logged with its ids.

    Neither phase nor method are known: what was sent is not looked at. ``reason`` names gunicorn's error.
    """
    error = (
        GatewayError(
            ErrorCode.INTERNAL, "The gateway failed; the request's trace id finds it in the log."
        )
        if status is HTTPStatus.INTERNAL_SERVER_ERROR
        else GatewayError(ErrorCode.INVALID_REQUEST, sentence, status=status)
    )
    request_id, trace_id = ctx.new_request_id(), ctx.new_trace_id()
    metrics.CP_REQUESTS.labels(ctx.UNKNOWN_PHASE, _NO_ROUTE, OTHER, str(int(status))).inc()
    metrics.ERRORS.labels(error.error_type, error.code).inc()
    access_log.write(
        route=_NO_ROUTE,
        method=OTHER,
        status=status,
        seconds=None,
        fields={
            "request_id": request_id,
            "trace_id": trace_id,
            "cp_phase": ctx.UNKNOWN_PHASE,
            "error_type": error.error_type,
            "error_code": error.code,
            "reason": reason,
            "client_address": address,
        },
    )
    body = json.dumps(
        error.body({"request_id": request_id, "trace_id": trace_id, "tenant_id": None})
    )
    head = (
        f"HTTP/1.1 {int(status)} {status.phrase}\r\n"
        "Connection: close\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"X-Request-ID: {request_id}\r\n"
        f"X-Trace-ID: {trace_id}\r\n\r\n"
    )
    return head.encode() + body
