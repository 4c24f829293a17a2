"""ExecAssignment, ExecAssignmentAck and ExecResult, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.devstack.contract import (
    ContractError,
    Intake,
    read_exec_ack,
    read_exec_assignment,
    read_exec_result,
)
from tests.unit.devstack.messages import (
    ACK,
    ASSIGNMENT,
    MISSING,
    RESULT,
    STORED_HEADERS,
    TRACE,
    Read,
    assert_only,
    changed,
    refusal,
)

SCHEMA = Intake.SCHEMA_VALIDATION_FAILED
CORRELATION = Intake.CORRELATION_FIELDS_INVALID

MESSAGES: dict[Read, Mapping[str, Any]] = {
    read_exec_assignment: ASSIGNMENT,
    read_exec_ack: ACK,
    read_exec_result: RESULT,
}
REQUIRED: dict[Read, set[str]] = {
    read_exec_assignment: {
        "version",
        "tenant_id",
        "assignment_id",
        "request_id",
        "executor",
        "job",
    },
    read_exec_ack: {"version", "tenant_id", "ack_id", "assignment_id", "status"},
    read_exec_result: {
        "version",
        "status",
        "provider_id",
        "job",
        "latency_ms",
        "cost",
        "timestamp",
    },
}
EACH_FIELD = [(read, name) for read, message in MESSAGES.items() for name in message]


def read_all(read: Read, message: object) -> Any:
    return read(orjson.dumps(message), STORED_HEADERS)


def test_an_assignment_is_read() -> None:
    assignment = read_all(read_exec_assignment, ASSIGNMENT)
    assert assignment.assignment_id == "assignment-1"
    assert assignment.request_id == "request-1"
    assert (assignment.provider_id, assignment.channel) == ("openai:gpt-4o", "nats")
    assert assignment.job_type == "chat"
    assert assignment.envelope.trace_id == TRACE


def test_an_ack_is_read() -> None:
    ack = read_all(read_exec_ack, ACK)
    assert (ack.ack_id, ack.assignment_id, ack.status) == ("ack-1", "assignment-1", "rejected")


def test_a_result_is_read() -> None:
    result = read_all(read_exec_result, RESULT)
    assert (result.assignment_id, result.request_id) == ("assignment-1", "request-1")
    assert (result.status, result.provider_id) == ("error", "openai:gpt-4o")
    assert result.job_type == "chat"


@pytest.mark.parametrize(("read", "name"), EACH_FIELD)
def test_a_field_may_be_left_out_exactly_if_it_is_optional(read: Read, name: str) -> None:
    without = changed(MESSAGES[read], name, MISSING)
    if name in REQUIRED[read]:
        assert_only(refusal(read, without, STORED_HEADERS), name, SCHEMA)
    else:
        read_all(read, without)


@pytest.mark.parametrize(("read", "name"), EACH_FIELD)
def test_no_field_may_be_null(read: Read, name: str) -> None:
    error = refusal(read, changed(MESSAGES[read], name, None), STORED_HEADERS)
    assert {violation.where for violation in error.violations} == {name}


@pytest.mark.parametrize("read", MESSAGES)
def test_an_unknown_field_is_named(read: Read) -> None:
    error = refusal(read, changed(MESSAGES[read], "extra", 1), STORED_HEADERS)
    assert_only(error, "extra", SCHEMA)


@pytest.mark.parametrize("read", MESSAGES)
def test_another_version_is_unsupported(read: Read) -> None:
    error = refusal(read, changed(MESSAGES[read], "version", "2"), STORED_HEADERS)
    assert_only(error, "version", Intake.VERSION_UNSUPPORTED)


@pytest.mark.parametrize("read", MESSAGES)
def test_another_tenant_than_the_headers_is_forbidden(read: Read) -> None:
    error = refusal(read, changed(MESSAGES[read], "tenant_id", "globex"), STORED_HEADERS)
    assert_only(error, "tenant_id", Intake.TENANT_FORBIDDEN)


@pytest.mark.parametrize("read", MESSAGES)
def test_a_message_without_an_id_of_its_own_is_refused(read: Read) -> None:
    headers = {name: value for name, value in STORED_HEADERS.items() if name != "Nats-Msg-Id"}
    error = refusal(read, MESSAGES[read], headers)
    assert_only(error, "header Nats-Msg-Id", SCHEMA)


@pytest.mark.parametrize("read", MESSAGES)
@pytest.mark.parametrize("payload", [b"", b"[]", b"{", b"null"])
def test_what_is_no_json_object_is_refused(read: Read, payload: bytes) -> None:
    assert_only(refusal(read, payload, STORED_HEADERS), "payload", SCHEMA)


@pytest.mark.parametrize(
    ("read", "path", "value", "intake"),
    [
        (read_exec_assignment, "assignment_id", "a b", SCHEMA),
        (read_exec_assignment, "assignment_id", "a" * 129, SCHEMA),
        (read_exec_assignment, "request_id", 7, SCHEMA),
        (read_exec_assignment, "executor", "openai", SCHEMA),
        (read_exec_assignment, "executor.provider_id", MISSING, SCHEMA),
        (read_exec_assignment, "executor.provider_id", "", SCHEMA),
        (read_exec_assignment, "executor.channel", MISSING, SCHEMA),
        (read_exec_assignment, "executor.channel", "http", SCHEMA),
        (read_exec_assignment, "executor.endpoint", None, SCHEMA),
        (read_exec_assignment, "job.type", MISSING, SCHEMA),
        (read_exec_assignment, "job.type", "", SCHEMA),
        (read_exec_assignment, "job.payload", "text", SCHEMA),
        (read_exec_assignment, "job.payload_ref", None, SCHEMA),
        (read_exec_assignment, "options", [], SCHEMA),
        (read_exec_assignment, "options.priority", -1, SCHEMA),
        (read_exec_assignment, "options.priority", 101, SCHEMA),
        (read_exec_assignment, "options.priority", True, SCHEMA),
        (read_exec_assignment, "options.priority", "50", SCHEMA),
        (read_exec_assignment, "options.priority", 50.0, SCHEMA),
        (read_exec_assignment, "options.deadline_ms", -1, SCHEMA),
        (read_exec_assignment, "options.deadline_ms", None, SCHEMA),
        (read_exec_assignment, "options.retry", 3, SCHEMA),
        (read_exec_assignment, "options.retry.max_attempts", "3", SCHEMA),
        (read_exec_assignment, "options.retry.backoff_ms", -1, SCHEMA),
        (read_exec_assignment, "correlation", "trace", SCHEMA),
        (read_exec_assignment, "correlation.trace_id", "xyz", CORRELATION),
        (read_exec_assignment, "correlation.trace_id", "a" * 32, CORRELATION),
        (read_exec_assignment, "decision", [], SCHEMA),
        (read_exec_assignment, "metadata", "m", SCHEMA),
        (read_exec_ack, "ack_id", "", SCHEMA),
        (read_exec_ack, "assignment_id", "ü", SCHEMA),
        (read_exec_ack, "status", "maybe", SCHEMA),
        (read_exec_ack, "status", True, SCHEMA),
        (read_exec_ack, "reason", 7, SCHEMA),
        (read_exec_ack, "correlation.trace_id", "0" * 32, CORRELATION),
        (read_exec_ack, "metadata", [], SCHEMA),
        (read_exec_result, "assignment_id", "", SCHEMA),
        (read_exec_result, "request_id", "a b", SCHEMA),
        (read_exec_result, "status", "done", SCHEMA),
        (read_exec_result, "provider_id", "", SCHEMA),
        (read_exec_result, "job", "chat", SCHEMA),
        (read_exec_result, "job.type", MISSING, SCHEMA),
        (read_exec_result, "latency_ms", -1, SCHEMA),
        (read_exec_result, "latency_ms", "12", SCHEMA),
        (read_exec_result, "latency_ms", True, SCHEMA),
        (read_exec_result, "cost", -0.1, SCHEMA),
        (read_exec_result, "cost", 0.1234567891, SCHEMA),
        (read_exec_result, "cost", "0.1", SCHEMA),
        (read_exec_result, "timestamp", 1.5, SCHEMA),
        (read_exec_result, "timestamp", "2026-01-01", SCHEMA),
        (read_exec_result, "timestamp", -1, SCHEMA),
        (read_exec_result, "trace_id", "a" * 32, CORRELATION),
        (read_exec_result, "error_code", 7, SCHEMA),
        (read_exec_result, "error_message", None, SCHEMA),
    ],
)
def test_refuses_exactly_the_field_that_is_wrong(
    read: Read, path: str, value: object, intake: Intake
) -> None:
    message = MESSAGES[read]
    if path == "job.payload_ref":
        message = changed(message, "job.payload", MISSING)
    assert_only(refusal(read, changed(message, path, value), STORED_HEADERS), path, intake)


@pytest.mark.parametrize(
    ("read", "path", "value"),
    [
        (read_exec_assignment, "job", {"type": "chat", "payload_ref": "s3://a"}),
        (read_exec_assignment, "job", {"type": "chat"}),
        (read_exec_assignment, "executor", {"provider_id": "a", "channel": "grpc"}),
        (read_exec_assignment, "options", {}),
        (read_exec_assignment, "options.priority", 0),
        (read_exec_assignment, "options.priority", 100),
        (read_exec_assignment, "correlation", {}),
        (read_exec_ack, "status", "accepted"),
        (read_exec_result, "latency_ms", 0),
        (read_exec_result, "cost", 0),
        (read_exec_result, "cost", 0.123456789),
        (read_exec_result, "cost", 1e21),
        (read_exec_result, "status", "timeout"),
        (read_exec_result, "status", "cancelled"),
        (read_exec_result, "status", "success"),
    ],
)
def test_accepts(read: Read, path: str, value: object) -> None:
    read_all(read, changed(MESSAGES[read], path, value))


def test_a_job_has_one_input() -> None:
    job = {"type": "chat", "payload": {}, "payload_ref": "s3://a"}
    error = refusal(read_exec_assignment, changed(ASSIGNMENT, "job", job), STORED_HEADERS)
    assert_only(error, "job.payload", SCHEMA)


def test_a_result_says_what_it_is_a_result_of() -> None:
    neither = changed(changed(RESULT, "assignment_id", MISSING), "request_id", MISSING)
    assert_only(refusal(read_exec_result, neither, STORED_HEADERS), "assignment_id", SCHEMA)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@given(field=st.sampled_from(EACH_FIELD), value=_JSON | st.text(max_size=20))
def test_whatever_a_field_holds_is_read_or_refused_and_only_that_field_is_blamed(
    field: tuple[Read, str], value: object
) -> None:
    read, name = field
    blamed = set()
    try:
        read_all(read, changed(MESSAGES[read], name, value))
    except ContractError as error:
        blamed = {violation.where.split(".")[0] for violation in error.violations}
    assert blamed <= {name}
