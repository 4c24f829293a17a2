"""Decide with an ``assignment_id``: one call of the Router at a time, and its outcome for everybody who asks."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.documents import DECIDE, decide_body, new_id
from tests.support.idempotency_calls import (
    Asked,
    at_work,
    wait_until_free,
    wait_until_looked_at,
)
from tests.support.idempotency_fleet import DEADLINE_SECONDS, Counting, Fleet
from tests.support.idempotency_operations import (
    DECISION,
    EXPIRES,
    REPLAYED,
    Document,
    expect_replay,
    same_answer,
)
from tests.support.scripted_router import Reply, ScriptedRouter, decide_for, decision, router_error
from tests.support.waiting import DEADLINE_SLACK_SECONDS, wait_until
from tests.support.wire import expect_error

TTL_SECONDS = 300.0


@pytest.fixture
def router(leasing: Fleet) -> Iterator[ScriptedRouter]:
    """Silent until told otherwise."""
    with ScriptedRouter(leasing.nats.url, lambda request: None) as router:
        yield router


@pytest.fixture
def body() -> Document:
    return decide_body(assignment_id=new_id("as"))


@pytest.fixture
def asked(router: ScriptedRouter, body: Document) -> Asked:
    return Asked(router, body["assignment_id"])


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=16) as pool:
        yield pool


# -- while the first is at work ------------------------------------------------------------------------


def test_duplicates_wait_for_the_first_ones_answer_and_the_router_is_asked_once(
    leasing: Fleet, asked: Asked, body: Document, pool: ThreadPoolExecutor
) -> None:
    counting = Counting(leasing, "assignment_id")
    first = pool.submit(leasing.post, DECIDE, body)
    asked.wait_for(1)
    waiting = [
        pool.submit(leasing.post, DECIDE, DECISION.repeat(body).body, instance=n % 2)
        for n in range(8)
    ]
    asked.answer(1, decision("p-1"))
    answer = first.result()
    assert (answer.status, answer.header(REPLAYED)) == (200, None), answer
    for one in waiting:
        expect_replay(answer, one.result(), ttl_seconds=TTL_SECONDS)
    assert len(asked.requests()) == 1
    counting.expect(misses=1, hits=8)


def test_duplicate_whose_deadline_comes_first_is_told_that_one_is_in_progress(
    leasing: Fleet, asked: Asked, body: Document, pool: ThreadPoolExecutor
) -> None:
    first = pool.submit(leasing.post, DECIDE, body)
    asked.wait_for(1)
    short = leasing.post(DECIDE, body, {"X-Request-Timeout-Ms": "300"}, instance=1)
    expect_error(short, 409, "in_progress")
    assert int(short.header("Retry-After") or 0) >= 1
    assert short.header(REPLAYED) is None
    assert short.elapsed < 0.3 + DEADLINE_SLACK_SECONDS
    asked.answer(1, decision("p-1"))
    answer = first.result()
    assert answer.status == 200, answer
    expect_replay(answer, leasing.post(DECIDE, body, instance=1), ttl_seconds=TTL_SECONDS)
    assert len(asked.requests()) == 1


def test_another_request_under_the_id_is_refused_at_once_while_the_first_is_at_work(
    leasing: Fleet, asked: Asked, body: Document, pool: ThreadPoolExecutor
) -> None:
    first = pool.submit(leasing.post, DECIDE, body)
    asked.wait_for(1)
    other = leasing.post(DECIDE, DECISION.with_other_content(body), instance=1)
    expect_error(other, 409, "idempotency_conflict")
    asked.answer(1, decision("p-1"))
    assert first.result().status == 200
    assert len(asked.requests()) == 1


def test_owner_that_is_slow_within_its_lease_is_not_taken_over(
    leasing: Fleet, asked: Asked, body: Document, pool: ThreadPoolExecutor
) -> None:
    first = pool.submit(leasing.post, DECIDE, body)
    asked.wait_for(1)
    duplicates = [pool.submit(leasing.post, DECIDE, body, instance=n % 2) for n in range(6)]
    wait_until_looked_at(leasing, workers=2)
    assert first.running()
    asked.answer(1, decision("slow"))
    assert {one.result().body for one in duplicates} == {first.result().body}
    assert len(asked.requests()) == 1


# -- what is kept --------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["policy_not_found", "extension_not_found"])
def test_what_the_router_does_not_find_is_replayed(
    leasing: Fleet, asked: Asked, body: Document, code: str
) -> None:
    asked.router.behaviour = lambda request: router_error(code)
    first = leasing.post(DECIDE, body)
    expect_error(first, 404, code)
    assert first.header(REPLAYED) is None
    for instance in (0, 1, 0, 1):
        again = leasing.post(DECIDE, body, instance=instance)
        expect_replay(first, again, ttl_seconds=TTL_SECONDS)
    assert len(asked.requests()) == 1


def test_kept_and_shared_refusals_are_errors_in_the_access_log_like_any_other(
    leasing: Fleet, asked: Asked, body: Document
) -> None:
    kept, given_back = body, decide_body(assignment_id=new_id("as"))
    codes = {kept["assignment_id"]: "policy_not_found", given_back["assignment_id"]: "denied"}
    asked.router.behaviour = lambda request: router_error(codes[request.json()["assignment_id"]])
    for one in (kept, kept, given_back):
        headers = {"X-Trace-ID": uuid.uuid4().hex}
        code = leasing.post(DECIDE, one, headers).code
        line = access_line(leasing, headers["X-Trace-ID"])
        assert (line["error_code"], line["error_type"]) == (code, "router_runtime"), line
        assert code == codes[one["assignment_id"]]


def access_line(fleet: Fleet, trace_id: str) -> dict[str, Any]:
    """The line of the first instance's output that tells of the end of the request with this trace."""

    def found() -> list[dict[str, Any]]:
        lines = fleet.instances[0].output().splitlines()
        told = [json.loads(line) for line in lines if trace_id in line and line.startswith("{")]
        return [one for one in told if "status" in one]

    [line] = wait_until(found, message=f"no access line of {trace_id}")
    return line


