"""Messages that are refused: delivered again with the configured pauses, then one dead letter, then mended.

What the server's advisories tell about each delivery is what is asserted: when, and how often.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import pytest

from gateway.devstack.nats_server import NatsServer
from tests.support.documents import now_ms
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Client, as_tenant
from tests.support.nats_session import NatsSession
from tests.support.operator_command import Ended, beamline_gateway
from tests.support.result_messages import (
    DLQ,
    EXEC,
    RESULT_SUBJECT,
    RESULTS,
    Advisories,
    Letter,
    letters,
    letters_with,
    publish,
    result_body,
    result_headers,
    until_consumed,
    usage_of,
)
from tests.support.stacks import running
from tests.support.waiting import PATIENCE, wait_until
from tests.support.wire import check_headers

MAX_DELIVER = 4
BACKOFF_MS = (100, 300)
PATTERN = "caf.exec.result.*"
LETTER_FIELDS = {
    "original_subject", "msg_id", "reason", "error_code", "timestamp", "headers", "payload",
}  # fmt: skip
#: How much later than asked for a server redelivers; it looks at its clock now and then.
LATER_SECONDS = 1.0 * PATIENCE
#: By how much earlier: the server counts from when it took the NAK.
EARLIER_SECONDS = 0.02
STRICT = {
    "CAF_RESULT_SUBJECT": PATTERN,
    "NATS_SUBJECT_ALLOWLIST": f"{RESULT_SUBJECT},caf.exec.result.v3",
    "GATEWAY_TENANT_ALLOWLIST": "acme,initech",
    "NATS_MAX_DELIVER": str(MAX_DELIVER),
    "NATS_BACKOFF_MS": ",".join(map(str, BACKOFF_MS)),
}


@dataclass(frozen=True)
class Refusing:
    """A gateway with allowlists, and who talks to it."""

    nats: NatsServer
    gateway: GatewayProcess
    worker: NatsSession
    advisories: Advisories

    def command(self, *arguments: str) -> Ended:
        return beamline_gateway(*arguments, nats_url=self.nats.url)


@pytest.fixture(scope="module")
def refusing() -> Iterator[Refusing]:
    """Shared by this module: use messages and ids of your own, replay none of the others'."""
    with (
        running("refusing", STRICT) as started,
        NatsSession(started.nats.url, name="worker") as worker,
        Advisories(started.nats.url) as advisories,
    ):
        yield Refusing(started.nats, started.gateway, worker, advisories)


@pytest.fixture
def client(refusing: Refusing) -> Iterator[Client]:
    with refusing.gateway.client() as client:
        yield client


def the_letter(refusing: Refusing, seq: int) -> Letter:
    """The one dead letter of the message at ``seq``, after its last delivery."""
    refusing.advisories.until_terminated(seq)
    found = [
        letter
        for letter in letters(refusing.worker)
        if letter.message.headers["Nats-Msg-Id"].endswith(f".{seq}")
    ]
    assert len(found) == 1, found
    return found[0]


# -- refused, again and again, then given up -------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A message that is refused, and by which name."""

    code: str
    payload: object
    headers: dict[str, str]
    subject: str = RESULT_SUBJECT


def without(headers: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in names}


CASES = {
    "wrong version": Case("version_unsupported", result_body(), result_headers(version="2")),
    "wrong version in the payload": Case(
        "version_unsupported",
        result_body(version="0"),
        without(result_headers(), "version"),
    ),
    "no Nats-Msg-Id": Case(
        "msg_id_missing", result_body(), without(result_headers(), "Nats-Msg-Id")
    ),
    "subject not allowed": Case(
        "subject_not_allowed", result_body(), result_headers(), "caf.exec.result.v2"
    ),
    "tenant not allowed": Case("tenant_not_allowed", result_body(), result_headers("umbrella")),
    "no tenant": Case("tenant_missing", result_body(), without(result_headers(), "tenant_id")),
    "no headers and no tenant": Case("tenant_missing", result_body(), {}),
    "unreadable": Case("unreadable", b'{"version": "1", \xff\x00', result_headers()),
    "empty": Case("unreadable", b"", result_headers()),
    "no object": Case("unreadable", b"[]", result_headers()),
    "schema": Case("schema_invalid", result_body(status="done", cost="free"), result_headers()),
    "neither id": Case("schema_invalid", result_body(assignment_id=None), result_headers()),
}


