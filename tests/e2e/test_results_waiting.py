"""Waiting costs a place: how many there are, when they are free again, and what ends a wait early.

One worker each, so that its places can be counted.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.documents import new_id
from tests.support.event_stream import EventStream
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Answer
from tests.support.nats_session import NatsSession
from tests.support.result_messages import RESULTS, publish, result_body
from tests.support.scraping import scrape
from tests.support.stacks import Running, running
from tests.support.waiting import AT_ONCE_SECONDS, PATIENCE, RECOVERY_SECONDS, wait_until
from tests.support.wire import expect_error

PLACES = 3
FREED_SECONDS = 1.0 * PATIENCE
GRACEFUL_MS = 10_000
ENVIRONMENT = {
    "WEB_CONCURRENCY": "1",
    "GATEWAY_THREADS": "12",
    "GATEWAY_MAX_WAITING": str(PLACES),
    "GATEWAY_GRACEFUL_TIMEOUT_MS": str(GRACEFUL_MS),
}


@pytest.fixture(scope="module")
def narrow() -> Iterator[Running]:
    """A gateway with three places. Shared by this module: give the places back."""
    with running("narrow", ENVIRONMENT) as started:
        yield started


def open_stream(gateway: GatewayProcess, **query: object) -> EventStream:
    return EventStream(gateway, **{"assignment_id": new_id("as"), **query})


def stream_that_gets_in(gateway: GatewayProcess) -> EventStream:
    """The first stream that is not refused; how soon, says the caller's clock."""

    def attempt() -> EventStream | None:
        stream = open_stream(gateway)
        if stream.status == 200:
            return stream
        stream.vanish()
        return None

    found = wait_until(attempt, FREED_SECONDS, "no place became free")
    assert found is not None
    return found


@pytest.fixture
def gateway(narrow: Running) -> GatewayProcess:
    """The gateway of the module, with all its places free."""
    wait_until(lambda: in_flight(narrow.gateway) == 0, message="somebody is still in")
    return narrow.gateway


def in_flight(gateway: GatewayProcess) -> float:
    """Requests at work, as a scraper sees them."""
    with gateway.client() as client:
        text = client.get("/metrics").body.decode()
    line = next(x for x in text.splitlines() if x.startswith("beamline_gateway_in_flight"))
    return float(line.split()[-1])


@contextlib.contextmanager
def full(gateway: GatewayProcess, **query: object) -> Iterator[list[EventStream]]:
    """As many streams as there are places."""
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(open_stream(gateway, **query)) for _ in range(PLACES)]
        assert [stream.status for stream in streams] == [200] * PLACES
        yield streams


def refused(gateway: GatewayProcess, path: str) -> Answer:
    with gateway.client() as client:
        answer = client.get(path)
    expect_error(answer, 503, "overloaded")
    assert int(answer.header("Retry-After") or 0) >= 1
    assert answer.elapsed < AT_ONCE_SECONDS
    return answer


def test_one_more_stream_than_there_are_places_is_refused(gateway: GatewayProcess) -> None:
    with full(gateway):
        refused(gateway, f"{RESULTS}/stream?assignment_id=a")
        refused(gateway, f"{RESULTS}/a?wait_ms=1000")


def test_long_polls_take_places_too(gateway: GatewayProcess) -> None:
    answers: list[Answer] = []

    def poll() -> None:
        with gateway.client() as client:
            answers.append(client.get(f"{RESULTS}/{new_id('as')}?wait_ms=1500"))

    threads = [threading.Thread(target=poll, daemon=True) for _ in range(PLACES)]
    for thread in threads:
        thread.start()

    def is_full() -> bool:
        with open_stream(gateway, close_after_ms=100) as stream:
            return stream.status == 503

    wait_until(is_full, 1.4)
    for thread in threads:
        thread.join(10.0)
    assert {answer.status for answer in answers} <= {404, 503}
    with stream_that_gets_in(gateway):
        pass


def test_what_does_not_wait_needs_no_place(gateway: GatewayProcess, worker: NatsSession) -> None:
    """A read of what is there, a request, a probe: streams cannot starve them."""
    body = result_body()
    publish(worker, body)
    with gateway.client() as client:
        assert client.get(f"{RESULTS}/{body['assignment_id']}?wait_ms=10000").status == 200
        with full(gateway):
            assert client.get(f"{RESULTS}/{body['assignment_id']}").status == 200
            expect_error(client.get(f"{RESULTS}/{new_id('as')}"), 404, "not_found")
            assert client.get("/readyz").status == 200


@pytest.fixture(scope="module")
def worker(narrow: Running) -> Iterator[NatsSession]:
    with NatsSession(narrow.nats.url, name="worker") as session:
        yield session


@pytest.mark.parametrize("heartbeat_ms", [100, 20_000], ids=["chatty", "silent"])
def test_the_place_of_a_client_that_vanished_is_free_within_a_second(
    gateway: GatewayProcess, heartbeat_ms: int
) -> None:
    """Long before anything is written to it: nobody waits for a heartbeat to fail."""
    with full(gateway, heartbeat_ms=heartbeat_ms) as streams:
        refused(gateway, f"{RESULTS}/stream?assignment_id=a")
        streams[0].vanish()
        with stream_that_gets_in(gateway):
            assert not streams[1].ended and not streams[2].ended


