"""Correlation: which request or message a line of the log belongs to.

Asked where the line is written: on the request's own thread, and on the loop, where its context goes along with what it
does there. What is written for a message of a worker's has the trace id of the span that handles it.
"""

from __future__ import annotations

from flask import g, has_app_context
from opentelemetry import trace
from structlog.typing import EventDict, WrappedLogger


def add_correlation(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Add ``trace_id`` and ``request_id`` where they are known and not named already."""
    if "trace_id" in event:
        return event
    if has_app_context() and (context := g.get("context")) is not None:
        event["trace_id"] = context.trace_id
        event["request_id"] = context.request_id
        return event
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        event["trace_id"] = format(span.trace_id, "032x")
    return event
