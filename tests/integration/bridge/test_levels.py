"""How full streams are and how far behind consumers, as `Bridge.health` tells it."""

from __future__ import annotations

import asyncio

from bridge import Bridge, Bus, ConsumerLevel, ConsumerSpec, Delivery, Reject
from gateway.devstack.nats_server import NatsServer
from tests.support.bridge_running import ASSIGN, EXEC, KEYS, RESULT, RunningBridges, soon
from tests.support.nats_session import NatsSession
from tests.support.waiting import wait_until

SPEC = ConsumerSpec(subject=RESULT, durable="results", max_in_progress=4, backoff_ms=(0, 60_000))
OFTEN_SECONDS = 0.1


def level(bridge: Bridge) -> ConsumerLevel | None:
    return bridge.health().consumers.get("results")


def store(nats: NatsSession, subject: str, count: int, size: int = 10) -> None:
    async def work() -> None:
        for _ in range(count):
            await nats.jetstream.publish(subject, b"x" * size)

    nats.call(work())


def test_streams_and_buckets_are_told_with_their_size_and_limit(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    bridges.start(server.url).close(5.0)
    store(nats, ASSIGN, 3, size=1_000)
    found = bridges.start(server.url, buckets=(KEYS,)).health().streams
    assert set(found) == {"BEAMLINE_EXEC", "KV_BEAMLINE_KEYS"}
    assert found["BEAMLINE_EXEC"].messages == 3
    assert 3_000 <= found["BEAMLINE_EXEC"].size_bytes <= 4_000
    assert found["BEAMLINE_EXEC"].max_bytes == EXEC.max_bytes
    assert found["KV_BEAMLINE_KEYS"].max_bytes == KEYS.max_bytes
    assert found["KV_BEAMLINE_KEYS"].messages == 0


def test_a_stream_of_another_owner_is_told_under_its_own_name(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    nats.call(nats.jetstream.add_stream(name="THEIRS", subjects=[RESULT]))
    found = bridges.start(server.url).health().streams
    assert set(found) == {"BEAMLINE_EXEC", "THEIRS"}
    assert found["THEIRS"].max_bytes is None


def test_a_consumer_that_cannot_keep_up_is_told_by_what_waits(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    go_on = asyncio.Event()

    async def consume(bus: Bus) -> None:
        async def handle(_: Delivery) -> None:
            await go_on.wait()

        await bus.consume(SPEC, handle)

    bridge = bridges.start(
        server.url, services=(consume,), consumers=(SPEC,), measure_interval_seconds=OFTEN_SECONDS
    )
    store(nats, RESULT, 10)
    wait_until(lambda: level(bridge) == ConsumerLevel(6, 4, 0), message=lambda: str(level(bridge)))

    async def release(_: Bus) -> None:
        go_on.set()

    bridge.run(release, soon())
    wait_until(lambda: level(bridge) == ConsumerLevel(0, 0, 0), message=lambda: str(level(bridge)))


def test_messages_that_are_refused_are_told_as_redelivered(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    async def consume(bus: Bus) -> None:
        async def handle(_: Delivery) -> None:
            raise Reject("bad", "as told")

        await bus.consume(SPEC, handle)

    bridge = bridges.start(
        server.url, services=(consume,), consumers=(SPEC,), measure_interval_seconds=OFTEN_SECONDS
    )
    store(nats, RESULT, 3)
    # The second delivery was refused too; the third one is a minute away.
    wait_until(lambda: level(bridge) == ConsumerLevel(0, 3, 3), message=lambda: str(level(bridge)))


def test_nothing_is_told_of_a_server_that_is_away(
    server: NatsServer, bridges: RunningBridges
) -> None:
    async def consume(bus: Bus) -> None:
        async def handle(_: Delivery) -> None:
            return

        await bus.consume(SPEC, handle)

    bridge = bridges.start(
        server.url, services=(consume,), consumers=(SPEC,), measure_interval_seconds=OFTEN_SECONDS
    )
    wait_until(lambda: level(bridge) is not None)
    server.kill()
    wait_until(lambda: not bridge.health().connected)
    assert (dict(bridge.health().streams), dict(bridge.health().consumers)) == ({}, {})
    server.start()
    wait_until(lambda: level(bridge) is not None and "BEAMLINE_EXEC" in bridge.health().streams)


def test_a_consumer_that_is_not_there_is_left_out(
    server: NatsServer, bridges: RunningBridges
) -> None:
    bridge = bridges.start(server.url, consumers=(SPEC,), measure_interval_seconds=OFTEN_SECONDS)
    assert level(bridge) is None
    assert bridge.health().ready
