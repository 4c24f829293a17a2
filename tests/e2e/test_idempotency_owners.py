"""Owners of a call that stall or die: taken over after their lease, and never able to overwrite what came then."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.support.documents import DECIDE, decide_body, new_id
from tests.support.http_client import Answer, Client
from tests.support.idempotency_calls import Asked
from tests.support.idempotency_fleet import LEASE_SECONDS, Fleet, worker_clients
from tests.support.idempotency_operations import REPLAYED, Document, expect_replay
from tests.support.process_table import frozen
from tests.support.scripted_router import ScriptedRouter, decision
from tests.support.waiting import GENEROUS_SECONDS
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


def test_stalled_owner_is_taken_over_after_a_lease_and_cannot_overwrite_the_seconds_outcome(
    leasing: Fleet, asked: Asked, body: Document, pool: ThreadPoolExecutor
) -> None:
    with (
        worker_clients(leasing.instances[0]) as first_instance,
        worker_clients(leasing.instances[1]) as second_instance,
    ):
        owner_pid, owner = sorted(first_instance.items())[0]
        observer = sorted(second_instance.items())[0][1]
        stalled = pool.submit(owner.post, DECIDE, body)
        asked.wait_for(1)
        with frozen(owner_pid):
            # The Router has answered: its decision lies in the sleeping owner's socket.
            asked.answer(1, decision("too-late"))
            began = time.monotonic()
            refused = observer.post(DECIDE, body)
            expect_error(refused, 409, "in_progress")
            second = ask_until_decided(observer, body, pool, asked, 2, "p-2")
            assert time.monotonic() - began >= LEASE_SECONDS
            assert (second.status, second.header(REPLAYED)) == (200, None), second
            assert second.json()["decision"]["provider_id"] == "p-2"
        late = stalled.result()
        # Its deadline is long over; if it says anything about the outcome, then the stored one.
        assert late.status in (200, 409, 504), late
        assert late.status != 200 or late.json()["decision"]["provider_id"] == "p-2"
    with leasing.each_worker() as workers:
        for worker in workers:
            expect_replay(second, worker.post(DECIDE, body), ttl_seconds=TTL_SECONDS)
    assert len(asked.requests()) == 2, "one call a lease"


def test_killed_owner_is_taken_over_after_its_lease(
    leasing: Fleet, asked: Asked, body: Document, pool: ThreadPoolExecutor
) -> None:
    gateway = leasing.instances[0]
    with worker_clients(gateway) as clients, worker_clients(leasing.instances[1]) as others:
        owner_pid, owner = sorted(clients.items())[0]
        observer = sorted(others.items())[0][1]
        lost = pool.submit(unanswered, owner, body)
        asked.wait_for(1)
        os.kill(owner_pid, signal.SIGKILL)
        assert lost.result()
        expect_error(observer.post(DECIDE, body), 409, "in_progress")
        second = ask_until_decided(observer, body, pool, asked, 2, "p-2")
        assert (second.status, second.header(REPLAYED)) == (200, None), second
    gateway.wait_for_workers(2, without=frozenset({owner_pid}))
    again = leasing.post(DECIDE, body, instance=0)
    expect_replay(second, again, ttl_seconds=TTL_SECONDS)
    assert len(asked.requests()) == 2


def ask_until_decided(
    observer: Client,
    body: Document,
    pool: ThreadPoolExecutor,
    asked: Asked,
    number: int,
    provider: str,
) -> Answer:
    """Repeat as told by ``Retry-After`` until the request gets through; the Router decides its ``number``-th call."""
    deciding: Future[None] = pool.submit(asked.answer, number, decision(provider))
    end = time.monotonic() + GENEROUS_SECONDS
    while (answer := observer.post(DECIDE, body)).code == "in_progress":
        assert time.monotonic() < end, "never taken over"
    deciding.result()
    return answer


def unanswered(client: Client, body: Document) -> bool:
    """Whether the connection breaks before an answer."""
    with contextlib.suppress(OSError):
        client.post(DECIDE, body)
        return False
    return True
