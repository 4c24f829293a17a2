"""One deadline a request: silence, late answers, crossed answers, nobody there, too many at once."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from tests.support.documents import DECIDE, decide_body
from tests.support.http_client import Answer
from tests.support.load import at_once
from tests.support.scripted_router import (
    RouterRequest,
    ScriptedRouter,
    decide_for,
    own_provider,
)
from tests.support.stacks import Running, running
from tests.support.waiting import (
    AT_ONCE_SECONDS,
    DEADLINE_SLACK_SECONDS,
    LIVEZ_SECONDS,
    wait_until,
)
from tests.support.wire import expect_error

THREADS = 8
WORKERS = 2
TIMEOUT = 1.0


def silent(request: RouterRequest) -> None:
    """The Router that never answers."""


@pytest.fixture(scope="module")
def narrow() -> Iterator[Running]:
    """Few threads and a short deadline, so that both run out soon."""
    environment = {
        "GATEWAY_THREADS": str(THREADS),
        "WEB_CONCURRENCY": str(WORKERS),
        "ROUTER_REQUEST_TIMEOUT_MS": str(int(TIMEOUT * 1000)),
    }
    with running("narrow", environment) as started:
        yield started


def decide(
    started: Running, request_id: str | None = None, timeout_ms: int | None = None
) -> Answer:
    """One decide on a connection of its own."""
    body = decide_body(request_id=request_id or str(uuid.uuid4()))
    headers = {} if timeout_ms is None else {"X-Request-Timeout-Ms": str(timeout_ms)}
    with started.gateway.client() as client:
        return client.post(DECIDE, body, headers)


def test_silence_becomes_a_timeout_at_the_deadline(narrow: Running) -> None:
    with ScriptedRouter(narrow.nats.url, silent):
        answer = decide(narrow)
    expect_error(answer, 504, "timeout")
    assert TIMEOUT * 0.9 <= answer.elapsed <= TIMEOUT + DEADLINE_SLACK_SECONDS


def test_client_may_shorten_its_deadline(narrow: Running) -> None:
    with ScriptedRouter(narrow.nats.url, silent):
        answer = decide(narrow, timeout_ms=200)
    expect_error(answer, 504, "timeout")
    assert 0.15 <= answer.elapsed <= 0.2 + DEADLINE_SLACK_SECONDS


def test_client_may_not_lengthen_its_deadline(narrow: Running) -> None:
    with ScriptedRouter(narrow.nats.url, silent):
        answer = decide(narrow, timeout_ms=60_000)
    assert answer.status in (400, 504), answer
    assert answer.elapsed <= TIMEOUT + DEADLINE_SLACK_SECONDS


def test_nobody_listening_is_unavailable_at_once(narrow: Running) -> None:
    decide(narrow)  # the first request of a worker may load what the others need
    decide(narrow)
    answer = decide(narrow)
    expect_error(answer, 503, "unavailable")
    assert answer.elapsed <= AT_ONCE_SECONDS


def test_router_that_went_away_is_unavailable_and_back_is_back(narrow: Running) -> None:
    with ScriptedRouter(narrow.nats.url):
        assert decide(narrow).status == 200
    assert decide(narrow).code == "unavailable"
    with ScriptedRouter(narrow.nats.url):
        assert decide(narrow).status == 200


def test_late_reply_is_dropped_and_never_answers_the_next_request(routerless: Running) -> None:
    with ScriptedRouter(routerless.nats.url, silent) as router:
        for number in range(5):
            late = f"late-{number}-{uuid.uuid4().hex}"
            router.behaviour = silent
            expect_error(decide(routerless, late, timeout_ms=150), 504, "timeout")
            stale = next(one for one in router.requests() if one.json()["request_id"] == late)
            router.answer(stale, decide_for(stale))
            own = f"own-{number}-{uuid.uuid4().hex}"
            router.behaviour = decide_for
            answer = decide(routerless, own)
            assert answer.status == 200
            assert answer.json()["decision"]["provider_id"] == own_provider(own)
            assert answer.json()["context"]["request_id"] == own


def test_late_reply_while_another_request_waits_is_dropped(routerless: Running) -> None:
    """The late one's answer comes first: the waiting request must not take it for its own."""
    late, own = (f"{name}-{uuid.uuid4().hex}" for name in ("late", "own"))
    answers: dict[str, Answer] = {}
    with ScriptedRouter(routerless.nats.url, silent) as router:

        def asked() -> dict[str, RouterRequest]:
            return {one.json()["request_id"]: one for one in router.requests()}

        def work(part: str) -> None:
            if part == "router":
                wait_until(lambda: late in answers and own in asked())
                router.answer(asked()[late], decide_for(asked()[late]))
                router.answer(asked()[own], decide_for(asked()[own]))
            else:
                timeout_ms = 150 if part == late else 4000
                answers[part] = decide(routerless, part, timeout_ms=timeout_ms)

        at_once([late, own, "router"], work)
    expect_error(answers[late], 504, "timeout")
    assert answers[own].status == 200
    assert answers[own].json()["decision"]["provider_id"] == own_provider(own)


