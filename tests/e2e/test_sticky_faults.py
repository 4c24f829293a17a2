"""Sticky sessions when something fails: the Router, the worker that asked first, the bucket. A decide always works
when the Router does.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from gateway.devstack.nats_server import NatsServer
from tests.support.documents import DECIDE
from tests.support.faults_proxy import NatsProxy, Verdict
from tests.support.faults_wire import WireEvent
from tests.support.gateway_process import GatewayProcess
from tests.support.idempotency_fleet import (
    NAMED_TENANTS,
    Fleet,
    wait_until_each_worker_is_ready,
    worker_clients,
)
from tests.support.nats_session import NatsSession
from tests.support.scripted_router import ScriptedRouter, decision, router_error
from tests.support.sticky_sessions import (
    BUCKET_STREAM,
    STICKY,
    Chosen,
    Providers,
    StickyCounting,
    chosen,
    entries,
    new_session,
    preferences,
    session_body,
    wait_for_sticky,
)
from tests.support.waiting import DEADLINE_SLACK_SECONDS, RECOVERY_SECONDS
from tests.support.wire import expect_error

#: What a client gives its requests here, and how much of it waiting for another's provider may take.
TIMEOUT_SECONDS = 2.0
PATIENCE_SHARE = 0.4
SHORT = {"X-Request-Timeout-Ms": str(int(TIMEOUT_SECONDS * 1000))}
METERED = {"METRICS_TENANT_LABEL_ALLOWLIST": ",".join(NAMED_TENANTS)}


@pytest.fixture
def providers() -> Providers:
    return Providers()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=4) as pool:
        yield pool


# -- the Router ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (router_error("policy_not_found"), 404),
        (router_error("denied"), 403),
        (router_error("internal"), 500),
        (b"no JSON", 502),
    ],
    ids=["not found", "denied", "internal", "unreadable"],
)
def test_claim_of_a_refused_first_request_is_given_back_at_once(
    fleet: Fleet, providers: Providers, reply: bytes | dict[str, object], status: int
) -> None:
    session = new_session()
    counting = StickyCounting(*fleet.instances)
    with ScriptedRouter(fleet.nats.url, lambda request: reply) as router:
        refused = fleet.post(DECIDE, session_body(session))
        assert (refused.status, refused.header(STICKY)) == (status, None)
        router.behaviour = providers
        again = fleet.post(DECIDE, session_body(session), instance=1)
        assert chosen(again).sticky == "miss"
        assert again.elapsed < TIMEOUT_SECONDS * PATIENCE_SHARE  # nobody waited for the first one
        assert preferences(router, session) == [None, None]
        third = chosen(fleet.post(DECIDE, session_body(session)))
        assert third == Chosen(chosen(again).provider, "hit")
    counting.expect(misses=2, hits=1)


def test_claim_of_a_first_request_that_met_silence_is_given_back_at_once(
    fleet: Fleet, providers: Providers
) -> None:
    session = new_session()
    with ScriptedRouter(fleet.nats.url, lambda request: None) as router:
        silent = fleet.post(DECIDE, session_body(session), {"X-Request-Timeout-Ms": "300"})
        expect_error(silent, 504, "timeout")
        router.behaviour = providers
        again = fleet.post(DECIDE, session_body(session), instance=1)
        assert chosen(again).sticky == "miss"
        assert again.elapsed < TIMEOUT_SECONDS * PATIENCE_SHARE
        assert preferences(router, session) == [None, None]


def test_claim_of_a_first_request_that_found_no_router_is_given_back_at_once(
    fleet: Fleet, providers: Providers
) -> None:
    session = new_session()
    expect_error(fleet.post(DECIDE, session_body(session)), 503, "unavailable")
    with ScriptedRouter(fleet.nats.url, providers):
        again = fleet.post(DECIDE, session_body(session), instance=1)
        assert chosen(again).sticky == "miss"
        assert again.elapsed < TIMEOUT_SECONDS * PATIENCE_SHARE


def test_session_outlives_a_router_that_fails_once(fleet: Fleet, providers: Providers) -> None:
    session = new_session()
    with ScriptedRouter(fleet.nats.url, providers) as router:
        first = chosen(fleet.post(DECIDE, session_body(session)))
        router.behaviour = lambda request: router_error("internal")
        assert fleet.post(DECIDE, session_body(session)).status == 500
        router.behaviour = providers
        again = chosen(fleet.post(DECIDE, session_body(session), instance=1))
        assert again == Chosen(first.provider, "hit")
        assert preferences(router, session) == [None, first.provider, first.provider]


def test_those_who_come_while_the_first_asks_wait_for_it_no_longer_than_their_patience(
    fleet: Fleet, providers: Providers, pool: ThreadPoolExecutor
) -> None:
    """A slow Router: the second asks freely in time, binds its provider, and the late first changes nothing."""
    session = new_session()
    with ScriptedRouter(fleet.nats.url, lambda request: None) as router:
        first = pool.submit(fleet.post, DECIDE, session_body(session))
        asked = router.wait_for_requests(1)[0]
        router.behaviour = providers
        second = fleet.post(DECIDE, session_body(session), SHORT, instance=1)
        assert chosen(second).sticky == "miss"
        assert second.elapsed >= TIMEOUT_SECONDS * PATIENCE_SHARE
        assert second.elapsed < TIMEOUT_SECONDS * PATIENCE_SHARE + DEADLINE_SLACK_SECONDS
        late = providers.new()
        router.answer(asked, decision(late))
        assert chosen(first.result()) == Chosen(late, "miss")
        for instance in (0, 1):
            again = chosen(fleet.post(DECIDE, session_body(session), instance=instance))
            assert again == Chosen(chosen(second).provider, "hit")


# -- the worker that asked first -------------------------------------------------------------------------


def test_worker_that_dies_while_it_asks_first_holds_nobody_up(
    fleet: Fleet, providers: Providers, pool: ThreadPoolExecutor
) -> None:
    session = new_session()
    with (
        GatewayProcess(fleet.nats.url, environment=METERED) as gateway,
        ScriptedRouter(fleet.nats.url, lambda request: None) as router,
    ):
        wait_until_each_worker_is_ready(gateway)
        with worker_clients(gateway) as clients:
            victim = min(clients)
            first = pool.submit(clients[victim].post, DECIDE, session_body(session))
            router.wait_for_requests(1)
            router.behaviour = providers
            os.kill(victim, signal.SIGKILL)
            with pytest.raises(ConnectionError):
                first.result()
            second = fleet.post(DECIDE, session_body(session), SHORT)
            assert chosen(second).sticky == "miss"
            assert second.elapsed < TIMEOUT_SECONDS * PATIENCE_SHARE + DEADLINE_SLACK_SECONDS
            for instance in (0, 1):
                again = fleet.post(DECIDE, session_body(session), instance=instance)
                assert chosen(again) == Chosen(chosen(second).provider, "hit")
                assert again.elapsed < TIMEOUT_SECONDS * PATIENCE_SHARE


# -- the bucket ------------------------------------------------------------------------------------------


@dataclass
class Bucket:
    """What a proxy between the gateway and NATS does with messages that concern the bucket."""

    lost: frozenset[str] = field(default_factory=frozenset)
    """Parts of subjects; a client's message whose subject holds one of them is never answered."""

    def judge(self, event: WireEvent, name: str) -> Verdict:
        ours = event.from_client and any(part in event.subject for part in self.lost)
        return Verdict.DROP if ours else Verdict.FORWARD


