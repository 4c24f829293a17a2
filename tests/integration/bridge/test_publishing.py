"""Publishing to a stream: stored once, or said honestly that it was not."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Literal

import pytest
from nats.js.api import DiscardPolicy, StreamConfig

from bridge import NoObserver, NotSent, Refusal, Refused
from gateway.devstack.nats_server import NatsServer
from tests.support.bridge_running import (
    ACK,
    ASSIGN,
    EXEC,
    KEYS,
    RunningBridges,
    publish,
    soon,
    wait_published,
)
from tests.support.nats_session import NatsSession
from tests.support.waiting import AT_ONCE_SECONDS, GENEROUS_SECONDS, wait_until

MAX_PAYLOAD = 1024 * 1024


def test_a_message_is_acknowledged_with_its_place_and_stored_as_it_was(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    bridge = bridges.start(server.url)
    ack = publish(bridge, payload=b'{"a":1}', msg_id="one", headers={"tenant_id": "acme"})
    assert (ack.stream, ack.seq, ack.duplicate) == ("BEAMLINE_EXEC", 1, False)
    (stored,) = nats.stream_messages("BEAMLINE_EXEC")
    assert (stored.subject, stored.payload) == (ASSIGN, b'{"a":1}')
    assert stored.headers == {"Nats-Msg-Id": "one", "tenant_id": "acme"}


def test_the_same_message_id_again_gives_the_place_of_the_first(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    bridge = bridges.start(server.url)
    first = publish(bridge, msg_id="one")
    publish(bridge, msg_id="two")
    again = publish(bridge, msg_id="one")
    assert again.duplicate
    assert again.seq == first.seq
    assert len(nats.stream_messages("BEAMLINE_EXEC")) == 2


def test_a_publish_without_a_message_id_is_a_mistake_of_the_caller(
    server: NatsServer, bridges: RunningBridges
) -> None:
    bridge = bridges.start(server.url)
    deadline = soon()
    with pytest.raises(ValueError, match="Nats-Msg-Id"):
        bridge.run(lambda bus: bus.publish(ASSIGN, b"", headers={}, deadline=deadline), deadline)


def test_a_publish_after_its_deadline_sends_nothing(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    bridge = bridges.start(server.url)
    past, headers = soon(-1), {"Nats-Msg-Id": "late"}
    with pytest.raises(NotSent, match="deadline"):
        bridge.run(lambda bus: bus.publish(ASSIGN, b"", headers=headers, deadline=past), soon())
    publish(bridge, msg_id="in time")
    assert len(nats.stream_messages("BEAMLINE_EXEC")) == 1


@pytest.mark.parametrize("replicas", [1, 3], ids=["R1", "a fleet that waits for leaders"])
def test_a_full_stream_refuses_at_once_and_takes_messages_again_when_it_has_room(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges, replicas: int
) -> None:
    full = StreamConfig(
        name=EXEC.name, subjects=list(EXEC.subjects), max_bytes=4096, discard=DiscardPolicy.NEW
    )
    nats.call(nats.jetstream.add_stream(full, duplicate_window=EXEC.duplicate_window_ms / 1000))
    bridge = bridges.start(server.url, replicas=replicas)
    publish(bridge, payload=b"x" * 3000)
    begun = time.monotonic()
    with pytest.raises(NotSent, match="maximum bytes exceeded"):
        publish(bridge, payload=b"x" * 3000, msg_id="kept out", seconds=5)
    assert time.monotonic() - begun < AT_ONCE_SECONDS
    nats.call(nats.jetstream.purge_stream("BEAMLINE_EXEC"))
    assert not publish(bridge, payload=b"x" * 3000, msg_id="kept out").duplicate


@pytest.mark.parametrize("payload_bytes", [MAX_PAYLOAD + 1, MAX_PAYLOAD, MAX_PAYLOAD - 40])
def test_what_is_too_large_with_its_headers_is_refused_and_costs_nobody_the_connection(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges, payload_bytes: int
) -> None:
    bridge = bridges.start(server.url)
    begun = time.monotonic()
    with pytest.raises(Refused) as refusal:
        publish(bridge, payload=b"x" * payload_bytes)
    assert refusal.value.reason is Refusal.TOO_LARGE
    assert time.monotonic() - begun < AT_ONCE_SECONDS
    assert publish(bridge).seq == 1
    assert bridge.health().connects == 1


def test_the_largest_message_that_fits_is_taken(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    bridge = bridges.start(server.url)
    # NATS/1.0, one header line, an empty line: "NATS/1.0\r\n" "Nats-Msg-Id: largest\r\n" "\r\n"
    overhead = len(b"NATS/1.0\r\nNats-Msg-Id: largest\r\n\r\n")
    assert publish(bridge, payload=b"x" * (MAX_PAYLOAD - overhead), msg_id="largest").seq == 1
    assert bridge.health().connects == 1


def test_a_message_above_the_limit_of_its_stream_is_refused_as_too_large(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    small = StreamConfig(name=EXEC.name, subjects=list(EXEC.subjects), max_msg_size=1024)
    nats.call(nats.jetstream.add_stream(small))
    bridge = bridges.start(server.url)
    with pytest.raises(Refused) as refusal:
        publish(bridge, payload=b"x" * 2048)
    assert refusal.value.reason is Refusal.TOO_LARGE


def test_without_a_stream_a_publish_is_not_sent_at_once(
    server: NatsServer, bridges: RunningBridges
) -> None:
    bridge = bridges.start(server.url, streams=())
    begun = time.monotonic()
    with pytest.raises(NotSent):
        publish(bridge, seconds=5)
    assert time.monotonic() - begun < AT_ONCE_SECONDS


def test_a_deleted_stream_is_missed_by_the_next_publish_and_made_again(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    bridge = bridges.start(server.url, buckets=(KEYS,), audit_interval_seconds=3600.0)
    publish(bridge, msg_id="one")
    known = bridge.generation
    nats.delete_stream("BEAMLINE_EXEC")
    begun = time.monotonic()
    with pytest.raises(NotSent):
        publish(bridge, msg_id="one", seconds=5)
    assert time.monotonic() - begun < AT_ONCE_SECONDS
    ack = wait_published(bridge, GENEROUS_SECONDS)
    assert ack.seq == 1, "it is another stream"
    wait_until(lambda: bridge.generation > known, message="nobody is told that it is another one")
    told = [
        str(one) for one in bridge.health().findings if "not the one from before" in one.message
    ]
    assert len(told) == 1 and told[0].startswith("BEAMLINE_EXEC: "), told
    assert bridge.health().ready, "it can work with the new one"


class Recorder(NoObserver):
    """An observer that remembers, and adds a header."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str]] = []

    @contextlib.contextmanager
    def sending(
        self, operation: Literal["request", "publish"], subject: str, headers: dict[str, str]
    ) -> Iterator[None]:
        headers["traceparent"] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        result = "ok"
        try:
            yield
        except Exception as error:
            result = type(error).__name__
            raise
        finally:
            self.seen.append((operation, subject, result))


def test_an_observer_sees_each_message_once_with_its_outcome_and_may_add_headers(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    recorder = Recorder()
    bridge = bridges.start(server.url, observer=recorder)
    callers_own = {"Nats-Msg-Id": "one"}
    deadline = soon()
    bridge.run(
        lambda bus: bus.publish(ACK, b"{}", headers=callers_own, deadline=deadline), deadline
    )
    with pytest.raises(NotSent):
        publish(bridge, "nobody.holds.this")
    assert recorder.seen == [("publish", ACK, "ok"), ("publish", "nobody.holds.this", "NotSent")]
    assert callers_own == {"Nats-Msg-Id": "one"}, "the caller's headers stay as they were"
    (stored,) = nats.stream_messages("BEAMLINE_EXEC")
    assert stored.headers["traceparent"].startswith("00-4bf92f35")