def test_fifty_interleaved_requests_each_get_their_own_decision(routerless: Running) -> None:
    """All fifty wait at the same time; the answers come in the opposite order."""
    ids = [f"r-{number}-{uuid.uuid4().hex}" for number in range(50)]
    with ScriptedRouter(routerless.nats.url, silent) as router:

        def work(request_id: str) -> Answer | None:
            if request_id != "router":
                return decide(routerless, request_id)
            for request in reversed(router.wait_for_requests(50)):
                router.answer(request, decide_for(request))
            return None

        answers = at_once([*ids, "router"], work)[:-1]
    for request_id, answer in zip(ids, answers, strict=True):
        assert answer is not None
        assert answer.status == 200, answer
        assert answer.json()["decision"]["provider_id"] == own_provider(request_id)
        assert answer.json()["context"]["request_id"] == request_id


def test_twice_as_many_requests_as_threads_are_all_answered_by_the_deadline(
    narrow: Running,
) -> None:
    """A silent Router: each is 504 ``timeout`` or 503 ``overloaded``, and ``/livez`` answers meanwhile."""
    count = 2 * THREADS * WORKERS
    with ScriptedRouter(narrow.nats.url, silent) as router:

        def work(number: int) -> Answer:
            if number < count:
                return decide(narrow)
            router.wait_for_requests(THREADS - 2)
            with narrow.gateway.client(headers={}) as probe:
                return probe.get("/livez")

        answers = at_once(range(count + 4), work)
    decides, probes = answers[:count], answers[count:]
    assert {(answer.status, answer.code) for answer in decides} <= {
        (504, "timeout"),
        (503, "overloaded"),
    }
    assert [answer.status for answer in probes] == [200] * len(probes)
    assert max(answer.elapsed for answer in probes) <= LIVEZ_SECONDS
    assert max(answer.elapsed for answer in decides) <= TIMEOUT + DEADLINE_SLACK_SECONDS
    overloaded = [answer for answer in decides if answer.code == "overloaded"]
    assert overloaded, "more requests than threads, yet none was refused"
    for answer in overloaded:
        expect_error(answer, 503, "overloaded", tenant=None)
        assert int(answer.header("Retry-After") or "0") >= 1, answer
        assert answer.elapsed <= TIMEOUT


def test_overload_comes_before_authentication(narrow: Running) -> None:
    """Precedence: who is refused for overload is not asked who it is."""
    count = 2 * THREADS * WORKERS
    with ScriptedRouter(narrow.nats.url, silent) as router:

        def work(number: int) -> Answer:
            if number < count:
                return decide(narrow)
            router.wait_for_requests(THREADS - 2)  # one worker is full, perhaps both
            with narrow.gateway.client(headers={}) as nobody:
                return nobody.post(DECIDE, decide_body())

        answers = at_once(range(count + 4), work)[count:]
    assert {(answer.status, answer.code) for answer in answers} <= {
        (503, "overloaded"),
        (401, "unauthorized"),
    }


def test_after_the_overload_everything_works_again(narrow: Running) -> None:
    with ScriptedRouter(narrow.nats.url, silent):
        at_once(range(2 * THREADS * WORKERS), lambda number: decide(narrow, timeout_ms=200))
    with ScriptedRouter(narrow.nats.url):
        # As many as one worker takes: which of them accepts a connection is the system's choice.
        answers = at_once(range(THREADS - 2), lambda number: decide(narrow))
    assert [answer.status for answer in answers].count(200) == THREADS - 2, answers


@pytest.mark.parametrize("limit", [1, 3])
def test_cap_on_requests_in_flight_is_kept(limit: int) -> None:
    environment = {
        "WEB_CONCURRENCY": "1",
        "GATEWAY_THREADS": "12",
        "GATEWAY_MAX_IN_FLIGHT": str(limit),
    }
    with (
        running("capped", environment) as started,
        ScriptedRouter(started.nats.url, silent) as router,
    ):
        answers = at_once(range(8), lambda number: decide(started, timeout_ms=700))
        assert len(router.requests()) == limit
    codes = [answer.code for answer in answers]
    assert codes.count("timeout") == limit, codes
    assert codes.count("overloaded") == 8 - limit, codes


def test_vanished_client_does_not_keep_its_place(narrow: Running) -> None:
    """Clients that go away while the Router is silent: their places are free by their deadline."""
    with ScriptedRouter(narrow.nats.url, silent) as router:
        clients = [narrow.gateway.client(timeout=0.2) for _ in range(THREADS)]
        for client in clients:
            with client, pytest.raises(OSError, match="timed out"):
                client.post(DECIDE, decide_body(), {"X-Request-Timeout-Ms": "600"})
        router.behaviour = decide_for
        wait_until(lambda: decide(narrow).status == 200, timeout=3.0)
