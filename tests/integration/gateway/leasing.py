"""Two workers' leases over a real bucket, without HTTP, and calls that end when a test says so."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

from bridge import Bridge, BridgeConfig, BucketSpec
from gateway.devstack.nats_server import NatsServer
from gateway.idempotency import (
    BUCKET,
    Held,
    Keep,
    Leases,
    Outcome,
    Record,
    State,
    Verdict,
    find,
)
from gateway.idempotency.leases import Settled
from tests.support.waiting import GENEROUS_SECONDS, wait_until

LEASE_SECONDS = 0.5

Effect = Callable[[], Awaitable[Verdict]]


@dataclass
class Worker:
    """A connection and what it has seen, as in one worker."""

    bridge: Bridge
    leases: Leases = field(default_factory=lambda: Leases(LEASE_SECONDS))

    def call(
        self, key: str, effect: Effect, *, fingerprint: str = "f", seconds: float = GENEROUS_SECONDS
    ) -> Settled:
        deadline = time.monotonic() + seconds
        wanted = Record(
            claim_id=secrets.token_hex(12),
            fingerprint=fingerprint,
            state=State.IN_PROGRESS,
            request_id="r",
            trace_id="0" * 31 + "1",
            cp_phase="cp2",
        )
        return self.bridge.run(
            lambda bus: self.leases.call(bus, key, wanted, effect, deadline), deadline
        )

    def state(self, key: str) -> State | None:
        deadline = time.monotonic() + GENEROUS_SECONDS
        held: Held | None = self.bridge.run(lambda bus: find(bus, key, deadline), deadline)
        return None if held is None else held.record.state


class Call:
    """An effect that ends when the test says so; how often it was begun is counted."""

    def __init__(self) -> None:
        self.begun = 0
        self._end: Future[Verdict] = Future()

    async def __call__(self) -> Verdict:
        self.begun += 1
        return await asyncio.shield(asyncio.wrap_future(self._end))

    def wait_until_begun(self) -> None:
        wait_until(lambda: self.begun, message="the effect did not begin")

    def ends(self, keep: Keep, answer: str) -> None:
        self._end.set_result(Verdict(outcome(answer), keep))

    def fails(self, error: Exception) -> None:
        self._end.set_exception(error)


def outcome(answer: str) -> Outcome:
    return Outcome(200, {"answer": answer})


def at_once(keep: Keep, answer: str) -> Effect:
    async def effect() -> Verdict:
        return Verdict(outcome(answer), keep)

    return effect


async def never() -> Verdict:
    raise AssertionError("nobody may call")


def started(server: NatsServer, ttl_ms: int) -> Iterator[list[Worker]]:
    """Two workers on a bucket of that TTL; closed when the generator is."""
    config = BridgeConfig(
        servers=(server.url,), buckets=(BucketSpec(name=BUCKET, ttl_ms=ttl_ms),), max_in_flight=64
    )
    workers = [Worker(Bridge(config)) for _ in range(2)]
    for worker in workers:
        worker.bridge.start()
        assert worker.bridge.wait_ready(GENEROUS_SECONDS), worker.bridge.health()
    yield workers
    for worker in workers:
        worker.bridge.close(5.0)
