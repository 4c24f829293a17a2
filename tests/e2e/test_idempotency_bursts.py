"""64 equal requests at the same instant over both instances: one effect, 64 equal answers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.http_client import Answer
from tests.support.idempotency_fleet import Counting, Fleet
from tests.support.idempotency_operations import (
    EXPIRES,
    OPERATIONS,
    REPLAYED,
    Document,
    Effects,
    Operation,
)
from tests.support.load import at_once
from tests.support.scripted_router import ScriptedRouter

REQUESTS = 64
TTL_SECONDS = 300
each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=str)


@pytest.fixture
def router(fleet: Fleet) -> Iterator[ScriptedRouter]:
    with ScriptedRouter(fleet.nats.url) as router:
        yield router


def burst(fleet: Fleet, operation: Operation, bodies: list[Document]) -> list[Answer]:
    """Each body on a connection of its own, opened before, all sent together."""
    clients = [fleet.client(number % 2) for number in range(len(bodies))]
    try:
        for client in clients:
            assert client.get("/livez").status == 200

        def send(number: int) -> Answer:
            again = operation.repeat(bodies[number])
            return clients[number].post(operation.path, again.body, again.headers)

        return at_once(range(len(bodies)), send)
    finally:
        for client in clients:
            client.close()


@each_operation
def test_equal_requests_at_one_instant_are_one(
    fleet: Fleet, router: ScriptedRouter, operation: Operation
) -> None:
    body = operation.body()
    effects = Effects(fleet, operation, router)
    counting = Counting(fleet, operation.key_type)
    answers = burst(fleet, operation, [body] * REQUESTS)
    assert {answer.status for answer in answers} == {operation.success}, answers
    assert len({answer.body for answer in answers}) == 1
    replays = [answer for answer in answers if answer.header(REPLAYED) is not None]
    assert len(replays) == REQUESTS - 1
    for replay in replays:
        assert replay.header(REPLAYED) == "true"
        assert 0 <= int(replay.header(EXPIRES) or -1) <= TTL_SECONDS
    assert len(effects.of(body[operation.key_type])) == 1
    counting.expect(misses=1, hits=REQUESTS - 1)


@each_operation
def test_different_requests_under_one_id_at_one_instant_are_one_and_conflicts(
    fleet: Fleet, router: ScriptedRouter, operation: Operation
) -> None:
    """Whichever comes first has the id; who sent the other gets 409, whatever worker and order."""
    ours = operation.body()
    theirs = operation.with_other_content(ours)
    effects = Effects(fleet, operation, router)
    answers = burst(fleet, operation, [ours, ours, theirs, theirs] * (REQUESTS // 8))
    of_ours = {(a.status, a.code) for n, a in enumerate(answers) if n % 4 < 2}
    of_theirs = {(a.status, a.code) for n, a in enumerate(answers) if n % 4 >= 2}
    assert sorted([of_ours, of_theirs], key=str) == [
        {(operation.success, None)},
        {(409, "idempotency_conflict")},
    ]
    assert len(effects.of(ours[operation.key_type])) == 1


@each_operation
def test_same_id_of_two_tenants_at_one_instant_is_one_for_each(
    fleet: Fleet, router: ScriptedRouter, operation: Operation
) -> None:
    body = operation.body()
    id = body[operation.key_type]
    tenants = ("acme", "umbrella")
    effects = Effects(fleet, operation, router)

    def send(number: int) -> Answer:
        tenant = tenants[number % 2]
        own = operation.of_tenant(body, tenant)
        return fleet.post(operation.path, own, tenant=tenant, instance=number // 2 % 2)

    answers = at_once(range(16), send)
    for number, tenant in enumerate(tenants):
        own = answers[number::2]
        assert {answer.status for answer in own} == {operation.success}, own
        assert len({answer.body for answer in own}) == 1
        assert sum(answer.header(REPLAYED) is None for answer in own) == 1
        assert len(effects.of(id, tenant)) == 1
