"""NATS spans: one for every message that leaves and every delivery that comes in, trace context on the wire.

``traceparent`` goes out with every message; a delivery's span is a child of the span that sent it, so that one trace
holds the request, the assignment, the worker's result and the usage event. A message that names a trace only by the
header ``trace_id`` gets a root span in that trace.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Final, Literal

from opentelemetry.trace import (
    Span,
    SpanKind,
    StatusCode,
    get_current_span,
    set_span_in_context,
    use_span,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from bridge import BridgeError, Closed, Delivery, NotSent, Refused, Reject, Tell, Turn
from gateway.context import UNKNOWN_PHASE, cp_phase_of, normal_trace_id
from gateway.names import TENANT_PATTERN
from gateway.telemetry.tracing.tracer import Tracing, trace_id_wanted

_SYSTEM: Final = "nats"
_MSG_ID: Final = re.compile(r"[!-~]{1,256}")
_HARMLESS: Final = frozenset({"waited", "given_back"})
"""Turns after which a delivery may still end well."""


class NatsSpans:
    """Makes the spans that `bridge.Observer` asks for."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracer = tracing.tracer
        self._propagator = TraceContextTextMapPropagator()

    def sending(
        self, operation: Literal["request", "publish"], subject: str, headers: dict[str, str]
    ) -> AbstractContextManager[None]:
        """See `bridge.Observer`; begins at once."""
        kind = SpanKind.CLIENT if operation == "request" else SpanKind.PRODUCER
        span = self._tracer.start_span(f"nats.{operation}", kind=kind)
        if span.is_recording():
            span.set_attributes(_sent(operation, subject, headers))
        self._propagator.inject(headers, set_span_in_context(span))
        return _Sending(span)

    @contextlib.contextmanager
    def consuming(self, durable: str, delivery: Delivery) -> Iterator[Tell]:
        """See `bridge.Observer`."""
        headers = {name.lower(): value for name, value in delivery.headers.items()}
        sender = self._propagator.extract(headers)
        named = trace_id_wanted.set(normal_trace_id(headers.get("trace_id", "")))
        span = self._tracer.start_span("nats.consume", sender, kind=SpanKind.CONSUMER)
        trace_id_wanted.reset(named)
        with use_span(
            span, end_on_exit=True, record_exception=False, set_status_on_exception=False
        ):
            if span.is_recording():
                span.set_attributes(_delivered(durable, delivery, headers))

            def tell(turn: Turn, why: BaseException) -> None:
                if isinstance(why, asyncio.CancelledError):
                    span.add_event(turn)
                    return
                error_type = outcome_of(why)
                span.add_event(turn, {"error.type": error_type})
                if turn not in _HARMLESS:
                    _fail(span, error_type)

            yield tell


class _Sending(AbstractContextManager[None]):
    """Ends the span of a message with its outcome."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, BridgeError | asyncio.CancelledError):
            _fail(self._span, outcome_of(error))
        self._span.end()


def outcome_of(error: BaseException) -> str:
    """What went wrong, in a word: the bridge's errors as the metrics have them, a refusal's code, else the class."""
    if isinstance(error, Reject):
        return error.code
    if isinstance(error, BridgeError | asyncio.CancelledError):
        # By kind, not by name: a full stream is a kind of NotSent.
        return next((name for kind, name in _OUTCOMES if isinstance(error, kind)), "unknown")
    return type(error).__name__


_OUTCOMES: Final = ((NotSent, "not_sent"), (Refused, "refused"), (Closed, "closed"))


def name_tenant(tenant_id: str) -> None:
    """Say whose the delivery at work is, where its headers do not."""
    get_current_span().set_attribute("tenant_id", tenant_id)


def _fail(span: Span, error_type: str) -> None:
    span.set_status(StatusCode.ERROR, error_type)
    span.set_attribute("error.type", error_type)


def _sent(operation: str, subject: str, headers: Mapping[str, str]) -> dict[str, Any]:
    attributes = {
        "subject": subject,
        "cp_phase": headers.get("cp_phase", UNKNOWN_PHASE),
        "messaging.system": _SYSTEM,
        "messaging.destination.name": subject,
        "messaging.operation.name": operation,
        "messaging.operation.type": "send",
    }
    if "tenant_id" in headers:
        attributes["tenant_id"] = headers["tenant_id"]
    if "Nats-Msg-Id" in headers:
        attributes["messaging.message.id"] = headers["Nats-Msg-Id"]
    return attributes


def _delivered(durable: str, delivery: Delivery, headers: Mapping[str, str]) -> dict[str, Any]:
    """What others have sent is looked at first: it ends in attributes."""
    attributes = {
        "subject": delivery.subject,
        "cp_phase": cp_phase_of(headers.get("cp_phase"), UNKNOWN_PHASE),
        "durable": durable,
        "redelivery_count": delivery.num_delivered - 1,
        "stream": delivery.stream,
        "stream_seq": delivery.stream_seq,
        "messaging.system": _SYSTEM,
        "messaging.destination.name": delivery.subject,
        "messaging.operation.name": "consume",
        "messaging.operation.type": "process",
        "messaging.consumer.group.name": durable,
        "messaging.message.body.size": len(delivery.payload),
    }
    tenant_id, msg_id = headers.get("tenant_id", ""), headers.get("nats-msg-id", "")
    if TENANT_PATTERN.fullmatch(tenant_id):
        attributes["tenant_id"] = tenant_id
    if _MSG_ID.fullmatch(msg_id):
        attributes["messaging.message.id"] = msg_id
    return attributes
