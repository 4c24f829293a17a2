"""Two instances whose clocks differ by an hour agree on every claim: only the server's clock counts.

Needs Debian's ``faketime``; fails, saying so, where it is missing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import pytest

from gateway.devstack.nats_server import NatsServer
from tests.faults.asking import ask
from tests.faults.executions import Executions
from tests.faults.lane import STREAMS
from tests.faults.scenarios import ASK, ASSIGN, METER, Request, Scenario
from tests.faults.scenarios import request as new_request
from tests.support.documents import ACKS, ack_body, now_ms
from tests.support.faults_clock import shifted_clock
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Answer
from tests.support.load import at_once
from tests.support.nats_session import NatsSession, StoredMessage
from tests.support.scripted_router import ScriptedRouter
from tests.support.waiting import wait_until
from tests.support.wire import expect_error

TTL_SECONDS = 3
HOUR_SECONDS = 3600
ACK = Scenario(
    "acks", ACKS, 202, lambda id: ack_body(assignment_id=id, ack_id=id), "caf.exec.assign.v1.ack"
)
each_operation = pytest.mark.parametrize(
    "scenario", [ASSIGN, ACK, METER, ASK], ids=lambda scenario: scenario.name
)
each_expiring = pytest.mark.parametrize(
    "scenario", [ASSIGN, ACK, ASK], ids=lambda scenario: scenario.name
)
#: Which instance asks first.
each_way = pytest.mark.parametrize("fast_first", [True, False], ids=["fast first", "slow first"])


@dataclass(frozen=True)
class Apart:
    """Two instances on one NATS: ``fast`` is half an hour ahead, ``slow`` half an hour behind."""

    fast: GatewayProcess
    slow: GatewayProcess
    nats: NatsServer

    def pair(self, fast_first: bool) -> tuple[GatewayProcess, GatewayProcess]:
        return (self.fast, self.slow) if fast_first else (self.slow, self.fast)

    def stored(self, request: Request) -> list[StoredMessage]:
        """The messages of the request's id."""
        wanted = request.assignment_id.encode()
        with NatsSession(self.nats.url) as session:
            return [
                one
                for stream in STREAMS
                for one in session.stream_messages(stream)
                if wanted in one.payload
            ]


@pytest.fixture(scope="module")
def apart() -> Iterator[Apart]:
    environment = {"WEB_CONCURRENCY": "1", "IDEMPOTENCY_TTL_MS": str(TTL_SECONDS * 1000)}
    with contextlib.ExitStack() as stack:
        clocks = [shifted_clock(offset) for offset in ("+30m", "-30m")]
        nats = stack.enter_context(NatsServer(name="clocks"))
        stack.enter_context(ScriptedRouter(nats.url, Executions().decide))
        fast, slow = (
            stack.enter_context(GatewayProcess(nats.url, environment={**environment, **clock}))
            for clock in clocks
        )
        yield Apart(fast, slow, nats)


def made(scenario: Scenario) -> Request:
    request = new_request(scenario, "clocks")
    if scenario is METER:
        # In the past of both: that an event is not of the future is the one thing that an instance's own clock says.
        request.body["timestamp"] = now_ms() - 2 * HOUR_SECONDS * 1000
    return request


def answered(gateway: GatewayProcess, request: Request) -> Answer:
    answer = ask(gateway, request).answer
    assert answer is not None
    return answer


def wall_clock(gateway: GatewayProcess) -> float:
    answer = gateway.get("/livez")
    assert answer is not None
    return parsedate_to_datetime(answer.header("Date") or "").timestamp()


def test_the_clocks_differ_by_an_hour(apart: Apart) -> None:
    assert wall_clock(apart.fast) - wall_clock(apart.slow) == pytest.approx(HOUR_SECONDS, abs=5)