def test_the_place_of_a_long_poll_that_vanished_is_free_within_a_second(
    gateway: GatewayProcess,
) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(PLACES - 1):
            stack.enter_context(open_stream(gateway))
        client = gateway.client(timeout=0.3)
        with pytest.raises(TimeoutError):
            client.get(f"{RESULTS}/{new_id('as')}?wait_ms=30000")  # gives up, and closes
        stack.enter_context(stream_that_gets_in(gateway))


def test_streams_that_nobody_reads_and_nobody_leaves_end_by_themselves(
    gateway: GatewayProcess,
) -> None:
    with full(gateway, close_after_ms=700) as streams:
        for stream in streams:
            stream.wait_until_ended()
        with stream_that_gets_in(gateway):
            pass


def test_waiting_is_not_in_flight_for_ever(gateway: GatewayProcess) -> None:
    """A hundred clients that come, wait and vanish leave every thread and every place free."""
    for _ in range(100):
        open_stream(gateway).vanish()
    wait_until(lambda: in_flight(gateway) == 0, message="somebody is still in")
    with full(gateway):
        pass


# -- the end -------------------------------------------------------------------------------------------


def test_sigterm_ends_streams_and_long_polls_and_the_gateway() -> None:
    """However often a stream beats; nobody is cut off, and nobody keeps the process from its end."""
    beats = (100, 250, 300, 30_000)
    with running("ending", {**ENVIRONMENT, "GATEWAY_MAX_WAITING": "5"}) as started:
        gateway = started.gateway
        answers: list[Answer] = []

        def poll() -> None:
            with gateway.client() as client:
                answers.append(client.get(f"{RESULTS}/{new_id('as')}?wait_ms=30000"))

        with contextlib.ExitStack() as stack:
            streams = [
                stack.enter_context(open_stream(gateway, heartbeat_ms=beat)) for beat in beats
            ]
            waiting = threading.Thread(target=poll, daemon=True)
            waiting.start()
            wait_until(lambda: in_flight(gateway) == len(beats) + 1)
            asked = time.monotonic()
            gateway.terminate()
            for stream in streams:
                stream.wait_until_ended(GRACEFUL_MS / 1000)
                assert stream.complete, "cut off instead of ended"
            waiting.join(GRACEFUL_MS / 1000)
            assert gateway.wait(GRACEFUL_MS / 1000) == 0
            assert time.monotonic() - asked < GRACEFUL_MS / 1000
        assert [answer.status for answer in answers] == [404]
        assert "Traceback" not in gateway.output()


# -- with NATS away --------------------------------------------------------------------------------------


def test_streams_outlive_a_restart_of_nats_and_long_polls_say_that_it_is_away() -> None:
    with running("outage", {**ENVIRONMENT, "GATEWAY_MAX_WAITING": "4"}) as started:
        gateway, nats = started.gateway, started.nats
        body, later = result_body(), result_body()
        for one in (body, later):
            one["request_id"] = "r-1"
        with (
            open_stream(gateway, heartbeat_ms=200, assignment_id=body["assignment_id"]) as stream,
            EventStream(gateway, request_id="r-1", heartbeat_ms=200) as both,
            gateway.client() as client,
            NatsSession(nats.url, name="worker") as worker,
        ):
            stream.wait_for_heartbeats(1)
            interrupted: list[Answer] = []
            poll = threading.Thread(
                target=lambda: interrupted.append(_long_poll(gateway)), daemon=True
            )
            poll.start()
            wait_until(lambda: scrape(client).total("beamline_gateway_waiting_requests") == 3)
            nats.kill()
            wait_until(lambda: client.get("/readyz").status == 503)
            answer = client.get(f"{RESULTS}/{body['assignment_id']}?wait_ms=20000")
            expect_error(answer, 503, "unavailable")
            assert answer.elapsed < AT_ONCE_SECONDS
            expect_error(client.get(f"{RESULTS}/a"), 503, "unavailable")
            poll.join(10.0)
            [answer] = interrupted
            expect_error(answer, 503, "unavailable")
            stream.wait_for_heartbeats(2)
            assert not stream.ended
            nats.start()
            published = time.monotonic()
            publish(worker, body)
            publish(worker, later)
            assert stream.wait_for_results(1)[0]["assignment_id"] == body["assignment_id"]
            both.wait_for_results(2)
            assert time.monotonic() - published < 5.0 * PATIENCE
            wait_until(lambda: client.get("/readyz").status == 200, RECOVERY_SECONDS)
            assert client.get(f"{RESULTS}/{body['assignment_id']}").status == 200


def _long_poll(gateway: GatewayProcess) -> Answer:
    with gateway.client() as client:
        return client.get(f"{RESULTS}/{new_id('as')}?wait_ms=20000")


# -- a worker's last request -----------------------------------------------------------------------------


def test_a_worker_that_is_replaced_ends_what_waits_and_is_gone() -> None:
    """After GATEWAY_MAX_REQUESTS nobody sends a signal; a stream must not keep the old worker, and the new one out."""
    environment = {**ENVIRONMENT, "GATEWAY_MAX_REQUESTS": "25"}
    with running("recycling", environment) as started:
        gateway = started.gateway
        before = frozenset(gateway.workers())
        with open_stream(gateway, heartbeat_ms=30_000) as stream:
            assert stream.status == 200
            asked = time.monotonic()
            for _ in range(25):
                gateway.get("/livez")
            stream.wait_until_ended(GRACEFUL_MS / 1000 / 2)
            assert stream.complete, "cut off instead of ended"
        gateway.wait_for_workers(1, without=before)
        assert time.monotonic() - asked < GRACEFUL_MS / 1000
        with stream_that_gets_in(gateway):
            pass
