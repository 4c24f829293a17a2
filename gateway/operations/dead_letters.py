"""Dead letters: what was given up is kept with its reason, listed, and sent again when its cause is mended.

A dead letter's id is the stream and sequence of the message it was made from, so that giving a message up twice makes
one letter. A replay goes out under an id of its own: the stream would drop the original one as a duplicate.

A letter holds the whole message, in base64. A message so large that its letter would not fit leaves a letter without
payload and headers that says where the message is (``original_at``), for as long as its stream keeps it.

Whoever may publish to a dead-letter subject can write a letter, and an operator who replays it may do more than its
writer. So a letter is believed only about the subject that it came on, and its message is sent to no other.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import AsyncIterator, Mapping
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
_SUFFIX: Final = ".dlq"
_LATEST_MS: Final = 253_402_300_800_000
"""The end of the year 9999: what is later is no time of a letter."""
_STREAM: Final = re.compile(r"[A-Za-z0-9_-]{1,255}")
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
    subject, deadline = f"{delivery.subject}{_SUFFIX}", time.monotonic() + _SECONDS
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


async def latest(bus: Bus, most: int, deadline: float) -> list[DeadLetter]:
    """The dead letters among the last ``most`` sequences, newest first. Raises the bridge's errors."""
    found = await bus.stored_last(STREAM, deadline=deadline)
    if found is None:
        return []
    message, last = found
    newest = [DeadLetter(last, _read(message))]
    for seq in range(last - 1, max(0, last - most), -1):
        before = await bus.stored(STREAM, seq, deadline=deadline)
        if before is not None:  # it may be deleted
            newest.append(DeadLetter(seq, _read(before)))
    return newest


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
    if message is None or message.subject != body["original_subject"]:
        raise Lost(f"the message of letter {letter.seq} is not kept any more")
    return message


def _read(message: Message) -> dict[str, Any]:
    """The fields of a letter. What somebody else put onto a dead-letter subject is listed as what it is."""
    try:
        body = json.loads(message.payload)
    except json.Unreadable:
        body = None
    if isinstance(body, dict) and _is_letter(body, message.subject):
        return body
    return {
        "original_subject": message.subject.removesuffix(_SUFFIX),
        "msg_id": message.headers.get("Nats-Msg-Id", ""),
        "reason": "not a dead letter of a gateway",
        "error_code": _FOREIGN,
        "timestamp": 0,
        "headers": dict(message.headers),
        "payload": base64.b64encode(message.payload).decode(),
    }


def _is_letter(body: Mapping[str, Any], subject: str) -> bool:
    """Whether a gateway could have written it, onto this subject."""
    if not all(isinstance(body.get(name), kind) for name, kind in _FIELDS.items()):
        return False
    try:
        base64.b64decode(body["payload"], validate=True)
    except (binascii.Error, ValueError):
        return False
    place = body.get("original_at")
    return (
        f"{body['original_subject']}{_SUFFIX}" == subject
        and 0 <= body["timestamp"] < _LATEST_MS
        and all(isinstance(value, str) for value in body["headers"].values())
        and (place is None or _is_place(place))
    )


def _is_place(place: object) -> bool:
    # The stream's name becomes part of a subject.
    return (
        isinstance(place, dict)
        and isinstance(stream := place.get("stream"), str)
        and _STREAM.fullmatch(stream) is not None
        and isinstance(place.get("seq"), int)
    )
