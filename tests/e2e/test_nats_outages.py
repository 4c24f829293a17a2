"""NATS is not there yet, goes away, is killed, freezes, loses a stream: what clients see meanwhile and after."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from gateway.devstack.nats_server import NatsServer
from tests.support.documents import (
    ACKS,
    ASSIGNMENTS,
    DECIDE,
    USAGE,
    ack_body,
    assignment_body,
    decide_body,
    usage_body,
)
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Answer, Client
from tests.support.load import NO_ANSWER, Load, Outcome, at_once, kinds
from tests.support.nats_session import NatsSession
from tests.support.process_table import open_descriptors, resident_bytes
from tests.support.scripted_router import ScriptedRouter
from tests.support.stacks import running
from tests.support.waiting import (
    AT_ONCE_SECONDS,
    DEADLINE_SLACK_SECONDS,
    LIVEZ_SECONDS,
    RECOVERY_SECONDS,
    wait_until,
)
from tests.support.wire import expect_error

WORKERS = 2
TIMEOUT = 1.0
ENVIRONMENT = {
    "WEB_CONCURRENCY": str(WORKERS),
    "GATEWAY_THREADS": "12",
    "ROUTER_REQUEST_TIMEOUT_MS": str(int(TIMEOUT * 1000)),
}
UNAVAILABLE = "503 unavailable"


def decide(client: Client) -> Answer:
    return client.post(DECIDE, decide_body())


def publish(client: Client) -> Answer:
    return client.post(USAGE, usage_body())


@contextlib.contextmanager
def loads(gateway: GatewayProcess) -> Iterator[tuple[Load, Load]]:
    """Decides and publishes, two clients each, one request after the other."""
    with (
        Load(gateway.client, decide, clients=2) as deciding,
        Load(gateway.client, publish, clients=2) as publishing,
    ):
        yield deciding, publishing


def check_deadlines(outcomes: list[Outcome]) -> None:
    """Every request was answered, and none took longer than its deadline and a little."""
    assert outcomes
    late = [one for one in outcomes if one.elapsed > TIMEOUT + DEADLINE_SLACK_SECONDS]
    assert not late, f"{len(late)} of {len(outcomes)} were late, as {late[0]}"
    unanswered = [one for one in outcomes if one.kind == NO_ANSWER]
    assert not unanswered, f"{len(unanswered)} got no answer, as {unanswered[0]}"


def test_gateway_boots_without_nats_and_works_as_soon_as_it_comes() -> None:
    with contextlib.ExitStack() as stack:
        nats = NatsServer(name="late")
        stack.callback(nats.close)
        gateway = GatewayProcess(nats.url, environment=ENVIRONMENT)
        stack.callback(gateway.close)
        gateway.start(ready=False)
        gateway.wait_for_workers(WORKERS)

        readiness = gateway.get("/readyz")
        assert readiness is not None
        assert readiness.status == 503
        assert b"nats" in readiness.body.lower()
        client = stack.enter_context(gateway.client())
        for _ in range(3):  # the first request of a worker may load what the others need
            decide(client)
        for path, body in (
            (DECIDE, decide_body()),
            (ASSIGNMENTS, assignment_body()),
            (ACKS, ack_body()),
            (USAGE, usage_body()),
        ):
            answer = client.post(path, body)
            expect_error(answer, 503, "unavailable")
            assert answer.elapsed <= AT_ONCE_SECONDS
        # What is wrong with the request itself is still told, without NATS.
        expect_error(client.post(DECIDE, {}), 400, "invalid_request")
        assert client.get("/livez").status == 200

        nats.start()
        came = time.monotonic()
        stack.enter_context(ScriptedRouter(nats.url))
        wait_until(lambda: decide(client).status == 200, RECOVERY_SECONDS)
        wait_until(lambda: publish(client).status == 202, RECOVERY_SECONDS)
        assert time.monotonic() - came <= 2 * RECOVERY_SECONDS
        wait_until(lambda: (ready := gateway.get("/readyz")) and ready.status == 200)
        wait_until(lambda: nats.varz()["connections"] == WORKERS + 1)
        assert nats.varz()["total_connections"] == WORKERS + 1


def test_nats_killed_and_restarted_ten_times_under_load() -> None:
    """Each time the same: 503 at once while it is away, answers within a second when it is back."""
    with (
        running("killed", ENVIRONMENT) as started,
        ScriptedRouter(started.nats.url),
        loads(started.gateway) as (deciding, publishing),
    ):
        nats, gateway = started.nats, started.gateway
        descriptors: list[int] = []
        for turn in range(10):
            deciding.wait_for(5, "200", since=time.monotonic())
            publishing.wait_for(5, "202", since=time.monotonic())

            nats.kill()
            killed = time.monotonic()
            # Requests that were on the wire end by their deadline; those that start now know better.
            for load in (deciding, publishing):
                load.wait_for(1, UNAVAILABLE, since=killed, timeout=RECOVERY_SECONDS)
            away = time.monotonic()
            for load in (deciding, publishing):
                load.wait_for(5, UNAVAILABLE, since=away, timeout=RECOVERY_SECONDS)
            with gateway.client() as client:
                for send in (decide, publish):
                    answer = send(client)
                    expect_error(answer, 503, "unavailable")
                    assert answer.elapsed <= AT_ONCE_SECONDS, f"turn {turn}"
                assert client.get("/livez").elapsed <= LIVEZ_SECONDS
                assert client.get("/readyz").status == 503

            nats.start()
            back = time.monotonic()
            deciding.wait_for(1, "200", since=back, timeout=RECOVERY_SECONDS)
            publishing.wait_for(1, "202", since=back, timeout=RECOVERY_SECONDS)
            wait_until(lambda: nats.varz()["connections"] == WORKERS + 1)
            assert nats.varz()["total_connections"] == WORKERS + 1, f"turn {turn}"
            descriptors.append(sum(open_descriptors(pid) for pid in gateway.workers()))
        outcomes = [*deciding.stop(), *publishing.stop()]
        check_deadlines(outcomes)
        allowed = {"200", "202", UNAVAILABLE, "504 timeout", "504 outcome_unknown"}
        assert set(kinds(outcomes)) <= allowed, kinds(outcomes)
        # A connection or timer left behind at every turn would show.
        assert descriptors[-1] <= descriptors[0] + 4, descriptors


def test_acknowledged_publishes_survive_the_kills() -> None:
    """What was answered 202 is stored, at its sequence, however often the server was killed."""
    acknowledged: dict[int, str] = {}

    def publish_and_remember(client: Client) -> Answer:
        body = usage_body()
        answer = client.post(USAGE, body)
        if answer.status == 202:
            acknowledged[answer.json()["seq"]] = body["usage_id"]
        return answer

    with running("acknowledged", ENVIRONMENT) as started:
        with Load(started.gateway.client, publish_and_remember, clients=4) as load:
            for _ in range(3):
                load.wait_for(20, "202", since=time.monotonic())
                started.nats.kill()
                started.nats.start()
            load.wait_for(20, "202", since=time.monotonic())
        with NatsSession(started.nats.url) as session:
            stored = {
                message.seq: message.headers["usage_id"]
                for message in session.stream_messages("BEAMLINE_USAGE")
            }
    assert acknowledged.items() <= stored.items()


def test_frozen_nats_makes_publishes_unknown_by_the_deadline() -> None:
    """Sent, no answer: nobody knows. The client is told so, and when to ask again."""
    with running("frozen", ENVIRONMENT) as started, started.gateway.client() as client:
        assert publish(client).status == 202
        started.nats.freeze()
        answers = at_once(
            [(USAGE, usage_body()), (ASSIGNMENTS, assignment_body()), (ACKS, ack_body())],
            lambda item: on_its_own(started.gateway, *item),
        )
        for answer in answers:
            expect_error(answer, 504, "outcome_unknown")
            assert int(answer.header("Retry-After") or "0") >= 1
            assert TIMEOUT * 0.9 <= answer.elapsed <= TIMEOUT + DEADLINE_SLACK_SECONDS
        assert client.get("/livez").elapsed <= LIVEZ_SECONDS
        started.nats.thaw()
        wait_until(lambda: publish(client).status == 202, RECOVERY_SECONDS * 2)


def test_frozen_nats_makes_decides_time_out() -> None:
    with (
        running("frozen", ENVIRONMENT) as started,
        ScriptedRouter(started.nats.url),
        started.gateway.client() as client,
    ):
        assert decide(client).status == 200
        started.nats.freeze()
        answer = decide(client)
        expect_error(answer, 504, "timeout")
        assert answer.elapsed <= TIMEOUT + DEADLINE_SLACK_SECONDS
        started.nats.thaw()
        wait_until(lambda: decide(client).status == 200, RECOVERY_SECONDS * 2)


def test_memory_does_not_grow_while_nats_is_frozen() -> None:
    """Big publishes that nobody takes, each given up at its deadline: they are not kept.

    The server is known to be away only after some seconds without a pong. What is sent until then
    would be hundreds of megabytes if all of it were kept, in a buffer or in a claim of its own.
    """
    large = "x" * 100_000

    def publish_large(client: Client) -> Answer:
        body = assignment_body(metadata={"text": large})
        return client.post(ASSIGNMENTS, body, {"X-Request-Timeout-Ms": "20"})

    with running("frozen", {**ENVIRONMENT, "WEB_CONCURRENCY": "1"}) as started:
        gateway, nats = started.gateway, started.nats
        (worker,) = gateway.workers()
        with Load(gateway.client, publish_large, clients=8) as warm:
            warm.wait_for(500, "202")
        before = resident_bytes(worker)
        nats.freeze()
        frozen = time.monotonic()
        with Load(gateway.client, publish_large, clients=8) as load:
            load.wait_for(100, "504 outcome_unknown", since=frozen)
            load.wait_for(1000, UNAVAILABLE, since=frozen)
            outcomes = load.stop()
        grown = resident_bytes(worker) - before
        nats.thaw()
        with gateway.client() as client:
            wait_until(lambda: publish(client).status == 202, RECOVERY_SECONDS * 2)
    assert set(kinds(outcomes)) <= {"504 outcome_unknown", UNAVAILABLE, "503 overloaded"}
    assert max(one.elapsed for one in outcomes) <= 0.02 + DEADLINE_SLACK_SECONDS
    assert grown <= 80_000_000, f"{grown / 1e6:.0f} MB more: {kinds(outcomes)}"


def test_publish_without_its_stream_is_unavailable_at_once() -> None:
    # One worker: a second one that still starts would make the stream again.
    alone = {**ENVIRONMENT, "WEB_CONCURRENCY": "1"}
    with running("streamless", alone) as started, started.gateway.client() as client:
        assert publish(client).status == 202
        with NatsSession(started.nats.url) as session:
            session.delete_stream("BEAMLINE_USAGE")
        answer = publish(client)
        expect_error(answer, 503, "unavailable")
        assert client.post(ACKS, ack_body()).status == 202


@pytest.mark.parametrize("signal_name", ["stop", "kill"])
def test_gateway_ends_in_time_while_nats_is_away(signal_name: str) -> None:
    with running("ending", ENVIRONMENT) as started:
        getattr(started.nats, signal_name)()
        started.gateway.terminate()
        assert started.gateway.wait(15.0) == 0


def on_its_own(gateway: GatewayProcess, path: str, body: dict[str, object]) -> Answer:
    with gateway.client() as client:
        return client.post(path, body)
