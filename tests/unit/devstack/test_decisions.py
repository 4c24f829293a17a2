"""The reference Router's decisions, replies and assignments, without NATS."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.devstack import answers
from gateway.devstack.contract import (
    DecideRequest,
    Intake,
    envelope_headers,
    read_decide_request,
    read_exec_assignment,
)
from gateway.devstack.digest import stable_digest
from gateway.devstack.providers import Catalogue, Provider, provider
from tests.unit.devstack.messages import (
    FULL_DECIDE,
    LEAST_DECIDE,
    REQUEST_HEADERS,
    TRACE,
    changed,
    refusal,
)

CATALOGUE = Catalogue.from_environ({})
NONE_GONE: frozenset[str] = frozenset()


def request(**changes: object) -> DecideRequest:
    message: dict[str, Any] = dict(LEAST_DECIDE)
    for path, value in changes.items():
        message = changed(message, path.replace("__", "."), value)
    return read_decide_request(orjson.dumps(message), REQUEST_HEADERS)


def decide(asked: DecideRequest, gone: frozenset[str] = NONE_GONE) -> dict[str, Any]:
    decision = answers.decide(asked, CATALOGUE, gone)
    assert decision is not None
    return decision


def chosen(text: str, gone: frozenset[str] = NONE_GONE) -> str:
    return str(decide(request(task__payload={"text": text}), gone)["provider_id"])


TEXTS = [f"question {number}" for number in range(200)]


def test_the_same_question_gets_the_same_provider_whatever_its_ids() -> None:
    first = decide(request(request_id="r-1"))
    second = decide(request(request_id="r-2", assignment_id="a-2", trace_id=TRACE))
    assert first["provider_id"] == second["provider_id"]


def test_the_choice_is_the_same_in_every_process_and_version() -> None:
    assert decide(request())["provider_id"] == "anthropic:claude-sonnet"


def test_different_questions_spread_over_all_providers() -> None:
    counts = [list(map(chosen, TEXTS)).count(name) for name in set(map(chosen, TEXTS))]
    assert len(counts) == 4
    assert min(counts) > len(TEXTS) / 4 / 2


def test_a_provider_that_goes_away_moves_only_its_own_questions() -> None:
    gone = frozenset({"mistral:large"})
    for text in TEXTS:
        before, after = chosen(text), chosen(text, gone)
        assert after == before if before not in gone else after not in gone


def test_the_policy_that_takes_a_provider_away_moves_only_its_questions() -> None:
    for text in TEXTS[:40]:
        ordinary = chosen(text)
        asked = request(task__payload={"text": text}, policy_id="without:mistral:large")
        without = decide(asked, frozenset({"mistral:large"}))["provider_id"]
        assert without == ordinary or ordinary == "mistral:large"


def test_no_provider_left_is_no_decision() -> None:
    assert answers.decide(request(), Catalogue(["only"]), frozenset({"only"})) is None


@pytest.mark.parametrize("name", ["openai:gpt-4o", "local:llama"])
def test_the_preferred_provider_is_taken_and_told(name: str) -> None:
    decision = decide(request(metadata={"preferred_provider_id": name}))
    assert decision["provider_id"] == name
    assert decision["reason"] == "preferred"
    assert decision["metadata"]["preferred_provider_id"] == name


@pytest.mark.parametrize("name", ["nobody:knows", "mistral:large"])
def test_a_preferred_provider_that_is_gone_is_told_and_not_taken(name: str) -> None:
    asked = request(metadata={"preferred_provider_id": name})
    decision = decide(asked, frozenset({"mistral:large"}))
    assert decision["provider_id"] != name
    assert decision["reason"] == "preferred_unavailable"
    assert decision["metadata"]["preferred_provider_id"] == name


def test_a_decision_has_the_contracts_fields_and_says_whose_it_is() -> None:
    decision = decide(request(request_id="r-77"))
    assert set(decision) == {
        "provider_id",
        "priority",
        "expected_latency_ms",
        "expected_cost",
        "reason",
        "metadata",
    }
    assert decision["metadata"] == {"router": "reference", "request_id": "r-77"}


def test_the_environment_lists_the_providers() -> None:
    catalogue = Catalogue.from_environ({"REFERENCE_ROUTER_PROVIDERS": " mistral:large , own:one,"})
    assert "own:one" in catalogue and "openai:gpt-4o" not in catalogue
    assert provider("own:one") == Provider("own:one")
    assert Catalogue.from_environ({"REFERENCE_ROUTER_PROVIDERS": ""}).choose(b"q") is not None


def test_a_success_has_the_context_of_its_request() -> None:
    asked = request(request_id="r-1")
    reply = answers.success(asked, decide(asked))
    assert reply["ok"] is True
    assert reply["context"] == {"request_id": "r-1", "trace_id": TRACE}


def test_a_runtime_error_keeps_the_request_id_and_an_intake_error_loses_it() -> None:
    asked = request(request_id="r-1")
    runtime = answers.failure("decision_failed", "no", request=asked)
    assert runtime["context"] == {"request_id": "r-1", "trace_id": TRACE}
    assert "intake_error_code" not in runtime["error"]
    intake = answers.failure("invalid_request", "no", request=asked, intake="PAYLOAD_TOO_SMALL")
    assert intake["context"] == {"trace_id": TRACE}
    assert intake["error"]["intake_error_code"] == "PAYLOAD_TOO_SMALL"


@pytest.mark.parametrize(
    ("path", "value", "code", "intake"),
    [
        ("version", "2", "invalid_request", Intake.VERSION_UNSUPPORTED),
        ("tenant_id", "globex", "unauthorized", Intake.TENANT_FORBIDDEN),
        ("extra", 1, "invalid_request", Intake.SCHEMA_VALIDATION_FAILED),
        ("trace_id", "x", "invalid_request", Intake.CORRELATION_FIELDS_INVALID),
    ],
)
def test_a_refusal_has_the_codes_of_the_contracts_table(
    path: str, value: object, code: str, intake: Intake
) -> None:
    error = refusal(read_decide_request, changed(FULL_DECIDE, path, value), REQUEST_HEADERS)
    reply = answers.intake_failure(error, TRACE)
    assert reply["ok"] is False
    assert reply["error"]["code"] == code
    assert reply["error"]["intake_error_code"] == intake
    assert reply["error"]["details"]["violations"][0]["field"] == path
    assert reply["context"] == {"trace_id": TRACE}
    orjson.dumps(reply)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"assignment_id": "a-1"},
        {"task": {"type": "chat", "payload_ref": "s3://a"}},
    ],
)
def test_an_assignment_keeps_the_contract(changes: dict[str, object]) -> None:
    asked = request(**changes)
    published = answers.assignment(asked, decide(asked))
    headers = envelope_headers(asked.envelope, answers.assignment_msg_id(published))
    read = read_exec_assignment(orjson.dumps(published), headers)
    assert read.request_id == asked.request_id
    assert read.assignment_id == (asked.assignment_id or published["assignment_id"])
    assert read.provider_id == published["decision"]["provider_id"]
    assert read.envelope.trace_id == TRACE


def test_an_assignment_without_an_id_gets_one_that_follows_from_the_request() -> None:
    ids = [
        answers.assignment(request(request_id=name), decide(request()))["assignment_id"]
        for name in ("r-1", "r-1", "r-2")
    ]
    assert ids[0] == ids[1] != ids[2]


def test_a_digest_keeps_its_parts_apart() -> None:
    assert stable_digest("a-b", "c") != stable_digest("a", "b-c") != stable_digest("a", "b", "c")
    assert stable_digest("a", b"b") == stable_digest("a", "b")


def test_message_ids_tell_tenants_and_assignments_apart() -> None:
    pairs = [("a-b", "c"), ("a", "b-c"), ("a", "b"), ("b", "a")]
    ids = {answers.assignment_msg_id({"tenant_id": t, "assignment_id": a}) for t, a in pairs}
    assert len(ids) == len(pairs)


def test_a_request_without_a_preference_of_text_has_none() -> None:
    assert request(metadata={"preferred_provider_id": ["x"]}).preferred_provider_id is None
