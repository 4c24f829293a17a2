"""What an observer is told of deliveries; of what leaves it is told in `test_publishing`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from bridge import ConsumerSpec, Delivery, NoObserver, NotSent, Reject, Tell
from gateway.devstack.nats_server import NatsServer
from tests.support.bridge_consumption import Consumption
from tests.support.bridge_running import RESULT, RunningBridges, publish
from tests.support.nats_session import NatsSession
from tests.support.waiting import wait_until

SPEC = ConsumerSpec(subject=RESULT, durable="observed", max_deliver=3, backoff_ms=(20,))


class Witness(NoObserver):
    """Writes down the number and the turns of each delivery."""

    def __init__(self) -> None:
        self.ended: list[tuple[int, list[str]]] = []

    @contextlib.contextmanager
    def consuming(self, durable: str, delivery: Delivery) -> Iterator[Tell]:
        assert durable == SPEC.durable
        turns: list[str] = []
        try:
            yield lambda turn, why: turns.append(f"{turn} {type(why).__name__}")
        finally:
            self.ended.append((delivery.num_delivered, turns))


def test_a_delivery_that_is_handled_takes_no_turn(
    server: NatsServer, bridges: RunningBridges
) -> None:
    witness, consumption = Witness(), Consumption(SPEC)
    bridge = bridges.start(server.url, services=[consumption.service], observer=witness)
    publish(bridge, RESULT)
    wait_until(lambda: witness.ended)
    assert witness.ended == [(1, [])]


def test_a_message_at_fault_is_refused_until_it_is_given_up(
    server: NatsServer, bridges: RunningBridges
) -> None:
    async def refuse(_: Delivery) -> None:
        raise Reject("no_good", "at fault")

    witness, consumption = Witness(), Consumption(SPEC, act=refuse)
    bridge = bridges.start(server.url, services=[consumption.service], observer=witness)
    publish(bridge, RESULT)
    wait_until(lambda: len(witness.ended) == 3)
    refused = ["refused Reject"]
    assert witness.ended == [(1, refused), (2, refused), (3, ["given_up Reject"])]


def test_trouble_is_told_each_time_that_it_is_waited_out(
    server: NatsServer, bridges: RunningBridges
) -> None:
    left = [NotSent("away"), NotSent("still away")]

    async def recover(_: Delivery) -> None:
        if left:
            raise left.pop()

    witness, consumption = Witness(), Consumption(SPEC, act=recover)
    bridge = bridges.start(server.url, services=[consumption.service], observer=witness)
    publish(bridge, RESULT)
    wait_until(lambda: witness.ended)
    assert witness.ended == [(1, ["waited NotSent", "waited NotSent"])]


def test_a_bug_of_the_handler_is_told_as_its_failure(
    server: NatsServer, bridges: RunningBridges
) -> None:
    async def stumble(delivery: Delivery) -> None:
        if delivery.num_delivered == 1:
            raise ZeroDivisionError

    witness, consumption = Witness(), Consumption(SPEC, act=stumble)
    bridge = bridges.start(server.url, services=[consumption.service], observer=witness)
    publish(bridge, RESULT)
    wait_until(lambda: len(witness.ended) == 2)
    assert witness.ended == [(1, ["failed ZeroDivisionError"]), (2, [])]


def test_what_a_stopping_worker_has_in_hand_is_given_back(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    async def hang(_: Delivery) -> None:
        await asyncio.Event().wait()

    witness, consumption = Witness(), Consumption(SPEC, act=hang)
    bridge = bridges.start(server.url, services=[consumption.service], observer=witness)
    publish(bridge, RESULT)
    wait_until(lambda: consumption.given)
    bridge.close(5.0)
    assert witness.ended == [(1, ["given_back CancelledError"])]
