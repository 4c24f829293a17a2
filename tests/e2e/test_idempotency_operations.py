"""``GET /api/v1/operations/{operation}/{id}``: what is known of one of one's own ids."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from urllib.parse import quote

import pytest

from tests.support.documents import DECIDE, new_id
from tests.support.idempotency_fleet import Fleet
from tests.support.idempotency_operations import (
    ACK,
    ASSIGN,
    DECISION,
    OPERATIONS,
    PUBLISHES,
    Operation,
)
from tests.support.nats_tap import NatsTap
from tests.support.scripted_router import ScriptedRouter, decide_for, decision, router_error
from tests.support.waiting import wait_until
from tests.support.wire import UUID4, check_correlation, expect_error

TTL_SECONDS = 300
OPERATIONS_PATH = "/api/v1/operations"
each_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=str)


@pytest.fixture
def router(fleet: Fleet) -> Iterator[ScriptedRouter]:
    with ScriptedRouter(fleet.nats.url) as router:
        yield router


@each_operation
def test_finished_operation_is_told_to_its_tenant_on_every_instance(
    fleet: Fleet, router: ScriptedRouter, operation: Operation
) -> None:
    body = operation.body()
    id = body[operation.key_type]
    began = time.time()
    first = fleet.post(operation.path, body)
    for instance in range(2):
        told = fleet.get(operation.operation_path(id), instance=instance)
        assert told.status == 200, told
        document = told.json()
        check_correlation(told, document["context"])
        assert document["ok"] is True
        assert document["operation"] == operation.name
        assert document[operation.key_type] == id
        assert document["state"] == ("done" if operation is DECISION else "claimed")
        first_call = document["first_call"]
        assert first_call["request_id"] == first.json()["context"]["request_id"]
        assert first_call["trace_id"] == first.json()["context"]["trace_id"]
        at = datetime.fromisoformat(first_call["at"])
        assert at.tzinfo is not None
        assert began - 1 <= at.timestamp() <= time.time() + 1
        assert 0 < document["expires_in_seconds"] <= TTL_SECONDS
        if operation is DECISION:
            assert document["outcome"] == {"status": 200, "body": first.json()}
        else:
            assert "outcome" not in document


def test_call_under_way_is_told_to_be_in_progress(fleet: Fleet, router: ScriptedRouter) -> None:
    router.behaviour = lambda request: None
    body = DECISION.body()
    path = DECISION.operation_path(body["assignment_id"])
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(fleet.post, DECIDE, body)
        [request] = router.wait_for_requests(1)
        told = fleet.get(path, instance=1).json()
        assert told["state"] == "in_progress"
        assert told["first_call"]["request_id"] == body["request_id"]
        assert "outcome" not in told
        router.answer(request, decision("p-1"))
        answer = asking.result()
    told = fleet.get(path, instance=1).json()
    assert (told["state"], told["outcome"]["body"]) == ("done", answer.json())


def test_kept_refusal_is_told_with_its_outcome(fleet: Fleet, router: ScriptedRouter) -> None:
    router.behaviour = lambda request: router_error("policy_not_found")
    body = DECISION.body()
    refused = fleet.post(DECIDE, body)
    told = fleet.get(DECISION.operation_path(body["assignment_id"])).json()
    assert told["state"] == "done"
    assert told["outcome"] == {"status": 404, "body": refused.json()}


def test_call_that_was_given_up_leaves_its_id_free(fleet: Fleet, router: ScriptedRouter) -> None:
    router.behaviour = lambda request: router_error("decision_failed")
    body = DECISION.body()
    path = DECISION.operation_path(body["assignment_id"])
    assert fleet.post(DECIDE, body).status == 500
    wait_until(lambda: fleet.get(path).status == 404, message="the id is not free")
    expect_error(fleet.get(path), 404, "not_found")
    router.behaviour = decide_for
    assert fleet.post(DECIDE, body, instance=1).status == 200


@each_operation
def test_another_tenants_id_is_as_unknown_as_one_that_was_never_used(
    fleet: Fleet, router: ScriptedRouter, operation: Operation
) -> None:
    body = operation.body()
    fleet.post(operation.path, body)
    path = operation.operation_path(body[operation.key_type])
    theirs = fleet.get(path, tenant="umbrella")
    expect_error(theirs, 404, "not_found", tenant="umbrella")
    never = fleet.get(operation.operation_path(new_id("never")), tenant="umbrella")
    assert never.json()["error"] == theirs.json()["error"]


def test_id_of_one_operation_is_unknown_in_another(fleet: Fleet) -> None:
    body = ASSIGN.body()
    fleet.post(ASSIGN.path, body)
    for other in (DECISION, ACK):
        expect_error(fleet.get(other.operation_path(body["assignment_id"])), 404, "not_found")


@pytest.mark.parametrize("operation", PUBLISHES, ids=str)
@pytest.mark.parametrize(
    "shape",
    ["a/b", "//", "/lead", "trail/", "a?b=c&d", "#", "%", "%2F", "..", "../up", "a+b", ";,:@"],
)
def test_id_of_any_printable_shape_is_found_by_the_query(
    fleet: Fleet, operation: Operation, shape: str
) -> None:
    id = shape + new_id("")
    assert fleet.post(operation.path, operation.body(id)).status == 202
    told = fleet.get(f"{OPERATIONS_PATH}/{operation.name}?id={quote(id, safe='')}")
    assert (told.status, told.json()[operation.key_type]) == (200, id)


def test_id_with_slashes_inside_is_found_in_the_path_too(fleet: Fleet) -> None:
    id = "a/b//c?d" + new_id("")
    fleet.post(ASSIGN.path, ASSIGN.body(id))
    told = fleet.get(f"{OPERATIONS_PATH}/assignments/{quote(id)}")
    assert (told.status, told.json()["assignment_id"]) == (200, id)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        (f"{OPERATIONS_PATH}/usage", 400, "invalid_request"),
        (f"{OPERATIONS_PATH}/usage?id=", 400, "invalid_request"),
        (f"{OPERATIONS_PATH}/usage?id=two%20words", 400, "invalid_request"),
        (f"{OPERATIONS_PATH}/usage?id={'x' * 129}", 400, "invalid_request"),
        (f"{OPERATIONS_PATH}/usage?id=a&id=b", 400, "invalid_request"),
        (f"{OPERATIONS_PATH}/usage?id=a&more=b", 400, "invalid_request"),
        (f"{OPERATIONS_PATH}/usage/%C3%A9", 400, "invalid_request"),
        (f"{OPERATIONS_PATH}/usages/u-1", 404, "not_found"),
    ],
)
def test_question_that_makes_no_sense_is_refused(
    fleet: Fleet, path: str, status: int, code: str
) -> None:
    expect_error(fleet.get(path), status, code)


def test_looking_changes_nothing(fleet: Fleet) -> None:
    body = ASSIGN.body()
    fleet.post(ASSIGN.path, body)
    with NatsTap(fleet.nats.url) as tap:
        for _ in range(5):
            fleet.get(ASSIGN.operation_path(body["assignment_id"]))
            fleet.get(ASSIGN.operation_path(new_id("never")))
        tap.settle()
        assert not tap.messages()


def test_first_call_is_named_by_a_request_id_that_the_gateway_made(fleet: Fleet) -> None:
    body = ACK.body()
    fleet.post(ACK.path, body)
    told = fleet.get(ACK.operation_path(body["ack_id"])).json()
    assert UUID4.fullmatch(told["first_call"]["request_id"])
