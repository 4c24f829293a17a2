"""ExecResult, as workers send it (wire contract). Not strict: what workers add is passed on."""

from __future__ import annotations

from typing import Any

from marshmallow import INCLUDE, Schema, ValidationError, fields, validates_schema

from gateway.schemas.base import (
    REQUIRED,
    Number,
    identifier,
    one_of,
    tenant,
    text,
    trace_id,
    version,
    whole,
)


class ResultJob(Schema):
    """What was executed."""

    class Meta:
        unknown = INCLUDE

    type = text(r"[\s\S]{1,128}", "a non-empty string of at most 128 characters", required=True)


class ExecResult(Schema):
    """What became of an assignment."""

    class Meta:
        unknown = INCLUDE

    version = version()
    tenant_id = tenant()
    assignment_id = identifier()
    request_id = identifier()
    status = one_of("success", "error", "timeout", "cancelled")
    provider_id = identifier(required=True)
    job = fields.Nested(ResultJob, required=True, error_messages=REQUIRED)
    latency_ms = Number(least=0, required=True)
    cost = Number(least=0, required=True)
    timestamp = whole(0, 2**53, required=True)
    trace_id = trace_id()
    error_code = fields.String()
    error_message = fields.String()

    @validates_schema
    def check(self, data: dict[str, Any], **_: Any) -> None:
        """It must be clear what it is the result of."""
        if "assignment_id" not in data and "request_id" not in data:
            raise ValidationError("assignment_id or request_id is required", "assignment_id")
