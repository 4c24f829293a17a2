"""Results reach whoever waits for them, on whatever worker of whatever instance; and nobody else.

Two instances of two workers on one NATS. One of the four takes a result in, so that of two clients at two
instances at least one is served by a process that did not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from urllib.parse import quote

import pytest

from gateway.devstack.nats_server import NatsServer
from tests.support.documents import new_id
from tests.support.event_stream import EventStream
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Answer, as_tenant
from tests.support.nats_session import NatsSession
from tests.support.result_instances import instances
from tests.support.result_messages import (
    RESULTS,
    publish,
    result_body,
    result_headers,
    until_consumed,
)
from tests.support.waiting import AT_ONCE_SECONDS, PATIENCE
from tests.support.wire import check_correlation, expect_error

REACHES_SECONDS = 1.0 * PATIENCE  # "reaches … on another within 1 s"
# Every client of a test may end at the same worker.
ENVIRONMENT = {"GATEWAY_THREADS": "32"}


@dataclass(frozen=True)
class Fleet:
    """Two instances, and a worker's connection to their NATS."""

    one: GatewayProcess
    other: GatewayProcess
    worker: NatsSession


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Shared by this module: kill nothing, use ids of your own."""
    with (
        NatsServer(name="results") as nats,
        instances(2, nats.url, ENVIRONMENT) as (one, other),
        NatsSession(nats.url, name="worker") as worker,
    ):
        yield Fleet(one, other, worker)


@pytest.fixture(autouse=True)
def fleet_lives_on(fleet: Fleet) -> Iterator[None]:
    """A test that kills what others share is told so itself, not the tests after it."""
    yield
    for gateway in (fleet.one, fleet.other):
        assert gateway.running, f"an instance has died:\n{gateway.output_tail()}"


class LongPoll:
    """A long poll under way in a thread of its own."""

    def __init__(self, gateway: GatewayProcess, path: str, tenant: str = "acme") -> None:
        self._answers: list[Answer] = []
        self.ended_at = 0.0

        def ask() -> None:
            with gateway.client(as_tenant(tenant)) as client:
                self._answers.append(client.get(path))
                self.ended_at = time.monotonic()

        self._thread = threading.Thread(target=ask, daemon=True)
        self._thread.start()

    def answer(self, timeout: float = 40.0) -> Answer:
        self._thread.join(timeout)
        assert self._answers, "no answer"
        return self._answers[0]


def result_path(assignment_id: str, wait_ms: int | None = None) -> str:
    query = "" if wait_ms is None else f"?wait_ms={wait_ms}"
    return f"{RESULTS}/{quote(assignment_id, safe='')}{query}"


def get(gateway: GatewayProcess, path: str, tenant: str = "acme") -> Answer:
    with gateway.client(as_tenant(tenant)) as client:
        return client.get(path)


# -- from one worker to all ----------------------------------------------------------------------------


def test_a_result_reaches_a_long_poll_and_a_stream_at_both_instances_within_a_second(
    fleet: Fleet,
) -> None:
    body = result_body()
    assignment_id = body["assignment_id"]
    gateways = (fleet.one, fleet.other)
    polls = [LongPoll(gateway, result_path(assignment_id, 15_000)) for gateway in gateways]
    streams = [EventStream(gateway, assignment_id=assignment_id) for gateway in gateways]
    headers = result_headers()
    published = time.monotonic()
    publish(fleet.worker, body, headers)
    expected = {**body, "tenant_id": "acme", "trace_id": headers["trace_id"]}
    for poll in polls:
        answer = poll.answer()
        assert answer.status == 200
        assert answer.json()["ok"] is True
        assert answer.json()["result"] == expected
        check_correlation(answer, answer.json()["context"])
        assert poll.ended_at - published < REACHES_SECONDS
    for stream in streams:
        with stream:
            assert stream.wait_for_results(1) == [expected]
            assert stream.events[0].at - published < REACHES_SECONDS


def test_a_result_that_is_there_is_told_at_once_and_again_and_again(fleet: Fleet) -> None:
    body = result_body(status="error", error_code="E7", error_message="no luck")
    publish(fleet.worker, body)
    first = get(fleet.one, result_path(body["assignment_id"], 10_000))
    assert first.json()["result"]["error_message"] == "no luck"
    for gateway in (fleet.one, fleet.other):
        again = get(gateway, result_path(body["assignment_id"], 10_000))
        assert again.json()["result"] == first.json()["result"]
        assert again.elapsed < AT_ONCE_SECONDS
        assert get(gateway, result_path(body["assignment_id"])).status == 200
        with EventStream(gateway, assignment_id=body["assignment_id"]) as stream:
            assert stream.wait_for_results(1) == [first.json()["result"]]


def test_the_first_result_of_an_assignment_wins(fleet: Fleet) -> None:
    first = result_body(status="success")
    second = {
        **first,
        "status": "error",
        "provider_id": "other",
        "timestamp": first["timestamp"] + 1,
    }
    with EventStream(fleet.one, assignment_id=first["assignment_id"]) as stream:
        publish(fleet.worker, first)
        stream.wait_for_results(1)
        publish(fleet.worker, second)
        until_consumed(fleet.worker)
        for gateway in (fleet.one, fleet.other):
            answer = get(gateway, result_path(first["assignment_id"]))
            assert answer.json()["result"]["status"] == "success"
        with EventStream(
            fleet.other, assignment_id=first["assignment_id"], close_after_ms=500
        ) as later:
            later.wait_until_ended()
            assert [one["status"] for one in later.results()] == ["success"]
        assert [one["status"] for one in stream.results()] == ["success"]


@pytest.mark.parametrize(
    "assignment_id",
    [
        "a/b/c",
        "/leading",
        "trailing/",
        "a//b",
        "50%",
        "a?b=c&d",
        "a#b",
        "a+b",
        "stream",
        "..",
        "~!@$",
    ],
)
def test_any_id_can_be_asked_for(fleet: Fleet, assignment_id: str) -> None:
    """As a query parameter every one of them; ids with slashes are what it is for."""
    assignment_id = f"{new_id('as')}/{assignment_id}" if assignment_id != "stream" else "stream"
    body = result_body(assignment_id=assignment_id)
    publish(fleet.worker, body)
    path = f"{RESULTS}?assignment_id={quote(assignment_id, safe='')}&wait_ms=10000"
    answer = get(fleet.one, path)
    assert answer.status == 200, answer
    assert answer.json()["result"]["assignment_id"] == assignment_id
    with EventStream(fleet.other, assignment_id=assignment_id) as stream:
        assert stream.wait_for_results(1)[0]["assignment_id"] == assignment_id


# -- how long ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait_ms", [None, 0, 300, 1_200])
def test_what_is_not_there_in_time_is_not_found(fleet: Fleet, wait_ms: int | None) -> None:
    answer = get(fleet.one, result_path(new_id("as"), wait_ms))
    expect_error(answer, 404, "not_found")
    wanted = (wait_ms or 0) / 1000
    assert wanted <= answer.elapsed < wanted + REACHES_SECONDS


def test_a_long_poll_is_not_cut_by_the_time_of_a_request(fleet: Fleet) -> None:
    """Its time is wait_ms, whatever a client asks for its other requests."""
    body = result_body()
    poll = LongPoll(fleet.one, result_path(body["assignment_id"], 20_000))
    with fleet.other.client() as client:
        path = result_path(body["assignment_id"], 1_000)
        answer = client.get(path, {"X-Request-Timeout-Ms": "100"})
        assert (answer.status, answer.elapsed >= 1.0) == (404, True), answer
    publish(fleet.worker, body)
    assert poll.answer().status == 200


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("wait_ms=-1", "wait_ms"),
        ("wait_ms=30001", "wait_ms"),
        ("wait_ms=1.5", "wait_ms"),
        ("wait_ms=soon", "wait_ms"),
        ("wait_ms=", "wait_ms"),
        ("wait_ms=5&wait_ms=6", "wait_ms"),
        ("wait=5", "wait"),
        ("assignment_id=another", "assignment_id"),
    ],
)
def test_a_long_poll_that_is_asked_wrongly_is_told_what(
    fleet: Fleet, query: str, named: str
) -> None:
    answer = get(fleet.one, f"{RESULTS}/as-1?{query}")
    expect_error(answer, 400, "invalid_request")
    assert named in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("", "assignment_id"),
        ("assignment_id=a&request_id=r", "assignment_id"),
        ("assignment_id=", "assignment_id"),
        ("assignment_id=a%20b", "assignment_id"),
        ("assignment_id=a&heartbeat_ms=99", "heartbeat_ms"),
        ("assignment_id=a&heartbeat_ms=60001", "heartbeat_ms"),
        ("assignment_id=a&close_after_ms=3600001", "close_after_ms"),
        ("assignment_id=a&close_after_ms=0", "close_after_ms"),
        ("assignment_id=a&wait_ms=5", "wait_ms"),
        ("assignment_id=a&provider_exclude=a%20b", "provider_exclude"),
    ],
)
def test_a_stream_that_is_asked_wrongly_is_refused_before_it_opens(
    fleet: Fleet, query: str, named: str
) -> None:
    answer = get(fleet.one, f"{RESULTS}/stream?{query}")
    expect_error(answer, 400, "invalid_request")
    assert named in answer.json()["error"]["message"]


def test_no_id_at_all_is_said(fleet: Fleet) -> None:
    expect_error(get(fleet.one, RESULTS), 400, "invalid_request")


# -- streams -------------------------------------------------------------------------------------------


def test_a_stream_of_a_request_tells_all_its_results_each_once(fleet: Fleet) -> None:
    """Those before the stream opened, then those that follow, at both instances."""
    request_id = new_id("rq")
    early = [result_body(request_id=request_id) for _ in range(3)]
    late = [result_body(request_id=request_id) for _ in range(4)]
    for body in early:
        publish(fleet.worker, body)
    until_consumed(fleet.worker)
    streams = [
        EventStream(gateway, request_id=request_id, heartbeat_ms=200)
        for gateway in (fleet.one, fleet.other)
    ]
    for stream in streams:
        stream.wait_for_results(3)
    for body in late:
        publish(fleet.worker, body)
        publish(fleet.worker, result_body(request_id=new_id("another")))
    wanted = [body["assignment_id"] for body in early + late]
    for stream in streams:
        with stream:
            stream.wait_for_results(7)
            stream.wait_for_heartbeats(3)
            assert sorted(one["assignment_id"] for one in stream.results()) == sorted(wanted)


def test_a_result_of_a_request_without_an_assignment_is_told_too(fleet: Fleet) -> None:
    request_id = new_id("rq")
    with EventStream(fleet.one, request_id=request_id) as stream:
        publish(fleet.worker, result_body(assignment_id=None, request_id=request_id))
        [one] = stream.wait_for_results(1)
    assert one["request_id"] == request_id
    assert "assignment_id" not in one


def test_streams_tell_the_wanted_providers_and_leave_out_the_unwanted(fleet: Fleet) -> None:
    request_id = new_id("rq")
    asked: list[tuple[dict[str, object], set[str]]] = [
        ({}, {"a", "b", "c"}),
        ({"provider_id": "b"}, {"b"}),
        ({"provider_exclude": "b"}, {"a", "c"}),
        ({"provider_exclude": "a,c,d"}, {"b"}),
        ({"provider_id": "b", "provider_exclude": "b"}, set()),
    ]
    streams = [
        EventStream(fleet.one, request_id=request_id, heartbeat_ms=200, **query)
        for query, _ in asked
    ]
    for provider in "abc":
        publish(fleet.worker, result_body(request_id=request_id, provider_id=provider))
    until_consumed(fleet.worker)
    streams[0].wait_for_results(3)
    for stream, (query, providers) in zip(streams, asked, strict=True):
        with stream:
            stream.wait_for_heartbeats(2)
            told = [one["provider_id"] for one in stream.results()]
            assert sorted(told) == sorted(providers), query


@pytest.mark.parametrize("heartbeat_ms", [100, 600])
def test_a_silent_stream_beats_and_closes_when_it_was_asked_to(
    fleet: Fleet, heartbeat_ms: int
) -> None:
    stream = EventStream(
        fleet.one, assignment_id=new_id("as"), heartbeat_ms=heartbeat_ms, close_after_ms=2_000
    )
    with stream:
        assert stream.status == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["cache-control"] == "no-store"
        assert "content-length" not in stream.headers
        assert stream.headers["x-request-id"] and stream.headers["x-trace-id"]
        open_for = stream.wait_until_ended()
        assert 2.0 - 0.1 <= open_for < 2.0 + REACHES_SECONDS
        assert {event.name for event in stream.events} == {"heartbeat"}
        beats = [event.at for event in stream.heartbeats()]
        most = 2_000 // heartbeat_ms
        assert most / 3 <= len(beats) <= most + 1
        # The last one comes with the end.
        gaps = [later - earlier for earlier, later in pairwise(beats[:-1])]
        assert min(gaps) > heartbeat_ms / 1000 / 2
        assert all(event.json() == {} for event in stream.heartbeats())


def test_a_stream_opens_before_anything_happens(fleet: Fleet) -> None:
    """Its headers do not wait for the first result: a client knows that it listens."""
    started = time.monotonic()
    with EventStream(fleet.one, assignment_id=new_id("as")) as stream:
        assert stream.status == 200
        assert time.monotonic() - started < REACHES_SECONDS
        assert stream.events == []


# -- whose ---------------------------------------------------------------------------------------------


def test_another_tenants_result_is_not_found_and_its_streams_are_silent(fleet: Fleet) -> None:
    assignment_id, request_id = new_id("as"), new_id("rq")
    body = result_body(assignment_id=assignment_id, request_id=request_id)
    stranger = as_tenant("umbrella")
    streams = [
        EventStream(fleet.one, stranger, heartbeat_ms=200, close_after_ms=1_500, **{name: value})
        for name, value in (("assignment_id", assignment_id), ("request_id", request_id))
    ]
    poll = LongPoll(fleet.other, result_path(assignment_id, 1_000), "umbrella")
    publish(fleet.worker, body)
    own = get(fleet.one, result_path(assignment_id, 10_000))
    assert own.status == 200
    expect_error(poll.answer(), 404, "not_found", tenant="umbrella")
    for stream in streams:
        with stream:
            stream.wait_until_ended()
            assert stream.results() == []


def test_equal_ids_of_two_tenants_are_two_results(fleet: Fleet) -> None:
    assignment_id = new_id("as")
    for tenant in ("acme", "umbrella"):
        body = result_body(assignment_id=assignment_id, provider_id=f"of-{tenant}")
        publish(fleet.worker, body, result_headers(tenant))
    for tenant in ("acme", "umbrella"):
        answer = get(fleet.one, result_path(assignment_id, 10_000), tenant)
        assert answer.json()["result"]["provider_id"] == f"of-{tenant}"


@pytest.mark.parametrize("path", [f"{RESULTS}/as-1", f"{RESULTS}/stream?assignment_id=as-1"])
def test_nobody_without_an_identity_learns_anything(fleet: Fleet, path: str) -> None:
    with fleet.one.client(headers={}) as client:
        expect_error(client.get(path), 401, "unauthorized", tenant=None)
