"""Claims: for effects that are publishes, the first to create the record has claimed the id.

::

    request ──▶ create record ──▶ publish, Nats-Msg-Id = operation + claim_id ──▶ 202
                │                 │                                          │
                │                 │                          crash here: the message is stored; a repeat finds
                │                 │                          the record, publishes the same id again, the stream
                │                 │                          answers with the first one's sequence   → 202, replayed
                │                 crash here: a repeat finds the record and publishes; it is the first to do so
                crash here: nothing happened; a repeat claims

    ├──────────────── IDEMPOTENCY_TTL_MS ────────────────┤ record gone: the same id is a new operation
    ├──────────── the stream's duplicate window, 60 s longer ───────────┤ covers every repeat of the claim

There is no "in progress": whoever finds the record goes on from it, and the stream makes it one message. The message
is built from the record's ids, so it is the same one whoever publishes it. Claims of publishes are never deleted, and
everything that can refuse a request is checked before its claim.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from datetime import datetime

from bridge import Bucket, Bus, Entry, NotSent, Taken
from gateway.idempotency.records import BUCKET, Record


class Conflict(Exception):
    """The id was used for another request."""


@dataclass(frozen=True, slots=True)
class Held:
    """The record that holds the id: ``mine`` if this very request created it.

    ``expires_at`` (monotonic seconds) is when the record is gone, at the earliest; None if that is not known.
    """

    record: Record
    revision: int
    mine: bool
    expires_at: float | None


async def claim(bus: Bus, key: str, wanted: Record, deadline: float) -> Held:
    """Create the record, or find the one that was there first.

    Raises Conflict when that one is of another request. With NATS away: NotSent before anything was sent; Unknown when
    the create was sent and not acknowledged (the claim may stand; repeating the request goes on from it).
    """
    bucket = bus.bucket(BUCKET)
    while True:
        asked_at = time.monotonic()
        try:
            revision = await bucket.create(key, wanted.encode(), deadline=deadline)
            return Held(wanted, revision, True, _after(asked_at, bucket))
        except Taken as taken:
            entry = taken.entry
        if entry is not None:
            held = _held(bus, bucket, entry)
            if held.record.holds_id_against(wanted):
                raise Conflict
            # A create that was cut off by a lost connection and repeated finds its own record.
            mine = held.record.claim_id == wanted.claim_id
            return Held(held.record, held.revision, mine, held.expires_at)
        # "Exists", then "not found": it expired in between, or a leader changed. Create again.
        if time.monotonic() >= deadline:
            raise NotSent("the claim could not be made before the deadline")
        await asyncio.sleep(random.uniform(0.002, 0.02))


async def find(bus: Bus, key: str, deadline: float) -> Held | None:
    """The record of a key, if it has one."""
    bucket = bus.bucket(BUCKET)
    entry = await bucket.get(key, deadline=deadline)
    return None if entry is None else _held(bus, bucket, entry)


def _held(bus: Bus, bucket: Bucket, entry: Entry) -> Held:
    return Held(Record.decode(entry.value), entry.revision, False, _expiry(bus, bucket, entry))


def _after(asked_at: float, bucket: Bucket) -> float | None:
    return None if bucket.ttl_ms is None else asked_at + bucket.ttl_ms / 1000


def _expiry(bus: Bus, bucket: Bucket, entry: Entry) -> float | None:
    """When the server will drop the entry, by the server's clock alone."""
    now = bus.server_now()
    if now is None or bucket.ttl_ms is None:
        return None
    age = now - datetime.fromisoformat(entry.stored_at).timestamp()
    return time.monotonic() + bucket.ttl_ms / 1000 - max(0.0, age)
