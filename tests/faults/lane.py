"""Lane: a NATS server, a Router, a gateway behind the proxy, a second instance beside it; rounds of faults on them.

A round is one request that is struck at one position of its way, repeated until it is settled, and repeated once more
at the other instance. Which of the two instances the client turns to first after the fault alternates.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from enum import StrEnum
from typing import Final

from gateway.devstack.nats_server import NatsServer, NatsServerError
from tests.faults.asking import SETTLE_SECONDS, ask, look_up, settle
from tests.faults.executions import Executions
from tests.faults.scenarios import Request, Scenario, request
from tests.support.faults_proxy import NatsProxy
from tests.support.faults_trail import Position, Trail
from tests.support.gateway_process import GatewayProcess
from tests.support.nats_session import NatsSession, StoredMessage
from tests.support.scripted_router import ScriptedRouter
from tests.support.waiting import wait_until

STREAMS: Final = ("BEAMLINE_EXEC", "BEAMLINE_USAGE")
LEASE_SECONDS: Final = 1.0
#: Short deadlines and leases, so that waiting for them does not make up the run.
ENVIRONMENT: Final = {
    "GATEWAY_THREADS": "8",
    "LOG_LEVEL": "warning",
    "ROUTER_REQUEST_TIMEOUT_MS": "800",
    "IDEMPOTENCY_LEASE_MS": f"{LEASE_SECONDS * 1000:.0f}",
}
UNDISTURBED: Final = "undisturbed"
_WARM: Final = 3


class Victim(StrEnum):
    """What is killed."""

    WORKER = "worker"
    NATS = "NATS"


class Lane:
    """See the module's docstring; not for several threads at once. Made by `lane`."""

    def __init__(
        self,
        nats: NatsServer,
        trail: Trail,
        behind: GatewayProcess,
        beside: GatewayProcess,
        executions: Executions,
    ) -> None:
        self.nats = nats
        self.executions = executions
        self.requests: list[Request] = []
        self._trail = trail
        self._behind = behind
        self._beside = beside
        self._victim = Victim.WORKER
        self._rounds = 0
        self._broken = threading.Event()

    def strike(self, client: str) -> None:
        """Kill the victim of the round: the worker that made the connection, or the server."""
        if self._victim is Victim.NATS:
            os.kill(self.nats.pid, signal.SIGKILL)
            self._broken.set()
            return
        pid = int(
            client.rpartition("/")[2]
        )  # the bridge names its connections "beamline-gateway/<pid>"
        assert pid in self._behind.workers(), f"{client} is no worker of this gateway"
        os.kill(pid, signal.SIGKILL)

    def mend(self, closing: threading.Event) -> None:
        """Start the server again whenever it was killed; until told to end. Runs on a thread of its own."""
        while not closing.is_set():
            if self.nats.running and not self._broken.wait(0.02):
                continue
            self.nats.kill()  # it is dead; this collects it
            self._broken.clear()
            with contextlib.suppress(NatsServerError):
                self.nats.start()

    def learn(self, scenario: Scenario) -> tuple[str, ...]:
        """The events of one undisturbed request; fails if several do not have the same."""
        seen = []
        for _ in range(_WARM):
            made = self._prepared(scenario, UNDISTURBED)
            attempt = ask(self._behind, made, self._trail.follow)
            assert attempt.accepted, f"{scenario.name} undisturbed: {attempt.answer}"
            if scenario.decides:
                look_up(made, [self._beside])
            seen.append(self._trail.labels)
        assert len(set(seen)) == 1, f"{scenario.name} does not always take the same way: {seen}"
        return seen[0]

    def round(self, scenario: Scenario, victim: Victim, position: Position) -> bool:
        """One round; False if the request was settled without having come to the position."""
        made = self._prepared(scenario, f"{scenario.name}: {victim}")
        self._victim = victim
        self._rounds += 1
        self._trail.arm(position)
        end = time.monotonic() + SETTLE_SECONDS
        while not self._trail.struck and time.monotonic() < end:
            attempt = ask(self._behind, made, self._trail.follow)
            if attempt.settled:
                break
            time.sleep(0.005)
        turns = [self._beside, self._behind]
        if self._rounds % 2:
            turns.reverse()
        if not any(attempt.settled for attempt in made.attempts):
            settle(made, turns)
        settle(made, turns[::-1])
        if scenario.decides:
            look_up(made, turns)
        return self._trail.struck

    def stored(self) -> list[StoredMessage]:
        """Everything on the streams, in order."""
        wait_until(lambda: self.nats.running and not self._broken.is_set())
        self.nats.wait_healthy()
        with NatsSession(self.nats.url, name="checker") as session:
            return [one for stream in STREAMS for one in session.stream_messages(stream)]

    def _prepared(self, scenario: Scenario, fault: str) -> Request:
        before = None
        if scenario.earlier is not None:
            before = request(scenario.earlier, fault)
            self.requests.append(before)
            settle(before, [self._beside])
            if scenario.decides:
                look_up(before, [self._beside])
        made = request(scenario, fault, like=before)
        self.requests.append(made)
        return made


@contextlib.contextmanager
def lane(name: str) -> Iterator[Lane]:
    """A lane, ready; everything of it ends with the block."""
    trail = Trail()
    executions = Executions()
    with contextlib.ExitStack() as stack:
        nats = stack.enter_context(NatsServer(name=name))
        stack.enter_context(ScriptedRouter(nats.url, executions.decide))
        made: list[Lane] = []
        proxy = stack.enter_context(
            NatsProxy(nats.port, trail.judge, lambda client: made[0].strike(client))
        )
        behind = stack.enter_context(
            GatewayProcess(proxy.url, environment={**ENVIRONMENT, "WEB_CONCURRENCY": "2"})
        )
        beside = stack.enter_context(
            GatewayProcess(nats.url, environment={**ENVIRONMENT, "WEB_CONCURRENCY": "1"})
        )
        one = Lane(nats, trail, behind, beside, executions)
        made.append(one)
        closing = threading.Event()
        mender = threading.Thread(target=one.mend, args=(closing,), name=f"{name}-mender")
        mender.start()
        try:
            yield one
        finally:
            closing.set()
            mender.join()