@pytest.fixture(scope="module")
def sent(refusing: Refusing) -> dict[str, int]:
    """All cases at once, since their pauses take time: name → sequence."""
    return {
        name: publish(refusing.worker, case.payload, case.headers, subject=case.subject)
        for name, case in CASES.items()
    }


@pytest.mark.parametrize("name", CASES)
def test_a_refused_message_comes_again_with_the_configured_pauses_and_then_no_more(
    refusing: Refusing, sent: dict[str, int], name: str
) -> None:
    told = refusing.advisories.until_terminated(sent[name])
    assert [refusal.deliveries for refusal in told] == list(range(1, MAX_DELIVER + 1))
    assert [refusal.kind for refusal in told] == ["NAKED"] * (MAX_DELIVER - 1) + ["TERMINATED"]
    pauses = [*BACKOFF_MS, BACKOFF_MS[-1]]  # the last one repeats
    for (earlier, later), pause_ms in zip(pairwise(told), pauses, strict=True):
        waited = later.at - earlier.at
        wanted = pause_ms / 1000
        assert wanted - EARLIER_SECONDS <= waited < wanted + LATER_SECONDS, told


@pytest.mark.parametrize("name", CASES)
def test_it_leaves_one_dead_letter_with_the_fields_of_the_contract(
    refusing: Refusing, sent: dict[str, int], name: str
) -> None:
    case = CASES[name]
    letter = the_letter(refusing, sent[name])
    assert letter.message.subject == f"{case.subject}.dlq"
    body, told = letter.body, letter.message.headers
    ids = {key: case.headers[key] for key in ("tenant_id", "trace_id") if key in case.headers}
    assert body.keys() == LETTER_FIELDS | ids.keys()
    assert body["original_subject"] == case.subject
    assert body["error_code"] == case.code
    assert body["reason"]
    assert body["msg_id"] == case.headers.get("Nats-Msg-Id", "")
    assert abs(body["timestamp"] - now_ms()) < 120_000
    assert {key: body[key] for key in ids} == ids
    assert body["headers"] == case.headers
    expected = case.payload if isinstance(case.payload, bytes) else json.dumps(case.payload)
    assert letter.payload == (expected if isinstance(expected, bytes) else expected.encode())
    assert told["x-dlq-reason"] == case.code
    assert told.get("x-original-msg-id", "") == case.headers.get("Nats-Msg-Id", "")
    assert {key: told[key] for key in ids} == ids
    if len(ids) == 2:
        ours = without(dict(told), "x-dlq-reason", "x-original-msg-id")
        check_headers(ours, tenant=ids["tenant_id"], jetstream=True)


def test_what_is_refused_has_no_effect(
    refusing: Refusing, sent: dict[str, int], client: Client
) -> None:
    for name, seq in sent.items():
        refusing.advisories.until_terminated(seq)
        case = CASES[name]
        if isinstance(case.payload, dict) and "assignment_id" in case.payload:
            assignment_id = case.payload["assignment_id"]
            assert usage_of(refusing.worker, assignment_id=assignment_id) == []
            assert client.get(f"{RESULTS}/{assignment_id}").status == 404


def test_the_allowed_subjects_of_a_pattern_are_taken_in(refusing: Refusing, client: Client) -> None:
    for subject in (RESULT_SUBJECT, "caf.exec.result.v3"):
        body = result_body()
        publish(refusing.worker, body, subject=subject)
        answer = client.get(f"{RESULTS}/{body['assignment_id']}?wait_ms=10000")
        assert answer.status == 200, answer


def test_what_is_late_is_given_up_at_its_first_delivery(refusing: Refusing) -> None:
    seq = publish(refusing.worker, result_body(timestamp=now_ms() - 48 * 3_600_000))
    [only] = refusing.advisories.until_terminated(seq)
    assert (only.kind, only.deliveries) == ("TERMINATED", 1)
    assert the_letter(refusing, seq).body["error_code"] == "late"


