"""The connection comes, goes and comes back; nothing hangs, nothing piles up."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from bridge import Bridge, BridgeError, Bus, NotSent
from gateway.devstack.nats_server import NatsServer
from tests.support.bridge_running import (
    ASSIGN,
    RunningBridges,
    publish,
    request,
    soon,
    wait_published,
)
from tests.support.nats_session import NatsSession
from tests.support.waiting import (
    AT_ONCE_SECONDS,
    DEADLINE_SLACK_SECONDS,
    RECOVERY_SECONDS,
    wait_until,
)

RESTARTS = 10


def test_a_bridge_starts_without_nats_and_works_when_it_comes(
    absent_server: NatsServer, bridges: RunningBridges
) -> None:
    begun = time.monotonic()
    bridge = bridges.start(absent_server.url, ready=False)
    assert time.monotonic() - begun < AT_ONCE_SECONDS, "start() waited"

    wait_until(lambda: bridge.health().last_error, message="no reason is given")
    health = bridge.health()
    assert health.loop_alive and not health.connected and not health.ready
    assert health.missing[0].startswith("NATS: not connected (")
    begun = time.monotonic()
    with pytest.raises(NotSent, match="not connected"):
        publish(bridge, seconds=5)
    with pytest.raises(NotSent, match="not connected"):
        request(bridge, seconds=5)
    assert time.monotonic() - begun < AT_ONCE_SECONDS

    absent_server.start()
    assert wait_published(bridge, RECOVERY_SECONDS).seq == 1
    assert bridge.wait_ready(RECOVERY_SECONDS), bridge.health()
    assert bridge.health().missing == ()


@dataclass
class Attempt:
    """One publish under load and what it came to."""

    msg_id: str
    allowed_seconds: float
    took_seconds: float
    error: BridgeError | None


@dataclass
class Load:
    """Threads that publish without a pause until they are told to stop."""

    bridge: Bridge
    allowed_seconds: float = 2.0
    attempts: list[Attempt] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def work(self, name: str) -> None:
        for number in itertools.count():
            if self.stopped.is_set():
                return
            msg_id, begun, error = f"{name}-{number}", time.monotonic(), None
            try:
                publish(self.bridge, msg_id=msg_id, seconds=self.allowed_seconds)
            except BridgeError as raised:
                error = raised
                self.stopped.wait(0.01)  # as a client that is told 503 would
            took = time.monotonic() - begun
            self.attempts.append(Attempt(msg_id, self.allowed_seconds, took, error))


def test_a_server_killed_and_restarted_ten_times_under_load_costs_nothing_but_the_outage(
    server: NatsServer, bridges: RunningBridges
) -> None:
    starts: list[float] = []

    async def service(bus: Bus) -> None:
        starts.append(time.monotonic())
        await asyncio.Event().wait()

    bridge = bridges.start(server.url, services=[service])
    load = Load(bridge)
    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(load.work, name) for name in "abcd"]
        try:
            for _ in range(RESTARTS):
                before = len(load.attempts)
                wait_until(lambda n=before: len(load.attempts) > n + 20, message="no load")
                server.kill()
                wait_until(lambda: not bridge.health().connected, RECOVERY_SECONDS)
                begun = time.monotonic()
                with pytest.raises(NotSent, match="not connected"):
                    publish(bridge, seconds=5)
                assert time.monotonic() - begun < AT_ONCE_SECONDS
                server.start()
                wait_published(bridge, RECOVERY_SECONDS)
                wait_until(lambda: bridge.health().ready, message="the audit does not pass again")
                assert server.varz()["total_connections"] <= 2
        finally:
            load.stopped.set()
        for worker in workers:
            worker.result(10)

    assert bridge.health().connects == RESTARTS + 1
    assert len(starts) == RESTARTS + 1, "a service starts once at every connect"
    late = [
        attempt
        for attempt in load.attempts
        if attempt.took_seconds > attempt.allowed_seconds + DEADLINE_SLACK_SECONDS
    ]
    assert late == []
    acknowledged = {attempt.msg_id for attempt in load.attempts if attempt.error is None}
    refused = {a.msg_id for a in load.attempts if isinstance(a.error, NotSent)}
    with NatsSession(server.url) as nats:
        stored = [m.headers["Nats-Msg-Id"] for m in nats.stream_messages("BEAMLINE_EXEC")]
    assert len(stored) == len(set(stored)), "something is stored twice"
    assert acknowledged <= set(stored), "something acknowledged is lost"
    assert not refused & set(stored), "something is stored that was called not sent"
