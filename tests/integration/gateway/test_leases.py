"""Leases over a real bucket: owners that stall, wake up too late, fail, or cannot store what they were told."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from bridge import BridgeError, Unknown
from gateway.devstack.nats_server import NatsServer
from gateway.idempotency import Conflict, InProgress, Keep, State, Verdict
from tests.integration.gateway.leasing import (
    LEASE_SECONDS,
    Call,
    Worker,
    at_once,
    never,
    outcome,
    started,
)
from tests.support.waiting import wait_until

TTL_MS = 60_000
SHORT_TTL_MS = 1_000


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    with NatsServer(name="leases") as server:
        yield server


@pytest.fixture
def workers(server: NatsServer) -> Iterator[list[Worker]]:
    yield from started(server, TTL_MS)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=16) as pool:
        yield pool


@pytest.fixture
def key() -> str:
    return secrets.token_hex(20)


def test_outcome_is_everybodys_and_the_call_is_made_once(
    workers: list[Worker], key: str, pool: ThreadPoolExecutor
) -> None:
    call = Call()
    first = pool.submit(workers[0].call, key, call)
    call.wait_until_begun()
    waiting = [pool.submit(workers[n % 2].call, key, never) for n in range(8)]
    call.ends(Keep.REPLAY, "one")
    for settled in (first.result(), *(one.result() for one in waiting)):
        assert settled.outcome == outcome("one")
        assert settled.keep is Keep.REPLAY
    assert first.result().held.mine
    assert not any(one.result().held.mine for one in waiting)
    assert call.begun == 1


def test_owner_that_wakes_up_after_its_lease_answers_what_its_successor_stored(
    workers: list[Worker], key: str, pool: ThreadPoolExecutor
) -> None:
    call = Call()
    late = pool.submit(workers[0].call, key, call)
    call.wait_until_begun()
    began = time.monotonic()
    second = workers[1].call(key, at_once(Keep.REPLAY, "two"))
    assert second.held.mine and second.outcome == outcome("two")
    assert time.monotonic() - began >= LEASE_SECONDS
    call.ends(Keep.REPLAY, "one")
    assert late.result().outcome == outcome("two")
    assert not late.result().held.mine
    assert workers[0].call(key, never).outcome == outcome("two")


@pytest.mark.parametrize("keep", [Keep.SHARE, Keep.RELEASE])
def test_owner_that_wakes_up_after_its_lease_does_not_release_its_successors_record(
    workers: list[Worker], key: str, pool: ThreadPoolExecutor, keep: Keep
) -> None:
    late_call, second_call = Call(), Call()
    late = pool.submit(workers[0].call, key, late_call)
    late_call.wait_until_begun()
    second = pool.submit(workers[1].call, key, second_call)
    second_call.wait_until_begun()
    late_call.ends(keep, "one")
    late.result()
    with pytest.raises(InProgress):
        workers[0].call(key, never, seconds=LEASE_SECONDS / 2)
    second_call.ends(Keep.REPLAY, "two")
    assert second.result().outcome == outcome("two")
    assert workers[0].call(key, never).outcome == outcome("two")


def test_many_who_wait_for_a_stalled_owner_make_one_call_together(
    workers: list[Worker], key: str, pool: ThreadPoolExecutor
) -> None:
    stalled, second = Call(), Call()
    late = pool.submit(workers[0].call, key, stalled)
    stalled.wait_until_begun()
    waiting = [pool.submit(workers[n % 2].call, key, second) for n in range(8)]
    second.wait_until_begun()
    second.ends(Keep.REPLAY, "two")
    assert {one.result().outcome.body["answer"] for one in waiting} == {"two"}
    assert sum(one.result().held.mine for one in waiting) == 1
    assert second.begun == 1
    stalled.ends(Keep.REPLAY, "one")
    assert late.result().outcome == outcome("two")


def test_one_whose_time_is_over_first_is_told_so(
    workers: list[Worker], key: str, pool: ThreadPoolExecutor
) -> None:
    call = Call()
    first = pool.submit(workers[0].call, key, call)
    call.wait_until_begun()
    began = time.monotonic()
    with pytest.raises(InProgress):
        workers[1].call(key, never, seconds=0.2)
    assert time.monotonic() - began < 0.2 + LEASE_SECONDS
    call.ends(Keep.REPLAY, "one")
    first.result()


def test_refusal_is_shared_with_those_who_saw_the_call_and_asked_again_by_those_who_did_not(
    server: NatsServer, workers: list[Worker], key: str, pool: ThreadPoolExecutor
) -> None:
    call = Call()
    first = pool.submit(workers[0].call, key, call)
    call.wait_until_begun()
    before = server.varz()["in_msgs"]
    waiting = [pool.submit(workers[n % 2].call, key, never) for n in range(4)]
    # Nobody else talks to this server: these are the looks of those four.
    wait_until(lambda: server.varz()["in_msgs"] >= before + 20, message="nobody looks")
    call.ends(Keep.SHARE, "refused")
    for one in waiting:
        assert (one.result().keep, one.result().held.mine) == (Keep.SHARE, False)
        assert one.result().outcome == outcome("refused")
    assert first.result().held.mine
    wait_until(lambda: workers[0].state(key) is State.RELEASED)
    again = workers[1].call(key, at_once(Keep.REPLAY, "allowed"))
    assert again.held.mine and again.outcome == outcome("allowed")


@pytest.mark.parametrize("keep", [Keep.SHARE, Keep.RELEASE])
def test_id_that_was_given_back_may_be_used_for_another_request(
    workers: list[Worker], key: str, keep: Keep
) -> None:
    workers[0].call(key, at_once(keep, "no"), fingerprint="one")
    wait_until(lambda: workers[0].state(key) is State.RELEASED)
    other = workers[1].call(key, at_once(Keep.REPLAY, "yes"), fingerprint="other")
    assert other.held.mine and other.outcome == outcome("yes")
    with pytest.raises(Conflict):
        workers[0].call(key, never, fingerprint="one")


def test_one_who_waits_is_refused_when_the_id_goes_to_another_request_meanwhile(
    workers: list[Worker], key: str, pool: ThreadPoolExecutor
) -> None:
    first, other = Call(), Call()
    owner = pool.submit(workers[0].call, key, first, fingerprint="one")
    first.wait_until_begun()
    first.ends(Keep.RELEASE, "failed")
    owner.result()
    wait_until(lambda: workers[0].state(key) is State.RELEASED)
    taking = pool.submit(workers[1].call, key, other, fingerprint="other")
    other.wait_until_begun()
    with pytest.raises(Conflict):
        workers[0].call(key, never, fingerprint="one")
    other.ends(Keep.REPLAY, "other")
    assert taking.result().held.mine


def test_call_that_raises_gives_its_id_back_and_raises(workers: list[Worker], key: str) -> None:
    async def silent() -> Verdict:
        raise Unknown("no answer")

    with pytest.raises(Unknown):
        workers[0].call(key, silent)
    began = time.monotonic()
    assert workers[1].call(key, at_once(Keep.REPLAY, "one")).held.mine
    assert time.monotonic() - began < LEASE_SECONDS


def test_call_that_is_cut_off_at_its_deadline_gives_its_id_back(
    workers: list[Worker], key: str
) -> None:
    hanging = Call()
    with pytest.raises(BridgeError):
        workers[0].call(key, hanging, seconds=0.1)
    wait_until(lambda: workers[0].state(key) is State.RELEASED)
    assert workers[1].call(key, at_once(Keep.REPLAY, "one")).held.mine


def test_outcome_that_came_too_late_to_be_stored_in_time_is_stored_all_the_same(
    workers: list[Worker], key: str
) -> None:
    """The Router's answer arrived; the next one to ask must not wait for the lease to end, nor ask again."""
    seconds = 0.2

    async def just_too_late() -> Verdict:
        await asyncio.sleep(
            seconds + 0.01
        )  # within the loop's grace for an operation's own verdict
        return Verdict(outcome("one"), Keep.REPLAY)

    with pytest.raises(BridgeError):
        workers[0].call(key, just_too_late, seconds=seconds)
    wait_until(lambda: workers[0].state(key) is State.DONE)
    assert workers[1].call(key, never).outcome == outcome("one")


def test_outcome_that_is_too_large_to_be_stored_gives_the_id_back(
    workers: list[Worker], key: str
) -> None:
    huge = "x" * (1024 * 1024)
    with pytest.raises(BridgeError):
        workers[0].call(key, at_once(Keep.REPLAY, huge))
    began = time.monotonic()
    assert workers[1].call(key, at_once(Keep.REPLAY, "small")).held.mine
    assert time.monotonic() - began < LEASE_SECONDS


@pytest.fixture
def forgetful() -> Iterator[list[Worker]]:
    """Workers whose records live shorter than their calls."""
    with NatsServer(name="forgetful") as server:
        yield from started(server, SHORT_TTL_MS)


def test_record_that_expires_under_a_call_does_not_make_its_owner_call_again(
    forgetful: list[Worker], key: str, pool: ThreadPoolExecutor
) -> None:
    call = Call()
    first = pool.submit(forgetful[0].call, key, call)
    call.wait_until_begun()
    wait_until(lambda: forgetful[1].state(key) is None, message="the record does not expire")
    call.ends(Keep.REPLAY, "one")
    assert first.result().outcome == outcome("one")
    assert call.begun == 1
    assert forgetful[1].call(key, never).outcome == outcome("one")
