"""Key/value buckets: compare-and-set, expiry by the server, and calls cut off by a lost connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from bridge import Bridge, Bucket, BucketSpec, NotSent, Refusal, Refused, Unknown
from gateway.devstack.nats_server import NatsServer
from tests.support.bridge_running import (
    KEYS,
    RunningBridges,
    outcome,
    soon,
    wait_for_count,
    wait_published,
)
from tests.support.waiting import AT_ONCE_SECONDS, RECOVERY_SECONDS, wait_until

T = TypeVar("T")
SHORT = BucketSpec(name="BEAMLINE_SHORT", ttl_ms=1_000, max_bytes=1024 * 1024)


def on(
    bridge: Bridge,
    work: Callable[[Bucket, float], Awaitable[T]],
    *,
    bucket: str = KEYS.name,
    seconds: float = 5.0,
) -> T:
    """Do something with a bucket in one hop."""
    deadline = soon(seconds)
    return bridge.run(lambda bus: work(bus.bucket(bucket), deadline), deadline)


def create(bridge: Bridge, key: str, value: bytes, *, seconds: float = 5.0) -> int:
    return on(bridge, lambda bucket, end: bucket.create(key, value, deadline=end), seconds=seconds)


def get(bridge: Bridge, key: str, *, bucket: str = KEYS.name) -> bytes | None:
    entry = on(bridge, lambda found, end: found.get(key, deadline=end), bucket=bucket)
    return None if entry is None else entry.value


@pytest.fixture
def bridge(server: NatsServer, bridges: RunningBridges) -> Bridge:
    """A bridge with two buckets."""
    return bridges.start(server.url, buckets=(KEYS, SHORT))


def test_a_key_is_created_once_and_read_back(bridge: Bridge) -> None:
    assert get(bridge, "key") is None
    revision = create(bridge, "key", b"first")
    with pytest.raises(Refused) as refusal:
        create(bridge, "key", b"second")
    assert refusal.value.reason is Refusal.REVISION
    entry = on(bridge, lambda bucket, end: bucket.get("key", deadline=end))
    assert entry is not None
    assert (entry.value, entry.revision) == (b"first", revision)


def test_of_many_creations_at_the_same_time_one_succeeds(bridge: Bridge) -> None:
    with ThreadPoolExecutor(16) as pool:
        calls = [pool.submit(create, bridge, "key", b"%d" % number) for number in range(16)]
        results = [outcome(call) for call in calls]
    assert sum(isinstance(result, int) for result in results) == 1
    assert sum(isinstance(result, Refused) for result in results) == 15


def test_an_update_needs_the_last_revision(bridge: Bridge) -> None:
    first = create(bridge, "key", b"1")
    second = on(bridge, lambda bucket, end: bucket.update("key", b"2", first, deadline=end))
    with pytest.raises(Refused) as refusal:
        on(bridge, lambda bucket, end: bucket.update("key", b"late", first, deadline=end))
    assert refusal.value.reason is Refusal.REVISION
    assert second > first
    assert get(bridge, "key") == b"2"


def test_a_deleted_key_is_gone_and_can_be_created_again(bridge: Bridge) -> None:
    create(bridge, "key", b"1")
    on(bridge, lambda bucket, end: bucket.delete("key", deadline=end))
    assert get(bridge, "key") is None
    create(bridge, "key", b"2")
    assert get(bridge, "key") == b"2"


def test_a_key_expires_after_its_ttl_and_can_be_created_again(bridge: Bridge) -> None:
    on(bridge, lambda b, end: b.create("key", b"1", deadline=end), bucket=SHORT.name)
    begun = time.monotonic()
    assert on(bridge, lambda b, end: asyncio.sleep(0, b.ttl_ms), bucket=SHORT.name) == 1_000
    wait_until(lambda: get(bridge, "key", bucket=SHORT.name) is None)
    assert time.monotonic() - begun > 0.5
    on(bridge, lambda b, end: b.create("key", b"2", deadline=end), bucket=SHORT.name)
    assert get(bridge, "key", bucket=SHORT.name) == b"2"


def test_a_write_and_a_read_cut_off_by_a_restart_are_repeated_inside_their_deadline(
    server: NatsServer, bridge: Bridge
) -> None:
    create(bridge, "there", b"value")
    server.freeze()
    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(create, bridge, "new", b"value", seconds=15)
        reading = pool.submit(on, bridge, lambda b, end: b.get("there", deadline=end), seconds=15)
        wait_for_count(lambda: bridge.health().in_flight, 2)
        server.kill()
        server.start()
        written, read = outcome(writing), outcome(reading)
    # A repeated write may find itself; the value tells.
    assert isinstance(written, int) or (
        isinstance(written, Refused) and written.reason is Refusal.REVISION
    )
    assert get(bridge, "new") == b"value"
    assert read.value == b"value"


def test_a_write_to_a_frozen_server_is_unknown_and_may_have_happened(
    server: NatsServer, bridge: Bridge
) -> None:
    server.freeze()
    with pytest.raises(Unknown):
        create(bridge, "key", b"mine", seconds=0.3)
    server.thaw()
    with pytest.raises(Refused):
        create(bridge, "key", b"another's")
    assert get(bridge, "key") == b"mine"


def test_without_a_connection_every_call_is_not_sent_at_once(
    server: NatsServer, bridge: Bridge
) -> None:
    server.kill()
    wait_until(lambda: not bridge.health().connected)
    begun = time.monotonic()
    with pytest.raises(NotSent):
        create(bridge, "key", b"1")
    with pytest.raises(NotSent):
        get(bridge, "key")
    assert time.monotonic() - begun < AT_ONCE_SECONDS
    server.start()
    wait_published(bridge, RECOVERY_SECONDS)
