"""Services: what runs on the bus for as long as the connection lives."""

from __future__ import annotations

import asyncio
import time

from bridge import Bridge, Bus, NotSent
from gateway.devstack.nats_server import NatsServer
from tests.support.bridge_running import (
    DECIDE,
    RunningBridges,
    request,
    wait_for_count,
)
from tests.support.waiting import AT_ONCE_SECONDS, RECOVERY_SECONDS, wait_until


class Echo:
    """Answers requests; counts its starts and ends."""

    def __init__(self) -> None:
        self.started = 0
        self.ended = 0

    async def service(self, bus: Bus) -> None:
        self.started += 1
        try:
            async with bus.subscribe(DECIDE, queue="routers") as messages:
                async for message in messages:
                    await bus.reply(message, message.payload, headers={"version": "1"})
        finally:
            self.ended += 1


def test_a_service_is_ended_at_every_disconnect_and_started_at_every_connect(
    server: NatsServer, bridges: RunningBridges
) -> None:
    echo = Echo()
    bridge = bridges.start(server.url, services=[echo.service])
    for round_ in range(1, 4):
        wait_for_count(lambda: echo.started, round_, RECOVERY_SECONDS)
        wait_until(lambda: _answered(bridge), RECOVERY_SECONDS)
        server.kill()
        wait_for_count(lambda: echo.ended, round_, RECOVERY_SECONDS)
        assert echo.started == round_
        server.start()
    wait_for_count(lambda: echo.started, 4, RECOVERY_SECONDS)
    bridge.close()
    assert (echo.started, echo.ended) == (4, 4)


def _answered(bridge: Bridge) -> bool:
    try:
        return request(bridge, payload=b"x", seconds=1.0).payload == b"x"
    except NotSent:
        return False


def test_no_request_goes_to_a_subscription_that_a_restart_left_behind(
    server: NatsServer, bridges: RunningBridges
) -> None:
    # A member of the queue group that nobody reads any more would swallow its share of the requests.
    echo = Echo()
    bridge = bridges.start(server.url, services=[echo.service])
    for round_ in range(1, 4):
        server.kill()
        server.start()
        wait_for_count(lambda: echo.started, round_ + 1, RECOVERY_SECONDS)
    wait_until(lambda: _answered(bridge), RECOVERY_SECONDS)
    assert [request(bridge, payload=b"x", seconds=1).payload for _ in range(50)] == [b"x"] * 50
    (connection,) = server.connz()["connections"]
    assert connection["subscriptions"] == 2, "the service's and the one for replies"


def test_a_service_that_fails_or_ends_is_started_again_and_the_others_are_not_disturbed(
    server: NatsServer, bridges: RunningBridges
) -> None:
    echo, failures = Echo(), 0

    async def fails(_: Bus) -> None:
        nonlocal failures
        failures += 1
        raise LookupError("a bug in a service")

    async def ends(_: Bus) -> None:
        """Does nothing for long."""

    bridge = bridges.start(server.url, services=[fails, echo.service, ends])
    wait_until(lambda: failures >= 3)
    assert request(bridge, payload=b"x").payload == b"x"
    assert echo.started == 1


def test_a_subscription_hears_messages_from_the_moment_it_is_entered(
    server: NatsServer, bridges: RunningBridges
) -> None:
    bridge = bridges.start(server.url)

    async def ask_oneself(bus: Bus) -> bytes:
        async with bus.subscribe(DECIDE) as messages:
            asked = asyncio.create_task(
                bus.request(DECIDE, b"q", headers={}, deadline=time.monotonic() + 5)
            )
            async for message in messages:
                await bus.reply(message, b"answer")
                break
            return (await asked).payload

    assert bridge.run(ask_oneself, time.monotonic() + 5) == b"answer"
    wait_until(
        lambda: server.connz()["connections"][0]["subscriptions"] == 1,
        message="a subscription is left after its block",
    )


def test_subscribing_and_sending_without_a_connection_is_not_sent_at_once(
    absent_server: NatsServer, bridges: RunningBridges
) -> None:
    bridge = bridges.start(absent_server.url, ready=False)

    async def errors(bus: Bus) -> list[str]:
        names = []
        try:
            async with bus.subscribe(DECIDE):
                names.append("subscribed")
        except NotSent:
            names.append("subscribe")
        try:
            await bus.send(DECIDE, b"")
        except NotSent:
            names.append("send")
        return names

    begun = time.monotonic()
    assert bridge.run(errors, begun + 5) == ["subscribe", "send"]
    assert time.monotonic() - begun < AT_ONCE_SECONDS
