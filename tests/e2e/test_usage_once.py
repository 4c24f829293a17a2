"""Usage: metered at most once a tenant and assignment, or request where there is no assignment."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.support.documents import USAGE, new_id, now_ms, usage_body
from tests.support.http_client import Answer
from tests.support.idempotency_fleet import Fleet, worker_clients
from tests.support.idempotency_operations import (
    METER,
    REPLAYED,
    USAGE_STREAM,
    Document,
    expect_replay,
)
from tests.support.load import at_once
from tests.support.nats_session import StoredMessage
from tests.support.nats_tap import NatsTap
from tests.support.wire import USAGE_FIELDS, check_headers, expect_error

TTL_SECONDS = 300.0
DAY_MS = 24 * 3600 * 1000
MINUTE_MS = 60_000
EMITTED = "beamline_gateway_usage_emitted_total"


class Metering:
    """What a metering service sees of this test: the events behind where the stream ended before it."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._after = fleet.last_sequence(USAGE_STREAM)

    def events(self, tenant: str = "acme", **having: object) -> list[StoredMessage]:
        """The stored events of the tenant with these fields."""
        wanted = {"tenant_id": tenant, **having}
        return [
            message
            for message in self._fleet.stored(USAGE_STREAM, after=self._after)
            if wanted.items() <= json.loads(message.payload).items()
        ]


@pytest.fixture
def metering(fleet: Fleet) -> Metering:
    return Metering(fleet)


class Emitted:
    """How the counter of client-reported events has risen."""

    def __init__(self, fleet: Fleet, tenant: str = "acme") -> None:
        self._fleet = fleet
        self._labels = {"tenant": tenant, "source": "http"}
        self._before = self._now()

    def rise(self) -> dict[str, int]:
        return {result: now - self._before[result] for result, now in self._now().items()}

    def _now(self) -> dict[str, int]:
        return {
            result: int(self._fleet.total(EMITTED, result=result, **self._labels))
            for result in ("emitted", "duplicate")
        }


def expect_duplicate(answer: Answer, of: str) -> None:
    """Accepted, and not emitted: the event of that ``usage_id`` is the one that counts."""
    assert answer.status == 200, answer
    document = answer.json()
    assert (document["ok"], document["emitted"], document["duplicate_of"]) == (True, False, of)


def test_event_is_emitted_with_exactly_the_contracts_fields(
    fleet: Fleet, metering: Metering
) -> None:
    body = usage_body(request_id=new_id("r"), trace_id="4bf92f3577b34da6a3ce929d0e0e4736")
    emitted = Emitted(fleet)
    answer = fleet.post(USAGE, body)
    assert (answer.status, answer.json()["emitted"]) == (202, True), answer
    [event] = metering.events(assignment_id=body["assignment_id"])
    document = json.loads(event.payload)
    assert set(document) == USAGE_FIELDS
    sent = {name: value for name, value in body.items() if name != "usage_id"}
    assert document == sent
    check_headers(event.headers, tenant="acme", jetstream=True)
    assert event.headers["usage_id"] == body["usage_id"]
    assert "usage_source" not in event.headers
    assert (event.subject, event.seq) == (METER.subject, answer.json()["seq"])
    assert emitted.rise() == {"emitted": 1, "duplicate": 0}


def test_duplicate_http_calls_make_no_duplicate_event(fleet: Fleet, metering: Metering) -> None:
    body = usage_body()
    emitted = Emitted(fleet)
    first = fleet.post(USAGE, body)
    with fleet.each_worker() as workers:
        for worker in (*workers, *workers):
            again = METER.repeat(body)
            answer = worker.post(USAGE, again.body, again.headers)
            expect_replay(first, answer, ttl_seconds=TTL_SECONDS)
    assert len(metering.events(assignment_id=body["assignment_id"])) == 1
    assert emitted.rise() == {"emitted": 1, "duplicate": 0}


@pytest.mark.parametrize("pair", ["assignment_id", "request_id"])
def test_two_reports_of_one_pair_make_one_event_and_each_gets_its_answer_again(
    fleet: Fleet, metering: Metering, pair: str
) -> None:
    """A client that crashed and made a new ``usage_id`` is told which one counts; so is the first one."""
    first, second = usage_body(), usage_body()
    for body in (first, second):
        del body["assignment_id"]
        body[pair] = "one-" + first["usage_id"]
    emitted = Emitted(fleet)
    counted = fleet.post(USAGE, first)
    assert counted.status == 202, counted
    duplicate = fleet.post(USAGE, second, instance=1)
    expect_duplicate(duplicate, first["usage_id"])
    assert duplicate.header(REPLAYED) is None
    assert duplicate.json()["seq"] == counted.json()["seq"]
    assert emitted.rise() == {"emitted": 1, "duplicate": 1}
    with fleet.each_worker() as workers:
        for worker in (*workers, *workers):
            expect_replay(counted, worker.post(USAGE, first), ttl_seconds=TTL_SECONDS)
            expect_replay(duplicate, worker.post(USAGE, second), ttl_seconds=TTL_SECONDS)
    [event] = metering.events(**{pair: first[pair]})
    assert event.headers["usage_id"] == first["usage_id"]
    assert emitted.rise() == {"emitted": 1, "duplicate": 1}


