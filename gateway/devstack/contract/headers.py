"""The headers that every message carries, read strictly; and the ones for what we send ourselves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.devstack.contract.correlation import (
    child_traceparent,
    is_trace_header,
    is_traceparent,
)
from gateway.devstack.contract.record import TENANT_ID, Notes, Record
from gateway.devstack.contract.violations import Intake, Violation

MSG_ID: Final = "Nats-Msg-Id"
CP_PHASES: Final = frozenset({*(f"cp{number}" for number in range(9)), "unknown"})

_CREDENTIAL_NAME: Final = re.compile(
    r"authorization|cookie|api[-_]?key|token|secret|passw|credential|x-role", re.IGNORECASE
)
_CREDENTIAL_VALUE: Final = re.compile(r"\s*(bearer|basic|digest|negotiate|apikey)\s", re.IGNORECASE)
_MSG_ID: Final = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the headers of a valid message say. ``msg_id`` is empty on requests, which have none."""

    tenant_id: str
    trace_id: str
    traceparent: str
    cp_phase: str | None = None
    msg_id: str = ""


def read_headers(headers: Mapping[str, str], notes: Notes, *, stored: bool) -> Envelope:
    """Read the headers of a message; note what is wrong. ``stored``: it came by a JetStream publish.

    What could not be read is empty in the answer; look at ``notes`` before using it. Names are the
    contract's exactly: NATS header names are case-sensitive.
    """
    version = headers.get("version")
    if version is None:
        notes.append(Violation("header version", "is required"))
    elif version != "1":
        notes.append(Violation("header version", 'must be "1"', Intake.VERSION_UNSUPPORTED))
    phase = headers.get("cp_phase")
    if phase is not None and phase not in CP_PHASES:
        notes.append(Violation("header cp_phase", "must be cp0 … cp8 or unknown"))
        phase = None
    for name, value in headers.items():
        if _CREDENTIAL_NAME.search(name) or _CREDENTIAL_VALUE.match(value):
            notes.append(Violation(f"header {name}", "credentials never travel"))
    correlation = Intake.CORRELATION_FIELDS_INVALID
    tenant_id = headers.get("tenant_id", "")
    if not TENANT_ID.fullmatch(tenant_id):
        _note(notes, headers, "tenant_id", f"does not match {TENANT_ID.pattern}")
    trace_id = headers.get("trace_id", "")
    if not is_trace_header(trace_id):
        _note(notes, headers, "trace_id", "must be 32 lower-case hex digits", correlation)
        trace_id = ""
    traceparent = headers.get("traceparent", "")
    if not is_traceparent(traceparent):
        _note(notes, headers, "traceparent", "is not W3C trace context", correlation)
    msg_id = headers.get(MSG_ID, "")
    if stored and not _MSG_ID.fullmatch(msg_id):
        _note(notes, headers, MSG_ID, "must be printable ASCII without spaces")
    return Envelope(tenant_id, trace_id, traceparent, phase, msg_id)


def read_tenant(record: Record, envelope: Envelope, *, required: bool) -> None:
    """Note a payload's tenant that is malformed or another than the header's."""
    tenant_id = record.text("tenant_id", TENANT_ID, required=required)
    if tenant_id is not None and envelope.tenant_id and tenant_id != envelope.tenant_id:
        record.note("tenant_id", "contradicts the header tenant_id", Intake.TENANT_FORBIDDEN)


def envelope_headers(cause: Envelope, msg_id: str = "") -> dict[str, str]:
    """The headers of a message that ``cause`` led to: the trace goes on below it."""
    headers = {
        "version": "1",
        "tenant_id": cause.tenant_id,
        "trace_id": cause.trace_id,
        "traceparent": child_traceparent(cause.traceparent),
    }
    if cause.cp_phase is not None:
        headers["cp_phase"] = cause.cp_phase
    if msg_id:
        headers[MSG_ID] = msg_id
    return headers


def _note(
    notes: Notes,
    headers: Mapping[str, str],
    name: str,
    message: str,
    intake: Intake = Intake.SCHEMA_VALIDATION_FAILED,
) -> None:
    notes.append(Violation(f"header {name}", message if name in headers else "is required", intake))