@each_way
@each_operation
def test_a_repeat_at_the_other_instance_is_a_replay(
    apart: Apart, scenario: Scenario, fast_first: bool
) -> None:
    first_at, second_at = apart.pair(fast_first)
    request = made(scenario)
    first, second = answered(first_at, request), answered(second_at, request)
    assert (first.status, second.status) == (scenario.status, scenario.status), second
    assert first.header("Idempotency-Replayed") is None
    assert second.header("Idempotency-Replayed") == "true"
    assert second.json() == first.json()
    assert 0 <= int(second.header("Idempotency-Expires") or "-1") <= TTL_SECONDS
    assert len(apart.stored(request)) == (0 if scenario.decides else 1)


@each_way
@each_operation
def test_another_request_under_the_id_is_a_conflict_at_the_other_instance(
    apart: Apart, scenario: Scenario, fast_first: bool
) -> None:
    first_at, second_at = apart.pair(fast_first)
    request = made(scenario)
    assert answered(first_at, request).status == scenario.status
    other = Request(scenario, "clocks", request.assignment_id, _altered(request))
    expect_error(answered(second_at, other), 409, "idempotency_conflict")
    assert len(apart.stored(request)) == (0 if scenario.decides else 1)


@each_operation
def test_of_equal_requests_at_both_at_once_one_is_the_first(
    apart: Apart, scenario: Scenario
) -> None:
    request = made(scenario)
    # As many as fit into one instance with the six threads of its gate.
    gateways = [apart.fast, apart.slow] * 4
    answers = at_once(gateways, lambda gateway: answered(gateway, request))
    assert {answer.status for answer in answers} == {scenario.status}
    assert len({answer.body for answer in answers}) == 1
    replayed = [answer.header("Idempotency-Replayed") for answer in answers]
    assert replayed.count(None) == 1, replayed
    assert len(apart.stored(request)) == (0 if scenario.decides else 1)


@each_way
@each_expiring
def test_the_claim_expires_for_both_when_the_server_says_so(
    apart: Apart, scenario: Scenario, fast_first: bool
) -> None:
    first_at, second_at = apart.pair(fast_first)
    request = made(scenario)
    before = time.monotonic()
    first = answered(first_at, request)
    seen: list[Answer] = []

    def expired() -> bool:
        # Alternating, so that both hold a copy of their own, and both must give it up.
        seen.extend(answered(gateway, request) for gateway in (second_at, first_at))
        return any(answer.json() != first.json() for answer in seen)

    wait_until(expired, TTL_SECONDS * 4, "the claim does not expire")
    assert time.monotonic() - before >= TTL_SECONDS
    assert {answer.status for answer in seen} == {scenario.status}
    # From the first answer to the second operation's there is one change, and both instances made it.
    bodies = list(dict.fromkeys(answer.body for answer in seen))
    assert len(bodies) == 2
    last = {answered(gateway, request).body for gateway in (first_at, second_at)}
    assert last == {bodies[1]}
    assert len(apart.stored(request)) == (0 if scenario.decides else 2)


@each_way
def test_operations_shows_the_claim_alike_at_both(apart: Apart, fast_first: bool) -> None:
    first_at, second_at = apart.pair(fast_first)
    request = made(ASSIGN)
    assert answered(first_at, request).status == 202
    shown = []
    for gateway in (first_at, second_at):
        with gateway.client() as client:
            answer = client.get(f"/api/v1/operations/assignments/{request.assignment_id}")
        assert answer.status == 200, answer
        assert 0 <= answer.json()["expires_in_seconds"] <= TTL_SECONDS
        shown.append(answer.json()["first_call"])
    assert shown[0] == shown[1]


def _altered(request: Request) -> dict[str, object]:
    field, value = {
        ASSIGN: ("metadata", {"other": True}),
        ACK: ("reason", "another one"),
        METER: ("latency_ms", 1),
        ASK: ("metadata", {"other": True}),
    }[request.scenario]
    return {**request.body, field: value}
