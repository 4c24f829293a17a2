"""Dead letters: what was given up is kept with its reason, listed, and sent again when its cause is mended.

A dead letter's id is the stream and sequence of the message it was made from, so that giving a message up twice makes
one letter. A replay goes out under an id of its own: the stream would drop the original one as a duplicate.

A letter holds the whole message, in base64. A message so large that its letter would not fit leaves a letter without
payload and headers that says where the message is (``original_at``), for as long as its stream keeps it.
"""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

from bridge import Bus, Delivery, Message, PubAck, Refusal, Refused, Reject
from gateway import json
from gateway.operations.deliveries import headers_of, ids_of

STREAM: Final = "BEAMLINE_DLQ"
_SECONDS: Final = 10.0
_SERVER_HEADERS: Final = "nats-"
_LONGEST_ID: Final = 256
_FOREIGN: Final = "foreign"
_FIELDS: Final = {
    "original_subject": str,
    "msg_id": str,
    "reason": str,
    "error_code": str,
    "timestamp": int,
    "headers": dict,
    "payload": str,
}


class Lost(Exception):
    """The message of a letter is not kept any more, or the letter was not written by a gateway; the text says so."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A letter in the stream: where it is, and the contract's fields (wire contract, "DeadLetter")."""

    seq: int
    body: dict[str, Any]


async def bury(bus: Bus, delivery: Delivery, why: Reject) -> None:
    """Store the dead letter of a message that is given up. Raises the bridge's errors."""
    known = ids_of(delivery)
    # Whatever stands there may be as long as a message; an id that is worth the name is short.
    msg_id = headers_of(delivery).get("nats-msg-id", "")[:_LONGEST_ID]
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
    headers = {
        "version": "1",
        "x-dlq-reason": why.code,
        "x-original-msg-id": msg_id,
        **known,
        "Nats-Msg-Id": f"dlq.{delivery.stream}.{delivery.stream_seq}",
    }
    subject, deadline = f"{delivery.subject}.dlq", time.monotonic() + _SECONDS
    try:
        await bus.publish(subject, json.dumps(body), headers=headers, deadline=deadline)
    except Refused as error:
        if error.reason is not Refusal.TOO_LARGE:
            raise
        place = {"stream": delivery.stream, "seq": delivery.stream_seq}
        body |= {"headers": {}, "payload": "", "original_at": place}
        await bus.publish(subject, json.dumps(body), headers=headers, deadline=deadline)


async def letters(bus: Bus, *, start: int = 1) -> AsyncIterator[DeadLetter]:
    """The dead letters from sequence ``start`` on, oldest first."""
    seq = start
    while True:
        found = await bus.stored_from(STREAM, seq, deadline=time.monotonic() + _SECONDS)
        if found is None:
            return
        message, seq = found
        yield DeadLetter(seq, _read(message))
        seq += 1


async def replay(bus: Bus, letter: DeadLetter) -> PubAck:
    """Send the original message again, as it was, under a new id. Sending a letter twice makes one message.

    Raises Lost, and the bridge's errors.
    """
    original = await _original(bus, letter)
    headers = {
        name: value
        for name, value in original.headers.items()
        if not name.lower().startswith(_SERVER_HEADERS)
    }
    return await bus.publish(
        original.subject,
        original.payload,
        headers={**headers, "Nats-Msg-Id": f"replay.{letter.seq}.{letter.body['timestamp']}"},
        deadline=time.monotonic() + _SECONDS,
    )


async def _original(bus: Bus, letter: DeadLetter) -> Message:
    """The message that was given up."""
    body = letter.body
    if body["error_code"] == _FOREIGN:
        raise Lost(f"{letter.seq} is {body['reason']}")
    place = body.get("original_at")
    if place is None:
        return Message(body["original_subject"], base64.b64decode(body["payload"]), body["headers"])
    deadline = time.monotonic() + _SECONDS
    message = await bus.stored(place["stream"], place["seq"], deadline=deadline)
    if message is None:
        raise Lost(f"the message of letter {letter.seq} is not kept any more")
    return message


def _read(message: Message) -> dict[str, Any]:
    """The fields of a letter. What somebody else put onto a dead-letter subject is listed as what it is."""
    try:
        body = json.loads(message.payload)
    except json.Unreadable:
        body = None
    if isinstance(body, dict) and all(
        isinstance(body.get(name), kind) for name, kind in _FIELDS.items()
    ):
        return body
    return {
        "original_subject": message.subject.removesuffix(".dlq"),
        "msg_id": message.headers.get("Nats-Msg-Id", ""),
        "reason": "not a dead letter of a gateway",
        "error_code": _FOREIGN,
        "timestamp": 0,
        "headers": dict(message.headers),
        "payload": base64.b64encode(message.payload).decode(),
    }
