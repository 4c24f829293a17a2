"""Letters that no gateway wrote: whoever may publish to a dead-letter subject does not borrow an operator's rights.

An operator may write keys; a worker may not, but it may write what looks like a dead letter. Replayed, that must go
nowhere but where the letter's own subject says.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.devstack.nats_server import NatsServer
from tests.support.nats_session import NatsSession
from tests.support.operators import IN_NATS, Operator
from tests.support.result_messages import DLQ, EXEC, RESULT_SUBJECT, publish

KEYS_STREAM = "KV_BEAMLINE_APIKEYS"
KEY_SUBJECT = f"$KV.BEAMLINE_APIKEYS.{'0' * 64}"
LETTER = {
    "original_subject": RESULT_SUBJECT,
    "msg_id": "m-1",
    "reason": "as told",
    "error_code": "invalid",
    "timestamp": 1_700_000_000_000,
    "headers": {},
    "payload": base64.b64encode(b'{"tenant_id": "umbrella"}').decode(),
}
FOREIGN: dict[str, dict[str, Any]] = {
    "a key's entry": {"original_subject": KEY_SUBJECT},
    "the API of JetStream": {"original_subject": f"$JS.API.STREAM.DELETE.{KEYS_STREAM}"},
    "every subject": {"original_subject": ">"},
    "a time beyond the calendar": {"timestamp": 10**18},
    "a payload that is none": {"payload": "!"},
    "a header that is none": {"headers": {"a": 1}},
    "a stream with dots": {"payload": "", "original_at": {"stream": "A.>", "seq": 1}},
    "a stream that is none": {"payload": "", "original_at": 7},
}


@pytest.fixture(scope="module")
def nats() -> Iterator[NatsServer]:
    with NatsServer(name="forged") as server:
        yield server


@pytest.fixture(scope="module")
def operator(nats: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """One who may do everything, as who looks after all of NATS can; the streams are made."""
    folder: Path = tmp_path_factory.mktemp("forged")
    operator = Operator(folder, nats.url, IN_NATS)
    operator.make_key()
    assert operator.run("roles", "show").code == 1  # makes the bucket
    assert operator.run("streams").code == 0
    return operator


@pytest.fixture
def worker(nats: NatsServer, operator: Operator) -> Iterator[NatsSession]:
    with NatsSession(nats.url, name="worker") as session:
        yield session


def forge(worker: NatsSession, **forged: Any) -> int:
    return publish(worker, {**LETTER, **forged}, {}, subject=f"{RESULT_SUBJECT}.dlq")


def test_a_forged_letter_is_listed_as_what_it_is_and_never_sent(
    operator: Operator, worker: NatsSession
) -> None:
    forged = {forge(worker, **fields): what for what, fields in FOREIGN.items()}
    before = [worker.last_sequence(stream) for stream in (EXEC, KEYS_STREAM)]
    listed = operator.run("dlq", "list", "--json")
    assert listed.code == 0, listed
    codes = {line["seq"]: line["error_code"] for line in listed.lines()}
    assert {forged[seq]: codes[seq] for seq in forged} == dict.fromkeys(FOREIGN, "foreign")
    assert operator.run("dlq", "list").code == 0
    shown = operator.run("dlq", "show", str(min(forged)))
    assert shown.code == 0 and KEY_SUBJECT in json.loads(shown.out)["payload"]
    replayed = operator.run("dlq", "replay", *map(str, forged))
    assert (replayed.code, replayed.out) == (1, ""), replayed
    assert len(replayed.err.splitlines()) == len(forged)
    assert [worker.last_sequence(stream) for stream in (EXEC, KEYS_STREAM)] == before
    targets = {f"{DLQ}/{seq}" for seq in forged}
    outcomes = [line["outcome"] for line in operator.records() if line["target"] in targets]
    assert outcomes == ["started", "failed"] * len(forged)


def test_a_letter_that_points_to_another_subjects_message_does_not_send_it(
    operator: Operator, worker: NatsSession
) -> None:
    """An old entry of a key, sent again, would be a key again that was revoked."""
    [entry, *_] = worker.stream_messages(KEYS_STREAM)
    seq = forge(worker, payload="", original_at={"stream": KEYS_STREAM, "seq": entry.seq})
    before = [worker.last_sequence(stream) for stream in (EXEC, KEYS_STREAM)]
    replayed = operator.run("dlq", "replay", str(seq))
    assert (replayed.code, replayed.out) == (1, ""), replayed
    assert [worker.last_sequence(stream) for stream in (EXEC, KEYS_STREAM)] == before


def test_a_letter_as_gateways_write_it_is_sent(operator: Operator, worker: NatsSession) -> None:
    before = worker.last_sequence(EXEC)
    seq = forge(worker)
    assert operator.run("dlq", "replay", str(seq)).code == 0
    [message] = worker.stream_messages(EXEC, after=before)
    assert (message.subject, message.payload) == (RESULT_SUBJECT, b'{"tenant_id": "umbrella"}')
