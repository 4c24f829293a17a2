"""Every request of the corpus gets the answer that its file names, and invalid ones cause no message."""

from __future__ import annotations

import json

import pytest

from tests.support.corpus import all_cases, case_names, load
from tests.support.documents import ACKS, ASSIGNMENTS, DECIDE, USAGE
from tests.support.http_client import Client
from tests.support.nats_tap import NatsTap
from tests.support.scripted_router import DECIDE_SUBJECT
from tests.support.stacks import Running
from tests.support.wire import USAGE_FIELDS, check_decide, check_error_body, check_headers

SUBJECTS = {
    DECIDE: DECIDE_SUBJECT,
    ASSIGNMENTS: "caf.exec.assign.v1",
    ACKS: "caf.exec.assign.v1.ack",
    USAGE: "beamline.usage.v1.metered",
}


@pytest.mark.parametrize("name", case_names("valid"))
def test_valid_request_is_answered_and_its_message_keeps_the_contract(
    name: str, client: Client, tap: NatsTap
) -> None:
    case = load(name)
    answer = case.send(client)
    case.check(answer)
    assert answer.json()["ok"] is True
    subject = SUBJECTS[case.path]
    message = tap.wait_for(1, subject)[0]
    check_headers(message.headers, tenant="acme", jetstream=subject != DECIDE_SUBJECT)
    document = json.loads(message.payload)
    assert document["version"] == "1"
    assert document["tenant_id"] == "acme"
    if subject == DECIDE_SUBJECT:
        check_decide(document, message.headers)
    if case.path == USAGE:
        assert set(document) <= USAGE_FIELDS


@pytest.mark.parametrize("name", case_names("invalid"))
def test_invalid_request_is_refused_and_causes_no_message(
    name: str, client: Client, tap: NatsTap
) -> None:
    case = load(name)
    answer = case.send(client)
    case.check(answer)
    unauthenticated = answer.status == 401 or "unauthenticated" in name
    check_error_body(
        answer,
        tenant=None if unauthenticated or answer.status in (403, 404, 405) else "acme",
    )
    if answer.status == 401:
        assert answer.header("WWW-Authenticate"), answer
    if answer.status == 405:
        assert answer.header("Allow"), answer
    tap.settle()
    assert tap.messages() == []


def test_all_invalid_requests_together_cause_no_message(stack: Running, tap: NatsTap) -> None:
    """A message that comes late would come before those of valid requests sent afterwards."""
    with stack.gateway.client() as client:
        for case in all_cases("invalid"):
            case.send(client)
        later = [load("valid/decide/minimal_chat") for _ in range(16)]
        for case in later:
            case.check(case.send(client))
    tap.wait_for(len(later), DECIDE_SUBJECT)
    tap.settle()
    assert len(tap.messages()) == len(later)


def test_corpus_covers_every_endpoint_on_both_sides() -> None:
    cases = {kind: list(all_cases(kind)) for kind in ("valid", "invalid")}
    assert sum(map(len, cases.values())) >= 80
    for kind, found in cases.items():
        assert set(SUBJECTS) <= {case.path for case in found}, kind
