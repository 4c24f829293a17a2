"""Sticky sessions (order W4-A): cold start, warm cache, TTL expiry and key rotation, over workers and instances.

What is asserted of each: the provider that the Router was given, the one that the client was answered, what
``X-Sticky`` says, and the exact rise of ``sticky_hits_total`` and ``sticky_miss_total`` summed over two workers.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.documents import DECIDE, decide_body, new_id
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Answer
from tests.support.idempotency_fleet import (
    NAMED_TENANTS,
    Fleet,
    running_fleet,
    wait_until_each_worker_is_ready,
)
from tests.support.load import at_once
from tests.support.scripted_router import RouterRequest, ScriptedRouter, decision
from tests.support.sticky_sessions import (
    STICKY,
    Chosen,
    Providers,
    StickyCounting,
    chosen,
    entry_of,
    in_flight,
    new_session,
    preferences,
    preferred,
    session_body,
    wait_for_sticky,
)
from tests.support.waiting import PATIENCE, RECOVERY_SECONDS, wait_until

REQUESTS = 64
TTL_SECONDS = 2.0
#: How long a worker's own copy outlives the entry, and how late a server notices that something is expired.
LOCAL_COPY_SECONDS = 1.0
EXPIRY_LAG_SECONDS = 0.5 * PATIENCE


@pytest.fixture
def providers() -> Providers:
    return Providers()


@pytest.fixture
def router(fleet: Fleet, providers: Providers) -> Iterator[ScriptedRouter]:
    with ScriptedRouter(fleet.nats.url, providers) as router:
        yield router


def ask(fleet: Fleet, session: object, *, instance: int = 0, tenant: str = "acme") -> Chosen:
    body = session_body(session, tenant_id=tenant)
    return chosen(fleet.post(DECIDE, body, tenant=tenant, instance=instance))


# -- the order's four scenarios ------------------------------------------------------------------------


def test_cold_start_asks_freely_and_keeps_the_provider(
    fleet: Fleet, router: ScriptedRouter
) -> None:
    session = new_session()
    counting = StickyCounting(fleet.instances[0])
    first = ask(fleet, session)
    assert first.sticky == "miss"
    assert preferences(router, session) == [None]
    entry = entry_of(fleet.reader, first.provider)
    assert entry is not None
    assert (entry["generation"], entry["reason"]) == (0, "best_score")
    counting.expect(misses=1, hits=0)


def test_warm_cache_gives_the_router_the_sessions_provider_on_every_worker(
    fleet: Fleet, router: ScriptedRouter
) -> None:
    session = new_session()
    counting = StickyCounting(fleet.instances[0])
    first = ask(fleet, session)
    with fleet.each_worker() as workers:
        again = [
            chosen(worker.post(DECIDE, session_body(session)))
            for worker in workers[:2]  # both of the first instance
            for _ in range(3)
        ]
    assert again == [Chosen(first.provider, "hit")] * 6
    assert preferences(router, session) == [None] + [first.provider] * 6
    counting.expect(misses=1, hits=6)


def test_ttl_expiry_begins_anew_and_hits_do_not_put_it_off() -> None:
    environment = {"STICKY_TTL_MS": str(int(TTL_SECONDS * 1000))}
    with (
        running_fleet("sticky-ttl", environment, instances=1) as fleet,
        ScriptedRouter(fleet.nats.url, Providers()) as router,
        fleet.each_worker() as workers,
    ):
        session = new_session()
        counting = StickyCounting(fleet.instances[0])
        asked_at = time.monotonic()
        first = ask(fleet, session)
        made_by = time.monotonic()
        assert first.sticky == "miss"
        hits = 0
        while (again := ask(fleet, session)).sticky == "hit":
            hits += 1
            assert again.provider == first.provider
            kept_for = time.monotonic() - made_by
            assert kept_for < TTL_SECONDS + LOCAL_COPY_SECONDS + EXPIRY_LAG_SECONDS, hits
        assert time.monotonic() - asked_at >= TTL_SECONDS
        assert hits >= 3
        assert again.sticky == "miss"
        assert again.provider != first.provider

        def follow() -> set[Chosen]:
            return {chosen(worker.post(DECIDE, session_body(session))) for worker in workers}

        # The other worker's copy of the old mapping may be good for a moment yet.
        wait_until(
            lambda: follow() == {Chosen(again.provider, "hit")},
            LOCAL_COPY_SECONDS + EXPIRY_LAG_SECONDS,
            "the workers do not agree on the new provider",
        )
        asked = preferences(router, session)
        assert asked.count(None) == 2
        counting.expect(misses=2, hits=len(asked) - 2)


def test_key_rotation_begins_anew_and_leaves_the_old_mapping_alone(
    fleet: Fleet, router: ScriptedRouter
) -> None:
    session = new_session()
    body = {"session_id": session, "conversation_id": session}
    rotated_environment = {
        "STICKY_SESSION_KEY": "conversation_id",
        "METRICS_TENANT_LABEL_ALLOWLIST": ",".join(NAMED_TENANTS),
    }
    with GatewayProcess(fleet.nats.url, environment=rotated_environment) as rotated:
        wait_until_each_worker_is_ready(rotated)
        counting, counting_rotated = StickyCounting(*fleet.instances), StickyCounting(rotated)

        def ask_old(instance: int = 0) -> Chosen:
            return chosen(fleet.post(DECIDE, decide_body(context=body), instance=instance))

        def ask_rotated() -> Chosen:
            with rotated.client() as client:
                return chosen(client.post(DECIDE, decide_body(context=body)))

        old = ask_old()
        assert ask_old() == Chosen(old.provider, "hit")
        new = ask_rotated()
        assert (old.sticky, new.sticky) == ("miss", "miss")
        assert new.provider != old.provider
        assert [ask_rotated() for _ in range(2)] == [Chosen(new.provider, "hit")] * 2
        assert ask_old(instance=1) == Chosen(old.provider, "hit")
        assert preferences(router, session) == [
            None, old.provider, None, new.provider, new.provider, old.provider,
        ]  # fmt: skip
        counting.expect(misses=1, hits=2)
        counting_rotated.expect(misses=1, hits=2)


# -- the fleet -------------------------------------------------------------------------------------------


def test_two_instances_agree(fleet: Fleet, router: ScriptedRouter) -> None:
    session = new_session()
    counting = [StickyCounting(gateway) for gateway in fleet.instances]
    first = ask(fleet, session, instance=1)
    assert first.sticky == "miss"
    with fleet.each_worker() as workers:
        answers = [chosen(worker.post(DECIDE, session_body(session))) for worker in workers]
    assert answers == [Chosen(first.provider, "hit")] * 4
    assert preferences(router, session) == [None] + [first.provider] * 4
    counting[0].expect(misses=0, hits=2)
    counting[1].expect(misses=1, hits=2)


def burst(fleet: Fleet, session: str, count: int = REQUESTS) -> list[Chosen]:
    """Requests of one session on connections opened before, all at one instant over both instances."""
    clients = [fleet.client(number % 2) for number in range(count)]
    try:
        for client in clients:
            assert client.get("/livez").status == 200

        def send(number: int) -> Answer:
            return clients[number].post(DECIDE, session_body(session))

        return [chosen(answer) for answer in at_once(range(count), send)]
    finally:
        for client in clients:
            client.close()


def test_many_first_requests_at_once_ask_freely_once_and_all_get_that_provider(
    fleet: Fleet, router: ScriptedRouter, providers: Providers
) -> None:
    session, provider = new_session(), providers.new()

    def slow_at_first(request: RouterRequest) -> object:
        return None if preferred(request) is None else providers(request)

    router.behaviour = slow_at_first  # type: ignore[assignment]

    def answer_the_first() -> None:
        first = router.wait_for_requests(1)[0]
        # Until all the others have come, but not for as long as their patience lasts.
        late = time.monotonic() + 1.0
        wait_until(lambda: in_flight(*fleet.instances) >= REQUESTS or time.monotonic() > late)
        router.answer(first, decision(provider))

    counting = StickyCounting(*fleet.instances)
    answering = threading.Thread(target=answer_the_first)
    answering.start()
    answers = burst(fleet, session)
    answering.join()
    assert Counter(answers) == {
        Chosen(provider, "miss"): 1,
        Chosen(provider, "hit"): REQUESTS - 1,
    }
    assert Counter(preferences(router, session)) == {None: 1, provider: REQUESTS - 1}
    counting.expect(misses=1, hits=REQUESTS - 1)


def test_provider_that_is_gone_moves_the_session_once_and_everybody_follows(
    fleet: Fleet, router: ScriptedRouter, providers: Providers
) -> None:
    session = new_session()
    with fleet.each_worker() as workers:
        old = ask(fleet, session)
        for worker in workers:  # each has its own copy now
            assert chosen(worker.post(DECIDE, session_body(session))).provider == old.provider
        counting = StickyCounting(*fleet.instances)
        providers.instead = providers.new()
        providers.gone.add(old.provider)
        moved = chosen(workers[0].post(DECIDE, session_body(session)))
        moved_at = time.monotonic()
        assert moved == Chosen(providers.instead, "moved")
        entry = entry_of(fleet.reader, moved.provider)
        assert entry is not None
        assert (entry["generation"], entry["reason"]) == (1, "preferred_unavailable")
        for worker in workers:
            wait_for_sticky(
                lambda worker=worker: chosen(worker.post(DECIDE, session_body(session))),  # type: ignore[misc]
                "hit",
                timeout=RECOVERY_SECONDS,
                message="a worker does not follow",
            )
        assert time.monotonic() - moved_at < RECOVERY_SECONDS
        # Whoever asked for the gone one meanwhile was answered with the same provider and moved nothing.
        assert entry_of(fleet.reader, moved.provider) == entry
        asked = preferences(router, session)[5:]
        assert set(asked) <= {old.provider, moved.provider}
        assert asked[-1] == moved.provider
        counting.expect(misses=0, hits=len(asked))


def test_provider_that_goes_under_many_requests_moves_the_session_once(
    fleet: Fleet, router: ScriptedRouter, providers: Providers
) -> None:
    session = new_session()
    old = ask(fleet, session)
    providers.instead = providers.new()
    providers.gone.add(old.provider)
    answers = burst(fleet, session, 16)
    assert {answer.provider for answer in answers} == {providers.instead}
    assert {answer.sticky for answer in answers} <= {"moved", "hit"}
    entry = entry_of(fleet.reader, providers.instead)
    assert entry is not None and entry["generation"] == 1


# -- what is a session, and what is not ------------------------------------------------------------------


def test_equal_sessions_of_two_tenants_are_two(fleet: Fleet, router: ScriptedRouter) -> None:
    session = new_session()
    counting = {tenant: StickyCounting(*fleet.instances, tenant=tenant) for tenant in NAMED_TENANTS}
    first = [ask(fleet, session, tenant=tenant) for tenant in NAMED_TENANTS]
    assert [one.sticky for one in first] == ["miss", "miss"]
    assert first[0].provider != first[1].provider
    for tenant, own in zip(NAMED_TENANTS, first, strict=True):
        assert ask(fleet, session, tenant=tenant, instance=1) == Chosen(own.provider, "hit")
        counting[tenant].expect(misses=1, hits=1)


def test_tenant_outside_the_metrics_allowlist_is_counted_as_other(
    fleet: Fleet, router: ScriptedRouter
) -> None:
    session = new_session()
    counting = StickyCounting(*fleet.instances, tenant="other")
    first = ask(fleet, session, tenant="initech")
    assert ask(fleet, session, tenant="initech") == Chosen(first.provider, "hit")
    counting.expect(misses=1, hits=1)


def test_whole_number_is_a_session_and_the_same_as_its_digits(
    fleet: Fleet, router: ScriptedRouter
) -> None:
    session = time.time_ns()
    first = ask(fleet, session)
    assert first.sticky == "miss"
    assert ask(fleet, session, instance=1) == Chosen(first.provider, "hit")
    assert ask(fleet, str(session)) == Chosen(first.provider, "hit")


@pytest.mark.parametrize(
    "context",
    [
        None,
        {},
        {"user_id": "u-1"},
        {"session_id": ""},
        {"session_id": True},
        {"session_id": None},
        {"session_id": 1.5},
        {"session_id": ["s"]},
        {"session_id": "s" * 513},
    ],
    ids=repr,
)
def test_request_without_a_session_has_no_header_and_is_not_counted(
    fleet: Fleet, router: ScriptedRouter, context: dict[str, object] | None
) -> None:
    counting = StickyCounting(*fleet.instances)
    written = fleet.last_sequence("KV_BEAMLINE_STICKY")
    more = {} if context is None else {"context": context}
    for _ in range(2):
        assert chosen(fleet.post(DECIDE, decide_body(**more))).sticky is None
    assert [preferred(request) for request in router.requests()] == [None, None]
    assert fleet.last_sequence("KV_BEAMLINE_STICKY") == written
    counting.expect()


def test_clients_own_preference_wins_and_touches_nothing(
    fleet: Fleet, router: ScriptedRouter, providers: Providers
) -> None:
    session, own = new_session(), providers.new()
    bound = ask(fleet, session)
    counting = StickyCounting(*fleet.instances)
    written = fleet.last_sequence("KV_BEAMLINE_STICKY")
    body = session_body(session, metadata={"preferred_provider_id": own})
    assert chosen(fleet.post(DECIDE, body)) == Chosen(own, None)
    counting.expect()
    assert fleet.last_sequence("KV_BEAMLINE_STICKY") == written
    assert ask(fleet, session) == Chosen(bound.provider, "hit")
    assert preferences(router, session) == [None, own, bound.provider]


def test_clients_other_metadata_goes_with_the_preference(
    fleet: Fleet, router: ScriptedRouter
) -> None:
    session = new_session()
    first = ask(fleet, session)
    fleet.post(DECIDE, session_body(session, metadata={"channel": "web"}))
    assert router.requests()[-1].json()["metadata"] == {
        "channel": "web",
        "preferred_provider_id": first.provider,
    }


# -- beside idempotency ----------------------------------------------------------------------------------


def test_replays_of_a_decide_do_not_touch_its_session(
    fleet: Fleet, router: ScriptedRouter, providers: Providers
) -> None:
    """Not even when the session has moved since: a replay is the first answer."""
    session = new_session()
    body = session_body(session, assignment_id=new_id("as"))
    first = fleet.post(DECIDE, body)
    assert chosen(first).sticky == "miss"
    old = chosen(first).provider
    providers.instead = providers.new()
    providers.gone.add(old)
    assert ask(fleet, session) == Chosen(providers.instead, "moved")
    counting = StickyCounting(*fleet.instances)
    written = fleet.last_sequence("KV_BEAMLINE_STICKY")
    asked = len(router.requests())
    with fleet.each_worker() as workers:
        for worker in workers * 2:  # the second time from the worker's own memory
            again = worker.post(DECIDE, body)
            assert again.header("Idempotency-Replayed") == "true"
            assert again.body == first.body
            assert again.header(STICKY) is None
    assert len(router.requests()) == asked
    assert fleet.last_sequence("KV_BEAMLINE_STICKY") == written
    counting.expect()


def test_decides_with_different_ids_share_their_session(
    fleet: Fleet, router: ScriptedRouter
) -> None:
    session = new_session()
    answers = [
        chosen(fleet.post(DECIDE, session_body(session, assignment_id=new_id("as")), instance=n))
        for n in (0, 1)
    ]
    assert answers[1] == Chosen(answers[0].provider, "hit")


def test_equal_decides_at_once_touch_their_session_once(
    fleet: Fleet, router: ScriptedRouter
) -> None:
    session = new_session()
    body = session_body(session, assignment_id=new_id("as"))
    counting = StickyCounting(*fleet.instances)
    answers = at_once(range(16), lambda number: fleet.post(DECIDE, body, instance=number % 2))
    assert Counter(answer.header(STICKY) for answer in answers) == {"miss": 1, None: 15}
    assert preferences(router, session) == [None]
    counting.expect(misses=1)


def test_preference_is_no_part_of_what_the_client_meant(
    fleet: Fleet, router: ScriptedRouter
) -> None:
    """The same request is a replay, and no conflict, although the Router was asked with a preference."""
    session = new_session()
    bound = ask(fleet, session)
    body = session_body(session, assignment_id=new_id("as"))
    first, again = fleet.post(DECIDE, body), fleet.post(DECIDE, body, instance=1)
    assert chosen(first) == Chosen(bound.provider, "hit")
    assert (again.status, again.body) == (200, first.body)
