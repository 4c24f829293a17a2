"""Dead letters: what was given up is kept with its reason, listed, and sent again when its cause is mended.

A dead letter's id is the stream and sequence of the message it was made from, so that giving a message up twice makes
one letter. A replay goes out under an id of its own: the stream would drop the original one as a duplicate.
"""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from bridge import Bus, Delivery, PubAck, Reject
from gateway import json

STREAM: Final = "BEAMLINE_DLQ"
_SECONDS: Final = 10.0
_SERVER_HEADERS: Final = "nats-"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A letter in the stream: where it is, and the contract's fields (wire contract, "DeadLetter")."""

    seq: int
    body: dict[str, Any]


async def bury(bus: Bus, delivery: Delivery, why: Reject) -> None:
    """Store the dead letter of a message that is given up. Raises the bridge's errors."""
    headers = {name.lower(): value for name, value in delivery.headers.items()}
    msg_id = headers.get("nats-msg-id", "")
    known: dict[str, str] = {
        name: headers[name] for name in ("trace_id", "tenant_id") if name in headers
    }
    body = {
        "original_subject": delivery.subject,
        "msg_id": msg_id,
        "reason": str(why),
        "error_code": why.code,
        "timestamp": int(time.time() * 1000),
        **known,
        "headers": dict(delivery.headers),
        "payload": base64.b64encode(delivery.payload).decode(),
    }
    await bus.publish(
        f"{delivery.subject}.dlq",
        json.dumps(body),
        headers={
            "version": "1",
            "x-dlq-reason": why.code,
            "x-original-msg-id": msg_id,
            **known,
            "Nats-Msg-Id": f"dlq.{delivery.stream}.{delivery.stream_seq}",
        },
        deadline=time.monotonic() + _SECONDS,
    )


async def letters(bus: Bus, *, start: int = 1) -> AsyncIterator[DeadLetter]:
    """The dead letters from sequence ``start`` on, oldest first."""
    seq = start
    while True:
        found = await bus.stored_from(STREAM, seq, deadline=time.monotonic() + _SECONDS)
        if found is None:
            return
        message, seq = found
        yield DeadLetter(seq, json.loads(message.payload))
        seq += 1


async def replay(bus: Bus, letter: DeadLetter) -> PubAck:
    """Send the original message again, as it was, under a new id. Sending a letter twice makes one message."""
    headers = {
        name: value
        for name, value in letter.body["headers"].items()
        if not name.lower().startswith(_SERVER_HEADERS)
    }
    return await bus.publish(
        letter.body["original_subject"],
        base64.b64decode(letter.body["payload"]),
        headers={**headers, "Nats-Msg-Id": f"replay.{letter.seq}.{letter.body['timestamp']}"},
        deadline=time.monotonic() + _SECONDS,
    )
