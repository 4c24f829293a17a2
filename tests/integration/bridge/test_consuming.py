"""A durable pull consumer: acknowledged after the effect, refused with pauses, given up in the end."""

from __future__ import annotations

import asyncio
import dataclasses
import time

import pytest

from bridge import Bridge, Bus, ConsumerSpec, Delivery, NotSent, Reject
from gateway.devstack.nats_server import NatsServer
from tests.support.bridge_consumption import Consumption
from tests.support.bridge_hanging_consumer import HangingConsumer
from tests.support.bridge_running import EXEC, RESULT, RunningBridges, publish, soon, wait_for_count
from tests.support.nats_session import NatsSession
from tests.support.waiting import AT_ONCE_SECONDS, GENEROUS_SECONDS, PATIENCE, wait_until

SPEC = ConsumerSpec(
    subject=RESULT, durable="results", ack_wait_ms=1_000, max_deliver=3, backoff_ms=(100, 400)
)


def unacknowledged(nats: NatsSession) -> int:
    """Messages of the consumer that are not settled: waiting, or given out and not acknowledged."""
    info = nats.call(nats.jetstream.consumer_info(EXEC.name, SPEC.durable))
    return (info.num_pending or 0) + (info.num_ack_pending or 0)


def allow(bridge: Bridge, event: asyncio.Event) -> None:
    """Set an event of the bridge's loop."""

    async def operation(_: Bus) -> None:
        event.set()

    bridge.run(operation, soon())


