"""Valid request documents to start from; each call makes new ids, so that no test meets another's."""

from __future__ import annotations

import time
import uuid
from typing import Any, Final

from tests.support.canaries import MAIL, TEXT

DECIDE: Final = "/api/v1/routes/decide"
ASSIGNMENTS: Final = "/api/v1/assignments"
ACKS: Final = "/api/v1/acks"
USAGE: Final = "/api/v1/usage"


def new_id(prefix: str) -> str:
    """An id that nobody else has."""
    return f"{prefix}-{uuid.uuid4().hex}"


def decide_body(**more: Any) -> dict[str, Any]:
    """A chat decide; ``more`` adds or replaces top-level fields."""
    return {
        "version": "1",
        "tenant_id": "acme",
        "request_id": str(uuid.uuid4()),
        "task": {"type": "chat", "payload": {"text": f"hello there {TEXT}"}},
        "policy_id": "default",
        "metadata": {"user": MAIL},
        **more,
    }


def envelope_body(message: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """The same in the older dialect; ``message`` replaces fields of the message."""
    return {
        "message": {
            "message_id": str(uuid.uuid4()),
            "tenant_id": "acme",
            "message_type": "chat",
            "payload": f'{{"text": "hello there {TEXT}"}}',
            "metadata": {"user": MAIL},
            **(message or {}),
        },
        "policy_id": "default",
        **more,
    }


def assignment_body(**more: Any) -> dict[str, Any]:
    return {
        "version": "1",
        "tenant_id": "acme",
        "assignment_id": new_id("as"),
        "request_id": str(uuid.uuid4()),
        "executor": {"provider_id": "openai:gpt-4o", "channel": "nats"},
        "metadata": {"user": MAIL},
        "job": {"type": "chat", "payload": {"text": f"hello there {TEXT}"}},
        **more,
    }


def ack_body(**more: Any) -> dict[str, Any]:
    return {
        "version": "1",
        "tenant_id": "acme",
        "ack_id": new_id("ack"),
        "assignment_id": new_id("as"),
        "status": "accepted",
        "metadata": {"user": MAIL},
        **more,
    }


def usage_body(**more: Any) -> dict[str, Any]:
    return {
        "version": "1",
        "tenant_id": "acme",
        "usage_id": new_id("us"),
        "assignment_id": new_id("as"),
        "provider_id": "openai:gpt-4o",
        "event_type": "chat",
        "latency_ms": 850,
        "cost": 0.012,
        "status": "success",
        "timestamp": now_ms(),
        **more,
    }


def now_ms() -> int:
    """The wall clock in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
