"""Streams and buckets: made, adopted, widened, audited; nothing is narrowed or deleted."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from nats.js.api import RetentionPolicy, StorageType, StreamConfig

from bridge import StreamSpec
from gateway.devstack.nats_server import NatsServer
from tests.support.bridge_running import (
    ACK,
    ASSIGN,
    EXEC,
    KEYS,
    RESULT,
    RunningBridges,
    findings,
    publish,
)
from tests.support.nats_session import NatsSession
from tests.support.waiting import GENEROUS_SECONDS, wait_until

MINUTE_MS = 60_000


def make_stream(nats: NatsSession, **settings: Any) -> None:
    nats.call(nats.jetstream.add_stream(StreamConfig(**settings)))


def test_streams_are_made_as_declared(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    bridge = bridges.start(server.url)
    config = nats.stream_info("BEAMLINE_EXEC").config
    assert config.subjects == [ASSIGN, ACK, RESULT]
    assert (config.duplicate_window, config.max_age) == (120, 3600)
    assert config.max_bytes == EXEC.max_bytes
    assert config.storage == StorageType.FILE
    assert config.retention == RetentionPolicy.LIMITS
    assert config.discard == "new"
    assert config.num_replicas == 1
    assert findings(bridge) == ""


def test_buckets_are_key_value_buckets_that_other_clients_can_use(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    bridge = bridges.start(server.url, buckets=(KEYS,))
    assert findings(bridge) == ""

    async def put_and_get() -> bytes | None:
        bucket = await nats.jetstream.key_value(KEYS.name)
        await bucket.put("key", b"value")
        status = await bucket.status()
        assert status.ttl == 60
        return (await bucket.get("key")).value

    assert nats.call(put_and_get()) == b"value"
    config = nats.stream_info("KV_BEAMLINE_KEYS").config
    assert not config.allow_direct, "reads that decide go through the leader"
    assert config.max_msgs_per_subject == 1


def test_a_stream_of_another_owner_that_holds_all_subjects_is_used_as_it_is(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    make_stream(nats, name="THEIRS", subjects=["caf.>"], duplicate_window=300, max_age=7200)
    before = nats.stream_info("THEIRS").config
    bridge = bridges.start(server.url)
    assert publish(bridge, ASSIGN).stream == "THEIRS"
    assert publish(bridge, RESULT).stream == "THEIRS"
    assert nats.stream_info("THEIRS").config == before
    names = nats.call(nats.jetstream.streams_info())
    assert [info.config.name for info in names] == ["THEIRS"]
    assert f"THEIRS: holds {ASSIGN} already and is used as it is" in findings(bridge)
    assert "duplicate window" not in findings(bridge)


def test_where_another_owner_holds_one_of_three_subjects_the_others_get_a_stream(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    make_stream(nats, name="THEIRS", subjects=[RESULT], duplicate_window=300)
    bridge = bridges.start(server.url)
    assert publish(bridge, ASSIGN).stream == "BEAMLINE_EXEC"
    assert publish(bridge, ACK).stream == "BEAMLINE_EXEC"
    assert publish(bridge, RESULT).stream == "THEIRS"
    assert nats.stream_info("BEAMLINE_EXEC").config.subjects == [ASSIGN, ACK]
    assert f"THEIRS: holds {RESULT} already" in findings(bridge)


def test_a_subject_that_its_other_owner_gave_up_is_taken_over(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    make_stream(nats, name="THEIRS", subjects=[RESULT], duplicate_window=300)
    bridge = bridges.start(server.url, audit_interval_seconds=0.2)
    nats.delete_stream("THEIRS")
    wait_until(
        lambda: nats.stream_info("BEAMLINE_EXEC").config.subjects == [ASSIGN, ACK, RESULT],
        message="nobody holds the subject",
    )
    assert publish(bridge, RESULT).stream == "BEAMLINE_EXEC"


def test_a_narrower_stream_is_widened_and_keeps_its_messages_and_other_settings(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    make_stream(
        nats,
        name="BEAMLINE_EXEC",
        subjects=[ASSIGN, "mine.too"],
        duplicate_window=10,
        max_age=20,
        max_bytes=1_000_000,
        description="as it was",
    )
    nats.publish(ASSIGN, b"kept")
    bridges.start(server.url)
    info = nats.stream_info("BEAMLINE_EXEC")
    assert (info.config.duplicate_window, info.config.max_age) == (120, 3600)
    assert info.config.subjects == [ASSIGN, "mine.too", ACK, RESULT]
    assert (info.config.max_bytes, info.config.description) == (1_000_000, "as it was")
    assert info.state.messages == 1


def test_a_wider_stream_is_not_narrowed_and_the_difference_is_reported(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    make_stream(
        nats,
        name="BEAMLINE_EXEC",
        subjects=list(EXEC.subjects),
        duplicate_window=600,
        max_age=0,
        discard="new",
    )
    bridge = bridges.start(server.url)
    config = nats.stream_info("BEAMLINE_EXEC").config
    assert (config.duplicate_window, config.max_age) == (600, 0)
    assert "duplicate window is 600000 ms, this instance wants 120000 ms" in findings(bridge)
    assert "messages are kept for ever, this instance wants 3600000 ms" in findings(bridge)


def spec_with(minutes: int) -> StreamSpec:
    return dataclasses.replace(
        EXEC, duplicate_window_ms=minutes * MINUTE_MS, max_age_ms=60 * minutes * MINUTE_MS
    )


def test_instances_that_disagree_both_end_up_wide_and_the_narrower_one_reports_it(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    # At the same time, over a stream that is too narrow for all: each reads it before the others' updates, and
    # what it writes may undo one of them. The audits after that are far apart, as in production.
    make_stream(
        nats,
        name="BEAMLINE_EXEC",
        subjects=[ASSIGN],
        duplicate_window=1,
        max_age=10,
        discard="new",
    )
    widest, *others = [
        bridges.start(server.url, streams=(spec_with(minutes),), ready=False)
        for minutes in (5, 4, 3, 2, 1)
    ]
    assert all(bridge.wait_ready(GENEROUS_SECONDS) for bridge in (widest, *others))

    def settled() -> bool:
        config = nats.stream_info("BEAMLINE_EXEC").config
        return (config.duplicate_window, config.max_age) == (300, 5 * 3600)

    wait_until(settled, 10.0, "the widest does not prevail")
    assert findings(widest) == ""
    late = bridges.start(server.url, streams=(spec_with(1),))
    assert "duplicate window is 300000 ms, this instance wants 60000 ms" in findings(late)
    assert settled()


@pytest.mark.parametrize(
    ("settings", "reported"),
    [
        ({"storage": StorageType.MEMORY}, "memory storage"),
        ({"retention": RetentionPolicy.WORK_QUEUE}, "workqueue retention"),
        ({"retention": RetentionPolicy.INTEREST}, "interest retention"),
        ({"duplicate_window": 10}, "duplicate window 10000 ms is shorter than the 120000 ms"),
        ({"max_age": 60, "duplicate_window": 60}, "keeps messages for 60000 ms only"),
        ({"discard": "old"}, "a full stream discards old messages"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_unsafe_about_an_adopted_stream_is_reported_and_does_not_block(
    server: NatsServer,
    nats: NatsSession,
    bridges: RunningBridges,
    settings: dict[str, Any],
    reported: str,
) -> None:
    make_stream(
        nats,
        **{
            "name": "THEIRS",
            "subjects": list(EXEC.subjects),
            "duplicate_window": 120,
            "discard": "new",
            **settings,
        },
    )
    bridge = bridges.start(server.url)
    assert f"THEIRS: {reported}" in findings(bridge)
    assert publish(bridge).stream == "THEIRS"


def test_a_stream_that_cannot_be_made_blocks_and_says_why(
    server: NatsServer, bridges: RunningBridges
) -> None:
    # More replicas than there are servers.
    bridge = bridges.start(server.url, replicas=3, ready=False)
    wait_until(lambda: bridge.health().audited)
    assert "BEAMLINE_EXEC: cannot be made or read" in bridge.health().missing[0]
    assert not bridge.health().ready


def test_too_few_replicas_of_an_existing_stream_are_reported(
    server: NatsServer, nats: NatsSession, bridges: RunningBridges
) -> None:
    make_stream(nats, name=EXEC.name, subjects=list(EXEC.subjects), duplicate_window=120)
    bridge = bridges.start(server.url, replicas=3)
    assert "BEAMLINE_EXEC: 1 replica(s)" in findings(bridge)


def test_an_audit_that_finds_nothing_new_says_it_once(
    server: NatsServer,
    nats: NatsSession,
    bridges: RunningBridges,
    caplog: pytest.LogCaptureFixture,
) -> None:
    make_stream(nats, name="THEIRS", subjects=["caf.>"], storage=StorageType.MEMORY)
    bridges.start(server.url, audit_interval_seconds=0.05)
    audits = server.varz()["in_msgs"]
    wait_until(lambda: server.varz()["in_msgs"] > audits + 12, message="no second audit")
    said = [record for record in caplog.records if "memory storage" in record.getMessage()]
    assert len(said) == 1
