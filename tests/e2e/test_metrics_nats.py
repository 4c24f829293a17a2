"""What a scraper sees of NATS: connections, streams, consumers, outcomes nobody knows, and what became of ids."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.support import result_messages as results
from tests.support.documents import (
    ACKS,
    ASSIGNMENTS,
    DECIDE,
    USAGE,
    ack_body,
    assignment_body,
    decide_body,
    new_id,
    usage_body,
)
from tests.support.gateway_process import GatewayProcess
from tests.support.idempotency_fleet import SHORT_LEASE
from tests.support.load import at_once
from tests.support.nats_session import NatsSession
from tests.support.scraping import scrape_of
from tests.support.scripted_router import DECIDE_SUBJECT, ScriptedRouter, decision
from tests.support.stacks import Running, running
from tests.support.sticky_sessions import Providers, chosen, session_body
from tests.support.waiting import wait_until

GW = "beamline_gateway_"
CLAIMS = f"{GW}claims_total"
UNKNOWN = f"{GW}unknown_outcomes_total"


@pytest.fixture(scope="module")
def started() -> Iterator[Running]:
    """No Router: tests bring their own. Shared by those that stop nothing."""
    environment = {**SHORT_LEASE, "NATS_BACKOFF_MS": "100,60000"}
    with running("metrics-nats", environment) as started:
        yield started


def now(gateway: GatewayProcess, name: str, **labels: str) -> float:
    return scrape_of(gateway).total(f"{GW}{name}", **labels)


def rising(gateway: GatewayProcess, name: str, **labels: str) -> Callable[[], float]:
    """How a metric rises from now on."""
    before = scrape_of(gateway).total(name, **labels)
    return lambda: scrape_of(gateway).total(name, **labels) - before


# -- the connection -------------------------------------------------------------------------------------


def test_an_outage_is_told_and_each_workers_reconnect() -> None:
    with running("outage") as started:
        gateway, nats = started.gateway, started.nats
        wait_until(lambda: now(gateway, "ready_workers") == 2)
        assert now(gateway, "bridge_connected_workers") == 2
        assert now(gateway, "nats_reconnects_total") == 0
        nats.kill()
        wait_until(lambda: now(gateway, "bridge_connected_workers") == 0)
        assert now(gateway, "ready_workers") == 0
        assert now(gateway, "workers") == 2
        nats.start()
        wait_until(lambda: now(gateway, "ready_workers") == 2)
        wait_until(lambda: now(gateway, "nats_reconnects_total") == 2)


def test_a_worker_that_is_asked_to_end_is_not_ready() -> None:
    with running("draining", {"GATEWAY_DRAIN_MS": "60000", "WEB_CONCURRENCY": "1"}) as started:
        gateway = started.gateway
        wait_until(lambda: now(gateway, "ready_workers") == 1)
        [worker] = gateway.workers()
        os.kill(worker, signal.SIGTERM)
        wait_until(lambda: now(gateway, "ready_workers") == 0)
        assert now(gateway, "bridge_connected_workers") == 1
        gateway.kill()


def test_the_loops_tell_how_late_they_are(started: Running) -> None:
    beats = rising(started.gateway, f"{GW}bridge_loop_lag_seconds_count")
    wait_until(lambda: beats() >= 8)
    assert now(started.gateway, "bridge_loop_lag_seconds_bucket", le="+Inf") > 0


def test_the_process_tells_of_its_memory_and_cpu(started: Running) -> None:
    cpu = rising(started.gateway, f"{GW}cpu_seconds_total")
    wait_until(lambda: cpu() > 0)
    assert now(started.gateway, "resident_memory_bytes") > 2 * 20 * 2**20


# -- streams and consumers ------------------------------------------------------------------------------


def test_a_stream_that_fills_up_is_told_before_clients_are_refused_for_long() -> None:
    with running("full", {"EXEC_MAX_BYTES": "1048576"}) as started:
        gateway = started.gateway

        def levels() -> tuple[float, float]:
            found = scrape_of(gateway)
            labels = {"stream": "BEAMLINE_EXEC"}
            return (
                found.total(f"{GW}nats_stream_bytes", **labels),
                found.total(f"{GW}nats_stream_max_bytes", **labels),
            )

        wait_until(lambda: levels() == (0, 1_048_576), message=lambda: str(levels()))
        large = {"job": {"type": "chat", "payload": {"text": "x" * 400_000}}}
        with gateway.client() as client:
            wait_until(lambda: client.post(ASSIGNMENTS, assignment_body(**large)).status == 503)
        # A refused message makes the gateway look at once.
        wait_until(lambda: levels()[0] > 750_000, message=lambda: str(levels()))
        assert now(gateway, "nats_stream_messages", stream="BEAMLINE_EXEC") == 2
        assert now(gateway, "nats_publishes_total", outcome="not_sent") >= 1


def test_refused_results_are_told_by_the_consumer_and_in_deliveries(started: Running) -> None:
    gateway = started.gateway
    labels = {"subject": results.RESULT_SUBJECT, "tenant": "other"}
    name = f"{GW}nats_consumption_total"
    first = rising(gateway, name, result="rejected", redelivered="false", **labels)
    again = rising(gateway, name, result="rejected", redelivered="true", **labels)
    taken = rising(gateway, name, result="ok", **labels)
    took = rising(gateway, f"{GW}nats_consumption_latency_seconds_count", **labels)
    with NatsSession(started.nats.url) as session:
        for _ in range(3):
            results.publish(session, {"no": "result"})
        results.publish(session, results.result_body())
    wait_until(lambda: (first(), again(), taken(), took()) == (3, 3, 1, 7))
    # The third delivery is a minute away.
    wait_until(lambda: now(gateway, "nats_consumer_unacknowledged_messages") == 3)
    wait_until(lambda: now(gateway, "nats_consumer_redelivered_messages") == 3)
    assert now(gateway, "nats_consumer_pending_messages") == 0


# -- outcomes -------------------------------------------------------------------------------------------


def test_outcomes_that_nobody_knows_are_counted_from_zero_on() -> None:
    """A series that begins at 1 has never risen: its alert would miss the first one."""
    with running("unknown", {"ROUTER_REQUEST_TIMEOUT_MS": "500"}) as started:
        gateway = started.gateway
        for operation in ("assignments", "acks", "usage"):
            assert ("operation", operation) in {
                label for labels in scrape_of(gateway).samples[UNKNOWN] for label in labels
            }
        assert now(gateway, "unknown_outcomes_total") == 0
        started.nats.freeze()
        batch = {"events": [usage_body(), usage_body(), {"usage_id": "nothing"}]}
        asked = [
            (ASSIGNMENTS, assignment_body()),
            (ACKS, ack_body()),
            (USAGE, usage_body()),
            (f"{USAGE}/batch", batch),
        ]

        def ask(item: tuple[str, object]) -> int:
            with gateway.client() as client:
                return client.post(*item).status

        assert at_once(asked, ask)[:3] == [504, 504, 504]
        found = scrape_of(gateway)
        assert found.total(UNKNOWN, operation="assignments") == 1
        assert found.total(UNKNOWN, operation="acks") == 1
        assert found.total(UNKNOWN, operation="usage") == 3
        assert found.total(f"{GW}errors_total", error_code="outcome_unknown") >= 3
        started.nats.thaw()


def test_what_became_of_an_id_is_counted(started: Running) -> None:
    gateway = started.gateway
    outcomes = {
        outcome: rising(gateway, CLAIMS, operation="assignments", outcome=outcome)
        for outcome in ("first", "repeated", "conflict")
    }
    body = assignment_body()
    with gateway.client() as client:
        assert client.post(ASSIGNMENTS, body).status == 202
        for _ in range(3):
            assert client.post(ASSIGNMENTS, body).status == 202
        other = {**body, "executor": {"provider_id": "another", "channel": "nats"}}
        assert client.post(ASSIGNMENTS, other).status == 409
    assert {name: rise() for name, rise in outcomes.items()} == {
        "first": 1,
        "repeated": 3,
        "conflict": 1,
    }


def test_a_decide_that_another_holds_is_counted_as_in_progress(started: Running) -> None:
    in_progress = rising(started.gateway, CLAIMS, operation="decide", outcome="in_progress")
    body = decide_body(assignment_id=new_id("as"))
    with ScriptedRouter(started.nats.url, lambda _: None) as silent:
        assert sorted(at_once(range(2), lambda _: _decide(started.gateway, body))) == [409, 504]
        silent.wait_for_requests(1)
    assert in_progress() == 1


def test_a_decide_whose_worker_died_is_counted_as_taken_over() -> None:
    with running("taken-over", {**SHORT_LEASE, "WEB_CONCURRENCY": "1"}) as started:
        gateway, body = started.gateway, decide_body(assignment_id=new_id("as"))
        with ScriptedRouter(started.nats.url, lambda _: None) as silent:
            asking = threading.Thread(target=_decide, args=(gateway, body))
            asking.start()
            silent.wait_for_requests(1)
            [worker] = gateway.workers()
            os.kill(worker, signal.SIGKILL)
            asking.join()
        gateway.wait_for_workers(1, without=frozenset({worker}))
        with ScriptedRouter(started.nats.url, lambda _: decision()):
            wait_until(lambda: _decide(gateway, body) == 200)
        assert now(gateway, "claims_total", operation="decide", outcome="taken_over") == 1
        assert now(gateway, "claims_total", operation="decide", outcome="in_progress") >= 1


def test_a_session_that_the_router_moves_is_counted_as_moved_and_as_hit(started: Running) -> None:
    gateway, providers = started.gateway, Providers()
    labels = {"tenant": "other", "subject": DECIDE_SUBJECT}
    moved = rising(gateway, f"{GW}sticky_moves_total", **labels)
    hits = rising(gateway, "sticky_hits_total", **labels)
    session = new_id("session")
    with ScriptedRouter(started.nats.url, providers), gateway.client() as client:
        old = chosen(client.post(DECIDE, session_body(session)))
        providers.gone.add(old.provider)
        assert chosen(client.post(DECIDE, session_body(session))).sticky == "moved"
    assert (moved(), hits()) == (1, 1)


def test_errors_are_counted_by_whose_they_are(started: Running) -> None:
    gateway = started.gateway
    wrong = rising(
        gateway, f"{GW}errors_total", error_type="request_gateway", error_code="invalid_request"
    )
    router = rising(
        gateway, f"{GW}errors_total", error_type="router_runtime", error_code="bad_reply"
    )
    with ScriptedRouter(started.nats.url, lambda _: b"nonsense"), gateway.client() as client:
        assert client.post(DECIDE, {"task": 7}).status == 400
        assert client.post(DECIDE, decide_body()).status == 502
    assert (wrong(), router()) == (1, 1)


def test_the_time_of_the_router_is_told_apart_from_the_streams(started: Running) -> None:
    gateway, name = started.gateway, f"{GW}nats_latency_seconds_count"
    requests = rising(gateway, name, kind="request", subject=DECIDE_SUBJECT)
    publishes = rising(gateway, name, kind="publish", subject="caf.exec.assign.v1")
    with ScriptedRouter(started.nats.url, lambda _: decision()), gateway.client() as client:
        client.post(DECIDE, decide_body())
        client.post(ASSIGNMENTS, assignment_body())
    assert (requests(), publishes()) == (1, 1)


def _decide(gateway: GatewayProcess, body: object) -> int:
    """The status; 0 where the worker did not live to answer."""
    try:
        with gateway.client() as client:
            return client.post(DECIDE, body).status
    except OSError:
        return 0