def test_dead_letters_are_counted_by_reason(refusing: Refusing, sent: dict[str, int]) -> None:
    for seq in sent.values():
        refusing.advisories.until_terminated(seq)
    with refusing.gateway.client(headers={}) as client:
        text = client.get("/metrics").body.decode()
    counted = [line for line in text.splitlines() if "dead_letters_total{" in line]
    for code in {case.code for case in CASES.values()}:
        [line] = [line for line in counted if f'reason="{code}"' in line]
        of_this_code = sum(case.code == code for case in CASES.values())
        assert float(line.split()[-1]) == of_this_code
        assert f'subject="{PATTERN}"' in line


# -- what operators do with them -------------------------------------------------------------------------


def test_operators_see_the_letters(refusing: Refusing, sent: dict[str, int]) -> None:
    letter = the_letter(refusing, sent["tenant not allowed"])
    listed = refusing.command("dlq", "list", "--json", "--tenant", "umbrella")
    assert listed.code == 0, listed
    assert {"seq": letter.seq, **letter.body} in listed.lines()
    assert {line["tenant_id"] for line in listed.lines()} == {"umbrella"}
    for_people = refusing.command("dlq", "list")
    [line] = [x for x in for_people.out.splitlines() if x.split()[0] == str(letter.seq)]
    for part in ("umbrella", RESULT_SUBJECT, "tenant_not_allowed"):
        assert part in line
    shown = refusing.command("dlq", "show", str(letter.seq))
    assert shown.code == 0
    document = json.loads(shown.out)
    assert json.loads(document["payload"]) == CASES["tenant not allowed"].payload
    assert {**document, "payload": letter.body["payload"]} == {"seq": letter.seq, **letter.body}


@pytest.mark.parametrize(
    "arguments",
    [("show", "0"), ("replay", "999999")],
    ids=" ".join,
)
def test_a_letter_that_is_not_there_is_said_in_one_line(
    refusing: Refusing, arguments: tuple[str, ...]
) -> None:
    ended = refusing.command("dlq", *arguments)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.splitlines() == [f"there is no dead letter {arguments[1]}"]


@pytest.mark.parametrize("arguments", [("replay",), ("replay", "1", "--all")])
def test_a_command_that_is_unclear_does_nothing(
    refusing: Refusing, arguments: tuple[str, ...]
) -> None:
    before = refusing.worker.last_sequence(EXEC)
    ended = refusing.command("dlq", *arguments)
    assert ended.code == 2
    assert "Usage:" in ended.err
    assert refusing.worker.last_sequence(EXEC) == before


def test_without_nats_the_commands_say_so() -> None:
    with NatsServer(name="away") as nats:
        nats.kill()
        commands = (("dlq", "list"), ("streams",))
        # At once, since each tries for some seconds.
        with ThreadPoolExecutor() as pool:
            tried = [pool.submit(beamline_gateway, *one, nats_url=nats.url) for one in commands]
        for ended in (one.result() for one in tried):
            assert (ended.code, ended.out) == (3, ""), ended
            assert len(ended.err.splitlines()) == 1
            assert "not connected" in ended.err


def test_a_wrong_environment_is_told_by_its_variable(refusing: Refusing) -> None:
    environment = {"NATS_BACKOFF_MS": "soon"}
    for arguments in (("dlq", "list"), ("streams",)):
        ended = beamline_gateway(*arguments, nats_url=refusing.nats.url, environment=environment)
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith("NATS_BACKOFF_MS:")


def test_streams_tells_what_is_there_and_what_is_not_as_it_should_be(refusing: Refusing) -> None:
    fine = beamline_gateway("streams", nats_url=refusing.nats.url, environment=STRICT)
    assert fine.code == 0, fine
    assert fine.out.splitlines()[-1] == "ready"
    wider = {**STRICT, "NATS_REPLICAS": "3"}
    told = beamline_gateway("streams", "--json", nats_url=refusing.nats.url, environment=wider)
    assert told.code == 0, told
    document = json.loads(told.out)
    assert document["ready"] is True
    found = {finding["resource"]: finding for finding in document["findings"]}
    assert "NATS_REPLICAS" in found[EXEC]["message"] and not found[EXEC]["blocking"]


