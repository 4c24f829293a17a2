"""Messages as they come, and what JetStream answers to one: where it is, what is stored, or why not."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nats.js.errors import APIError

from bridge.errors import (
    DUPLICATE_IN_PROCESS,
    BridgeError,
    NotSent,
    Refusal,
    Refused,
    Unknown,
    translate,
)

_FULL: Final = frozenset({10002, 10023, 10028, 10047, 10077})
"""JetStream's codes of an exhausted limit: of the stream, the account or the server."""


class InProcess(Unknown):
    """JetStream's error 10158: an equal message is being replicated (common on R3 when equal requests race)."""


class Full(NotSent):
    """A limit is exhausted. Waiting for a leader would not change it."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it came: ``reply`` is the subject to answer to, empty if none is wanted."""

    subject: str
    payload: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    reply: str = ""


@dataclass(frozen=True, slots=True)
class PubAck:
    """The stream's acknowledgement: where the message is; for a duplicate, where the first one is."""

    stream: str
    seq: int
    duplicate: bool = False


def refused(refusal: Mapping[str, Any]) -> BridgeError:
    """What a JetStream error object says."""
    if refusal.get("err_code") in _FULL:
        return Full(str(refusal.get("description", "a limit is exhausted")))
    if refusal.get("err_code") == DUPLICATE_IN_PROCESS:
        return InProcess("an equal message was still being stored at the deadline")
    try:
        APIError.from_error(dict(refusal))
    except Exception as error:
        return translate(error)
    return Unknown("JetStream refused without a reason")


def read_ack(answer: bytes) -> PubAck:
    """A stream's acknowledgement. Raises what it says instead: Refused, NotSent, Unknown."""
    try:
        parsed = json.loads(answer)
        if (refusal := parsed.get("error")) is None:
            return PubAck(parsed["stream"], parsed["seq"], parsed.get("duplicate", False))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unknown("unreadable acknowledgement from JetStream") from error
    raise refused(refusal)


def read_stored(answer: bytes) -> Message | None:
    """The message in JetStream's answer to ``STREAM.MSG.GET``; None where there is none.

    Raises Refused, NotSent for a refusal, Unknown for an answer that cannot be read.
    """
    found = read_entry(answer)
    return None if found is None else found[0]


def read_entry(answer: bytes) -> tuple[Message, int, str] | None:
    """As `read_stored`, with the sequence and the server's time (RFC 3339)."""
    try:
        parsed = json.loads(answer)
        if (refusal := parsed.get("error")) is not None:
            error = refused(refusal)
            if isinstance(error, Refused) and error.reason is Refusal.NOT_FOUND:
                return None
            raise error
        message = parsed["message"]
        headers = _headers(base64.b64decode(message.get("hdrs", "")))
        payload = base64.b64decode(message.get("data", ""))
        return Message(message["subject"], payload, headers), message["seq"], message["time"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unknown("unreadable answer from JetStream") from error


def read_subjects(answer: bytes) -> list[str]:
    """The subjects in JetStream's answer to a filtered ``STREAM.INFO``. Raises Refused, NotSent, Unknown."""
    try:
        parsed = json.loads(answer)
        if (refusal := parsed.get("error")) is not None:
            raise refused(refusal)
        return list(parsed["state"].get("subjects") or {})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Unknown("unreadable answer from JetStream") from error


def _headers(raw: bytes) -> dict[str, str]:
    """A stored message's header block, ``NATS/1.0`` and one ``Name: value`` a line."""
    lines = raw.decode("utf-8", "replace").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}
