"""One usage event, sent twice and then by a second tenant: its effect happens once for each of them.

The events cost nothing and took no time, and name ``smoke`` as provider and type, so that metering can tell them; use
a tenant of its own for the checks where that is not enough.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.smoke.checks.identity import Tenants
from gateway.smoke.client import Answer
from gateway.smoke.contract import USAGE
from gateway.smoke.failures import Failed, Failure
from gateway.smoke.session import Root, Session


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where an accepted event is stored."""

    stream: str
    seq: int


@dataclass(frozen=True, slots=True)
class Metered:
    """What was sent and how it was accepted; ``receipts`` by tenant, ``root`` the first request's trace."""

    usage_id: str
    root: Root
    receipts: Mapping[str, Receipt]


def check(session: Session) -> str:
    """Leaves `Metered`."""
    tenants = session.evidence(Tenants)
    event, root = _event(), Root()
    first = session.post(USAGE, event, root=root)
    receipts = {tenants.own: _receipt(first)}
    session.keep(Metered(event["usage_id"], root, receipts))
    _compare(first, session.post(USAGE, event, root=Root()))
    if tenants.other is None:
        return "the repeat is replayed"
    of_other = session.post(USAGE, event, root=Root(), caller=session.other_caller)
    if of_other.header("Idempotency-Replayed"):
        raise Failed(
            Failure.TENANTS_MIXED,
            f"the event of {tenants.other} is answered as a repeat of {tenants.own}'s",
        )
    receipts = {**receipts, tenants.other: _receipt(of_other)}
    if receipts[tenants.own] == receipts[tenants.other]:
        raise Failed(
            Failure.TENANTS_MIXED,
            f"{tenants.own} and {tenants.other} have the same receipt: {of_other}",
        )
    session.keep(Metered(event["usage_id"], root, receipts))
    return f"the repeat is replayed, and {tenants.other}'s event is one of its own"


def send_another(session: Session) -> Root:
    """One more event of the first tenant, for a trace of its own."""
    root = Root()
    _receipt(session.post(USAGE, _event(), root=root))
    return root


def _event() -> dict[str, Any]:
    unique = uuid.uuid4().hex
    return {
        "version": "1",
        "usage_id": f"smoke-{unique}",
        "request_id": f"smoke-{unique}",
        "provider_id": "smoke",
        "event_type": "smoke",
        "latency_ms": 0,
        "cost": 0,
        "status": "success",
        "timestamp": time.time_ns() // 1_000_000,
    }


def _receipt(answer: Answer) -> Receipt:
    receipt = answer.document()
    stream, seq = receipt.get("stream"), receipt.get("seq")
    accepted = answer.status == 202 and receipt.get("ok") is True and receipt.get("emitted") is True
    if not (accepted and isinstance(stream, str) and isinstance(seq, int)):
        raise Failed(Failure.NOT_ACCEPTED, f"a usage event is answered {answer}")
    return Receipt(stream, seq)


def _compare(first: Answer, repeat: Answer) -> None:
    receipt, again = first.document(), repeat.document()
    if isinstance(again.get("seq"), int) and again["seq"] != receipt["seq"]:
        raise Failed(
            Failure.STORED_TWICE,
            f"the event is message {receipt['seq']} of {receipt['stream']} and, sent again, message {again['seq']}",
        )
    if (repeat.status, again) != (first.status, receipt):
        raise Failed(
            Failure.REPLAY_DIFFERS, f"the first request is answered {first}, the repeat {repeat}"
        )
    if repeat.header("Idempotency-Replayed") != "true":
        raise Failed(Failure.NOT_REPLAYED, "the repeat has no header Idempotency-Replayed: true")
