"""Discretion: what of a span may leave the process.

A list of what is allowed, applied to every span, whoever made it: OpenTelemetry's instrumentation of Flask records a
request's query, path, host, client address and user agent, and its next version may record more. No attribute, no
exception's message and no name leaves that is not meant to (``docs/TRACES.md``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Link, SpanContext, SpanKind, Status

from gateway.telemetry.logging.redaction import Redactor

ATTRIBUTES: Final[Mapping[str, str]] = {
    # of the contract
    "tenant_id": "The tenant: the principal's, or the message's.",
    "cp_phase": "The checkpoint phase: `cp0` … `cp8` or `unknown`.",
    "subject": "The NATS subject.",
    "durable": "The consumer's name.",
    "redelivery_count": "How often this message was delivered before; 0 at the first time.",
    # of ours
    "request_id": "The request's id.",
    "trace_id": "The id that correlates, where the client named another one than the trace's own.",
    "error_code": "The code in the error's body.",
    "sticky": "What became of the request's session: `hit`, `miss`, `moved` or `unavailable`.",
    "idempotency.replayed": "True: answered with the first outcome of its id; a link leads to the first request.",
    "stream": "The stream of a message that was delivered.",
    "stream_seq": "Its sequence there.",
    # of OpenTelemetry's conventions
    "http.request.method": "A known verb, or `_OTHER`.",
    "http.response.status_code": "The answer's status.",
    "http.route": "The URL rule; absent where no rule fits the path.",
    "url.path": "The URL rule once more: a path may hold ids that callers make up.",
    "url.scheme": "`http` or `https`.",
    "network.protocol.version": "The version of HTTP.",
    "error.type": "The status of a failed request; what went wrong with a message.",
    "messaging.system": "`nats`.",
    "messaging.operation.name": "`request`, `publish` or `consume`.",
    "messaging.operation.type": "`send` or `process`.",
    "messaging.destination.name": "The subject once more.",
    "messaging.consumer.group.name": "The consumer's name once more.",
    "messaging.message.id": "The message's `Nats-Msg-Id`.",
    "messaging.message.body.size": "The size of a delivered message's payload in bytes.",
    "exception.type": "On the event `exception`: the class of an exception that nobody caught.",
}
"""Every attribute that leaves the process, and its meaning."""

_GIVEN: Final = frozenset({"request_id", "messaging.message.id"})
"""Ids that others make up: somebody's e-mail address or key may stand there."""
_REDACTOR: Final = Redactor()
_CODE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,63}")


class Discreet(SpanExporter):
    """Passes spans on without what is not in `ATTRIBUTES`. Works in the exporting thread, not in a request's."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See `SpanExporter`."""
        return self._inner.export([discreet(span) for span in spans])

    def shutdown(self) -> None:
        """See `SpanExporter`."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """See `SpanExporter`."""
        return self._inner.force_flush(timeout_millis)


def discreet(span: ReadableSpan) -> ReadableSpan:
    """A copy that tells only what is allowed."""
    attributes = _allowed(span.attributes)
    name = span.name
    if span.kind is SpanKind.SERVER and "http.request.method" in attributes:
        route = attributes.get("http.route")
        if route is None:  # a path that nobody knows: it would be the name
            attributes.pop("url.path", None)
            method = attributes["http.request.method"]
            name = "HTTP" if method == "_OTHER" else method
        else:
            attributes["url.path"] = route
    return ReadableSpan(
        name=name,
        context=_bare(span.context),
        parent=span.parent,
        resource=span.resource,
        attributes=attributes,
        events=[
            Event(event.name, _allowed(event.attributes), event.timestamp) for event in span.events
        ],
        links=[Link(link.context, _allowed(link.attributes)) for link in span.links],
        kind=span.kind,
        status=_coded(span.status),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _allowed(attributes: Mapping[str, Any] | None) -> dict[str, Any]:
    if not attributes:
        return {}
    # The SDK's own mapping takes a lock for every name that it is asked for; its copy is a plain one.
    given: dict[str, Any] = attributes.copy() if hasattr(attributes, "copy") else dict(attributes)
    return {
        name: _REDACTOR.text(value) if name in _GIVEN and _REDACTOR.concerns(value) else value
        for name, value in given.items()
        if name in ATTRIBUTES
    }


def _bare(context: SpanContext | None) -> SpanContext | None:
    """Without the caller's ``tracestate``, which is passed on but is nobody's business here."""
    if context is None or not context.trace_state:
        return context
    return SpanContext(context.trace_id, context.span_id, context.is_remote, context.trace_flags)


def _coded(status: Status) -> Status:
    """The status; its description only where it is a code: an exception's message may quote a payload."""
    if status.description is None or _CODE.fullmatch(status.description):
        return status
    return Status(status.status_code)
