"""Results as workers publish them, and what became of them: usage events, dead letters, deliveries."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from nats.js.api import ConsumerInfo
from nats.js.errors import NotFoundError

from tests.support.documents import new_id, now_ms
from tests.support.nats_session import NatsSession, StoredMessage
from tests.support.nats_tap import NatsTap
from tests.support.waiting import GENEROUS_SECONDS, wait_until

RESULTS: Final = "/api/v1/results"
RESULT_SUBJECT: Final = "caf.exec.result.v1"
EXEC: Final = "BEAMLINE_EXEC"
USAGE_STREAM: Final = "BEAMLINE_USAGE"
DLQ: Final = "BEAMLINE_DLQ"
_ADVISORIES: Final = "$JS.EVENT.ADVISORY.CONSUMER"


def result_body(**more: Any) -> dict[str, Any]:
    """A valid ExecResult of a new assignment; ``more`` adds or replaces fields, None takes one away."""
    body = {
        "version": "1",
        "assignment_id": new_id("as"),
        "status": "success",
        "provider_id": "openai:gpt-4o",
        "job": {"type": "chat"},
        "latency_ms": 850,
        "cost": 0.012,
        "timestamp": now_ms(),
        **more,
    }
    return {name: value for name, value in body.items() if value is not None}


def result_headers(tenant: str = "acme", **more: str) -> dict[str, str]:
    """The contract's headers of a result; underscores in names of ``more`` stay."""
    return {
        "version": "1",
        "tenant_id": tenant,
        "trace_id": uuid.uuid4().hex,
        "Nats-Msg-Id": new_id("msg"),
        **more,
    }


def publish(
    session: NatsSession,
    payload: object,
    headers: Mapping[str, str] | None = None,
    *,
    subject: str = RESULT_SUBJECT,
) -> int:
    """Store a message as a worker does; its sequence. Bytes go as they are, anything else as JSON.

    ``headers`` None: the contract's. Empty: none at all.
    """
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    sent = dict(result_headers() if headers is None else headers)
    ack = session.call(session.jetstream.publish(subject, data, headers=sent or None))
    return ack.seq


def publish_all(session: NatsSession, bodies: list[dict[str, Any]]) -> None:
    """Store many results, quickly; their order does not matter."""

    async def publish_one(body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        await session.jetstream.publish(RESULT_SUBJECT, data, headers=result_headers(), timeout=30)

    async def work() -> None:
        await asyncio.gather(*map(publish_one, bodies))

    session.call(work(), timeout=60.0)


def consumer(session: NatsSession) -> ConsumerInfo | None:
    """The gateway's consumer as the server has it; None while there is none."""
    try:
        infos = session.call(session.jetstream.consumers_info(EXEC))
    except NotFoundError:
        return None
    return next((info for info in infos if "result" in (info.config.durable_name or "")), None)


def until_consumed(session: NatsSession, timeout: float = GENEROUS_SECONDS) -> None:
    """Wait until all that is stored now has been delivered, and nothing is left to be acknowledged or redelivered.

    For streams that hold nothing but results at their end: a consumer that was just told of a message may say that
    it has nothing to do.
    """
    last = session.last_sequence(EXEC)

    def idle() -> bool:
        info = consumer(session)
        return (
            info is not None
            and info.num_pending == 0
            and info.num_ack_pending == 0
            and info.delivered is not None
            and info.delivered.stream_seq >= last
        )

    wait_until(idle, timeout, lambda: f"not consumed: {consumer(session)}")


def usage_of(session: NatsSession, **ids: str) -> list[StoredMessage]:
    """The usage events that have these fields (``assignment_id=…``), in the order of the stream."""
    return [
        message
        for message in session.stream_messages(USAGE_STREAM)
        if ids.items() <= json.loads(message.payload).items()
    ]


@dataclass(frozen=True)
class Letter:
    """A dead letter as a subscriber of the stream sees it."""

    message: StoredMessage

    @property
    def seq(self) -> int:
        return self.message.seq

    @property
    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.message.payload)
        return body

    @property
    def payload(self) -> bytes:
        """The payload of the message that was given up."""
        return base64.b64decode(self.body["payload"], validate=True)


def letters(session: NatsSession, *, after: int = 0) -> list[Letter]:
    """The dead letters above a sequence."""
    return [Letter(message) for message in session.stream_messages(DLQ, after=after)]


def letters_with(session: NatsSession, msg_id: str) -> list[Letter]:
    """The dead letters of one message."""
    return [
        letter
        for letter in letters(session)
        if letter.message.headers.get("x-original-msg-id") == msg_id
    ]


@dataclass(frozen=True)
class Refusal:
    """One answer of the consumer to a delivery, as the server tells it: ``NAKED`` or ``TERMINATED``."""

    kind: str
    deliveries: int
    at: float  # the server's clock, seconds since 1970


class Advisories:
    """Listens to what the server says about the consumer's refusals."""

    def __init__(self, url: str) -> None:
        self.tap = NatsTap(
            url, (f"{_ADVISORIES}.MSG_NAKED.>", f"{_ADVISORIES}.MSG_TERMINATED.>"), internals=True
        )

    def __enter__(self) -> Advisories:
        self.tap.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.tap.close()

    def of(self, stream_seq: int) -> list[Refusal]:
        """What became of the deliveries of one message, in order."""
        found = []
        for message in self.tap.messages():
            told = message.json()
            if told["stream_seq"] == stream_seq:
                kind = message.subject.split(".")[4].removeprefix("MSG_")
                at = datetime.fromisoformat(told["timestamp"]).timestamp()
                found.append(Refusal(kind, told["deliveries"], at))
        return found

    def until_terminated(self, stream_seq: int) -> list[Refusal]:
        """Wait for the last word on a message, and return all of them."""

        def last() -> list[Refusal]:
            found = self.of(stream_seq)
            return found if found and found[-1].kind == "TERMINATED" else []

        return wait_until(last, message=lambda: f"message {stream_seq}: {self.of(stream_seq)}")
