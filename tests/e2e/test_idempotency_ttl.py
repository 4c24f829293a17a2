"""The TTL: it really elapses here, and the same id is a new operation then. Expiry is the server's alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.http_client import Answer
from tests.support.idempotency_fleet import Counting, Fleet, running_fleet
from tests.support.idempotency_operations import (
    DECISION,
    EXPIRES,
    METER,
    OPERATIONS,
    REPLAYED,
    USAGE_STREAM,
    Document,
    Effects,
    Operation,
    same_answer,
)
from tests.support.scripted_router import ScriptedRouter
from tests.support.waiting import GENEROUS_SECONDS, wait_until

TTL_SECONDS = 2.0


@pytest.fixture(scope="module")
def forgetful() -> Iterator[Fleet]:
    """A fleet that remembers an id for two seconds. Shared by this module."""
    ttl = {"IDEMPOTENCY_TTL_MS": str(int(TTL_SECONDS * 1000))}
    with running_fleet("forgetful", ttl) as fleet:
        yield fleet


@pytest.fixture
def router(forgetful: Fleet) -> Iterator[ScriptedRouter]:
    with ScriptedRouter(forgetful.nats.url) as router:
        yield router


def wait_until_forgotten(fleet: Fleet, operation: Operation, body: Document) -> None:
    """Until nothing is known of the id: the server has dropped its record."""
    path = operation.operation_path(body[operation.key_type])
    wait_until(
        lambda: fleet.get(path, instance=1).status == 404,
        GENEROUS_SECONDS,
        lambda: f"still known: {fleet.get(path, instance=1)}",
    )


def test_after_its_time_the_same_id_is_a_new_operation(
    forgetful: Fleet, router: ScriptedRouter
) -> None:
    """All four at once, so that the time passes once: a new message or call each, with new answers."""
    bodies = {operation: operation.body() for operation in OPERATIONS}
    effects = {operation: Effects(forgetful, operation, router) for operation in OPERATIONS}
    counting = [Counting(forgetful, key) for key in ("assignment_id", "ack_id", "usage_id")]
    asked_at = time.monotonic()
    first = {one: forgetful.post(one.path, bodies[one]) for one in OPERATIONS}
    for operation, answer in first.items():
        assert answer.status == operation.success, answer
    # It is remembered for at least the whole time, counted from when it was asked.
    while time.monotonic() < asked_at + TTL_SECONDS * 0.75:
        for operation, body in bodies.items():
            again = forgetful.post(operation.path, body, instance=1)
            if time.monotonic() < asked_at + TTL_SECONDS:
                assert same_answer(first[operation], again), again
                assert again.header(REPLAYED) == "true"
                assert int(again.header(EXPIRES) or 99) <= TTL_SECONDS
    for operation, body in bodies.items():
        wait_until_forgotten(forgetful, operation, body)
    # Repeats do not extend it.
    assert time.monotonic() < asked_at + TTL_SECONDS + 2.0 * 3
    second = {one: post_again(forgetful, one, bodies[one]) for one in OPERATIONS}
    for operation, answer in second.items():
        assert answer.header(REPLAYED) is None, answer
        assert not same_answer(first[operation], answer)
        id = bodies[operation][operation.key_type]
        if operation is METER:
            # The event stays the only one of its pair for its own, longer time.
            assert (answer.status, answer.json()["emitted"]) == (200, False), answer
            assert answer.json()["duplicate_of"] == id
            assert len(effects[operation].of(id)) == 1
        else:
            assert answer.status == operation.success, answer
            assert len(effects[operation].of(id)) == 2
    misses = [one.rise()[0] for one in counting]
    assert misses == [4, 2, 2], "assignments and decides count as one key type"


def post_again(fleet: Fleet, operation: Operation, body: Document) -> Answer:
    """As an honest client: under other request and trace ids."""
    again = operation.repeat(body)
    return fleet.post(operation.path, again.body, again.headers)


def test_after_its_time_an_id_may_be_used_for_another_request(
    forgetful: Fleet, router: ScriptedRouter
) -> None:
    bodies = {operation: operation.body() for operation in OPERATIONS}
    for operation, body in bodies.items():
        assert forgetful.post(operation.path, body).status == operation.success
        refused = forgetful.post(operation.path, operation.with_other_content(body), instance=1)
        assert refused.code == "idempotency_conflict", refused
    for operation, body in bodies.items():
        wait_until_forgotten(forgetful, operation, body)
    for operation, body in bodies.items():
        # A worker that remembered the first one has forgotten it, too.
        for instance in (0, 1):
            other = operation.with_other_content(body)
            answer = forgetful.post(operation.path, other, instance=instance)
            assert answer.status == (200 if operation is METER else operation.success), answer


def test_decide_is_remembered_from_its_outcome_on(forgetful: Fleet, router: ScriptedRouter) -> None:
    """A Router that takes its time does not shorten the time in which its answer is remembered."""
    router.behaviour = lambda request: None
    body = DECISION.body()
    path = DECISION.operation_path(body["assignment_id"])
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(forgetful.post, DECISION.path, body)
        [request] = router.wait_for_requests(1)
        began = time.monotonic()
        slow = TTL_SECONDS / 2
        wait_until(lambda: time.monotonic() >= began + slow)
        answered_at = time.monotonic()
        router.answer(request, {"ok": True, "decision": {"provider_id": "slow"}})
        assert asking.result().status == 200
    while forgetful.get(path, instance=1).status == 200:
        assert time.monotonic() < answered_at + GENEROUS_SECONDS
    assert time.monotonic() >= answered_at + TTL_SECONDS * 0.95


def test_messages_outlive_the_memory_of_their_ids(forgetful: Fleet) -> None:
    """The duplicate window covers every repeat of a claim: it is a minute longer than the TTL."""
    info = forgetful.reader.stream_info("BEAMLINE_EXEC")
    assert info.config.duplicate_window == TTL_SECONDS + 60
    usage = forgetful.reader.stream_info(USAGE_STREAM)
    assert usage.config.duplicate_window == 24 * 3600
    bucket = forgetful.reader.stream_info("KV_BEAMLINE_IDEMPOTENCY")
    assert bucket.config.max_age == TTL_SECONDS
    assert not bucket.config.allow_direct, "what decides is read through the leader"
