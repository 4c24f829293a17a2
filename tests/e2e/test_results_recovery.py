"""Consumption goes on after a server, a consumer or an instance was lost in the middle of it.

Five hundred results each time, by two instances. Nothing is lost, and nothing is metered twice.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.devstack.nats_server import NatsServer
from tests.support.documents import new_id
from tests.support.gateway_process import GatewayProcess
from tests.support.nats_session import NatsSession
from tests.support.process_table import frozen
from tests.support.result_instances import instances
from tests.support.result_messages import (
    EXEC,
    RESULTS,
    USAGE_STREAM,
    consumer,
    letters,
    publish,
    publish_all,
    result_body,
    until_consumed,
    usage_of,
)
from tests.support.waiting import PATIENCE, wait_until

COUNT = 500
GOES_ON_SECONDS = 5.0 * PATIENCE  # "consumption goes on within 5 s"
# A message whose handler was cut off comes again after this time.
ENVIRONMENT = {"WEB_CONCURRENCY": "1", "NATS_ACK_WAIT_MS": "1000"}


@dataclass(frozen=True)
class Consuming:
    """Two instances on one NATS, and a worker's connection."""

    nats: NatsServer
    ending: GatewayProcess
    staying: GatewayProcess
    worker: NatsSession


@pytest.fixture
def consuming() -> Iterator[Consuming]:
    with (
        NatsServer(name="recovery") as nats,
        instances(2, nats.url, ENVIRONMENT) as (ending, staying),
        NatsSession(nats.url, name="worker") as worker,
    ):
        yield Consuming(nats, ending, staying, worker)


def results_of(request_id: str) -> list[dict[str, Any]]:
    return [result_body(request_id=request_id) for _ in range(COUNT)]


def in_the_middle(consuming: Consuming, bodies: list[dict[str, Any]]) -> None:
    """Publish them all, and return while they are being consumed."""
    before = consuming.worker.last_sequence(USAGE_STREAM)
    # Otherwise a machine that is busy with this test's own publishing may find all of them consumed at its end.
    with frozen(*consuming.ending.workers(), *consuming.staying.workers()):
        publish_all(consuming.worker, bodies)
    metered = wait_until(lambda: consuming.worker.last_sequence(USAGE_STREAM) - before)
    assert metered < COUNT, "too late: all of them are consumed"


def goes_on(consuming: Consuming, since: float) -> None:
    """A result that is published now is consumed in time: as soon as there is NATS, whoever waits gets it."""
    body = result_body()
    publish(consuming.worker, body)
    with consuming.staying.client() as client:
        path = f"{RESULTS}/{body['assignment_id']}?wait_ms=20000"
        # 503 until this instance has its connection back.
        wait_until(lambda: client.get(path).status == 200, GOES_ON_SECONDS)
    assert time.monotonic() - since < GOES_ON_SECONDS


def nothing_lost_and_nothing_twice(
    consuming: Consuming, request_id: str, bodies: list[dict[str, Any]]
) -> None:
    until_consumed(consuming.worker)
    events = usage_of(consuming.worker, request_id=request_id)
    metered = Counter(json.loads(event.payload)["assignment_id"] for event in events)
    wanted = {body["assignment_id"] for body in bodies}
    assert metered.keys() == wanted, f"{len(wanted - metered.keys())} lost"
    assert set(metered.values()) == {1}, f"twice: {metered.most_common(3)}"
    assert letters(consuming.worker) == []
    with consuming.staying.client() as client:
        for body in bodies[::5]:
            assert client.get(f"{RESULTS}/{body['assignment_id']}").status == 200


def test_a_killed_server_that_comes_back(consuming: Consuming) -> None:
    request_id = new_id("rq")
    bodies = results_of(request_id)
    in_the_middle(consuming, bodies)
    consuming.nats.kill()
    consuming.nats.start()
    goes_on(consuming, time.monotonic())
    nothing_lost_and_nothing_twice(consuming, request_id, bodies)


def test_a_deleted_consumer(consuming: Consuming) -> None:
    """It is made again, and starts with what the stream still holds: all of that has been seen before."""
    request_id = new_id("rq")
    bodies = results_of(request_id)
    in_the_middle(consuming, bodies)
    info = consumer(consuming.worker)
    assert info is not None
    assert consuming.worker.call(consuming.worker.jetstream.delete_consumer(EXEC, info.name))
    goes_on(consuming, time.monotonic())
    nothing_lost_and_nothing_twice(consuming, request_id, bodies)


def test_an_instance_that_is_killed(consuming: Consuming) -> None:
    """The other one takes over what it had in hand."""
    request_id = new_id("rq")
    bodies = results_of(request_id)
    in_the_middle(consuming, bodies)
    consuming.ending.kill()
    goes_on(consuming, time.monotonic())
    consuming.ending.wait()
    nothing_lost_and_nothing_twice(consuming, request_id, bodies)
