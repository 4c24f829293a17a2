"""UsageEvent (wire contract)."""

from __future__ import annotations

from typing import Any, Final

from marshmallow import ValidationError, fields, validate, validates_schema

from gateway.schemas.base import (
    REQUIRED,
    Number,
    Strict,
    identifier,
    one_of,
    tenant,
    text,
    trace_id,
    version,
    whole,
)

COST_PLACES: Final = 9


class UsageEvent(Strict):
    """What a task has cost. ``usage_id`` makes it idempotent; ``assignment_id`` or ``request_id`` says what
    is metered, and that is metered once."""

    version = version()
    tenant_id = tenant()
    usage_id = identifier(example="u-1")
    provider_id = identifier(required=True, example="openai:gpt-4o")
    event_type = text(
        r"[\s\S]{1,128}",
        "a non-empty string of at most 128 characters",
        required=True,
        example="chat",
    )
    latency_ms = Number(least=0, required=True, metadata={"example": 850})
    cost = Number(least=0, places=COST_PLACES, required=True, metadata={"example": 0.012})
    status = one_of("success", "error", "timeout", "cancelled")
    timestamp = whole(0, 2**53, required=True, example=1767225600000)
    assignment_id = identifier(example="a-1")
    request_id = identifier()
    trace_id = trace_id()

    @validates_schema
    def check(self, data: dict[str, Any], **_: Any) -> None:
        """It must be clear what was used."""
        if "assignment_id" not in data and "request_id" not in data:
            raise ValidationError("assignment_id or request_id is required", "assignment_id")


MAX_EVENTS: Final = 1_000


class UsageBatch(Strict):
    """Many usage events. They are validated one by one: a bad one does not spoil the others."""

    events = fields.List(
        fields.Raw(required=True, allow_none=True),
        required=True,
        validate=validate.Length(1, MAX_EVENTS, error=f"must hold 1 to {MAX_EVENTS} events"),
        error_messages={**REQUIRED, "invalid": "must be a list of events"},
    )