@pytest.mark.parametrize(
    ("code", "status"), [("invalid_request", 400), ("unauthorized", 401), ("denied", 403)]
)
def test_other_refusals_of_the_router_are_shared_with_those_waiting_and_asked_again_later(
    leasing: Fleet, asked: Asked, body: Document, pool: ThreadPoolExecutor, code: str, status: int
) -> None:
    with leasing.each_worker() as workers:
        first = pool.submit(leasing.post, DECIDE, body)
        asked.wait_for(1)
        waiting = [pool.submit(worker.post, DECIDE, body) for worker in workers]
        # All of them have to be seen at work before the Router refuses.
        wait_until(lambda: at_work(leasing) == 1 + len(waiting), message="not all are at work")
        wait_until_looked_at(leasing, workers=len(workers))
        asked.answer(1, router_error(code, "TENANT_FORBIDDEN" if status == 401 else None))
        refused = first.result()
        expect_error(refused, status, code)
        assert refused.header(REPLAYED) is None
        for one in waiting:
            shared = one.result()
            assert same_answer(refused, shared), shared
            assert shared.header(REPLAYED) == "true"
            assert shared.header(EXPIRES) is None, "it is not kept"
    assert len(asked.requests()) == 1
    wait_until_free(leasing, body)
    asked.router.behaviour = decide_for
    later = leasing.post(DECIDE, body, instance=1)
    assert (later.status, later.header(REPLAYED)) == (200, None), later
    assert len(asked.requests()) == 2


def test_request_that_the_router_refused_may_be_mended_under_the_same_id(
    leasing: Fleet, asked: Asked, body: Document
) -> None:
    """A request refused with 4xx leaves no record: the id is still free for another body."""
    asked.router.behaviour = lambda request: router_error("invalid_request", "PAYLOAD_TOO_SMALL")
    expect_error(leasing.post(DECIDE, body), 400, "invalid_request")
    wait_until_free(leasing, body)
    asked.router.behaviour = decide_for
    mended = leasing.post(DECIDE, DECISION.with_other_content(body), instance=1)
    assert (mended.status, mended.header(REPLAYED)) == (200, None), mended
    expect_error(leasing.post(DECIDE, body), 409, "idempotency_conflict")


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        (router_error("decision_failed"), 500, "decision_failed"),
        (router_error("extension_unavailable"), 503, "unavailable"),
        (router_error("extension_timeout"), 504, "timeout"),
        (b"{", 502, "bad_reply"),
        (None, 504, "timeout"),
    ],
    ids=["500", "503", "504", "unreadable", "silence"],
)
def test_failed_call_is_released_at_once_for_the_next(
    leasing: Fleet, asked: Asked, body: Document, reply: Reply | None, status: int, code: str
) -> None:
    asked.router.behaviour = lambda request: reply
    failed = leasing.post(DECIDE, body, {"X-Request-Timeout-Ms": "300"})
    expect_error(failed, status, code)
    assert failed.header(REPLAYED) is None
    assert (failed.header("Retry-After") is not None) == (status in (503, 504))
    asked.router.behaviour = decide_for
    # Well within the lease: nobody has to wait for its end.
    again = leasing.post(DECIDE, body, instance=1)
    assert (again.status, again.header(REPLAYED)) == (200, None), again
    assert again.elapsed < DEADLINE_SECONDS
    assert len(asked.requests()) == 2


def test_those_waiting_for_a_call_that_fails_ask_one_after_the_other(
    leasing: Fleet, asked: Asked, body: Document, pool: ThreadPoolExecutor
) -> None:
    """Each of them may be the next owner, never two at a time; the first success is everybody's."""
    first = pool.submit(leasing.post, DECIDE, body)
    asked.wait_for(1)
    waiting = [pool.submit(leasing.post, DECIDE, body, instance=n % 2) for n in range(4)]
    asked.answer(1, router_error("decision_failed"))
    expect_error(first.result(), 500, "decision_failed")
    asked.wait_for(2)
    assert len(asked.requests()) == 2
    asked.answer(2, decision("p-2"))
    answers = [one.result() for one in waiting]
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body for answer in answers}) == 1
    assert sum(answer.header(REPLAYED) is None for answer in answers) == 1
    assert len(asked.requests()) == 2
