"""The crash matrix's own parts: a checker that finds nothing must be one that would find something."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.faults.checker import Row, check
from tests.faults.executions import Execution, Executions, overlapping
from tests.faults.scenarios import ASK, ASSIGN, METER, Attempt, Request, Scenario, request
from tests.support.faults_proxy import Verdict
from tests.support.faults_trail import Position, Trail
from tests.support.faults_wire import WireEvent, WireParser
from tests.support.http_client import Answer
from tests.support.nats_session import StoredMessage

LEASE = 1.0
REPLAYED = (("Idempotency-Replayed", "true"),)


def receipt(seq: int, *, emitted: bool = True) -> dict[str, Any]:
    return {"ok": True, "emitted": emitted, "seq": seq}


def answered(
    status: int, body: dict[str, Any], headers: tuple[tuple[str, str], ...] = ()
) -> Answer:
    return Answer(status, headers, json.dumps(body).encode(), 0.01)


def asked(scenario: Scenario, *answers: Answer | None) -> Request:
    """A request whose attempts, a second each, ended so."""
    made = request(scenario, "a fault")
    for number, answer in enumerate(answers):
        made.add(Attempt(f"attempt-{number}", float(number), number + 1.0, answer))
    return made


def stored(made: Request, *sequences: int) -> list[StoredMessage]:
    payload = json.dumps({"assignment_id": made.assignment_id}).encode()
    return [StoredMessage(seq, made.scenario.subject, {}, payload) for seq in sequences]


def judged(*requests: Request, messages: list[StoredMessage]) -> Row:
    [row] = check(requests, messages, Executions(), LEASE)
    return row


def test_a_request_that_was_cut_and_settled_is_sound() -> None:
    made = asked(ASSIGN, None, answered(202, receipt(7), REPLAYED))
    row = judged(made, messages=stored(made, 7))
    assert row.sound, row
    assert (row.accepted, row.stored, row.attempts, row.cut, row.longest) == (1, 1, 2, 1, 2.0)


def test_an_accepted_request_that_is_on_no_stream_is_lost() -> None:
    row = judged(asked(ASSIGN, answered(202, receipt(7))), messages=[])
    assert (row.lost, row.stored, row.sound) == (1, 0, False)


def test_a_receipt_that_names_another_place_is_a_loss() -> None:
    made = asked(METER, answered(202, receipt(8)))
    assert judged(made, messages=stored(made, 7)).lost == 1


def test_an_id_that_is_stored_twice_is_a_duplicate_even_if_nobody_was_told() -> None:
    made = asked(ASSIGN, None, answered(202, receipt(7)))
    row = judged(made, messages=stored(made, 7, 9))
    assert (row.duplicates, row.lost, row.sound) == (1, 0, False)


def test_a_request_that_is_never_settled_is_unknown() -> None:
    made = asked(ASSIGN, None, answered(503, {"ok": False}))
    row = judged(made, messages=[])
    assert (row.unknown, row.sound) == (1, False)


@pytest.mark.parametrize(
    "second",
    [
        answered(202, receipt(9), REPLAYED),  # another body
        answered(202, receipt(7)),  # claims to be the first, too
        answered(200, receipt(7, emitted=False), REPLAYED),  # somebody else's event
        answered(409, {"ok": False, "error": {"code": "idempotency_conflict"}}),
        answered(500, {"ok": False}),
    ],
)
def test_a_second_answer_that_is_not_the_first_one_again_is_a_problem(second: Answer) -> None:
    made = asked(METER, answered(202, receipt(7)), second)
    assert not judged(made, messages=stored(made, 7)).sound


def test_a_decision_that_is_not_the_one_kept_is_lost() -> None:
    made = asked(ASK, answered(200, {"decision": "a"}))
    made.stored_outcome = {"decision": "b"}
    assert judged(made, messages=[]).lost == 1
    made.stored_outcome = {"decision": "a"}
    assert judged(made, messages=[]).sound


def test_executions_that_share_a_lease_are_found() -> None:
    made = asked(ASK, None, None)
    first, second = (Execution(f"attempt-{number}", at) for number, at in ((0, 0.1), (1, 0.9)))
    assert overlapping([first, second], [made], LEASE)
    assert overlapping([first, Execution("attempt-0", 5.0)], [made], LEASE)


def test_executions_a_lease_apart_or_after_a_release_are_allowed() -> None:
    cut = asked(ASK, None, None)
    assert not overlapping(
        [Execution("attempt-0", 0.1), Execution("attempt-1", 1.05)], [cut], LEASE
    )
    released = asked(ASK, answered(504, {"ok": False}), None)
    pair = [Execution("attempt-0", 0.1), Execution("attempt-1", 0.9)]
    assert not overlapping(pair, [released], LEASE)


# -- the proxy's eyes -----------------------------------------------------------------------------------

CLIENT_SENDS = (
    b'CONNECT {"name":"beamline-gateway/7"}\r\nPING\r\nSUB _INBOX.a.* 1\r\n'
    b"HPUB $KV.B.key _INBOX.a.1 12 20\r\nNATS/1.0\r\n\r\ntrace-id\r\n"
    b"PUB plain 2\r\n\r\n\r\n"
)
SERVER_SENDS = (
    b'INFO {"max_payload":1}\r\nPONG\r\n+OK\r\n'
    b'MSG _INBOX.a.1 1 26\r\n{"stream":"S", "seq": 12  }\r\n'
    b"HMSG other 2 reply.to 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(("sent", "from_client"), [(CLIENT_SENDS, True), (SERVER_SENDS, False)])
def test_events_are_cut_alike_however_they_arrive(
    sent: bytes, from_client: bool, size: int
) -> None:
    parser = WireParser(from_client=from_client)
    pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
    events = [event for piece in pieces for event in parser.feed(piece)]
    assert b"".join(event.raw for event in events) == sent
    seen = [(event.verb, event.subject, event.reply) for event in events]
    assert seen == (
        [
            ("CONNECT", "", ""),
            ("PING", "", ""),
            ("SUB", "", ""),
            ("HPUB", "$KV.B.key", "_INBOX.a.1"),
            ("PUB", "plain", ""),
        ]
        if from_client
        else [
            ("INFO", "", ""),
            ("PONG", "", ""),
            ("+OK", "", ""),
            ("MSG", "_INBOX.a.1", ""),
            ("HMSG", "other", "reply.to"),
        ]
    )


def published(subject: str, payload: bytes, reply: str = "") -> WireEvent:
    return WireEvent(True, "PUB", payload, subject, reply, payload)


def received(subject: str, payload: bytes) -> WireEvent:
    return WireEvent(False, "MSG", payload, subject, "", payload)


def test_a_trail_follows_a_request_through_its_replies_its_key_and_its_sequence() -> None:
    trail = Trail()
    trail.follow("trace-id")
    read = "$JS.API.STREAM.MSG.GET."
    for event in (
        published("$KV.B.the-key", b"trace-id", "inbox.1"),
        published("$JS.API.CONSUMER.MSG.NEXT.S.c", b"{}", "inbox.9"),  # somebody else's
        received("inbox.1", b'{"error": "exists"}'),
        published(read + "KV_B", b'{"last_by_subj": "$KV.B.the-key"}', "inbox.2"),
        received("inbox.9", b"nothing"),
        received("inbox.2", b"the record"),
        published("usage", b"trace-id", "inbox.3"),
        received("inbox.3", b'{"stream":"S", "seq":12,"duplicate": true}'),
        published(read + "S", b'{"seq": 13}', "inbox.4"),  # somebody else's
        published(read + "S", b'{"seq": 12}', "inbox.5"),
        received("inbox.5", b"the original"),
    ):
        assert trail.judge(event, "") is Verdict.FORWARD
    assert trail.labels == (
        "$KV.B",
        "answer to $KV.B",
        read + "KV_B",
        f"answer to {read}KV_B",
        "usage",
        "answer to usage",
        read + "S",
        f"answer to {read}S",
    )


def test_a_fault_strikes_once_and_at_its_position_only() -> None:
    trail = Trail()
    trail.arm(Position(1, after=True))
    trail.follow("trace-id")
    events = [published("a", b"trace-id", "inbox.1"), received("inbox.1", b""), received("x", b"")]
    verdicts = [trail.judge(event, "") for event in events + events]
    assert verdicts.count(Verdict.FORWARD_THEN_STRIKE) == 1
    assert verdicts[1] is Verdict.FORWARD_THEN_STRIKE
    assert trail.struck