def test_each_message_is_handled_once_with_all_that_came_with_it(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    consumption = Consumption(SPEC)
    bridge = bridges.start(server.url, services=[consumption.service])
    for number in range(200):
        publish(bridge, RESULT, b"%d" % number, msg_id=f"m-{number}", headers={"version": "1"})
    wait_until(lambda: len(consumption.done) == 200)
    wait_until(lambda: unacknowledged(nats) == 0, message="something is not acknowledged")
    assert set(consumption.counts().values()) == {1}
    first = next(delivery for delivery in consumption.done if delivery.payload == b"0")
    assert first == Delivery(
        subject=RESULT,
        payload=b"0",
        headers={"Nats-Msg-Id": "m-0", "version": "1"},
        num_delivered=1,
        stream=EXEC.name,
        stream_seq=1,
    )


def test_a_message_for_an_idle_consumer_is_handled_at_once(
    server: NatsServer, bridges: RunningBridges
) -> None:
    consumption = Consumption(SPEC)
    bridge = bridges.start(server.url, services=[consumption.service])
    for number in range(10):
        publish(bridge, RESULT, b"%d" % number)
        published_at = time.monotonic()
        wait_for_count(lambda: len(consumption.given), number + 1)
        assert consumption.given[-1][0] - published_at < AT_ONCE_SECONDS


def test_a_message_is_acknowledged_only_after_its_handler_has_returned(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    allowed = asyncio.Event()

    async def wait_for_permission(_: Delivery) -> None:
        await allowed.wait()

    consumption = Consumption(SPEC, act=wait_for_permission)
    bridge = bridges.start(server.url, services=[consumption.service])
    publish(bridge, RESULT)
    wait_until(lambda: consumption.given)
    assert unacknowledged(nats) == 1
    allow(bridge, allowed)
    wait_until(lambda: unacknowledged(nats) == 0, message="it is not acknowledged")


def test_a_refused_message_comes_again_after_the_configured_pauses_and_is_given_up_at_the_last(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    async def refuse(_: Delivery) -> None:
        raise Reject("bad_version", "version 2 is not known")

    consumption = Consumption(SPEC, act=refuse)
    bridge = bridges.start(server.url, services=[consumption.service])
    publish(bridge, RESULT, b"bad")
    wait_until(lambda: consumption.dead)
    assert [delivery.num_delivered for _, delivery in consumption.given] == [1, 2, 3]
    _, second, third = consumption.times()
    assert 0.1 <= second < 0.1 + 0.3 * PATIENCE
    assert 0.4 <= third - second < 0.4 + 0.3 * PATIENCE
    ((delivery, why),) = consumption.dead
    assert (delivery.payload, delivery.num_delivered) == (b"bad", 3)
    assert (why.code, str(why)) == ("bad_version", "version 2 is not known")
    wait_until(lambda: unacknowledged(nats) == 0, message="it is not settled")


def test_a_message_that_another_delivery_would_not_help_is_given_up_at_the_first(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    async def refuse(_: Delivery) -> None:
        raise Reject("unreadable", "not JSON", final=True)

    consumption = Consumption(SPEC, act=refuse)
    bridge = bridges.start(server.url, services=[consumption.service])
    publish(bridge, RESULT)
    wait_until(lambda: consumption.dead)
    wait_until(lambda: unacknowledged(nats) == 0, message="it is not settled")
    assert len(consumption.given) == 1


def test_a_dead_letter_that_cannot_be_stored_keeps_its_message_until_it_can(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    attempts: list[str] = []

    async def refuse(_: Delivery) -> None:
        raise Reject("bad_version", "version 2 is not known", final=True)

    async def bury(_: Delivery, why: Reject) -> None:
        attempts.append(why.code)
        if len(attempts) < 4:
            raise NotSent("the stream of the dead is full")

    consumption = Consumption(SPEC, act=refuse, bury=bury)
    bridge = bridges.start(server.url, services=[consumption.service])
    publish(bridge, RESULT)
    wait_until(lambda: consumption.dead)
    assert attempts == ["bad_version"] * 4, "the reason stays what it was"
    wait_until(lambda: unacknowledged(nats) == 0, message="it is not settled")


def test_trouble_of_our_own_costs_no_delivery_however_long_it_takes(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    attempts = 0

    async def fail_for_a_while(_: Delivery) -> None:
        nonlocal attempts
        attempts += 1
        # More often than max_deliver, and for longer than ack_wait.
        if attempts < 5:
            raise NotSent("a bucket has no leader")

    consumption = Consumption(SPEC, act=fail_for_a_while)
    bridge = bridges.start(server.url, services=[consumption.service])
    publish(bridge, RESULT)
    wait_until(lambda: consumption.done)
    assert {delivery.num_delivered for _, delivery in consumption.given} == {1}
    assert consumption.dead == []
    wait_until(lambda: unacknowledged(nats) == 0, message="it is not acknowledged")


def test_a_bug_in_the_handler_does_not_cost_the_message_at_max_deliver(
    server: NatsServer,
    nats: NatsSession,
    bridges: RunningBridges,
    caplog: pytest.LogCaptureFixture,
) -> None:
    spec = dataclasses.replace(SPEC, max_deliver=1)

    async def stumble(delivery: Delivery) -> None:
        if delivery.num_delivered <= spec.max_deliver + 1:
            raise KeyError("a bug")

    consumption = Consumption(spec, act=stumble)
    bridge = bridges.start(server.url, services=[consumption.service])
    publish(bridge, RESULT)
    wait_until(lambda: consumption.done)
    assert consumption.done[0].num_delivered == spec.max_deliver + 2
    assert consumption.dead == []
    assert any("a bug" in (record.exc_text or "") for record in caplog.records), (
        "and nobody is told"
    )
    wait_until(lambda: unacknowledged(nats) == 0, message="it is not acknowledged")


def test_a_message_whose_handler_is_killed_midway_is_delivered_again_after_ack_wait(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    survivor = Consumption(SPEC)
    bridge = bridges.start(server.url)
    publish(bridge, RESULT, b"in hand")
    with HangingConsumer(server.url, SPEC) as killed:
        taken_at = killed.wait_taken()
        killed.kill()
    bridges.start(server.url, services=[survivor.service])
    wait_until(lambda: survivor.done)
    given_at, delivery = survivor.given[0]
    assert (delivery.payload, delivery.num_delivered) == (b"in hand", 2)
    assert given_at - taken_at >= 0.9 * SPEC.ack_wait_ms / 1000
    wait_until(lambda: unacknowledged(nats) == 0, message="it is not acknowledged")


def test_a_message_in_hand_when_its_bridge_is_closed_goes_to_another_one_without_waiting(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    async def hang(_: Delivery) -> None:
        await asyncio.Event().wait()

    spec = dataclasses.replace(SPEC, ack_wait_ms=60_000)
    closed, other = Consumption(spec, act=hang), Consumption(spec)
    bridge = bridges.start(server.url, services=[closed.service])
    publish(bridge, RESULT, b"in hand")
    wait_until(lambda: closed.given)
    bridge.close(5.0)
    assert closed.done == []
    bridges.start(server.url, services=[other.service])
    wait_until(lambda: other.finished() == {b"in hand"}, GENEROUS_SECONDS)


def test_no_more_messages_are_in_hand_than_allowed_and_all_are_handled(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    in_hand = most = 0

    async def count(_: Delivery) -> None:
        nonlocal in_hand, most
        in_hand += 1
        most = max(most, in_hand)
        await asyncio.sleep(0.01)
        in_hand -= 1

    spec = ConsumerSpec(subject=RESULT, durable="results", max_in_progress=4)
    consumption = Consumption(spec, act=count)
    bridge = bridges.start(server.url, services=[consumption.service])
    for number in range(40):
        publish(bridge, RESULT, b"%d" % number)
    wait_until(lambda: len(consumption.done) == 40)
    assert most == 4


def test_two_bridges_share_the_messages_of_one_durable(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    async def take_time(_: Delivery) -> None:
        await asyncio.sleep(0.005)

    spec = ConsumerSpec(subject=RESULT, durable="results", max_in_progress=2)
    one, other = Consumption(spec, act=take_time), Consumption(spec, act=take_time)
    bridge = bridges.start(server.url, services=[one.service])
    bridges.start(server.url, services=[other.service])
    for number in range(100):
        publish(bridge, RESULT, b"%d" % number)
    wait_until(lambda: len(one.done) + len(other.done) == 100)
    assert one.done and other.done
    assert not one.finished() & other.finished()
