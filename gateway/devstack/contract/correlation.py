"""Ids that tie a message to others: trace ids, W3C trace context, run / flow / step.

Source of the rules: the wire contract, and https://www.w3.org/TR/trace-context/ (level 1).
"""

from __future__ import annotations

import re
import secrets
from typing import Final

from gateway.devstack.contract.record import Record
from gateway.devstack.contract.violations import Intake

_HEX_32: Final = re.compile(r"[0-9a-f]{32}")
_UUID_4: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE
)
_ULID: Final = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_TRACEPARENT: Final = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
    r"(?P<rest>-.*)?"
)
_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16
_RUN_FIELDS: Final = ("run_id", "flow_id", "step_id")


def is_trace_header(value: str) -> bool:
    """32 lower-case hex digits, not all zero: the only form of a ``trace_id`` header."""
    return _HEX_32.fullmatch(value) is not None and value != _NO_TRACE


def plain_trace_id(value: str) -> str | None:
    """A payload's trace id (32 hex digits or a UUIDv4, either case) in the form of the header, or None."""
    if _UUID_4.fullmatch(value):
        value = value.replace("-", "")
    value = value.lower()
    return value if is_trace_header(value) else None


def is_traceparent(value: str) -> bool:
    """A valid W3C ``traceparent``; of versions that are not known yet the known part is checked."""
    found = _TRACEPARENT.fullmatch(value)
    return (
        found is not None
        and found["version"] != "ff"
        and found["trace"] != _NO_TRACE
        and found["span"] != _NO_SPAN
        and not (found["version"] == "00" and found["rest"])
    )


def child_traceparent(parent: str) -> str:
    """The ``traceparent`` of a new span below ``parent`` (a valid one): same trace, same flags."""
    _, trace, _, flags = parent.split("-")[:4]
    span = _NO_SPAN
    while span == _NO_SPAN:
        span = secrets.token_hex(8)
    return f"00-{trace}-{span}-{flags}"


def read_trace_id(record: Record, header: str | None, name: str = "trace_id") -> None:
    """Note a payload's trace id that is none, or is another than the header's."""
    value = record.text(name, intake=Intake.CORRELATION_FIELDS_INVALID)
    if value is None:
        return
    plain = plain_trace_id(value)
    if plain is None:
        record.note(name, "must be 32 hex digits or a UUIDv4", Intake.CORRELATION_FIELDS_INVALID)
    elif header is not None and plain != header:
        record.note(name, "contradicts the header trace_id", Intake.CORRELATION_FIELDS_INVALID)


def read_run(record: Record) -> None:
    """Note ``run_id``, ``flow_id``, ``step_id`` unless all three or none are there, each well-formed."""
    present = [name for name in _RUN_FIELDS if name in record]
    if present and len(present) < len(_RUN_FIELDS):
        record.note(
            present[0],
            "run_id, flow_id and step_id come all three or not at all",
            Intake.CORRELATION_FIELDS_INVALID,
        )
    for name in present:
        value = record.text(name, intake=Intake.CORRELATION_FIELDS_INVALID)
        if value is not None and not (_UUID_4.fullmatch(value) or _ULID.fullmatch(value)):
            record.note(
                name,
                "must be a UUIDv4 or an upper-case ULID",
                Intake.CORRELATION_FIELDS_INVALID,
            )