READS = f"STREAM.MSG.GET.{BUCKET_STREAM}"
WRITES = "$KV.BEAMLINE_STICKY."


@dataclass(frozen=True)
class Stack:
    """A gateway behind such a proxy, a Router that does not stand behind it, and a reader of the bucket."""

    gateway: GatewayProcess
    bucket: Bucket
    router: ScriptedRouter
    reader: NatsSession

    def post(self, session: str, timeout_seconds: float = TIMEOUT_SECONDS) -> tuple[Chosen, float]:
        """One request: what was chosen, and how long it took."""
        with self.gateway.client() as client:
            headers = {"X-Request-Timeout-Ms": str(int(timeout_seconds * 1000))}
            answer = client.post(DECIDE, session_body(session), headers)
        return chosen(answer), answer.elapsed


@pytest.fixture(scope="module")
def proxied() -> Iterator[Stack]:
    """Shared by this module: mend what you broke, use sessions of your own."""
    bucket = Bucket()
    with contextlib.ExitStack() as stack:
        nats = stack.enter_context(NatsServer(name="sticky-faults"))
        proxy = stack.enter_context(NatsProxy(nats.port, bucket.judge, lambda name: None))
        router = stack.enter_context(ScriptedRouter(nats.url, Providers()))
        reader = stack.enter_context(NatsSession(nats.url, name="reader"))
        gateway = stack.enter_context(GatewayProcess(proxy.url, environment=METERED))
        wait_until_each_worker_is_ready(gateway)
        yield Stack(gateway, bucket, router, reader)


