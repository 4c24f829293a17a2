"""Inspect: what is known of one id of one's own tenant."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any, Final

from bridge import Bus
from gateway.idempotency import HttpId, KeyType, Record, State, find
from gateway.operations.decide import DECIDE
from gateway.operations.meter import USAGE
from gateway.operations.publish import ACKS, ASSIGNMENTS

KEY_TYPES: Final = {
    DECIDE: KeyType.ASSIGNMENT_ID,
    ASSIGNMENTS: KeyType.ASSIGNMENT_ID,
    ACKS: KeyType.ACK_ID,
    USAGE: KeyType.USAGE_ID,
}
"""Each operation that has an id, and which one."""


async def look(bus: Bus, operation: str, key: HttpId, deadline: float) -> dict[str, Any] | None:
    """State, first call and remaining time of an operation; None when the id is free."""
    held = await find(bus, key.record_key(operation), deadline)
    if held is None or held.record.state is State.RELEASED:
        return None
    seen: dict[str, Any] = {
        "operation": operation,
        key.key_type.value: key.id,
        "state": held.record.state.value,
        "first_call": _first_call(held.record),
    }
    if held.expires_at is not None:
        seen["expires_in_seconds"] = max(0, int(held.expires_at - time.monotonic()))
    if held.record.outcome is not None:
        outcome = held.record.outcome
        seen["outcome"] = {"status": outcome.status, "body": outcome.body}
    return seen


def _first_call(record: Record) -> dict[str, Any]:
    call: dict[str, Any] = {"request_id": record.request_id, "trace_id": record.trace_id}
    if record.first_seen is not None:
        call["at"] = datetime.fromtimestamp(record.first_seen, UTC).isoformat(
            timespec="milliseconds"
        )
    return call
