"""Real instances behind the real nginx: streams, deadlines, instances that go, and an upgrade under load."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from gateway.devstack.nats_server import NatsServer
from tests.support.deploy_nginx import Front
from tests.support.deploy_upstream import RecordingUpstream
from tests.support.documents import DECIDE, USAGE, decide_body, new_id, usage_body
from tests.support.event_stream import EventStream
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Answer, Client
from tests.support.load import Load, kinds
from tests.support.nats_session import NatsSession
from tests.support.result_messages import RESULTS, publish, result_body
from tests.support.scripted_router import ScriptedRouter

#: What the authenticating service says of everybody.
IDENTITY = {"X-Tenant-ID": "acme", "X-Role": "admin"}


@dataclass(frozen=True)
class Site:
    """Two instances on one NATS behind one nginx that authenticates."""

    nats: NatsServer
    instances: tuple[GatewayProcess, ...]
    front: Front


@contextlib.contextmanager
def running_site(name: str) -> Iterator[Site]:
    with contextlib.ExitStack() as stack:
        nats = stack.enter_context(NatsServer(name=name))
        auth = stack.enter_context(RecordingUpstream(headers=IDENTITY))
        # Enough threads that a held-up test says something about nginx, not about a full gateway.
        instances = tuple(
            stack.enter_context(GatewayProcess(nats.url, environment={"GATEWAY_THREADS": "16"}))
            for _ in range(2)
        )
        addresses = [f"{instance.host}:{instance.port}" for instance in instances]
        front = stack.enter_context(Front(addresses, auth=auth.address))
        yield Site(nats, instances, front)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Shared by the tests that stop nothing."""
    with running_site("site") as started:
        yield started


def test_identity_of_the_service_is_what_the_gateway_acts_upon(site: Site) -> None:
    claimed = {"X-Tenant-ID": "evil", "X-Role": "nobody"}
    with site.front.client(claimed) as client:
        answer = client.get("/api/v1/operations/usage/unheard-of")
    assert (answer.status, answer.code) == (404, "not_found")
    assert answer.json()["context"]["tenant_id"] == "acme"


def test_events_come_through_one_by_one(site: Site) -> None:
    assignment = new_id("as")
    query = {"assignment_id": assignment, "heartbeat_ms": 200, "close_after_ms": 60_000}
    with (
        NatsSession(site.nats.url) as session,
        EventStream(site.front, {}, **query) as stream,
    ):
        stream.wait_for_heartbeats(2)
        publish(session, result_body(assignment_id=assignment))
        (result,) = stream.wait_for_results(1)
        assert not stream.ended
    assert result["assignment_id"] == assignment


def test_a_deadline_that_passes_is_told_by_the_gateway_not_by_nginx(site: Site) -> None:
    with (
        ScriptedRouter(site.nats.url, lambda _: None),
        site.front.client({"X-Request-Timeout-Ms": "300"}) as client,
    ):
        answer = client.post(DECIDE, decide_body())
    assert (answer.status, answer.code) == (504, "timeout")
    assert answer.json()["context"]["tenant_id"] == "acme"


def test_a_long_poll_is_answered_when_its_result_comes(site: Site) -> None:
    assignment = new_id("as")
    answers: list[Answer] = []

    def ask() -> None:
        with site.front.client() as client:
            answers.append(client.get(f"{RESULTS}/{assignment}?wait_ms=30000"))

    asking = threading.Thread(target=ask)
    asking.start()
    with NatsSession(site.nats.url) as session:
        publish(session, result_body(assignment_id=assignment))
    asking.join(30)
    assert [answer.status for answer in answers] == [200]


def test_a_body_over_the_gateways_limit_is_refused_by_the_gateway(site: Site) -> None:
    with site.front.client() as client:
        answer = client.post(USAGE, usage_body(provider_id="x" * (1024 * 1024)))
        assert (answer.status, answer.code) == (413, "payload_too_large")
        assert answer.json()["context"]["tenant_id"] == "acme"
        assert client.post(USAGE, usage_body()).status == 202


def test_the_trace_and_the_request_id_of_a_client_come_through(site: Site) -> None:
    headers = {
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "X-Request-ID": "r-17",
    }
    with site.front.client(headers) as client:
        answer = client.post(USAGE, usage_body())
    assert answer.header("X-Trace-ID") == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert answer.header("X-Request-ID") == "r-17"


def test_an_instance_that_is_gone_is_not_noticed_by_clients() -> None:
    with running_site("one-gone") as site:
        site.instances[0].kill()
        with site.front.client() as client:
            answers = [client.post(USAGE, usage_body()) for _ in range(20)]
    assert {answer.status for answer in answers} == {202}


def test_an_upgrade_one_instance_after_the_other_fails_no_request() -> None:
    """What docs/OPERATIONS.md promises: SIGTERM, wait for its end, start the new one, wait for /readyz."""

    def send(client: Client) -> Answer:
        return client.post(USAGE, usage_body())

    with running_site("upgrade") as site, Load(site.front.client, send, clients=6) as load:
        for instance in site.instances:
            load.wait_for(len(load.outcomes()) + 50, "202")
            instance.terminate()
            assert instance.wait() == 0
            load.wait_for(len(load.outcomes()) + 50, "202")
            instance.start()
        load.wait_for(len(load.outcomes()) + 50, "202")
        outcomes = load.stop()
    assert set(kinds(outcomes)) == {"202"}, kinds(outcomes)