@pytest.fixture
def faulty(proxied: Stack) -> Iterator[Stack]:
    yield proxied
    proxied.bucket.lost = frozenset()


def test_decide_works_without_stickiness_while_the_bucket_does_not_answer(faulty: Stack) -> None:
    session = new_session()
    bound, _ = faulty.post(session)
    counting = StickyCounting(faulty.gateway)
    faulty.bucket.lost = frozenset({READS})
    other = new_session()
    first, elapsed = faulty.post(other)
    assert first.sticky == "unavailable"
    assert elapsed < TIMEOUT_SECONDS / 2 + DEADLINE_SLACK_SECONDS
    again, _ = faulty.post(other, 1.0)
    assert again.sticky == "unavailable" and again.provider != first.provider
    assert preferences(faulty.router, other) == [None, None]
    counting.expect(unavailable=2)
    # Nothing of it is remembered: back at once, with what was bound before.
    faulty.bucket.lost = frozenset()
    assert faulty.post(session)[0] == Chosen(bound.provider, "hit")
    assert faulty.post(other)[0].sticky == "miss"


def test_provider_that_cannot_be_written_down_is_answered_all_the_same(faulty: Stack) -> None:
    """The claim was stored and its provider is not: whoever comes next asks freely after its patience."""
    session = new_session()
    counting = StickyCounting(faulty.gateway)
    faulty.router.behaviour = lambda request: None
    with ThreadPoolExecutor(max_workers=1) as pool:
        asked = len(faulty.router.requests())
        first = pool.submit(faulty.post, session, 5.0)
        request = faulty.router.wait_for_requests(asked + 1)[asked]
        faulty.bucket.lost = frozenset({WRITES})
        providers = Providers()
        provider = providers.new()
        faulty.router.answer(request, decision(provider))
        told, _ = first.result()
    assert told == Chosen(provider, "unavailable")
    assert not [entry for entry in entries(faulty.reader) if entry["provider"] == provider]
    faulty.bucket.lost = frozenset()
    faulty.router.behaviour = providers
    second, _ = faulty.post(session, 1.0)
    assert second.sticky == "miss"
    assert faulty.post(session)[0] == Chosen(second.provider, "hit")
    counting.expect(misses=2, hits=1)


def test_bucket_that_is_deleted_is_unavailable_and_soon_made_again(faulty: Stack) -> None:
    session = new_session()
    bound, _ = faulty.post(session)
    counting = StickyCounting(faulty.gateway)
    faulty.reader.delete_stream(BUCKET_STREAM)
    other = new_session()
    first, elapsed = faulty.post(other)
    assert first.sticky == "unavailable"
    assert elapsed < DEADLINE_SLACK_SECONDS
    counting.expect(unavailable=1)
    wait_for_sticky(
        lambda: faulty.post(other)[0],
        "miss",
        timeout=2 * RECOVERY_SECONDS,
        message="the bucket is not made again",
    )
    # The sessions are lost with it, also for those who have a copy, a second later.
    lost = wait_for_sticky(
        lambda: faulty.post(session)[0],
        "miss",
        timeout=RECOVERY_SECONDS,
        message="a deleted mapping lives on",
    )
    assert lost.provider != bound.provider
