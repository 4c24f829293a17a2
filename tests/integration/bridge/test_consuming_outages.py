"""Consumption goes on, with nothing lost, when the server or the consumer goes away."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

from bridge import Bridge, BridgeError, ConsumerSpec
from gateway.devstack.nats_server import NatsServer
from tests.support.bridge_consumption import Consumption
from tests.support.bridge_running import EXEC, RESULT, RunningBridges, publish, wait_for_count
from tests.support.nats_session import NatsSession
from tests.support.waiting import PATIENCE, wait_until

#: "consumption goes on within 5 s"
GOES_ON_SECONDS = 5.0 * PATIENCE
SPEC = ConsumerSpec(subject=RESULT, durable="results", ack_wait_ms=1_000)


def test_consumption_goes_on_after_the_consumer_was_deleted(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    consumption = Consumption(SPEC)
    bridge = bridges.start(server.url, services=[consumption.service])
    publish(bridge, RESULT, b"before")
    wait_until(lambda: b"before" in consumption.finished())
    nats.call(nats.jetstream.delete_consumer(EXEC.name, SPEC.durable))
    publish(bridge, RESULT, b"after")
    wait_until(lambda: b"after" in consumption.finished(), GOES_ON_SECONDS)
    assert bridge.health().connects == 1


def test_consumption_goes_on_after_its_stream_was_deleted(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    consumption = Consumption(SPEC)
    bridge = bridges.start(server.url, services=[consumption.service])
    publish(bridge, RESULT, b"before")
    wait_until(lambda: b"before" in consumption.finished())
    nats.delete_stream(EXEC.name)

    def published() -> bool:
        try:
            return bool(publish(bridge, RESULT, b"after", msg_id="after"))
        except BridgeError:
            return False

    wait_until(published)
    wait_until(lambda: b"after" in consumption.finished(), GOES_ON_SECONDS)


def test_consumption_goes_on_after_each_restart_of_the_server_and_nothing_is_lost(
    server: NatsServer, bridges: RunningBridges
) -> None:
    consumption = Consumption(SPEC)
    # Two, so that what one had in hand is there for the other.
    bridge = bridges.start(server.url, services=[consumption.service])
    bridges.start(server.url, services=[consumption.service])

    def finished() -> int:
        return len(consumption.finished())

    accepted: list[bytes] = []
    stopped = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        publisher = pool.submit(_publish_all, bridge, accepted, stopped)
        try:
            for _ in range(5):
                wait_for_count(finished, finished() + 20)
                server.kill()
                server.start()
                wait_for_count(finished, finished() + 1, GOES_ON_SECONDS)
        finally:
            stopped.set()
        publisher.result(10)
    wait_until(
        lambda: set(accepted) <= consumption.finished(),
        message=lambda: f"lost: {set(accepted) - consumption.finished()}",
    )
    assert consumption.dead == []
    # The bridges' own, and one for each of the two consumers: nothing is left over from before the restarts.
    wait_until(
        lambda: [c["subscriptions"] for c in server.connz()["connections"]] == [2, 2],
        message=lambda: f"{server.connz()['connections']}",
    )


def _publish_all(bridge: Bridge, accepted: list[bytes], stopped: threading.Event) -> None:
    for number in itertools.count():
        if stopped.wait(0.002):
            return
        payload = b"%d" % number
        try:
            publish(bridge, RESULT, payload, msg_id=str(number))
        except BridgeError:
            continue
        accepted.append(payload)
