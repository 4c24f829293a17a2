"""The intake over a real server: messages that no worker of ours would send, and what must not happen to them.

Each of them ends: taken in, or one dead letter; none is delivered for ever, and none stands in another's way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from nats.js.api import ConsumerInfo

from bridge import Bridge
from gateway.bridge_config import bridge_config
from gateway.devstack.nats_server import NatsServer
from gateway.intake import DURABLE, ResultIntake
from gateway.settings import Settings
from tests.support.documents import new_id
from tests.support.nats_session import NatsSession
from tests.support.result_messages import (
    EXEC,
    RESULT_SUBJECT,
    Advisories,
    consumer,
    letters,
    letters_with,
    publish,
    publish_all,
    result_body,
    result_headers,
    until_consumed,
    usage_of,
)
from tests.support.waiting import GENEROUS_SECONDS, wait_until

MAX_DELIVER = 3


@contextmanager
def taking_in(nats: NatsServer, **environ: str) -> Iterator[Bridge]:
    """A bridge with the intake, as each worker has one."""
    settings = Settings.from_environ(
        {
            "AUTH_MODE": "headers",
            "TRUSTED_PROXIES": "127.0.0.1",
            "NATS_URL": nats.url,
            "NATS_MAX_DELIVER": str(MAX_DELIVER),
            "NATS_BACKOFF_MS": "50,100",
            "NATS_ACK_WAIT_MS": "2000",
            **environ,
        }
    )
    bridge = Bridge(bridge_config(settings), services=(ResultIntake(settings),))
    bridge.start()
    try:
        assert bridge.wait_ready(GENEROUS_SECONDS), bridge.health()
        yield bridge
    finally:
        bridge.close(5.0)


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    with NatsServer(name="result-intake") as server:
        yield server


@pytest.fixture(scope="module")
def intake(server: NatsServer) -> Iterator[Bridge]:
    """One intake for all tests that stop nothing."""
    with taking_in(server) as bridge:
        yield bridge


@pytest.fixture(scope="module")
def worker(server: NatsServer, intake: Bridge) -> Iterator[NatsSession]:
    """A connection of the tests' own, in a worker's place."""
    with NatsSession(server.url) as session:
        yield session


def consumer_where(session: NatsSession, condition: Callable[[ConsumerInfo], bool]) -> ConsumerInfo:
    """The gateway's consumer, as soon as it is as ``condition`` wants it."""

    def found() -> ConsumerInfo | None:
        info = consumer(session)
        return info if info is not None and condition(info) else None

    info = wait_until(found, message=lambda: f"the consumer is {consumer(session)}")
    assert info is not None
    return info


def nested(levels: int) -> object:
    document: object = 1
    for _ in range(levels):
        document = [document]
    return document


def test_an_unreadable_message_as_large_as_nats_takes_becomes_a_dead_letter(
    worker: NatsSession,
) -> None:
    """Its letter, in base64, would be larger than NATS takes: it must not be tried for ever."""
    headers = result_headers()
    payload = b"\xff" * 900_000
    seq = publish(worker, payload, headers)
    until_consumed(worker)
    [letter] = letters_with(worker, headers["Nats-Msg-Id"])
    assert letter.body["error_code"] == "unreadable"
    assert letter.body["original_subject"] == RESULT_SUBJECT
    assert letter.payload == b""
    assert letter.body["original_at"] == {"stream": EXEC, "seq": seq}


def test_a_result_that_cannot_be_kept_for_its_size_becomes_a_dead_letter(
    worker: NatsSession,
) -> None:
    """Short numbers are longer written out: it would not fit at any delivery."""
    headers = result_headers()
    text = json.dumps(result_body(metadata="numbers"))
    publish(worker, text.replace('"numbers"', f"[{'1e9,' * 200_000}0]").encode(), headers)
    until_consumed(worker)
    [letter] = letters_with(worker, headers["Nats-Msg-Id"])
    assert letter.body["error_code"] == "too_large"
    assert letter.message.headers["x-dlq-reason"] == "too_large"


def test_a_result_nested_too_deeply_ends_within_the_deliveries_allowed(
    server: NatsServer, worker: NatsSession
) -> None:
    headers = result_headers()
    with Advisories(server.url) as advisories:
        seq = publish(worker, result_body(metadata=nested(300)), headers)
        refusals = advisories.until_terminated(seq)
    assert refusals[-1].deliveries <= MAX_DELIVER
    [letter] = letters_with(worker, headers["Nats-Msg-Id"])
    assert letter.body["error_code"] == "unreadable"


@pytest.mark.parametrize("levels", [400, 2_000])
def test_a_payload_that_is_nothing_but_nesting_becomes_a_dead_letter(
    worker: NatsSession, levels: int
) -> None:
    headers = result_headers()
    publish(worker, b"[" * levels + b"]" * levels, headers)
    until_consumed(worker)
    [letter] = letters_with(worker, headers["Nats-Msg-Id"])
    assert letter.body["error_code"] == "unreadable"


