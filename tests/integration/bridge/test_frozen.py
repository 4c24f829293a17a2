"""A server that is frozen (SIGSTOP): its socket is open, and nothing is answered."""

from __future__ import annotations

import time
import tracemalloc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from bridge import BridgeError, Bus, NotSent, Unknown
from gateway.devstack.nats_server import NatsServer
from tests.support.bridge_running import (
    RunningBridges,
    outcome,
    publish,
    request,
    soon,
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

MEBIBYTE = 1024 * 1024
#: Notices a frozen server after three of them.
QUICK_PINGS = 0.3


def test_a_publish_to_a_frozen_server_is_unknown_by_its_deadline_and_settled_by_repeating_it(
    server: NatsServer, bridges: RunningBridges
) -> None:
    bridge = bridges.start(server.url)
    server.freeze()
    begun = time.monotonic()
    with pytest.raises(Unknown):
        publish(bridge, msg_id="one", seconds=0.5)
    assert time.monotonic() - begun < 0.5 + DEADLINE_SLACK_SECONDS

    server.thaw()
    again = publish(bridge, msg_id="one")
    assert again.seq == 1
    with NatsSession(server.url) as nats:
        stored = [
            message.headers["Nats-Msg-Id"] for message in nats.stream_messages("BEAMLINE_EXEC")
        ]
    assert stored == ["one"]


def test_every_call_to_a_frozen_server_ends_by_its_deadline_and_none_is_called_not_sent_wrongly(
    server: NatsServer, bridges: RunningBridges
) -> None:
    bridge = bridges.start(server.url)
    server.freeze()
    begun = time.monotonic()
    with ThreadPoolExecutor(32) as pool:
        calls = [
            pool.submit(publish, bridge, msg_id=f"id-{number}", seconds=0.5) for number in range(32)
        ]
        results = [outcome(call) for call in calls]
    assert time.monotonic() - begun < 0.5 + DEADLINE_SLACK_SECONDS
    server.thaw()
    wait_published(bridge, RECOVERY_SECONDS)
    with NatsSession(server.url) as nats:
        stored = Counter(m.headers["Nats-Msg-Id"] for m in nats.stream_messages("BEAMLINE_EXEC"))
    assert max(stored.values()) == 1
    wrong = [n for n, r in enumerate(results) if isinstance(r, NotSent) and stored[f"id-{n}"]]
    assert wrong == []
    assert all(isinstance(result, BridgeError) for result in results)


def test_a_subscription_given_up_on_a_frozen_server_leaves_the_connection_as_it_was(
    server: NatsServer, bridges: RunningBridges, caplog: pytest.LogCaptureFixture
) -> None:
    bridge = bridges.start(server.url, ping_interval_seconds=60.0)

    async def subscribe(bus: Bus) -> None:
        async with bus.subscribe("some.subject"):
            raise AssertionError("nobody has confirmed it")

    server.freeze()
    with pytest.raises(Unknown):
        bridge.run(subscribe, soon(0.2))
    server.thaw()
    # The answer to a ping that nobody waits for any more comes first.
    publish(bridge, seconds=2.0)
    assert bridge.health().connects == 1
    assert not [record for record in caplog.records if record.name.startswith("nats")]


def test_a_server_frozen_for_long_counts_as_away_and_is_used_again_after_the_thaw(
    server: NatsServer, bridges: RunningBridges
) -> None:
    bridge = bridges.start(server.url, ping_interval_seconds=QUICK_PINGS)
    server.freeze()
    wait_until(lambda: not bridge.health().connected, 4 * QUICK_PINGS + RECOVERY_SECONDS)
    begun = time.monotonic()
    with pytest.raises(NotSent, match="not connected"):
        publish(bridge, seconds=5)
    with pytest.raises(NotSent, match="not connected"):
        request(bridge, seconds=5)
    assert time.monotonic() - begun < AT_ONCE_SECONDS
    # Long enough for attempts to connect that the frozen server's kernel accepts and nobody answers.
    wait_until(lambda: bridge.health().last_error, message="no attempt to connect failed")
    server.thaw()
    wait_published(bridge, RECOVERY_SECONDS)
    # What was tried meanwhile is not left open.
    wait_until(
        lambda: server.varz()["connections"] == 1,
        message=lambda: f"connections left open: {server.connz()['connections']}",
    )


def test_memory_is_bounded_while_a_frozen_server_takes_nothing(
    server: NatsServer, bridges: RunningBridges
) -> None:
    bridge = bridges.start(server.url, ping_interval_seconds=60.0)
    payload = b"x" * (MEBIBYTE - 4096)
    server.freeze()
    results: Counter[str] = Counter()
    tracemalloc.start()
    try:
        # Each would stay in the client's buffer if nobody minded: 80 MiB.
        for _ in range(80):
            with pytest.raises(BridgeError) as error:
                publish(bridge, payload=payload, seconds=0.01)
            results[error.typename] += 1
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 40 * MEBIBYTE, f"{peak_bytes / MEBIBYTE:.0f} MiB"
    assert results["NotSent"] > 0, "what is not even taken from us is not sent"
    server.thaw()
    wait_published(bridge, GENEROUS_SECONDS)


def test_what_waits_for_a_server_that_takes_nothing_is_stored_when_another_life_of_it_does(
    server: NatsServer, bridges: RunningBridges
) -> None:
    bridge = bridges.start(server.url, ping_interval_seconds=60.0)
    payload = b"x" * (MEBIBYTE - 4096)
    server.freeze()
    with ThreadPoolExecutor(32) as pool:
        # More than is handed over: the last of them wait until the first ones are taken.
        calls = [
            pool.submit(
                publish, bridge, payload=payload, msg_id=f"id-{n}", seconds=GENEROUS_SECONDS
            )
            for n in range(32)
        ]
        wait_until(lambda: bridge.health().in_flight == 32)
        server.kill()
        server.start()
        results = [outcome(call) for call in calls]
    with NatsSession(server.url) as nats:
        stored = Counter(m.headers["Nats-Msg-Id"] for m in nats.stream_messages("BEAMLINE_EXEC"))
    assert [result for result in results if isinstance(result, BridgeError)] == []
    assert stored == {f"id-{n}": 1 for n in range(32)}


def test_a_frozen_server_with_unsent_data_is_left_for_another_one(bridges: RunningBridges) -> None:
    with NatsServer(name="first") as first, NatsServer(name="second") as second:
        bridge = bridges.start(first.url, second.url, ping_interval_seconds=QUICK_PINGS)
        frozen = first if first.varz()["connections"] else second
        frozen.freeze()
        # More than the kernel's buffers hold: closing the socket in good order would wait for the thaw.
        for _ in range(20):
            with pytest.raises(BridgeError):
                publish(bridge, payload=b"x" * (MEBIBYTE - 4096), seconds=0.01)
        wait_until(
            lambda: bridge.health().connects == 2,
            GENEROUS_SECONDS,
            lambda: f"no other server is used: {bridge.health()}",
        )
        wait_published(bridge, RECOVERY_SECONDS)
        frozen.thaw()
