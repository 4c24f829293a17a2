"""What the reference worker publishes about an assignment: pure, one function each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway.devstack.contract import Envelope, ExecAssignment, envelope_headers, subjects
from gateway.devstack.contract.headers import read_headers
from gateway.devstack.contract.record import ID, Notes
from gateway.devstack.digest import stable_digest
from gateway.devstack.providers import provider

MOST_DELAY_MS: Final = 20_000
"""Below the consumer's usual ``ack_wait``: a slow job is not delivered to a second worker meanwhile."""


@dataclass(frozen=True, slots=True)
class Report:
    """One message to publish."""

    subject: str
    headers: dict[str, str]
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ends, and after how long."""

    status: str
    delay_ms: int = 0
    error_code: str | None = None
    error_message: str | None = None


def outcome_of(job_type: str) -> Outcome | None:
    """What the worker makes of a job type; None where there is no result."""
    name, _, argument = job_type.partition(":")
    match name:
        case "fail":
            return Outcome("error", error_code="job_failed", error_message="asked for by job.type")
        case "timeout":
            return Outcome("timeout", error_code="job_timeout")
        case "cancel":
            return Outcome("cancelled")
        case "reject" | "no-result":
            return None
        case "slow" if argument.isascii() and argument.isdecimal() and len(argument) < 6:
            return Outcome("success", delay_ms=min(int(argument), MOST_DELAY_MS))
        case _:
            return Outcome("success")


def acknowledgement(assignment: ExecAssignment) -> Report:
    """ExecAssignmentAck: accepted, unless the job asks to be rejected."""
    if assignment.job_type == "reject":
        return _ack(assignment.envelope, assignment.assignment_id, "asked for by job.type")
    return _ack(assignment.envelope, assignment.assignment_id)


def refusal(payload: bytes, headers: Mapping[str, str], reason: str) -> Report | None:
    """A rejecting ExecAssignmentAck for an assignment that breaks the contract.

    None if its headers or its id are unusable: nobody would know what is meant.
    """
    notes: Notes = []
    envelope = read_headers(headers, notes, stored=True)
    try:
        assignment_id = orjson.loads(payload)["assignment_id"]
        usable = not notes and ID.fullmatch(assignment_id) is not None
    except (orjson.JSONDecodeError, TypeError, KeyError):
        return None
    return _ack(envelope, assignment_id, reason) if usable else None


def result(assignment: ExecAssignment, outcome: Outcome, *, now_ms: int) -> Report:
    """ExecResult: the provider's expected figures as if they had been measured."""
    tenant_id, assignment_id = assignment.envelope.tenant_id, assignment.assignment_id
    figures = provider(assignment.provider_id)
    payload: dict[str, Any] = {
        "version": "1",
        "tenant_id": tenant_id,
        "assignment_id": assignment_id,
        "request_id": assignment.request_id,
        "status": outcome.status,
        "provider_id": assignment.provider_id,
        "job": {"type": assignment.job_type},
        "latency_ms": figures.expected_latency_ms,
        "cost": figures.expected_cost if outcome.status == "success" else 0,
        "timestamp": now_ms,
        "trace_id": assignment.envelope.trace_id,
    }
    if outcome.error_code is not None:
        payload["error_code"] = outcome.error_code
    if outcome.error_message is not None:
        payload["error_message"] = outcome.error_message
    msg_id = f"reference-worker-{stable_digest('result', tenant_id, assignment_id)}"
    return Report(subjects.RESULT, envelope_headers(assignment.envelope, msg_id), payload)


def _ack(envelope: Envelope, assignment_id: str, reason: str | None = None) -> Report:
    digest = stable_digest("ack", envelope.tenant_id, assignment_id)
    payload: dict[str, Any] = {
        "version": "1",
        "tenant_id": envelope.tenant_id,
        "ack_id": f"ack-{digest[:32]}",
        "assignment_id": assignment_id,
        "status": "accepted" if reason is None else "rejected",
        "correlation": {"trace_id": envelope.trace_id},
        "metadata": {"source": "reference-worker"},
    }
    if reason is not None:
        payload["reason"] = reason
    return Report(subjects.ACK, envelope_headers(envelope, f"reference-worker-{digest}"), payload)
