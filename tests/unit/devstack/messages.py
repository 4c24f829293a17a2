"""Messages that keep the contract, for tests that then break one thing at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson
import pytest

from gateway.devstack.contract import ContractError, Intake

TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACE_AS_UUID: Final = "4bf92f35-77b3-4da6-a3ce-929d0e0e4736"
TRACEPARENT: Final = f"00-{TRACE}-00f067aa0ba902b7-01"
ULID: Final = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
UUID4: Final = "6f1c2f0e-8f5e-4a62-9a4a-0d7c9d6d2f11"

REQUEST_HEADERS: Final[Mapping[str, str]] = {
    "version": "1",
    "tenant_id": "acme",
    "trace_id": TRACE,
    "traceparent": TRACEPARENT,
    "cp_phase": "cp2",
}
STORED_HEADERS: Final[Mapping[str, str]] = {**REQUEST_HEADERS, "Nats-Msg-Id": "a-message-id"}

LEAST_DECIDE: Final[Mapping[str, Any]] = {
    "version": "1",
    "tenant_id": "acme",
    "request_id": "request-1",
    "task": {"type": "chat", "payload": {"text": "hello there"}},
}
FULL_DECIDE: Final[Mapping[str, Any]] = {
    **LEAST_DECIDE,
    "trace_id": TRACE,
    "policy_id": "default",
    "constraints": {"region": "eu"},
    "metadata": {"preferred_provider_id": "mistral:large", "free": None},
    "push_assignment": True,
    "assignment_id": "assignment-1",
    "context": {"session_id": "s-1", "anything": [None, {}]},
    "run_id": UUID4,
    "flow_id": ULID,
    "step_id": UUID4.upper(),
    "idempotency_key": "key with spaces",
}
ASSIGNMENT: Final[Mapping[str, Any]] = {
    "version": "1",
    "tenant_id": "acme",
    "assignment_id": "assignment-1",
    "request_id": "request-1",
    "executor": {"provider_id": "openai:gpt-4o", "channel": "nats", "endpoint": "pool-1"},
    "job": {"type": "chat", "payload": {"text": "hello there"}},
    "options": {
        "priority": 50,
        "deadline_ms": 5000,
        "retry": {"max_attempts": 3, "backoff_ms": 100},
    },
    "correlation": {"trace_id": TRACE},
    "decision": {"reason": "best_score"},
    "metadata": {},
}
ACK: Final[Mapping[str, Any]] = {
    "version": "1",
    "tenant_id": "acme",
    "ack_id": "ack-1",
    "assignment_id": "assignment-1",
    "status": "rejected",
    "reason": "busy",
    "correlation": {"trace_id": TRACE_AS_UUID},
    "metadata": {},
}
RESULT: Final[Mapping[str, Any]] = {
    "version": "1",
    "tenant_id": "acme",
    "assignment_id": "assignment-1",
    "request_id": "request-1",
    "status": "error",
    "provider_id": "openai:gpt-4o",
    "job": {"type": "chat"},
    "latency_ms": 12.5,
    "cost": 0.000000001,
    "timestamp": 1767225600000,
    "trace_id": TRACE,
    "error_code": "job_failed",
    "error_message": "no",
}

MISSING: Final = object()
"""As a value: the field is not there at all."""

Read = Callable[[bytes, Mapping[str, str]], object]


def changed(message: Mapping[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy of ``message`` with another value at ``path`` (``task.payload.text``), or without it."""
    name, _, rest = path.partition(".")
    copy = dict(message)
    if rest:
        copy[name] = changed(copy[name], rest, value)
    elif value is MISSING:
        del copy[name]
    else:
        copy[name] = value
    return copy


def refusal(read: Read, message: object, headers: Mapping[str, str]) -> ContractError:
    """What ``read`` says against a message that it must refuse."""
    payload = message if isinstance(message, bytes) else orjson.dumps(message)
    with pytest.raises(ContractError) as caught:
        read(payload, headers)
    return caught.value


def assert_only(error: ContractError, where: str, intake: Intake) -> None:
    """Exactly one violation: of this field, with this code. What is right beside it is not blamed."""
    found = [(violation.where, violation.intake) for violation in error.violations]
    assert found == [(where, intake)], str(error)
    assert error.intake is intake
