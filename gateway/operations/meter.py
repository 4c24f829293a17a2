"""Meter: emit ``beamline.usage.v1.metered`` at most once a tenant and assignment (or request).

Two rules, one after the other. The ``usage_id`` makes the HTTP request idempotent, by a claim as for every publish.
The pair (tenant, assignment or request) makes the event unique, whatever reports it: it is the ``Nats-Msg-Id``, and
the usage stream's duplicate window is ``USAGE_DEDUPE_WINDOW_MS`` long. When the stream says "duplicate", the original
is read by its sequence: the header ``claim_id`` tells one's own event, stored by an earlier attempt, from another's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bridge import BridgeError, Bus, NotSent, PubAck
from gateway.context import RequestContext
from gateway.idempotency import Conflict, Held, HttpId, Outcome, Record, usage_pair
from gateway.operations.outgoing import Outgoing, compose
from gateway.operations.publish import First, Publication, Published, publish_once, receipt
from gateway.schemas.base import WIRE_VERSION

USAGE: Final = "usage"
FROM_RESULT: Final = "result"
CLAIM_HEADER: Final = "claim_id"
_AT_A_TIME: Final = 128
_FIELDS: Final = (
    "provider_id", "event_type", "latency_ms", "cost", "status",
    "timestamp", "assignment_id", "request_id",
)  # fmt: skip


def event(
    key: HttpId,
    fingerprint: str,
    body: Mapping[str, Any],
    context: RequestContext,
    *,
    subject: str,
    on_claimed: Callable[[bool], None],
    on_metered: Callable[[bool], None],
) -> Publication:
    """A usage event that a client reports.

    Its outcome is 202 when this event is the one that counts, at every replay too, and 200 ``emitted: false`` when
    another one is. ``on_metered`` is told, once a claim, which it was.
    """
    pair = pair_of(context.tenant, body)

    def make(record: Record, first: RequestContext) -> Outgoing:
        outgoing = compose_event(body, first, subject=subject, pair=pair)
        headers = {**outgoing.headers, "usage_id": key.id, CLAIM_HEADER: record.claim_id}
        return Outgoing(subject, outgoing.payload, headers)

    async def counted(bus: Bus, ack: PubAck, held: Held) -> Outcome:
        record = held.record
        body = receipt(USAGE, key, ack, record)
        if not ack.duplicate:
            on_metered(True)
            return Outcome(202, body)
        original = await bus.stored(ack.stream, ack.seq, deadline=context.deadline)
        headers = original.headers if original else {}  # none: it is not kept any more
        if headers.get(CLAIM_HEADER) == record.claim_id:
            return Outcome(202, body)
        if held.mine:
            on_metered(False)
        duplicate_of = headers.get("usage_id") or headers.get("usage_source")
        return Outcome(200, {**body, "emitted": False, "duplicate_of": duplicate_of})

    return Publication(USAGE, key, fingerprint, context, make, counted, on_claimed)


def compose_event(
    body: Mapping[str, Any], context: RequestContext, *, subject: str, pair: str
) -> Outgoing:
    """The event on the wire: exactly the contract's fields, absent optionals left out."""
    message = {
        "version": WIRE_VERSION,
        "tenant_id": context.tenant,
        "trace_id": context.trace_id,
        **{name: body[name] for name in _FIELDS if name in body},
    }
    return compose(subject, message, context, msg_id=pair)


def pair_of(tenant_id: str, body: Mapping[str, Any]) -> str:
    """Under which id the event is unique: an event that names both ids goes by the assignment."""
    return usage_pair(
        tenant_id,
        assignment_id=body.get("assignment_id"),
        request_id=body.get("request_id"),
    )


# -- batches ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One event of a batch, with what makes it unique."""

    publication: Publication
    first: First
    pair: str


BatchResult = Published | Conflict | BridgeError


async def meter_batch(bus: Bus, items: Sequence[BatchItem]) -> list[BatchResult]:
    """The outcome of each item, in the order given.

    Items that share a key or a pair go one after the other, in their order, as if they came singly; all others are
    pipelined. A claim is acknowledged before its own publish is sent. Raises NotSent if nothing was sent at all.
    """
    results: list[BatchResult] = [NotSent("not tried")] * len(items)
    room = asyncio.Semaphore(_AT_A_TIME)

    async def run(chain: list[int]) -> None:
        async with room:
            for index in chain:
                item = items[index]
                try:
                    results[index] = await publish_once(bus, item.publication, item.first)
                except (Conflict, BridgeError) as error:
                    results[index] = error

    names = [(item.publication.record_key, item.pair) for item in items]
    await asyncio.gather(*(run(chain) for chain in chains(names)))
    if results and all(isinstance(result, NotSent) for result in results):
        raise results[0]  # type: ignore[misc]  # all of them are errors
    return results


def chains(names: Sequence[tuple[str, str]]) -> list[list[int]]:
    """Indices of items that must go one after the other: those joined, perhaps through others, by an equal name.

    ``names`` are each item's record key and pair. Every index is in exactly one chain, and a chain is in order.
    """
    chain_of: dict[str, list[int]] = {}
    for index, own in enumerate(names):
        found = {id(chain): chain for name in own if (chain := chain_of.get(name)) is not None}
        # The smaller joins the larger: however they are linked, a thousand items are a few thousand steps.
        longest, *others = sorted(found.values(), key=len, reverse=True) or [[]]
        for other in others:
            longest += other
            chain_of.update((name, longest) for moved in other for name in names[moved])
        longest.append(index)
        chain_of.update((name, longest) for name in own)
    return [sorted(chain) for chain in {id(chain): chain for chain in chain_of.values()}.values()]
