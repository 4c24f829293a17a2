"""Once, for all four operations: two instances of two workers each on one NATS, and honest clients that repeat."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.documents import new_id
from tests.support.idempotency_fleet import Counting, Fleet
from tests.support.idempotency_operations import (
    EXPIRES,
    OPERATIONS,
    REPLAYED,
    Effects,
    Operation,
    expect_replay,
)
from tests.support.nats_tap import NatsTap
from tests.support.scripted_router import ScriptedRouter
from tests.support.wire import expect_error

TTL_SECONDS = 300.0
each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=str)


@pytest.fixture
def router(fleet: Fleet) -> Iterator[ScriptedRouter]:
    """Decides at once; its answer names the request, so that no two answers are equal by chance."""
    with ScriptedRouter(fleet.nats.url) as router:
        yield router


@each_operation
def test_same_tenant_and_id_happen_once_on_whatever_worker_they_come(
    fleet: Fleet, router: ScriptedRouter, operation: Operation
) -> None:
    """Order W4-B: the first is executed and counted as a miss, every duplicate is a hit and answers the same."""
    body = operation.body()
    effects = Effects(fleet, operation, router)
    counting = Counting(fleet, operation.key_type)
    with fleet.each_worker() as workers:
        assert len(workers) == 4
        first = workers[0].post(operation.path, body)
        assert first.status == operation.success, first
        assert (first.header(REPLAYED), first.header(EXPIRES)) == (None, None)
        counting.expect(misses=1, hits=0)
        # Twice each: the second one comes from the worker's own memory.
        for worker in (*workers, *workers):
            again = operation.repeat(body)
            answer = worker.post(operation.path, again.body, again.headers)
            expect_replay(first, answer, ttl_seconds=TTL_SECONDS)
            # The body is the first call's; what is correlated over the headers is this one's.
            assert answer.header("X-Trace-ID") == again.headers["X-Trace-ID"]
    assert len(effects.of(body[operation.key_type])) == 1
    counting.expect(misses=1, hits=8)


@each_operation
def test_same_id_of_two_tenants_are_two_operations(
    fleet: Fleet, router: ScriptedRouter, operation: Operation
) -> None:
    body = operation.body()
    id = body[operation.key_type]
    effects = Effects(fleet, operation, router)
    counted = {
        tenant: Counting(fleet, operation.key_type, tenant) for tenant in ("acme", "umbrella")
    }
    answers = {}
    for tenant in counted:
        own = operation.of_tenant(body, tenant)
        # The other tenant with other content, too: a conflict would be a collision.
        own = own if tenant == "acme" else operation.with_other_content(own)
        for instance in range(2):
            answer = fleet.post(operation.path, own, tenant=tenant, instance=instance)
            assert answer.status == operation.success, answer
            assert (answer.header(REPLAYED) == "true") == (instance == 1)
            answers[tenant] = answer
    assert answers["acme"].body != answers["umbrella"].body
    for tenant, counting in counted.items():
        assert len(effects.of(id, tenant)) == 1
        counting.expect(misses=1, hits=1)


@each_operation
def test_another_request_under_the_same_id_is_refused_and_nothing_is_sent(
    fleet: Fleet, router: ScriptedRouter, operation: Operation
) -> None:
    body = operation.body()
    first = fleet.post(operation.path, body)
    assert first.status == operation.success, first
    counting = Counting(fleet, operation.key_type)
    with NatsTap(fleet.nats.url) as tap, fleet.each_worker() as workers:
        for worker in workers:
            refused = worker.post(operation.path, operation.with_other_content(body))
            expect_error(refused, 409, "idempotency_conflict")
            assert refused.header(REPLAYED) is None
        tap.settle()
        messages = tap.messages(operation.subject)
        # The id's own operation is not harmed by it.
        for worker in workers:
            expect_replay(first, worker.post(operation.path, body), ttl_seconds=TTL_SECONDS)
    assert not messages
    assert counting.rise() == (0, 4)


@each_operation
def test_request_that_is_refused_leaves_its_id_free(
    fleet: Fleet, router: ScriptedRouter, operation: Operation
) -> None:
    body = operation.body()
    with NatsTap(fleet.nats.url) as tap:
        expect_error(fleet.post(operation.path, {**body, "misspelt": 1}), 400, "invalid_request")
        expect_error(fleet.post(operation.path, {**body, "tenant_id": "other"}), 403, "denied")
        tap.settle()
        assert not tap.messages()
    expect_error(fleet.get(operation.operation_path(body[operation.key_type])), 404, "not_found")
    mended = operation.with_other_content(body)
    assert fleet.post(operation.path, mended).status == operation.success


@each_operation
def test_same_id_in_other_operations_is_another_record(
    fleet: Fleet, router: ScriptedRouter, operation: Operation
) -> None:
    id = new_id("shared")
    for other in OPERATIONS:
        if other is not operation:
            assert fleet.post(other.path, other.body(id)).status == other.success
    answer = fleet.post(operation.path, operation.body(id), instance=1)
    assert (answer.status, answer.header(REPLAYED)) == (operation.success, None), answer


# -- what is the same request --------------------------------------------------------------------------


@each_operation
def test_order_of_fields_and_spelling_of_defaults_do_not_make_another_request(
    fleet: Fleet, router: ScriptedRouter, operation: Operation
) -> None:
    body = operation.body()
    first = fleet.post(operation.path, body)
    shuffled = dict(reversed(body.items()))
    without_tenant = {name: value for name, value in body.items() if name != "tenant_id"}
    without_version = {name: value for name, value in body.items() if name != "version"}
    for same in (shuffled, without_tenant, without_version):
        again = fleet.post(operation.path, same, instance=1)
        expect_replay(first, again, ttl_seconds=TTL_SECONDS)


@each_operation
def test_trace_and_phase_do_not_make_another_request(
    fleet: Fleet, router: ScriptedRouter, operation: Operation
) -> None:
    body = operation.body()
    first = fleet.post(operation.path, body, {"X-CP-Phase": "cp3"})
    trace = "ab" * 16
    headers = {"X-CP-Phase": "cp7", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    again = fleet.post(operation.path, body, headers, instance=1)
    expect_replay(first, again, ttl_seconds=TTL_SECONDS)
    at_top = operation.name in ("usage", "decide")
    own = {"trace_id": trace} if at_top else {"correlation": {"trace_id": trace}}
    again = fleet.post(operation.path, {**body, **own}, instance=1)
    expect_replay(first, again, ttl_seconds=TTL_SECONDS)


# -- the header ----------------------------------------------------------------------------------------


@each_operation
def test_idempotency_key_header_is_another_spelling_of_the_id(
    fleet: Fleet, router: ScriptedRouter, operation: Operation
) -> None:
    body = operation.body()
    id = body.pop(operation.key_type)
    effects = Effects(fleet, operation, router)
    header = {"Idempotency-Key": id}
    first = fleet.post(operation.path, body, header)
    assert first.status == operation.success, first
    for instance in range(2):
        for same, headers in (
            (body, header),
            ({**body, operation.key_type: id}, {}),
            ({**body, operation.key_type: id}, header),
        ):
            again = fleet.post(operation.path, same, headers, instance=instance)
            expect_replay(first, again, ttl_seconds=TTL_SECONDS)
    assert len(effects.of(id)) == 1


@each_operation
def test_idempotency_key_that_differs_from_the_id_is_refused(
    fleet: Fleet, router: ScriptedRouter, operation: Operation
) -> None:
    body = operation.body()
    with NatsTap(fleet.nats.url) as tap:
        answer = fleet.post(operation.path, body, {"Idempotency-Key": new_id("other")})
        expect_error(answer, 400, "invalid_request")
        for unfit in ("", "two words", "x" * 129):
            answer = fleet.post(operation.path, body, {"Idempotency-Key": unfit})
            expect_error(answer, 400, "invalid_request")
        tap.settle()
        assert not tap.messages()
