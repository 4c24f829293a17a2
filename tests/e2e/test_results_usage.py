"""Usage from results: one event a result, by the contract, and one a pair whoever reports it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.documents import USAGE, new_id, now_ms, usage_body
from tests.support.http_client import Client
from tests.support.nats_session import NatsSession, StoredMessage
from tests.support.result_messages import (
    RESULT_SUBJECT,
    RESULTS,
    USAGE_STREAM,
    letters_with,
    publish,
    result_body,
    result_headers,
    until_consumed,
    usage_of,
)
from tests.support.stacks import Running, running
from tests.support.waiting import wait_until
from tests.support.wire import TRACE_ID, TRACEPARENT, USAGE_FIELDS

DAY_MS = 24 * 3_600_000
CONSUMED = "beamline_gateway_nats_consumption_total"
LATENCY = "beamline_gateway_nats_consumption_latency_seconds"
EMITTED = "beamline_gateway_usage_emitted_total"


@pytest.fixture(scope="module")
def metering() -> Iterator[Running]:
    """A gateway that names one tenant in its metrics. Shared by this module."""
    with running(
        "metering", {"METRICS_TENANT_LABEL_ALLOWLIST": "initech", "NATS_BACKOFF_MS": "10"}
    ) as started:
        yield started


@pytest.fixture(scope="module")
def worker(metering: Running) -> Iterator[NatsSession]:
    with NatsSession(metering.nats.url, name="worker") as session:
        yield session


@pytest.fixture
def client(metering: Running) -> Iterator[Client]:
    with metering.gateway.client() as client:
        yield client


def the_event(session: NatsSession, **ids: str) -> StoredMessage:
    """The one usage event with these ids, when all that came has been consumed."""
    until_consumed(session)
    [event] = usage_of(session, **ids)
    return event


def samples(client: Client) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = client.get("/metrics", {"Accept": "text/plain"}).body.decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.parametrize("optional", [(), ("request_id",), ("assignment_id",)])
def test_a_result_is_one_event_with_exactly_the_contracts_fields(
    worker: NatsSession, optional: tuple[str, ...]
) -> None:
    headers = result_headers(cp_phase="cp4")
    body = result_body(
        request_id=new_id("rq"),
        job={"type": "embedding", "size": 3},
        status="timeout",
        error_code="E",
        cost=0.1 + 0.2,
        tokens=17,
    )
    for name in optional:
        del body[name]
    publish(worker, body, headers)
    ids = {name: body[name] for name in ("assignment_id", "request_id") if name in body}
    event = the_event(worker, **ids)
    sent = json.loads(event.payload)
    assert sent.keys() == USAGE_FIELDS - set(optional)
    same = {name: body[name] for name in ids.keys() | {"provider_id", "latency_ms", "timestamp"}}
    assert sent == same | {
        "version": "1",
        "tenant_id": "acme",
        "event_type": "embedding",
        "status": "timeout",
        "cost": 0.3,  # nine places at most: workers add up floats
        "trace_id": headers["trace_id"],
    }
    told = event.headers
    assert told["usage_source"] == "result"
    assert "usage_id" not in told
    assert (told["version"], told["tenant_id"], told["cp_phase"]) == ("1", "acme", "cp4")
    assert told["trace_id"] == headers["trace_id"]
    assert told["Nats-Msg-Id"]
    assert TRACEPARENT.fullmatch(told["traceparent"])


def test_a_result_without_a_trace_gets_one(worker: NatsSession) -> None:
    body = result_body(tenant_id="acme")
    publish(worker, body, {})
    event = the_event(worker, assignment_id=body["assignment_id"])
    assert TRACE_ID.fullmatch(event.headers["trace_id"])
    assert json.loads(event.payload)["trace_id"] == event.headers["trace_id"]


def test_two_results_of_one_assignment_are_one_event(worker: NatsSession) -> None:
    body = result_body()
    publish(worker, body)
    # Workers consume side by side: only what is taken in already is certainly the first one.
    event = the_event(worker, assignment_id=body["assignment_id"])
    publish(worker, {**body, "status": "error", "provider_id": "another"})
    assert the_event(worker, assignment_id=body["assignment_id"]) == event
    assert json.loads(event.payload)["provider_id"] == body["provider_id"]


def test_results_of_two_assignments_of_one_request_are_two_events(worker: NatsSession) -> None:
    request_id = new_id("rq")
    for _ in range(2):
        publish(worker, result_body(request_id=request_id))
    until_consumed(worker)
    assert len(usage_of(worker, request_id=request_id)) == 2


def test_equal_ids_of_an_assignment_and_a_request_are_two_events(worker: NatsSession) -> None:
    same = new_id("same")
    publish(worker, result_body(assignment_id=same))
    publish(worker, result_body(assignment_id=None, request_id=same))
    until_consumed(worker)
    assert len(usage_of(worker, assignment_id=same)) == 1
    assert len(usage_of(worker, request_id=same)) == 1


def test_equal_assignments_of_two_tenants_are_two_events(worker: NatsSession) -> None:
    body = result_body()
    for tenant in ("acme", "umbrella"):
        publish(worker, body, result_headers(tenant))
    until_consumed(worker)
    events = usage_of(worker, assignment_id=body["assignment_id"])
    assert {json.loads(event.payload)["tenant_id"] for event in events} == {"acme", "umbrella"}
    assert len(events) == 2


@pytest.mark.parametrize("by", ["assignment_id", "request_id"])
def test_usage_by_http_first_and_then_the_result_is_one_event(
    worker: NatsSession, client: Client, by: str
) -> None:
    shared = {"assignment_id": None, by: new_id("pair")}
    body = usage_body(**shared)
    body = {name: value for name, value in body.items() if value is not None}
    answer = client.post(USAGE, body)
    assert (answer.status, answer.json()["emitted"]) == (202, True), answer
    publish(worker, result_body(**shared))
    event = the_event(worker, **{by: body[by]})
    assert event.headers["usage_id"] == body["usage_id"]
    again = client.post(USAGE, body)
    assert (again.status, again.json()) == (202, answer.json())


@pytest.mark.parametrize("by", ["assignment_id", "request_id"])
def test_the_result_first_and_then_usage_by_http_is_one_event(
    worker: NatsSession, client: Client, by: str
) -> None:
    """The client is told that its event is not the one that counts, and whose is; again and again."""
    shared = {"assignment_id": None, by: new_id("pair")}
    publish(worker, result_body(**shared))
    counted = the_event(worker, **{by: str(shared[by])})
    body = {name: value for name, value in usage_body(**shared).items() if value is not None}
    answer = client.post(USAGE, body)
    assert answer.status == 200, answer
    told = answer.json()
    assert (told["ok"], told["emitted"], told["duplicate_of"]) == (True, False, "result")
    assert (told["stream"], told["seq"]) == (USAGE_STREAM, counted.seq)
    again = client.post(USAGE, body)
    assert (again.status, again.json()) == (200, told)
    assert again.header("Idempotency-Replayed") == "true"
    batch = client.post(f"{USAGE}/batch", {"events": [{**body, "usage_id": new_id("us")}]})
    [outcome] = batch.json()["results"]
    assert (outcome["outcome"], outcome["duplicate_of"]) == ("duplicate", "result")
    assert the_event(worker, **{by: str(shared[by])}).seq == counted.seq


def test_a_late_result_is_a_dead_letter_at_once_and_not_metered(
    worker: NatsSession, client: Client
) -> None:
    headers = result_headers()
    body = result_body(timestamp=now_ms() - DAY_MS - 60_000)
    publish(worker, body, headers)
    [letter] = wait_until(lambda: letters_with(worker, headers["Nats-Msg-Id"]))
    assert letter.body["error_code"] == "late"
    until_consumed(worker)
    assert usage_of(worker, assignment_id=body["assignment_id"]) == []
    assert client.get(f"{RESULTS}/{body['assignment_id']}").status == 404


def test_consumption_is_counted_by_subject_tenant_result_and_redelivery(
    worker: NatsSession, metering: Running
) -> None:
    """Only a tenant of the allowlist has a name; a tenant in a payload is a tenant, too."""
    with metering.gateway.client(headers={}) as client:
        before = samples(client)
        for headers, tenant in ((result_headers("initech"), None), ({}, "initech")):
            publish(worker, result_body(tenant_id=tenant), headers)
        twice = result_body()
        for _ in range(2):
            publish(worker, twice, result_headers("initech"))
        publish(worker, result_body(), result_headers("made-up-canary"))
        publish(worker, result_body(status="no such"), result_headers("initech"))
        until_consumed(worker)

        def risen(name: str, **labels: str) -> float:
            key = (name, tuple(sorted(labels.items())))
            return samples(client).get(key, 0.0) - before.get(key, 0.0)

        def consumed(tenant: str, result: str, redelivered: str) -> float:
            return risen(
                CONSUMED,
                subject=RESULT_SUBJECT,
                tenant=tenant,
                result=result,
                redelivered=redelivered,
            )

        wait_until(lambda: consumed("initech", "rejected", "true") == 4)
        assert consumed("initech", "rejected", "false") == 1
        assert consumed("initech", "ok", "false") == 4
        assert consumed("initech", "ok", "true") == 0
        assert consumed("other", "ok", "false") == 1
        assert risen(f"{LATENCY}_count", subject=RESULT_SUBJECT, tenant="initech") == 9
        assert risen(EMITTED, tenant="initech", source="result", result="emitted") == 3
        assert risen(EMITTED, tenant="initech", source="result", result="duplicate") == 1
        assert "made-up-canary" not in client.get("/metrics").body.decode()


def test_results_are_not_metered_where_that_is_switched_off() -> None:
    """They reach who waits all the same, and what clients report is metered."""
    with (
        running("unmetered", {"ENABLE_USAGE_PUBLISH": "false", "WEB_CONCURRENCY": "1"}) as started,
        NatsSession(started.nats.url, name="worker") as worker,
        started.gateway.client() as client,
    ):
        body = result_body()
        publish(worker, body)
        answer = client.get(f"{RESULTS}/{body['assignment_id']}?wait_ms=10000")
        assert answer.status == 200, answer
        until_consumed(worker)
        assert worker.last_sequence(USAGE_STREAM) == 0
        told = client.post(USAGE, usage_body(assignment_id=body["assignment_id"]))
        assert (told.status, told.json()["emitted"]) == (202, True)
        assert worker.last_sequence(USAGE_STREAM) == 1
