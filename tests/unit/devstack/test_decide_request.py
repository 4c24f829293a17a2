"""The Router's intake: what it takes and what it refuses, field by field."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.devstack.contract import ContractError, Intake, Task, read_decide_request
from tests.unit.devstack.messages import (
    FULL_DECIDE,
    LEAST_DECIDE,
    MISSING,
    REQUEST_HEADERS,
    TRACE,
    TRACE_AS_UUID,
    ULID,
    UUID4,
    assert_only,
    changed,
    refusal,
)

SCHEMA = Intake.SCHEMA_VALIDATION_FAILED
CORRELATION = Intake.CORRELATION_FIELDS_INVALID


def accepted(message: object) -> Any:
    return read_decide_request(orjson.dumps(message), REQUEST_HEADERS)


def test_the_least_request_is_accepted_and_its_optionals_are_empty() -> None:
    request = accepted(LEAST_DECIDE)
    assert request.request_id == "request-1"
    assert request.task == Task("chat", payload={"text": "hello there"})
    assert request.envelope.tenant_id == "acme"
    assert request.envelope.trace_id == TRACE
    assert request.envelope.cp_phase == "cp2"
    assert (request.policy_id, request.assignment_id, request.idempotency_key) == (None,) * 3
    assert request.push_assignment is False
    assert (request.constraints, request.metadata, request.context) == ({}, {}, {})
    assert request.preferred_provider_id is None


def test_a_request_with_every_field_is_accepted_and_read() -> None:
    request = accepted(FULL_DECIDE)
    assert request.policy_id == "default"
    assert request.assignment_id == "assignment-1"
    assert request.idempotency_key == "key with spaces"
    assert request.push_assignment is True
    assert request.constraints == {"region": "eu"}
    assert request.context == {"session_id": "s-1", "anything": [None, {}]}
    assert request.preferred_provider_id == "mistral:large"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("tenant_id", "acme"),
        ("request_id", "!" * 128),
        ("request_id", UUID4),
        ("trace_id", TRACE.upper()),
        ("trace_id", TRACE_AS_UUID),
        ("task", {"type": "chat", "payload_ref": "s3://bucket/key"}),
        ("task", {"type": "translate", "payload": {"any": ["thing", None]}}),
        ("task", {"type": "ü", "payload": {"a": 12345678}}),
        ("task.payload", {"text": "", "role": "user", "metadata": {"a": None}}),
        ("task", {"type": "completion", "payload": {"prompt": ""}}),
        (
            "task",
            {"type": "completion", "payload": {"prompt": "a", "max_tokens": 5, "temperature": 0.5}},
        ),
        ("task", {"type": "completion", "payload": {"prompt": "a", "temperature": 1}}),
        ("task", {"type": "embedding", "payload": {"input": "some text"}}),
        ("task", {"type": "embedding", "payload": {"input": ["a", "b"], "metadata": {}}}),
        ("policy_id", "A-z_0.9:" * 16),
        ("push_assignment", False),
        ("assignment_id", "~"),
        ("idempotency_key", "k"),
        ("idempotency_key", "k" * 256),
        ("idempotency_key", "ü" * 128),
        ("metadata", {"preferred_provider_id": 7}),
        ("context", {}),
    ],
)
def test_accepts(path: str, value: object) -> None:
    accepted(changed(FULL_DECIDE, path, value))


@pytest.mark.parametrize("name", ["version", "tenant_id", "request_id", "task"])
def test_a_required_field_cannot_be_left_out(name: str) -> None:
    error = refusal(read_decide_request, changed(LEAST_DECIDE, name, MISSING), REQUEST_HEADERS)
    assert_only(error, name, SCHEMA)


@pytest.mark.parametrize("name", sorted(FULL_DECIDE))
def test_no_field_may_be_null(name: str) -> None:
    error = refusal(read_decide_request, changed(FULL_DECIDE, name, None), REQUEST_HEADERS)
    assert {violation.where for violation in error.violations} == {name}


@pytest.mark.parametrize(
    ("path", "value", "intake"),
    [
        ("version", "2", Intake.VERSION_UNSUPPORTED),
        ("version", 1, Intake.VERSION_UNSUPPORTED),
        ("version", "1.0", Intake.VERSION_UNSUPPORTED),
        ("tenant_id", "globex", Intake.TENANT_FORBIDDEN),
        ("tenant_id", "", SCHEMA),
        ("tenant_id", "a b", SCHEMA),
        ("tenant_id", "a/b", SCHEMA),
        ("tenant_id", "a" * 65, SCHEMA),
        ("tenant_id", "acme\n", SCHEMA),
        ("tenant_id", 7, SCHEMA),
        ("request_id", "", SCHEMA),
        ("request_id", "a b", SCHEMA),
        ("request_id", "ü", SCHEMA),
        ("request_id", "a\x7f", SCHEMA),
        ("request_id", "a" * 129, SCHEMA),
        ("request_id", 1, SCHEMA),
        ("trace_id", "xyz", CORRELATION),
        ("trace_id", "0" * 32, CORRELATION),
        ("trace_id", TRACE[:-1], CORRELATION),
        ("trace_id", f"00-{TRACE}-00f067aa0ba902b7-01", CORRELATION),
        ("trace_id", "4bf92f35-77b3-1da6-a3ce-929d0e0e4736", CORRELATION),
        ("trace_id", 7, CORRELATION),
        ("trace_id", "a" * 32, CORRELATION),
        ("task", [], SCHEMA),
        ("task.type", "", SCHEMA),
        ("task.type", 7, SCHEMA),
        ("task.type", MISSING, SCHEMA),
        ("task.payload", MISSING, SCHEMA),
        ("task.payload", "text", SCHEMA),
        ("task.payload", [1, 2, 3, 4, 5, 6], SCHEMA),
        ("task.payload", None, SCHEMA),
        ("task.payload.text", MISSING, SCHEMA),
        ("task.payload.text", 7, SCHEMA),
        ("task.payload.text", None, SCHEMA),
        ("task.payload.role", None, SCHEMA),
        ("task.payload.role", ["user"], SCHEMA),
        ("task.payload.metadata", "none", SCHEMA),
        ("policy_id", "", SCHEMA),
        ("policy_id", "a b", SCHEMA),
        ("policy_id", "a/b", SCHEMA),
        ("policy_id", "a" * 129, SCHEMA),
        ("push_assignment", "true", SCHEMA),
        ("push_assignment", 1, SCHEMA),
        ("constraints", [], SCHEMA),
        ("metadata", "m", SCHEMA),
        ("context", 7, SCHEMA),
        ("assignment_id", "", SCHEMA),
        ("assignment_id", "with space", SCHEMA),
        ("run_id", "run-1", CORRELATION),
        ("run_id", ULID.lower(), CORRELATION),
        ("run_id", "81ARZ3NDEKTSV4RRFFQ69G5FAV", CORRELATION),
        ("flow_id", "6f1c2f0e-8f5e-3a62-9a4a-0d7c9d6d2f11", CORRELATION),
        ("step_id", UUID4.replace("-", ""), CORRELATION),
        ("step_id", 7, CORRELATION),
        ("idempotency_key", "", Intake.IDEMPOTENCY_VIOLATION),
        ("idempotency_key", "k" * 257, Intake.IDEMPOTENCY_VIOLATION),
        ("idempotency_key", "ü" * 129, Intake.IDEMPOTENCY_VIOLATION),
        ("idempotency_key", 7, Intake.IDEMPOTENCY_VIOLATION),
        ("assignement_id", "misspelt", SCHEMA),
        ("message", {}, SCHEMA),
    ],
)
def test_refuses_with_the_right_code(path: str, value: object, intake: Intake) -> None:
    error = refusal(read_decide_request, changed(FULL_DECIDE, path, value), REQUEST_HEADERS)
    assert error.intake is intake, str(error)
    # Without its text a chat's payload is too small and of the wrong shape: both are told.
    assert {violation.where for violation in error.violations} <= {path, "task.payload"}


@pytest.mark.parametrize(
    ("task", "where"),
    [
        ({"type": "completion", "payload": {"text": "no prompt"}}, "prompt"),
        ({"type": "completion", "payload": {"prompt": ["some"]}}, "prompt"),
        ({"type": "completion", "payload": {"prompt": "a", "max_tokens": "5"}}, "max_tokens"),
        ({"type": "completion", "payload": {"prompt": "a", "max_tokens": 5.0}}, "max_tokens"),
        ({"type": "completion", "payload": {"prompt": "a", "max_tokens": True}}, "max_tokens"),
        ({"type": "completion", "payload": {"prompt": "a", "max_tokens": None}}, "max_tokens"),
        ({"type": "completion", "payload": {"prompt": "a", "temperature": "0"}}, "temperature"),
        ({"type": "completion", "payload": {"prompt": "a", "temperature": False}}, "temperature"),
        ({"type": "embedding", "payload": {"text": "no input"}}, "input"),
        ({"type": "embedding", "payload": {"input": None}}, "input"),
        ({"type": "embedding", "payload": {"input": {"a": 1}}}, "input"),
        ({"type": "embedding", "payload": {"input": ["a", 7]}}, "input[1]"),
        ({"type": "embedding", "payload": {"input": "a", "metadata": []}}, "metadata"),
    ],
)
def test_a_payload_of_a_known_type_has_its_shape(task: dict[str, Any], where: str) -> None:
    error = refusal(read_decide_request, changed(LEAST_DECIDE, "task", task), REQUEST_HEADERS)
    assert_only(error, f"task.payload.{where}", SCHEMA)


def test_a_payload_of_nine_bytes_is_too_small_and_one_of_ten_is_not() -> None:
    nine, ten = {"type": "x", "payload": {"a": 123}}, {"type": "x", "payload": {"a": 1234}}
    assert [len(orjson.dumps(task["payload"])) for task in (nine, ten)] == [9, 10]
    accepted(changed(LEAST_DECIDE, "task", ten))
    error = refusal(read_decide_request, changed(LEAST_DECIDE, "task", nine), REQUEST_HEADERS)
    assert_only(error, "task.payload", Intake.PAYLOAD_TOO_SMALL)


def test_white_space_does_not_make_a_payload_larger() -> None:
    spacious = orjson.dumps(changed(LEAST_DECIDE, "task", {"type": "x", "payload": {"a": 1}}))
    spacious = spacious.replace(b'{"a":1}', b'{  "a"  :  1  }')
    error = refusal(read_decide_request, spacious, REQUEST_HEADERS)
    assert_only(error, "task.payload", Intake.PAYLOAD_TOO_SMALL)


def test_payload_and_payload_ref_exclude_each_other() -> None:
    task = {"type": "chat", "payload": {"text": "hello there"}, "payload_ref": "s3://a"}
    error = refusal(read_decide_request, changed(LEAST_DECIDE, "task", task), REQUEST_HEADERS)
    assert_only(error, "task.payload", SCHEMA)


@pytest.mark.parametrize("payload_ref", ["", 7, None, {}])
def test_a_payload_ref_is_a_string_that_says_something(payload_ref: object) -> None:
    task = {"type": "chat", "payload_ref": payload_ref}
    error = refusal(read_decide_request, changed(LEAST_DECIDE, "task", task), REQUEST_HEADERS)
    assert_only(error, "task.payload_ref", SCHEMA)


@pytest.mark.parametrize("left_out", ["run_id", "flow_id", "step_id"])
def test_run_flow_and_step_come_together_or_not_at_all(left_out: str) -> None:
    error = refusal(read_decide_request, changed(FULL_DECIDE, left_out, MISSING), REQUEST_HEADERS)
    assert error.intake is CORRELATION
    assert "all three or not at all" in str(error)


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"[]", b"null", b'"text"', b"7", b"\xff", b'{"version": NaN}', b'{"a":"\\ud800"}'],
)
def test_a_payload_that_is_no_json_object_is_refused_and_nothing_else_is_said(
    payload: bytes,
) -> None:
    assert_only(refusal(read_decide_request, payload, REQUEST_HEADERS), "payload", SCHEMA)


def test_all_that_is_wrong_is_told_and_the_gravest_gives_the_code() -> None:
    message = changed(changed(LEAST_DECIDE, "extra", 1), "idempotency_key", "")
    error = refusal(read_decide_request, changed(message, "version", "2"), REQUEST_HEADERS)
    assert [violation.where for violation in error.violations] == [
        "version",
        "extra",
        "idempotency_key",
    ]
    assert error.intake is Intake.VERSION_UNSUPPORTED


def test_headers_and_payload_are_both_looked_at() -> None:
    headers = {**REQUEST_HEADERS, "version": "2"}
    error = refusal(read_decide_request, changed(LEAST_DECIDE, "extra", 1), headers)
    assert [violation.where for violation in error.violations] == ["header version", "extra"]


def test_a_payload_that_is_nested_too_deeply_to_be_written_again_is_read() -> None:
    deep: dict[str, Any] = {}
    for _ in range(400):
        deep = {"deeper": deep}
    nested = b'{"deeper":' * 400 + b"{}" + b"}" * 400
    message = orjson.dumps(changed(LEAST_DECIDE, "task", {"type": "x", "payload": "HERE"}))
    request = read_decide_request(message.replace(b'"HERE"', nested), REQUEST_HEADERS)
    assert request.task.payload == deep


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(path=st.sampled_from(sorted(FULL_DECIDE)), value=_JSON)
def test_whatever_a_field_holds_is_read_or_refused_and_only_that_field_is_blamed(
    path: str, value: object
) -> None:
    blamed = set()
    try:
        accepted(changed(FULL_DECIDE, path, value))
    except ContractError as error:
        blamed = {violation.where.split(".")[0] for violation in error.violations}
    assert blamed <= {path}


@given(payload=st.binary(max_size=60) | _JSON.map(orjson.dumps))
def test_whatever_bytes_come_are_refused_in_words(payload: bytes) -> None:
    error = refusal(read_decide_request, payload, REQUEST_HEADERS)
    assert str(error)