def test_headers_that_are_not_text_do_not_stop_the_dead_letter(
    server: NatsServer, worker: NatsSession
) -> None:
    """Bytes above 127 in a header come as what no JSON and no header can hold."""
    before = len(letters(worker))
    raw = b"NATS/1.0\r\nNats-Msg-Id: raw-1\r\nversion: \xff\xfe\r\ntenant_id: acme\xff\r\n\r\n"
    body = b"not json"
    with Advisories(server.url) as advisories:
        seq = publish_raw(worker, RESULT_SUBJECT, raw, body)
        assert advisories.until_terminated(seq)[-1].deliveries == MAX_DELIVER
    found = letters(worker)[before:]
    assert [letter.payload for letter in found] == [body]


def publish_raw(session: NatsSession, subject: str, headers: bytes, payload: bytes) -> int:
    """Store a message whose header block is exactly these bytes, which nats-py would not write; its sequence."""
    before = session.last_sequence(EXEC)

    async def work() -> None:
        client = session.client
        command = f"HPUB {subject} {len(headers)} {len(headers) + len(payload)}\r\n".encode()
        await client._send_command(command + headers + payload + b"\r\n")
        await client.flush()

    session.call(work())
    return wait_until(lambda: seq if (seq := session.last_sequence(EXEC)) > before else 0)


def test_a_poisoned_queue_does_not_stand_in_the_way_of_good_results(worker: NatsSession) -> None:
    """More bad messages at once than are worked on at a time, then one good one."""
    for _ in range(100):
        publish(worker, b"not json")
    body = result_body()
    publish(worker, body)
    wait_until(lambda: usage_of(worker, assignment_id=body["assignment_id"]))
    until_consumed(worker)


def test_the_intake_makes_its_consumer_again_with_what_is_set_now(server: NatsServer) -> None:
    """A new release waits shorter for an acknowledgement; the durable stays, with its position."""
    with NatsServer(name="settings") as nats, NatsSession(nats.url) as session:
        with taking_in(nats, NATS_ACK_WAIT_MS="9000"):
            publish(session, result_body())
            until_consumed(session)
        with taking_in(nats, NATS_ACK_WAIT_MS="1000"):
            found = consumer_where(session, lambda info: info.config.ack_wait == 1)
            assert found.delivered is not None and found.delivered.stream_seq == 1
            assert found.config.durable_name == DURABLE


def test_the_subject_of_results_may_become_a_pattern_and_again_a_subject(
    server: NatsServer,
) -> None:
    """Old and new instances run side by side during a release; neither is stopped by the other's streams."""
    with NatsServer(name="subjects") as nats, NatsSession(nats.url) as session:
        for pattern in (RESULT_SUBJECT, "caf.exec.result.*", RESULT_SUBJECT):
            with taking_in(nats, CAF_RESULT_SUBJECT=pattern):
                body = result_body()
                publish(session, body)
                wait_until(lambda b=body: usage_of(session, assignment_id=b["assignment_id"]))  # type: ignore[misc]
                publish(session, b"not json", headers := result_headers())
                until_consumed(session)
                assert len(letters_with(session, headers["Nats-Msg-Id"])) == 1


def test_what_a_stopping_intake_had_in_its_hands_is_taken_by_the_next_at_once(
    server: NatsServer,
) -> None:
    """Not after the acknowledgement's time: that is half a minute by default, at every release."""
    with NatsServer(name="release") as nats, NatsSession(nats.url) as session:
        with taking_in(nats):
            pass  # makes the streams
        publish_all(session, [result_body() for _ in range(300)])
        with taking_in(nats, NATS_ACK_WAIT_MS="600000"):
            wait_until(lambda: (info := consumer(session)) and info.num_ack_pending)
        with taking_in(nats, NATS_ACK_WAIT_MS="600000"):
            until_consumed(session)
        events = usage_of(session)
        assert len(events) == 300


def test_a_letter_of_a_payload_tenant_names_the_tenant(worker: NatsSession) -> None:
    """Headers win, then the payload: operators look for letters by tenant."""
    msg_id, trace_id = new_id("msg"), "b" * 32
    headers = {"Nats-Msg-Id": msg_id}
    body = result_body(tenant_id="umbrella", trace_id=trace_id, status="no such status")
    publish(worker, body, headers)
    until_consumed(worker)
    [letter] = letters_with(worker, msg_id)
    assert letter.body["tenant_id"] == "umbrella" == letter.message.headers["tenant_id"]
    assert letter.body["trace_id"] == trace_id == letter.message.headers["trace_id"]


def test_a_consumer_that_somebody_narrowed_is_put_right(server: NatsServer) -> None:
    """An operator's hand on the durable is not the gateway's end."""
    with NatsServer(name="narrowed") as nats, NatsSession(nats.url) as session:
        with taking_in(nats):
            made = consumer_where(session, lambda _: True)
        narrowed = replace(made.config, ack_wait=500.0, max_deliver=1)
        session.call(session.jetstream.add_consumer(EXEC, narrowed))
        with taking_in(nats):
            found = consumer_where(session, lambda info: info.config.max_deliver == -1)
            assert found.config.ack_wait == 2
