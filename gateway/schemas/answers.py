"""What the gateway answers. These describe; answers are built as plain dicts and compared in tests."""

from __future__ import annotations

from marshmallow import Schema, fields


class Context(Schema):
    """The ids of the request that the answer belongs to."""

    request_id = fields.String(required=True)
    trace_id = fields.String(required=True)


class ErrorContext(Context):
    """With the tenant, once it is known."""

    tenant_id = fields.String(required=True, allow_none=True)


class Error(Schema):
    """What went wrong: a stable code, and a sentence for a person."""

    code = fields.String(required=True, metadata={"example": "invalid_request"})
    message = fields.String(required=True)
    intake_error_code = fields.String(required=True, allow_none=True)
    details = fields.Dict(required=True)


class ErrorAnswer(Schema):
    """The one error body."""

    ok = fields.Boolean(required=True, metadata={"enum": [False]})
    error = fields.Nested(Error, required=True)
    context = fields.Nested(ErrorContext, required=True)


class Decision(Schema):
    """The Router's choice."""

    provider_id = fields.String(required=True, metadata={"example": "openai:gpt-4o"})
    priority = fields.Float()
    expected_latency_ms = fields.Float()
    expected_cost = fields.Float()
    reason = fields.String()
    metadata = fields.Dict()


class DecisionAnswer(Schema):
    """The Router's decision, passed on as it came."""

    ok = fields.Boolean(required=True, metadata={"enum": [True]})
    decision = fields.Nested(Decision, required=True)
    context = fields.Nested(Context, required=True)


class ReceiptAnswer(Schema):
    """The message is stored, once: where, and under which id."""

    ok = fields.Boolean(required=True, metadata={"enum": [True]})
    operation = fields.String(required=True, metadata={"enum": ["assignments", "acks", "usage"]})
    assignment_id = fields.String()
    ack_id = fields.String()
    usage_id = fields.String()
    emitted = fields.Boolean(required=True)
    stream = fields.String(required=True)
    seq = fields.Integer(required=True)
    context = fields.Nested(Context, required=True)


class UsageReceiptAnswer(ReceiptAnswer):
    """As a receipt; ``emitted`` is false when another event is the one that counts, ``duplicate_of`` says which."""

    duplicate_of = fields.String(
        allow_none=True,
        metadata={"description": "The usage_id of the event that counts; `result` for a worker's."},
    )


class BatchError(Schema):
    """Why an event was not taken."""

    code = fields.String(required=True)
    message = fields.String(required=True)
    details = fields.Dict(required=True)


class BatchResult(Schema):
    """What became of one event."""

    usage_id = fields.Raw(required=True, allow_none=True)
    outcome = fields.String(
        required=True,
        metadata={"enum": ["accepted", "duplicate", "conflict", "invalid", "unknown"]},
    )
    seq = fields.Integer()
    replayed = fields.Boolean()
    duplicate_of = fields.String(allow_none=True)
    error = fields.Nested(BatchError)


class BatchSummary(Schema):
    """How many of each outcome."""

    accepted = fields.Integer(required=True)
    duplicate = fields.Integer(required=True)
    conflict = fields.Integer(required=True)
    invalid = fields.Integer(required=True)
    # The attribute `unknown` is marshmallow's own.
    unknown_ = fields.Integer(required=True, data_key="unknown")


class BatchAnswer(Schema):
    """One outcome an event, in the order given."""

    ok = fields.Boolean(required=True, metadata={"enum": [True]})
    results = fields.List(fields.Nested(BatchResult), required=True)
    summary = fields.Nested(BatchSummary, required=True)
    context = fields.Nested(Context, required=True)


class ResultAnswer(Schema):
    """A worker's result."""

    ok = fields.Boolean(required=True, metadata={"enum": [True]})
    result = fields.Dict(required=True)
    context = fields.Nested(Context, required=True)


class FirstCall(Context):
    """The ids of the call that came first, and when."""

    at = fields.String(metadata={"format": "date-time"})


class StoredOutcome(Schema):
    """The answer that is replayed."""

    status = fields.Integer(required=True)
    body = fields.Dict(required=True)


class OperationAnswer(Schema):
    """What is known of an id."""

    ok = fields.Boolean(required=True, metadata={"enum": [True]})
    operation = fields.String(required=True)
    assignment_id = fields.String()
    ack_id = fields.String()
    usage_id = fields.String()
    state = fields.String(required=True, metadata={"enum": ["in_progress", "done", "claimed"]})
    first_call = fields.Nested(FirstCall, required=True)
    expires_in_seconds = fields.Integer()
    outcome = fields.Nested(StoredOutcome)
    context = fields.Nested(Context, required=True)


class HealthAnswer(Schema):
    """For older clients."""

    status = fields.String(required=True, metadata={"enum": ["ok"]})
    service = fields.String(required=True, metadata={"enum": ["beamline-gateway"]})


class StatusAnswer(Schema):
    """What the status page shows. For people and their scripts: fields are added as there is more to tell."""

    ok = fields.Boolean(required=True, metadata={"enum": [True]})
    status = fields.Dict(keys=fields.String(), required=True)
    context = fields.Nested(Context, required=True)


class LivezAnswer(Schema):
    """Whether this worker's process and its loop live."""

    status = fields.String(required=True, metadata={"enum": ["ok", "failed"]})


class ReadyzAnswer(Schema):
    """Whether requests can succeed now; ``missing`` says what lacks, ``findings`` what the audit saw."""

    status = fields.String(required=True, metadata={"enum": ["ready", "not_ready"]})
    missing = fields.List(fields.String(), required=True)
    findings = fields.List(fields.String(), required=True)
