"""DecideRequest in both dialects (wire contract, "DecideRequest").

Both end as the same normalised dict; which one the client spoke is not visible behind the schema.
"""

from __future__ import annotations

from typing import Any, Final

import orjson
from marshmallow import ValidationError, fields, pre_load, validates_schema

from gateway.schemas.base import (
    REQUIRED,
    Strict,
    flag,
    free_object,
    identifier,
    run_part,
    tenant,
    text,
    trace_id,
    version,
)

MIN_PAYLOAD_BYTES: Final = 10
"""The Router refuses a smaller task payload (PAYLOAD_TOO_SMALL)."""

_RUN_FIELDS: Final = ("run_id", "flow_id", "step_id")
_OBJECT: Final[dict[str, Any]] = {**REQUIRED, "type": "must be a JSON object"}


def _task_type() -> fields.String:
    return text(
        r"[\s\S]{1,128}",
        "a non-empty string of at most 128 characters",
        required=True,
        example="chat",
    )


def _policy_id() -> fields.String:
    return text(r"[A-Za-z0-9_.:-]{1,128}", "1 to 128 of A-Z a-z 0-9 _ . : -", example="default")


def _context() -> fields.Dict:
    return free_object(example={"session_id": "s-1", "user_id": "u-1"})


class Task(Strict):
    """What is to be done: its type and its input, in place or by reference."""

    type = _task_type()
    payload = free_object(example={"text": "hello there"})
    payload_ref = text(r"[\s\S]{1,2048}", "a non-empty string of at most 2048 characters")

    @validates_schema
    def check(self, data: dict[str, Any], **_: Any) -> None:
        """One input, not too small, of the shape that its type is known to have."""
        if ("payload" in data) == ("payload_ref" in data):
            raise ValidationError("either payload or payload_ref is required, not both", "payload")
        if "payload" in data:
            _check_input(data["type"], data["payload"])


class DecideRequest(Strict):
    """A task that the Router shall find a provider for."""

    version = version()
    tenant_id = tenant()
    request_id = identifier(example="6f1c2f0e-8f5e-4a62-9a4a-0d7c9d6d2f11")
    trace_id = trace_id()
    task = fields.Nested(Task, required=True, error_messages=_OBJECT)
    policy_id = _policy_id()
    constraints = free_object()
    metadata = free_object()
    context = _context()
    push_assignment = flag()
    assignment_id = identifier()
    idempotency_key = text(r"[\s\S]{1,256}", "a string of 1 to 256 bytes")
    run_id = run_part()
    flow_id = run_part()
    step_id = run_part()

    @pre_load
    def normalise(self, data: Any, **_: Any) -> Any:
        """Turn the older envelope into the request that it stands for."""
        if isinstance(data, dict) and "message" in data and "task" not in data:
            return _from_envelope(data)
        return data

    @validates_schema
    def check(self, data: dict[str, Any], **_: Any) -> None:
        """Run, flow and step come together; the key is counted in bytes."""
        given = [name for name in _RUN_FIELDS if name in data]
        if given and len(given) < len(_RUN_FIELDS):
            raise ValidationError(
                "run_id, flow_id and step_id come together or not at all", given[0]
            )
        if len(data.get("idempotency_key", "").encode()) > 256:
            raise ValidationError("must be a string of 1 to 256 bytes", "idempotency_key")


def encode(value: Any) -> bytes:
    """JSON as it goes to the wire. Raises ValidationError for what cannot be written."""
    try:
        return orjson.dumps(value)
    except TypeError:
        raise ValidationError("is nested too deeply (at most 250 levels)") from None


class JsonText(fields.String):
    """A string that holds a JSON object; loads as that object."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        try:
            parsed = orjson.loads(value) if isinstance(value, str) else None
        except orjson.JSONDecodeError:
            parsed = None
        if not isinstance(parsed, dict):
            raise ValidationError("must be a string that holds a JSON object")
        return parsed


class EnvelopeMessage(Strict):
    """The task in the older envelope."""

    message_id = identifier(required=True, example="m-1")
    tenant_id = tenant()
    message_type = _task_type()
    payload = JsonText(
        required=True,
        error_messages=REQUIRED,
        metadata={"contentMediaType": "application/json", "example": '{"text": "hello there"}'},
    )
    trace_id = trace_id()
    metadata = free_object()

    @validates_schema
    def check(self, data: dict[str, Any], **_: Any) -> None:
        """The same input as a task's."""
        _check_input(data["message_type"], data["payload"])


class DecideEnvelope(Strict):
    """The older dialect of a decide. Mistakes are told in its own names."""

    message = fields.Nested(EnvelopeMessage, required=True, error_messages=_OBJECT)
    policy_id = _policy_id()
    context = _context()


_ENVELOPE: Final = DecideEnvelope()


def _from_envelope(data: dict[str, Any]) -> dict[str, Any]:
    envelope: dict[str, Any] = _ENVELOPE.load(data)
    message = envelope.pop("message")
    task = {"type": message.pop("message_type"), "payload": message.pop("payload")}
    return {"request_id": message.pop("message_id"), "task": task, **message, **envelope}


def _check_input(task_type: str, payload: dict[str, Any]) -> None:
    """Of the shape that the type is known to have, and not too small."""
    _check_shape(task_type, payload)
    if len(encode(payload)) < MIN_PAYLOAD_BYTES:
        raise ValidationError(f"must be at least {MIN_PAYLOAD_BYTES} bytes encoded", "payload")


def _check_shape(task_type: str, payload: dict[str, Any]) -> None:
    """The payload shapes that the contract knows; every other type passes with any object."""
    match task_type:
        case "chat":
            _need(payload, "text", str, "a string")
            _allow(payload, "role", str, "a string")
            _allow(payload, "metadata", dict, "a JSON object")
        case "completion":
            _need(payload, "prompt", str, "a string")
            if "max_tokens" in payload and not _is_count(payload["max_tokens"]):
                raise ValidationError("max_tokens must be a whole number of at least 1", "payload")
            if "temperature" in payload and not _is_number(payload["temperature"]):
                raise ValidationError("temperature must be a number of at least 0", "payload")
        case "embedding":
            _need(payload, "input", (str, list), "a string or a list of strings")
            items = payload["input"]
            if isinstance(items, list) and not all(isinstance(item, str) for item in items):
                raise ValidationError("input must be a string or a list of strings", "payload")
            _allow(payload, "metadata", dict, "a JSON object")


def _need(payload: dict[str, Any], name: str, kind: Any, what: str) -> None:
    if name not in payload:
        raise ValidationError(f"{name} is required for this task type", "payload")
    _allow(payload, name, kind, what)


def _allow(payload: dict[str, Any], name: str, kind: Any, what: str) -> None:
    if name in payload and not isinstance(payload[name], kind):
        raise ValidationError(f"{name} must be {what}", "payload")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
