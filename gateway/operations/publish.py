"""Publish: store an assignment or an ack in its stream, once.

Claim, then publish with a ``Nats-Msg-Id`` that belongs to the claim: whoever repeats it, the stream keeps one message
and answers with its place. With NATS away: `NotSent` before the claim; `Unknown` when something was sent, and the same
request again goes on from where it stands.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from bridge import Bus, PubAck
from gateway.context import RequestContext
from gateway.idempotency import BUCKET, Held, HttpId, Outcome, Record, State, claim
from gateway.operations.outgoing import Outgoing, compose
from gateway.schemas.base import WIRE_VERSION

ASSIGNMENTS: Final = "assignments"
ACKS: Final = "acks"


@dataclass(frozen=True, slots=True)
class Publication:
    """A publish that happens once: whose it is, what was meant, how its message is made and what to answer.

    ``compose`` makes the message of a record under the ids of its first call; ``outcome`` turns the stream's
    acknowledgement into the answer; ``on_claimed`` is told whether this request is the first.
    """

    operation: str
    key: HttpId
    fingerprint: str
    context: RequestContext
    compose: Callable[[Record, RequestContext], Outgoing]
    outcome: Callable[[Bus, PubAck, Held], Awaitable[Outcome]]
    on_claimed: Callable[[bool], None]

    @property
    def record_key(self) -> str:
        """The key of its record."""
        return self.key.record_key(self.operation)

    def first(self, server_now: float | None) -> First:
        """The record and message for the case that this request is the first; made before the hop."""
        record = Record.new(State.CLAIMED, self.fingerprint, self.context, server_now)
        return First(record, self.compose(record, self.context))


@dataclass(frozen=True, slots=True)
class First:
    """A record that is not written yet, and its message."""

    record: Record
    outgoing: Outgoing


@dataclass(frozen=True, slots=True)
class Published:
    """How it ended: the answer's status and body, and the record behind it."""

    outcome: Outcome
    held: Held


def execution(
    operation: str,
    key: HttpId,
    fingerprint: str,
    body: Mapping[str, Any],
    context: RequestContext,
    *,
    subject: str,
    on_claimed: Callable[[bool], None],
) -> Publication:
    """An ExecAssignment or ExecAssignmentAck."""

    def make(record: Record, first: RequestContext) -> Outgoing:
        message = {"version": WIRE_VERSION, "tenant_id": first.tenant, **body}
        if operation == ASSIGNMENTS:
            message["request_id"] = first.request_id
        message["correlation"] = {"trace_id": first.trace_id}
        return compose(subject, message, first, msg_id=f"{operation}.{record.claim_id}")

    async def stored(_bus: Bus, ack: PubAck, held: Held) -> Outcome:
        return Outcome(202, receipt(operation, key, ack, held.record))

    return Publication(operation, key, fingerprint, context, make, stored, on_claimed)


async def publish_once(bus: Bus, publication: Publication, first: First) -> Published:
    """Claim the id and store the message, or find that it is stored. Raises Conflict and the bridge's errors."""
    deadline = publication.context.deadline
    held = await claim(bus, publication.record_key, first.record, deadline)
    publication.on_claimed(held.mine)
    if held.record.outcome is not None:
        return Published(held.record.outcome, held)
    outgoing = first.outgoing
    if not held.mine:
        context = held.record.first_call(publication.context)
        outgoing = publication.compose(held.record, context)
    ack = await bus.publish(
        outgoing.subject, outgoing.payload, headers=outgoing.headers, deadline=deadline
    )
    outcome = await publication.outcome(bus, ack, held)
    if bus.forgets_ids(outgoing.subject):
        await _keep(bus, publication.record_key, held, outcome, deadline)
    return Published(outcome, held)


async def _keep(bus: Bus, record_key: str, held: Held, outcome: Outcome, deadline: float) -> None:
    """Write the outcome into the claim, for a stream that may forget the message's id before the claim ends.

    A repeat then answers from the record and never publishes again. Another repeat may have done it already.
    """
    record = held.record.ended(State.CLAIMED, outcome)
    await bus.bucket(BUCKET).settle(record_key, record.encode(), held.revision, deadline=deadline)


def receipt(operation: str, key: HttpId, ack: PubAck, record: Record) -> dict[str, Any]:
    """The 202 body (design, section 3): the same at every replay, with the first call's ids."""
    return {
        "ok": True,
        "operation": operation,
        key.key_type.value: key.id,
        "emitted": True,
        "stream": ack.stream,
        "seq": ack.seq,
        "context": {"request_id": record.request_id, "trace_id": record.trace_id},
    }
