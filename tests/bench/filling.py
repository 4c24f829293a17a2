"""Filling: a bucket with very many live claims or sessions, each as the gateway itself writes it.

They go straight into the bucket's stream, some thousands at once without an answer each: only the last of a lot is
acknowledged, and the stream's own count says in the end that all are there.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import nats
from nats.aio.client import Client

from gateway.context import RequestContext, new_request_id, new_trace_id
from gateway.idempotency import BUCKET as CLAIMS
from gateway.idempotency import KeyType, Record, State, fingerprint, mark_http_id
from gateway.operations.meter import USAGE
from gateway.sticky import BUCKET as SESSIONS
from gateway.sticky import Binding, session_key

TENANT: Final = "acme"
PROVIDER: Final = "openai:gpt-4o"
"""Whom the responder always names: a session with anybody else would move."""
_LOT: Final = 2_000
_IN_FLIGHT: Final = 128
_FIRST: Final = {"Nats-Expected-Last-Subject-Sequence": "0"}


def usage_event(number: int, now_ms: int) -> dict[str, Any]:
    """The event whose claim is live under this number, if it was filled with the same ``now_ms``."""
    return {
        "usage_id": f"live-{number}",
        "assignment_id": f"live-{number}",
        "event_type": "chat",
        "provider_id": PROVIDER,
        "latency_ms": 850,
        "cost": 0.012,
        "status": "success",
        "timestamp": now_ms,
    }


@dataclass(frozen=True)
class Filling:
    """A bucket, and the entry of each number."""

    bucket: str
    entry: Callable[[int], tuple[str, bytes]]


def claims(now_ms: int) -> Filling:
    """Claims of usage events, as they stand once the event is published, each of a traced request."""

    def entry(number: int) -> tuple[str, bytes]:
        event = usage_event(number, now_ms)
        key = mark_http_id(TENANT, KeyType.USAGE_ID, event["usage_id"]).record_key(USAGE)
        context = RequestContext(
            request_id=new_request_id(),
            trace_id=new_trace_id(),
            cp_phase="cp2",
            timeout_seconds=5,
            deadline=0,
        )
        record = Record.new(State.CLAIMED, fingerprint(event), context, now_ms / 1000)
        return key, replace(
            record, span=f"{context.trace_id}-{random.getrandbits(64):016x}"
        ).encode()

    return Filling(CLAIMS, entry)


def sessions() -> Filling:
    """Sessions ``live-0``, ``live-1``, …, bound to the responder's provider."""

    def entry(number: int) -> tuple[str, bytes]:
        key = session_key(TENANT, "session_id", {"session_id": f"live-{number}"})
        assert key is not None
        return key, Binding(PROVIDER, 0, "best_score", random.randbytes(8).hex()).encode()

    return Filling(SESSIONS, entry)


def refill(url: str, filling: Filling, count: int) -> float:
    """Empty the bucket, which the gateway has made, and put ``count`` entries into it. How many seconds it took."""
    return asyncio.run(_refill(url, filling, count))


def live(url: str, bucket: str) -> int:
    """How many entries the bucket holds."""
    return asyncio.run(_live(url, bucket))


async def _refill(url: str, filling: Filling, count: int) -> float:
    begun = time.perf_counter()
    client = await nats.connect(url, pending_size=64 << 20)
    await client.jetstream().purge_stream(f"KV_{filling.bucket}")
    for first in range(0, count, _LOT):
        lot = range(first, min(first + _LOT, count))
        for number in lot:
            await _put(client, filling, number, acknowledged=number == lot[-1])
    found = (await client.jetstream().stream_info(f"KV_{filling.bucket}")).state.messages
    await client.close()
    # What the load before had in flight at its end may have come to it.
    there = f"{found:,} of {count:,} entries are in {filling.bucket}"
    assert count <= found <= count + _IN_FLIGHT, there
    return time.perf_counter() - begun


async def _put(client: Client, filling: Filling, number: int, *, acknowledged: bool) -> None:
    key, value = filling.entry(number)
    subject = f"$KV.{filling.bucket}.{key}"
    if acknowledged:
        await client.jetstream().publish(subject, value, headers=_FIRST, timeout=30)
    else:
        await client.publish(subject, value, headers=_FIRST)


async def _live(url: str, bucket: str) -> int:
    client = await nats.connect(url)
    found = (await client.jetstream().stream_info(f"KV_{bucket}")).state.messages
    await client.close()
    return found
