"""ExecAssignment, ExecAssignmentAck and ExecResult, as their receivers read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.devstack.contract.correlation import read_trace_id
from gateway.devstack.contract.headers import Envelope, read_headers, read_tenant
from gateway.devstack.contract.record import ID, NON_EMPTY, Notes, Record, read_object
from gateway.devstack.contract.violations import ContractError

ASSIGNMENT_FIELDS: Final = frozenset(
    {
        "version",
        "assignment_id",
        "request_id",
        "executor",
        "job",
        "options",
        "correlation",
        "decision",
        "metadata",
        "tenant_id",
    }
)
ACK_FIELDS: Final = frozenset(
    {
        "version",
        "ack_id",
        "assignment_id",
        "status",
        "reason",
        "correlation",
        "metadata",
        "tenant_id",
    }
)
RESULT_FIELDS: Final = frozenset(
    {
        "version",
        "assignment_id",
        "request_id",
        "status",
        "provider_id",
        "job",
        "latency_ms",
        "cost",
        "timestamp",
        "trace_id",
        "tenant_id",
        "error_code",
        "error_message",
    }
)
CHANNELS: Final = ("nats", "grpc")
ACK_STATUSES: Final = ("accepted", "rejected")
RESULT_STATUSES: Final = ("success", "error", "timeout", "cancelled")
COST_PLACES: Final = 9


@dataclass(frozen=True, slots=True)
class ExecAssignment:
    """A job for an executor."""

    envelope: Envelope
    assignment_id: str
    request_id: str
    provider_id: str
    channel: str
    job_type: str


@dataclass(frozen=True, slots=True)
class ExecAck:
    """An executor's word that it took an assignment, or that it did not."""

    envelope: Envelope
    ack_id: str
    assignment_id: str
    status: str


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What came of an assignment (or of a request that had none)."""

    envelope: Envelope
    assignment_id: str | None
    request_id: str | None
    status: str
    provider_id: str
    job_type: str


def read_exec_assignment(payload: bytes, headers: Mapping[str, str]) -> ExecAssignment:
    """Read one assignment. Raises ContractError with all that is wrong with it."""
    notes: Notes = []
    envelope = read_headers(headers, notes, stored=True)
    record = read_object(payload, notes)
    record.allow_only(ASSIGNMENT_FIELDS)
    record.version()
    read_tenant(record, envelope, required=True)
    executor = record.object("executor", required=True) or _unread(notes)
    job = record.object("job", required=True) or _unread(notes)
    assignment = ExecAssignment(
        envelope=envelope,
        assignment_id=record.text("assignment_id", ID, required=True) or "",
        request_id=record.text("request_id", ID, required=True) or "",
        provider_id=executor.text("provider_id", NON_EMPTY, required=True) or "",
        channel=executor.choice("channel", CHANNELS, required=True) or "",
        job_type=job.text("type", NON_EMPTY, required=True) or "",
    )
    executor.text("endpoint", NON_EMPTY)
    job.text("payload_ref", NON_EMPTY)
    job.object("payload")
    if "payload" in job and "payload_ref" in job:
        job.note("payload", "either payload or payload_ref, not both")
    _options(record.object("options"))
    _correlation(record, envelope)
    record.object("decision")
    record.object("metadata")
    if notes:
        raise ContractError(notes)
    return assignment


def read_exec_ack(payload: bytes, headers: Mapping[str, str]) -> ExecAck:
    """Read one acknowledgement. Raises ContractError with all that is wrong with it."""
    notes: Notes = []
    envelope = read_headers(headers, notes, stored=True)
    record = read_object(payload, notes)
    record.allow_only(ACK_FIELDS)
    record.version()
    read_tenant(record, envelope, required=True)
    ack = ExecAck(
        envelope=envelope,
        ack_id=record.text("ack_id", ID, required=True) or "",
        assignment_id=record.text("assignment_id", ID, required=True) or "",
        status=record.choice("status", ACK_STATUSES, required=True) or "",
    )
    record.text("reason")
    _correlation(record, envelope)
    record.object("metadata")
    if notes:
        raise ContractError(notes)
    return ack


def read_exec_result(payload: bytes, headers: Mapping[str, str]) -> ExecResult:
    """Read one result. Raises ContractError with all that is wrong with it."""
    notes: Notes = []
    envelope = read_headers(headers, notes, stored=True)
    record = read_object(payload, notes)
    record.allow_only(RESULT_FIELDS)
    record.version()
    read_tenant(record, envelope, required=False)
    read_trace_id(record, envelope.trace_id or None)
    job = record.object("job", required=True) or _unread(notes)
    result = ExecResult(
        envelope=envelope,
        assignment_id=record.text("assignment_id", ID),
        request_id=record.text("request_id", ID),
        status=record.choice("status", RESULT_STATUSES, required=True) or "",
        provider_id=record.text("provider_id", NON_EMPTY, required=True) or "",
        job_type=job.text("type", NON_EMPTY, required=True) or "",
    )
    if record.readable and "assignment_id" not in record and "request_id" not in record:
        record.note("assignment_id", "is required where there is no request_id")
    record.number("latency_ms", least=0, required=True)
    record.number("cost", least=0, places=COST_PLACES, required=True)
    record.integer("timestamp", least=0, required=True)
    record.text("error_code")
    record.text("error_message")
    if notes:
        raise ContractError(notes)
    return result


def _unread(notes: Notes) -> Record:
    """Stands for an object whose absence is noted already: its fields are not asked for as well."""
    return Record({}, notes, readable=False)


def _options(options: Record | None) -> None:
    if options is None:
        return
    options.integer("priority", least=0, most=100)
    options.integer("deadline_ms", least=0)
    retry = options.object("retry")
    if retry is not None:
        retry.integer("max_attempts", least=0)
        retry.integer("backoff_ms", least=0)


def _correlation(record: Record, envelope: Envelope) -> None:
    correlation = record.object("correlation")
    if correlation is not None:
        read_trace_id(correlation, envelope.trace_id or None)
