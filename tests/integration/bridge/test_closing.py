"""Closing a bridge: bounded, whatever the server does, and nothing is left of it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from nats.aio.msg import Msg

from bridge import (
    Bridge,
    BridgeError,
    Bus,
    Closed,
    ConsumerSpec,
    Delivery,
    NotSent,
    Unknown,
)
from gateway.devstack.nats_server import NatsServer
from tests.support.bridge_log import unended_tasks
from tests.support.bridge_running import (
    DECIDE,
    KEYS,
    RESULT,
    RunningBridges,
    outcome,
    publish,
    request,
    soon,
)
from tests.support.nats_session import NatsSession
from tests.support.waiting import DEADLINE_SLACK_SECONDS, wait_until

MEBIBYTE = 1024 * 1024


def bridge_threads() -> set[int]:
    return {
        thread.ident
        for thread in threading.enumerate()
        if thread.name == "bridge-loop" and thread.ident is not None
    }


@pytest.fixture(autouse=True)
def others() -> set[int]:
    """The loop threads of bridges that other modules keep for themselves."""
    OTHERS.clear()
    OTHERS.update(bridge_threads())
    return OTHERS


OTHERS: set[int] = set()


def assert_gone(bridge: Bridge) -> None:
    wait_until(lambda: bridge_threads() <= OTHERS, message="the loop's thread does not end")
    assert unended_tasks() == []
    assert not bridge.health().loop_alive
    with pytest.raises(Closed):
        publish(bridge)


def test_an_idle_bridge_closes_in_order_and_at_once(
    server: NatsServer, bridges: RunningBridges
) -> None:
    async def service(bus: Bus) -> None:
        async with bus.subscribe(DECIDE) as messages:
            async for _ in messages:
                pass

    bridge = bridges.start(server.url, services=[service], buckets=(KEYS,))
    publish(bridge)
    begun = time.monotonic()
    assert bridge.close(5.0)
    assert time.monotonic() - begun < 1.0
    assert_gone(bridge)
    wait_until(lambda: server.varz()["connections"] == 0, message="the connection stays open")


def test_what_was_sent_without_waiting_is_on_the_wire_before_the_connection_closes(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    heard: list[bytes] = []

    async def listen() -> None:
        async def hear(message: Msg) -> None:
            heard.append(message.data)

        await nats.client.subscribe("last.words", cb=hear)
        await nats.client.flush()

    async def send(bus: Bus) -> None:
        for number in range(100):
            await bus.send("last.words", b"%d" % number)

    nats.call(listen())
    bridge = bridges.start(server.url)
    bridge.run(send, soon())
    assert bridge.close(5.0)
    wait_until(lambda: len(heard) == 100)


def test_operations_under_way_get_time_to_end(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    taken: list[object] = []

    async def answer_later(message: Msg) -> None:
        taken.append(message)
        await asyncio.sleep(0.3)
        await message.respond(b"in time")

    nats.call(nats.client.subscribe(DECIDE, cb=answer_later))
    bridge = bridges.start(server.url)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(request, bridge)
        wait_until(lambda: taken)
        assert bridge.close(5.0)
        assert outcome(call).payload == b"in time"
    assert_gone(bridge)


def test_an_operation_that_does_not_end_is_unknown_and_does_not_hold_the_close(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    taken: list[object] = []

    async def say_nothing(message: Msg) -> None:
        taken.append(message)

    nats.call(nats.client.subscribe(DECIDE, cb=say_nothing))
    bridge = bridges.start(server.url)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(request, bridge, seconds=30)
        wait_until(lambda: taken)
        begun = time.monotonic()
        bridge.close(1.0)
        assert isinstance(outcome(call), Unknown)
        assert time.monotonic() - begun < 1.0 + DEADLINE_SLACK_SECONDS
    assert_gone(bridge)


def freeze(server: NatsServer, bridge: Bridge) -> None:
    server.freeze()


def freeze_with_unsent_data(server: NatsServer, bridge: Bridge) -> None:
    server.freeze()
    for _ in range(20):
        with pytest.raises(BridgeError):
            publish(bridge, payload=b"x" * (MEBIBYTE - 4096), seconds=0.01)


def freeze_until_noticed(server: NatsServer, bridge: Bridge) -> None:
    server.freeze()
    wait_until(lambda: not bridge.health().connected)


def kill(server: NatsServer, bridge: Bridge) -> None:
    server.kill()


def kill_until_noticed(server: NatsServer, bridge: Bridge) -> None:
    server.kill()
    wait_until(lambda: bridge.health().last_error)


@pytest.mark.parametrize(
    "trouble",
    [freeze, freeze_with_unsent_data, freeze_until_noticed, kill, kill_until_noticed],
    ids=lambda function: function.__name__,
)
def test_closing_is_bounded_with_calls_under_way_on_a_server_in_trouble(
    server: NatsServer, bridges: RunningBridges, trouble: Callable[[NatsServer, Bridge], None]
) -> None:
    async def service(bus: Bus) -> None:
        await bus.consume(ConsumerSpec(subject=RESULT, durable="results"), _ignore)

    bridge = bridges.start(
        server.url, services=[service], buckets=(KEYS,), ping_interval_seconds=0.3
    )
    publish(bridge)
    trouble(server, bridge)
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit(publish, bridge, seconds=30) for _ in range(8)]
        wait_until(lambda: bridge.health().in_flight + sum(call.done() for call in calls) >= 8)
        begun = time.monotonic()
        bridge.close(1.5)
        assert time.monotonic() - begun < 1.5 + DEADLINE_SLACK_SECONDS
        outcomes = [outcome(call) for call in calls]
        assert all(isinstance(result, Unknown | NotSent | Closed) for result in outcomes), outcomes
    assert_gone(bridge)


def test_closing_before_the_first_connection_is_at_once(
    absent_server: NatsServer, bridges: RunningBridges
) -> None:
    bridge = bridges.start(absent_server.url, ready=False)
    begun = time.monotonic()
    assert bridge.close(5.0)
    assert time.monotonic() - begun < 1.0
    assert_gone(bridge)


def test_closing_twice_and_closing_what_was_never_started_is_allowed(
    server: NatsServer, bridges: RunningBridges
) -> None:
    bridge = bridges.start(server.url)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: bridge.close(5.0), range(4)))
    never = Bridge(bridge.config)
    assert never.close(1.0)
    assert_gone(never)


async def _ignore(_: Delivery) -> None:
    """Nothing to do."""