def test_after_the_cause_is_mended_a_replay_goes_through_once() -> None:
    """A tenant that was forgotten in the settings; its results come in all the same, each once.

    One of them is too large for a letter: that letter says where the message is.
    """
    with NatsServer(name="mending") as nats, NatsSession(nats.url, name="worker") as worker:
        settings = {
            "WEB_CONCURRENCY": "1",
            "GATEWAY_TENANT_ALLOWLIST": "acme",
            "NATS_MAX_DELIVER": "2",
            "NATS_BACKOFF_MS": "10",
        }
        body, headers = result_body(), result_headers("umbrella")
        large, of_large = result_body(padding="x" * 900_000), result_headers("umbrella")
        with GatewayProcess(nats.url, environment=settings):
            publish(worker, body, headers)
            place = publish(worker, large, of_large)
            [letter] = wait_until(lambda: letters_with(worker, headers["Nats-Msg-Id"]))
            [pointer] = wait_until(lambda: letters_with(worker, of_large["Nats-Msg-Id"]))
            until_consumed(worker)
        assert pointer.body["original_at"] == {"stream": EXEC, "seq": place}
        foreign = publish(  # what somebody else put onto the subject
            worker, b"no letter", {"Nats-Msg-Id": "foreign"}, subject=f"{RESULT_SUBJECT}.dlq"
        )

        def replay(*arguments: str) -> Ended:
            return beamline_gateway("dlq", "replay", *arguments, nats_url=nats.url)

        settings["GATEWAY_TENANT_ALLOWLIST"] = "acme,umbrella"
        with (
            GatewayProcess(nats.url, environment=settings) as gateway,
            gateway.client(as_tenant("umbrella")) as client,
        ):
            first = replay(str(letter.seq))
            assert (first.code, first.err) == (0, "")
            assert "already" not in first.out
            answer = client.get(f"{RESULTS}/{body['assignment_id']}?wait_ms=10000")
            assert answer.status == 200, answer
            assert answer.json()["result"]["trace_id"] == headers["trace_id"]
            [sent] = worker.stream_messages(EXEC, after=place)
            assert (sent.subject, sent.payload) == (RESULT_SUBJECT, letter.payload)
            assert sent.headers["Nats-Msg-Id"] != headers["Nats-Msg-Id"]
            assert without(dict(sent.headers), "Nats-Msg-Id", "traceparent") == without(
                headers, "Nats-Msg-Id"
            )
            everything = replay("--all")
            again, new = everything.out.splitlines()
            assert again.startswith(f"{letter.seq} ") and "was replayed already" in again
            assert new.startswith(f"{pointer.seq} ") and "already" not in new
            assert everything.err.splitlines() == [f"{foreign} is not a dead letter of a gateway"]
            assert everything.code == 1
            answer = client.get(f"{RESULTS}/{large['assignment_id']}?wait_ms=10000")
            assert answer.json()["result"]["padding"] == large["padding"]
            until_consumed(worker)
            assert worker.last_sequence(EXEC) == place + 2, "each once, however often"
            for one in (body, large):
                assert len(usage_of(worker, assignment_id=one["assignment_id"])) == 1
            assert worker.last_sequence(DLQ) == foreign, "a letter stays, and no other is written"
        worker.call(worker.jetstream.purge_stream(EXEC))
        lost = replay(str(pointer.seq))
        assert (lost.code, lost.out) == (1, "")
        assert lost.err.splitlines() == [
            f"the message of letter {pointer.seq} is not kept any more"
        ]
        listed = beamline_gateway("dlq", "list", "--json", nats_url=nats.url)
        codes = [line["error_code"] for line in listed.lines()]
        assert codes == ["tenant_not_allowed", "tenant_not_allowed", "foreign"]
