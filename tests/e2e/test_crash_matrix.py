"""Killed or frozen at every event of its NATS connection, a request still happens once and is answered the same.

The short form of `python -m tests.faults.crash_matrix`: each position once. `make faults` runs the long one.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.devstack.nats_server import NatsServer
from tests.faults import crash_matrix
from tests.faults.asking import ask
from tests.faults.executions import Executions
from tests.faults.lane import STREAMS
from tests.faults.scenarios import ASK, ASSIGN, FIRST_CALLS, METER, Attempt, Request, Scenario
from tests.faults.scenarios import request as new_request
from tests.support.faults_proxy import NatsProxy, Verdict
from tests.support.faults_trail import Position, Trail
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Answer
from tests.support.nats_session import NatsSession, StoredMessage
from tests.support.scripted_router import ScriptedRouter, decide_for
from tests.support.stacks import running
from tests.support.waiting import wait_until
from tests.support.wire import expect_error

TIMEOUT_MS = 1000
LEASE_SECONDS = 0.5
# The events of a request, counted from 0, as the crash matrix learns and prints them.
CLAIM, EFFECT, OUTCOME = 0, 2, 4


@pytest.mark.timeout(600)
def test_nothing_is_lost_or_done_twice_wherever_a_worker_or_nats_is_killed(tmp_path: Path) -> None:
    report = crash_matrix.run(
        rounds=1,
        kills=crash_matrix.SHORT_KILLS,
        scenarios=FIRST_CALLS,
        lanes=2,
        seed=random.randrange(1_000_000),
    )
    report.write(tmp_path)
    assert report.sound, f"\n{report.text}"
    # Two kinds of victims, before and after each of at least four events of a publish and six of a decide.
    assert sum(report.struck.values()) >= 2 * 2 * (4 + 4 + 6) + crash_matrix.SHORT_KILLS


def test_a_dead_owners_id_is_free_again_however_seldom_its_client_asks() -> None:
    """What was seen of a lease is remembered until it ends, not only for a few times its length."""
    request = new_request(ASK, "dead owner")
    environment = {
        "WEB_CONCURRENCY": "1",
        "ROUTER_REQUEST_TIMEOUT_MS": "300",
        "IDEMPOTENCY_LEASE_MS": f"{LEASE_SECONDS * 1000:.0f}",
    }
    with (
        running("dead-owner", environment) as started,
        ScriptedRouter(started.nats.url, lambda _: None) as router,
        ThreadPoolExecutor(1) as pool,
    ):
        gateway = started.gateway
        [owner] = gateway.workers()
        cut = pool.submit(ask, gateway, request)
        router.wait_for_requests(1)
        os.kill(owner, signal.SIGKILL)
        assert cut.result().answer is None
        router.behaviour = decide_for

        gateway.wait_for_workers(1, without=frozenset({owner}))
        wait_until(lambda: (ready := gateway.get("/readyz")) and ready.status == 200)
        assert _status(ask(gateway, request)) == 409
        time.sleep(8 * LEASE_SECONDS)  # the client has better things to do
        assert _status(ask(gateway, request)) == 200


def _status(attempt: Attempt) -> int:
    return attempt.answer.status if attempt.answer is not None else 0


@dataclass(frozen=True)
class Freezer:
    """A gateway whose NATS server freezes as an event of the followed request reaches the proxy."""

    nats: NatsServer
    gateway: GatewayProcess
    trail: Trail
    executions: Executions

    def ask_frozen(self, request: Request, event: int) -> Attempt:
        """The server stops right before it would read the event; thawed when the client has its answer."""
        position = Position(event, after=False)
        self.trail.arm(position, when_before=Verdict.STRIKE_THEN_FORWARD)
        attempt = ask(self.gateway, request, self.trail.follow)
        assert self.trail.struck, f"no event {event}: {self.trail.labels}"
        self.nats.thaw()
        return attempt

    def look_up(self, request: Request) -> Answer:
        operation = request.scenario.path.rpartition("/")[2]
        id = request.body["usage_id" if operation == "usage" else "assignment_id"]
        with self.gateway.client() as client:
            return client.get(f"/api/v1/operations/{operation}/{id}")

    def wait_for_state(self, request: Request, state: str) -> Answer:
        """`GET operations`, once it shows this state."""

        def shows() -> bool:
            answer = self.look_up(request)
            return answer.status == 200 and answer.json()["state"] == state

        wait_until(shows, message=lambda: f"not {state}: {self.look_up(request)}")
        return self.look_up(request)

    def stored(self) -> list[StoredMessage]:
        with NatsSession(self.nats.url) as session:
            return [one for stream in STREAMS for one in session.stream_messages(stream)]


@pytest.fixture
def freezer() -> Iterator[Freezer]:
    trail, executions = Trail(), Executions()
    with contextlib.ExitStack() as stack:
        nats = stack.enter_context(NatsServer(name="freezing"))
        stack.callback(nats.thaw)
        stack.enter_context(ScriptedRouter(nats.url, executions.decide))
        proxy = stack.enter_context(NatsProxy(nats.port, trail.judge, lambda _: nats.freeze()))
        environment = {"WEB_CONCURRENCY": "1", "ROUTER_REQUEST_TIMEOUT_MS": str(TIMEOUT_MS)}
        gateway = stack.enter_context(GatewayProcess(proxy.url, environment=environment))
        yield Freezer(nats, gateway, trail, executions)


@pytest.mark.parametrize("event", [CLAIM, EFFECT], ids=["at its claim", "at its publish"])
@pytest.mark.parametrize("scenario", [ASSIGN, METER], ids=lambda scenario: scenario.name)
def test_publish_frozen_past_its_deadline_is_unknown_and_settled_by_the_same_request(
    freezer: Freezer, scenario: Scenario, event: int
) -> None:
    request = new_request(scenario, "frozen")
    frozen = freezer.ask_frozen(request, event)
    assert frozen.answer is not None
    expect_error(frozen.answer, 504, "outcome_unknown")
    assert int(frozen.answer.header("Retry-After") or "0") >= 1

    seen = freezer.wait_for_state(request, "claimed").json()
    assert seen["first_call"]["request_id"] == frozen.id
    assert seen["first_call"]["trace_id"] == frozen.id

    again = ask(freezer.gateway, request).answer
    assert again is not None
    assert again.status == 202, again
    assert again.header("Idempotency-Replayed") == "true"
    assert again.json()["context"] == {"request_id": frozen.id, "trace_id": frozen.id}
    [message] = freezer.stored()
    assert message.seq == again.json()["seq"]
    # It is the first call's message, whoever sent it in the end.
    assert message.headers["trace_id"] == frozen.id


def test_decide_frozen_while_its_outcome_is_stored_is_settled_without_asking_the_router_again(
    freezer: Freezer,
) -> None:
    request = new_request(ASK, "frozen")
    frozen = freezer.ask_frozen(request, OUTCOME)
    assert frozen.answer is not None
    expect_error(frozen.answer, 504, "timeout")

    seen = freezer.wait_for_state(request, "done").json()
    again = ask(freezer.gateway, request).answer
    assert again is not None
    assert again.status == 200, again
    assert again.header("Idempotency-Replayed") == "true"
    assert again.json() == seen["outcome"]["body"]
    assert [one.attempt_id for one in freezer.executions.of(request.assignment_id)] == [frozen.id]


def test_decide_frozen_before_the_router_is_asked_gives_its_id_back(freezer: Freezer) -> None:
    request = new_request(ASK, "frozen")
    frozen = freezer.ask_frozen(request, EFFECT)
    assert frozen.answer is not None
    expect_error(frozen.answer, 504, "timeout")

    # Thawed, the server delivers the first question too; nobody waits for its answer any more.
    wait_until(lambda: freezer.executions.of(request.assignment_id))
    wait_until(lambda: freezer.look_up(request).status == 404)
    again = ask(freezer.gateway, request)
    assert again.answer is not None
    assert again.answer.status == 200, again.answer
    assert again.answer.header("Idempotency-Replayed") is None
    asked = [one.attempt_id for one in freezer.executions.of(request.assignment_id)]
    assert asked == [frozen.id, again.id]
    assert again.answer.json()["decision"]["provider_id"].endswith(again.id)
