"""Request-reply: each gets its own answer, in time or not at all."""

from __future__ import annotations

import asyncio
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from nats.aio.msg import Msg

from bridge import Bus, Message, NotSent, Refusal, Refused, Unknown
from bridge.replies import RequestingClient
from gateway.devstack.nats_server import NatsServer
from tests.support.bridge_running import (
    DECIDE,
    RunningBridges,
    outcome,
    request,
    wait_published,
)
from tests.support.nats_session import NatsSession
from tests.support.waiting import (
    AT_ONCE_SECONDS,
    DEADLINE_SLACK_SECONDS,
    GENEROUS_SECONDS,
    RECOVERY_SECONDS,
    wait_until,
)

INTERLEAVED = 50


class Responder:
    """Answers requests on a subject with their own payload, when the test says so."""

    def __init__(self, nats: NatsSession, subject: str = DECIDE, *, at_once: bool = False) -> None:
        self.taken: list[Msg] = []
        self._nats = nats
        self._at_once = at_once
        nats.call(self._listen(subject))

    def answer(self, message: Msg) -> None:
        """Answer one of those taken."""
        self._nats.call(self._answer(message))

    async def _listen(self, subject: str) -> None:
        await self._nats.client.subscribe(subject, cb=self._take)
        await self._nats.client.flush()

    async def _take(self, message: Msg) -> None:
        self.taken.append(message)
        if self._at_once:
            await self._answer(message)

    async def _answer(self, message: Msg) -> None:
        await self._nats.client.publish(
            message.reply, b"answer to " + message.data, headers={"tenant_id": "acme"}
        )
        await self._nats.client.flush()


def test_an_answer_comes_back_with_its_headers(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    responder = Responder(nats, at_once=True)
    reply = request(bridges.start(server.url), payload=b"this")
    assert reply.payload == b"answer to this"
    assert reply.headers == {"tenant_id": "acme"}
    assert len(responder.taken) == 1


def test_with_nobody_listening_a_request_is_not_sent_at_once(
    server: NatsServer, bridges: RunningBridges
) -> None:
    bridge = bridges.start(server.url)
    begun = time.monotonic()
    with pytest.raises(NotSent, match="no responders"):
        request(bridge, seconds=5)
    assert time.monotonic() - begun < AT_ONCE_SECONDS


def test_silence_is_unknown_at_the_deadline(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    Responder(nats)
    bridge = bridges.start(server.url)
    begun = time.monotonic()
    with pytest.raises(Unknown):
        request(bridge, seconds=0.3)
    # A timer of the loop may be early by less than its resolution.
    assert 0.29 <= time.monotonic() - begun < 0.3 + DEADLINE_SLACK_SECONDS
    wait_until(lambda: bridge.health().in_flight == 0, message="the place is not free again")


def test_a_late_answer_is_dropped_and_answers_nobody_else(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    responder = Responder(nats)
    bridge = bridges.start(server.url)
    with pytest.raises(Unknown):
        request(bridge, payload=b"first", seconds=0.2)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(request, bridge, payload=b"second")
        wait_until(lambda: len(responder.taken) == 2)
        responder.answer(responder.taken[0])
        assert not second.done()
        responder.answer(responder.taken[1])
        assert second.result(GENEROUS_SECONDS).payload == b"answer to second"
    assert [message.data for message in responder.taken] == [b"first", b"second"], "asked once each"


def test_fifty_interleaved_requests_each_get_their_own_answer(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    responder = Responder(nats)
    bridge = bridges.start(server.url)
    with ThreadPoolExecutor(INTERLEAVED) as pool:
        calls = [
            pool.submit(request, bridge, payload=b"%d" % number, seconds=GENEROUS_SECONDS)
            for number in range(INTERLEAVED)
        ]
        wait_until(lambda: len(responder.taken) == INTERLEAVED)
        for message in random.sample(responder.taken, INTERLEAVED):
            responder.answer(message)
        replies = [call.result(GENEROUS_SECONDS).payload for call in calls]
    assert replies == [b"answer to %d" % number for number in range(INTERLEAVED)]


def test_over_the_cap_a_request_is_refused_at_once_and_the_others_are_not_disturbed(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    responder = Responder(nats)
    bridge = bridges.start(server.url, max_in_flight=4)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(request, bridge, payload=b"%d" % number) for number in range(4)]
        wait_until(lambda: len(responder.taken) == 4)
        begun = time.monotonic()
        with pytest.raises(NotSent) as refusal:
            request(bridge, seconds=5)
        assert time.monotonic() - begun < AT_ONCE_SECONDS
        assert refusal.value.overloaded
        for message in list(responder.taken):
            responder.answer(message)
        assert all(not isinstance(outcome(call), Exception) for call in calls)


def test_a_request_that_is_too_large_is_refused_and_costs_nobody_the_connection(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    Responder(nats, at_once=True)
    bridge = bridges.start(server.url)
    with pytest.raises(Refused) as refusal:
        request(bridge, payload=b"x" * (1024 * 1024 + 1))
    assert refusal.value.reason is Refusal.TOO_LARGE
    assert request(bridge, payload=b"small").payload == b"answer to small"
    assert bridge.health().connects == 1


def test_a_request_cut_off_by_a_killed_server_ends_by_its_deadline(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    responder = Responder(nats)
    bridge = bridges.start(server.url)
    with ThreadPoolExecutor(1) as pool:
        begun = time.monotonic()
        call = pool.submit(request, bridge, seconds=1.0)
        wait_until(lambda: responder.taken)
        server.kill()
        # Not "not sent": the Router had it.
        assert isinstance(outcome(call), Unknown)
        assert time.monotonic() - begun < 1.0 + DEADLINE_SLACK_SECONDS
    server.start()
    wait_published(bridge, RECOVERY_SECONDS)


def test_an_operation_that_asks_twice_at_the_same_time_gets_both_answers(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    Responder(nats, at_once=True)
    bridge = bridges.start(server.url)
    deadline = time.monotonic() + 5

    async def both(bus: Bus) -> tuple[Message, Message]:
        return await asyncio.gather(
            bus.request(DECIDE, b"a", headers={}, deadline=deadline),
            bus.request(DECIDE, b"b", headers={}, deadline=deadline),
        )

    replies = bridge.run(both, deadline)
    assert [reply.payload for reply in replies] == [b"answer to a", b"answer to b"]


def test_cancellation_in_the_moment_of_the_answer_is_not_forgotten(
    server: NatsServer,
    nats: NatsSession,
    bridges: RunningBridges,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Responder(nats, at_once=True)
    asking: list[asyncio.Task[Any]] = []
    hear = RequestingClient._hear

    async def hear_and_cancel(client: RequestingClient, message: Msg) -> None:
        await hear(client, message)
        if message.data == b"answer to this":
            asking[0].cancel()

    async def ask(bus: Bus) -> Message:
        task = asyncio.current_task()
        assert task is not None
        asking.append(task)
        return await bus.request(DECIDE, b"this", headers={}, deadline=time.monotonic() + 5)

    monkeypatch.setattr(RequestingClient, "_hear", hear_and_cancel)
    bridge = bridges.start(server.url)
    with pytest.raises(Unknown):
        bridge.run(ask, time.monotonic() + 5)
    assert request(bridge, payload=b"next").payload == b"answer to next"
