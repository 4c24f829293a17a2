"""ExecAssignment and ExecAssignmentAck (wire contract)."""

from __future__ import annotations

from typing import Any

from marshmallow import ValidationError, fields, validates_schema

from gateway.schemas.base import (
    REQUIRED,
    Strict,
    free_object,
    identifier,
    one_of,
    tenant,
    text,
    trace_id,
    version,
    whole,
)

_OBJECT: dict[str, Any] = {**REQUIRED, "type": "must be a JSON object"}
_DAY_MS = 24 * 3600 * 1000


class Executor(Strict):
    """Who executes, and how it is reached."""

    provider_id = identifier(required=True, example="openai:gpt-4o")
    channel = one_of("nats", "grpc")
    endpoint = text(r"[\s\S]{1,2048}", "a non-empty string of at most 2048 characters")


class Job(Strict):
    """What is executed: its type and its input, in place or by reference."""

    type = text(
        r"[\s\S]{1,128}",
        "a non-empty string of at most 128 characters",
        required=True,
        example="chat",
    )
    payload = free_object(example={"text": "hello there"})
    payload_ref = text(r"[\s\S]{1,2048}", "a non-empty string of at most 2048 characters")

    @validates_schema
    def check(self, data: dict[str, Any], **_: Any) -> None:
        """Exactly one input."""
        if ("payload" in data) == ("payload_ref" in data):
            raise ValidationError("either payload or payload_ref is required, not both", "payload")


class Retry(Strict):
    """How the executor retries."""

    max_attempts = whole(0, 100)
    backoff_ms = whole(0, _DAY_MS)


class Options(Strict):
    """How urgent it is and how long it may take."""

    priority = whole(0, 100, example=50)
    deadline_ms = whole(0, 7 * _DAY_MS, example=5000)
    retry = fields.Nested(Retry, error_messages=_OBJECT)


class Correlation(Strict):
    """The trace that this belongs to."""

    trace_id = trace_id()


class ExecAssignment(Strict):
    """A job for a provider. ``assignment_id`` makes it idempotent; it may be the header
    ``Idempotency-Key`` instead."""

    version = version()
    tenant_id = tenant()
    assignment_id = identifier(example="a-1")
    request_id = identifier()
    executor = fields.Nested(Executor, required=True, error_messages=_OBJECT)
    job = fields.Nested(Job, required=True, error_messages=_OBJECT)
    options = fields.Nested(Options, error_messages=_OBJECT)
    correlation = fields.Nested(Correlation, error_messages=_OBJECT)
    decision = free_object()
    metadata = free_object()


class ExecAssignmentAck(Strict):
    """A worker's yes or no to an assignment. ``ack_id`` makes it idempotent; it may be the header
    ``Idempotency-Key`` instead."""

    version = version()
    tenant_id = tenant()
    ack_id = identifier(example="k-1")
    assignment_id = identifier(required=True, example="a-1")
    status = one_of("accepted", "rejected")
    reason = text(r"[\s\S]{0,1024}", "a string of at most 1024 characters")
    correlation = fields.Nested(Correlation, error_messages=_OBJECT)
    metadata = free_object()