def test_equal_ids_as_assignment_and_as_request_are_two_events(
    fleet: Fleet, metering: Metering
) -> None:
    id = new_id("same")
    by_assignment = usage_body(assignment_id=id)
    by_request = usage_body(request_id=id)
    del by_request["assignment_id"]
    for body in (by_assignment, by_request):
        assert fleet.post(USAGE, body).status == 202
    assert len(metering.events(assignment_id=id)) == len(metering.events(request_id=id)) == 1


def test_event_that_names_both_ids_goes_by_the_assignment(fleet: Fleet, metering: Metering) -> None:
    request_id = new_id("r")
    one, other = (usage_body(request_id=request_id) for _ in range(2))
    third = {**usage_body(assignment_id=one["assignment_id"]), "request_id": new_id("r")}
    assert fleet.post(USAGE, one).status == 202
    assert fleet.post(USAGE, other).status == 202, "another assignment of the same request"
    expect_duplicate(fleet.post(USAGE, third), one["usage_id"])
    assert len(metering.events(request_id=request_id)) == 2


def test_same_assignment_of_two_tenants_is_metered_for_each(
    fleet: Fleet, metering: Metering
) -> None:
    body = usage_body()
    for tenant in ("acme", "umbrella"):
        answer = fleet.post(USAGE, {**body, "tenant_id": tenant}, tenant=tenant)
        assert (answer.status, answer.header(REPLAYED)) == (202, None), answer
        assert len(metering.events(tenant, assignment_id=body["assignment_id"])) == 1


def test_many_reports_of_one_assignment_at_one_instant_make_one_event(
    fleet: Fleet, metering: Metering
) -> None:
    assignment_id = new_id("as")
    bodies = [usage_body(assignment_id=assignment_id) for _ in range(24)]

    def report(number: int) -> Answer:
        return fleet.post(USAGE, bodies[number], instance=number % 2)

    answers = at_once(range(len(bodies)), report)
    [event] = metering.events(assignment_id=assignment_id)
    counted = [
        body["usage_id"]
        for body, answer in zip(bodies, answers, strict=True)
        if answer.status == 202
    ]
    assert counted == [event.headers["usage_id"]]
    for answer in answers:
        if answer.status != 202:
            expect_duplicate(answer, event.headers["usage_id"])


# -- time ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "offset_ms",
    [-DAY_MS - MINUTE_MS, 6 * MINUTE_MS, -now_ms(), DAY_MS],
    ids=["too old", "too far ahead", "1970", "tomorrow"],
)
def test_event_outside_the_window_is_refused_and_its_id_stays_free(
    fleet: Fleet, offset_ms: int
) -> None:
    body = usage_body(timestamp=max(0, now_ms() + offset_ms))
    with NatsTap(fleet.nats.url) as tap:
        expect_error(fleet.post(USAGE, body), 400, "invalid_request")
        tap.settle()
        assert not tap.messages()
    assert fleet.post(USAGE, {**body, "timestamp": now_ms()}).status == 202


@pytest.mark.parametrize(
    "offset_ms", [-DAY_MS + MINUTE_MS, 4 * MINUTE_MS], ids=["nearly too old", "a little ahead"]
)
def test_event_just_within_the_window_is_metered_with_its_own_time(
    fleet: Fleet, metering: Metering, offset_ms: int
) -> None:
    body = usage_body(timestamp=now_ms() + offset_ms)
    assert fleet.post(USAGE, body).status == 202
    [event] = metering.events(assignment_id=body["assignment_id"])
    assert json.loads(event.payload)["timestamp"] == body["timestamp"]


# -- crashes -------------------------------------------------------------------------------------------


def test_client_and_worker_that_died_after_the_publish_find_their_event_emitted(
    leasing: Fleet,
) -> None:
    """The answer is lost after the event was stored; the same request again is the replay of it."""
    gateway = leasing.instances[0]
    body = usage_body()
    with NatsTap(leasing.nats.url, (METER.subject,)) as tap:
        with worker_clients(gateway) as clients:
            pid, client = sorted(clients.items())[0]
            first = client.post(USAGE, body)
            assert first.status == 202
            tap.wait_for(1, METER.subject)
            os.kill(pid, signal.SIGKILL)
        gateway.wait_for_workers(2, without=frozenset({pid}))
        for instance in (1, 0, 1):
            again = METER.repeat(body)
            answer = leasing.post(USAGE, again.body, again.headers, instance=instance)
            expect_replay(first, answer, ttl_seconds=TTL_SECONDS)
        # Another id for the same pair, from a client that lost even its usage_id.
        renamed: Document = {**body, "usage_id": new_id("us")}
        expect_duplicate(leasing.post(USAGE, renamed, instance=1), body["usage_id"])
    events = [
        message
        for message in leasing.stored(USAGE_STREAM)
        if json.loads(message.payload)["assignment_id"] == body["assignment_id"]
    ]
    assert len(events) == 1
