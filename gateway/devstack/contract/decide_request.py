"""DecideRequest, as the Router's intake reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway.devstack.contract.correlation import read_run, read_trace_id
from gateway.devstack.contract.headers import Envelope, read_headers, read_tenant
from gateway.devstack.contract.record import (
    ID,
    NON_EMPTY,
    POLICY_ID,
    JsonObject,
    Notes,
    Record,
    json_name,
    read_object,
)
from gateway.devstack.contract.violations import ContractError, Intake

LEAST_PAYLOAD_BYTES: Final = 10
MOST_IDEMPOTENCY_KEY_BYTES: Final = 256
FIELDS: Final = frozenset(
    {
        "version",
        "tenant_id",
        "request_id",
        "trace_id",
        "task",
        "policy_id",
        "constraints",
        "metadata",
        "push_assignment",
        "assignment_id",
        "context",
        "run_id",
        "flow_id",
        "step_id",
        "idempotency_key",
    }
)


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be routed: ``payload`` or a reference to it."""

    type: str
    payload: JsonObject | None = None
    payload_ref: str | None = None


@dataclass(frozen=True, slots=True)
class DecideRequest:
    """A request that keeps the contract. Absent optionals are None or empty."""

    envelope: Envelope
    request_id: str
    task: Task
    policy_id: str | None
    assignment_id: str | None
    idempotency_key: str | None
    push_assignment: bool
    constraints: JsonObject
    metadata: JsonObject
    context: JsonObject

    @property
    def preferred_provider_id(self) -> str | None:
        """Where the caller would like to go again; ``metadata`` is free, so anything but text is no wish."""
        preferred = self.metadata.get("preferred_provider_id")
        return preferred if isinstance(preferred, str) else None


def read_decide_request(payload: bytes, headers: Mapping[str, str]) -> DecideRequest:
    """Read one request. Raises ContractError with all that is wrong with its headers and payload."""
    notes: Notes = []
    envelope = read_headers(headers, notes, stored=False)
    record = read_object(payload, notes)
    record.allow_only(FIELDS)
    record.version()
    read_tenant(record, envelope, required=True)
    read_trace_id(record, envelope.trace_id or None)
    read_run(record)
    request = DecideRequest(
        envelope=envelope,
        request_id=record.text("request_id", ID, required=True) or "",
        task=_task(record.object("task", required=True)),
        policy_id=record.text("policy_id", POLICY_ID),
        assignment_id=record.text("assignment_id", ID),
        idempotency_key=_idempotency_key(record),
        push_assignment=record.flag("push_assignment") or False,
        constraints=_free(record.object("constraints")),
        metadata=_free(record.object("metadata")),
        context=_free(record.object("context")),
    )
    if notes:
        raise ContractError(notes)
    return request


def _free(record: Record | None) -> JsonObject:
    return record.value if record is not None else {}


def _idempotency_key(record: Record) -> str | None:
    key = record.text("idempotency_key", intake=Intake.IDEMPOTENCY_VIOLATION)
    if key is not None and not 1 <= len(key.encode()) <= MOST_IDEMPOTENCY_KEY_BYTES:
        record.note(
            "idempotency_key",
            f"must have 1 … {MOST_IDEMPOTENCY_KEY_BYTES} bytes",
            Intake.IDEMPOTENCY_VIOLATION,
        )
    return key


def _task(record: Record | None) -> Task:
    if record is None:
        return Task("")
    task_type = record.text("type", NON_EMPTY, required=True) or ""
    payload_ref = record.text("payload_ref", NON_EMPTY)
    payload = record.object("payload")
    if ("payload" in record) == ("payload_ref" in record):
        record.note("payload", "either payload or payload_ref is required, not both")
    if payload is None:
        return Task(task_type, payload_ref=payload_ref)
    if _encoded_bytes(payload.value) < LEAST_PAYLOAD_BYTES:
        record.note(
            "payload",
            f"must have at least {LEAST_PAYLOAD_BYTES} encoded bytes",
            Intake.PAYLOAD_TOO_SMALL,
        )
    _SHAPES.get(task_type, _any_shape)(payload)
    return Task(task_type, payload.value, payload_ref)


def _encoded_bytes(payload: JsonObject) -> int:
    try:
        return len(orjson.dumps(payload))
    except TypeError:
        return LEAST_PAYLOAD_BYTES  # nested too deeply to be written again: it is no small one


# -- payload shapes; fields beyond these are the executor's business ---------------------------------


def _any_shape(payload: Record) -> None:
    """Other task types pass with any object."""


def _chat(payload: Record) -> None:
    payload.text("text", required=True)
    payload.text("role")
    payload.object("metadata")


def _completion(payload: Record) -> None:
    payload.text("prompt", required=True)
    payload.integer("max_tokens")
    payload.number("temperature")


def _embedding(payload: Record) -> None:
    given: Any = payload.value.get("input")
    if isinstance(given, list):
        for _ in payload.texts("input"):
            pass
    elif "input" not in payload:
        payload.note("input", "is required")
    elif not isinstance(given, str):
        payload.note("input", f"must be a string or an array of strings, not {json_name(given)}")
    payload.object("metadata")


_SHAPES: Final = {"chat": _chat, "completion": _completion, "embedding": _embedding}
