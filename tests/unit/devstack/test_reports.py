"""What the reference worker says about assignments, without NATS."""

from __future__ import annotations

import orjson
import pytest

from gateway.devstack import reports
from gateway.devstack.contract import (
    ExecAssignment,
    read_exec_ack,
    read_exec_assignment,
    read_exec_result,
)
from gateway.devstack.reports import Outcome, Report
from tests.unit.devstack.messages import ASSIGNMENT, STORED_HEADERS, TRACE, TRACEPARENT, changed

NOW_MS = 1_767_225_600_000


def assignment(job_type: str = "chat", tenant_id: str = "acme") -> ExecAssignment:
    message = changed(changed(ASSIGNMENT, "job.type", job_type), "tenant_id", tenant_id)
    headers = {**STORED_HEADERS, "tenant_id": tenant_id}
    return read_exec_assignment(orjson.dumps(message), headers)


def result(job_type: str) -> Report:
    outcome = reports.outcome_of(job_type)
    assert outcome is not None
    return reports.result(assignment(job_type), outcome, now_ms=NOW_MS)


@pytest.mark.parametrize(
    ("job_type", "outcome"),
    [
        ("chat", Outcome("success")),
        ("slow:150", Outcome("success", delay_ms=150)),
        ("slow:99999", Outcome("success", delay_ms=reports.MOST_DELAY_MS)),
        ("slow:soon", Outcome("success")),
        ("timeout", Outcome("timeout", error_code="job_timeout")),
        ("cancel", Outcome("cancelled")),
        ("no-result", None),
        ("reject", None),
    ],
)
def test_the_job_type_says_how_it_ends(job_type: str, outcome: Outcome | None) -> None:
    assert reports.outcome_of(job_type) == outcome


@pytest.mark.parametrize("job_type", ["chat", "fail", "timeout", "cancel", "slow:1"])
def test_a_result_keeps_the_contract(job_type: str) -> None:
    report = result(job_type)
    read = read_exec_result(orjson.dumps(report.payload), report.headers)
    assert report.subject == "caf.exec.result.v1"
    assert (read.assignment_id, read.request_id) == ("assignment-1", "request-1")
    assert (read.provider_id, read.job_type) == ("openai:gpt-4o", job_type)
    assert report.payload["timestamp"] == NOW_MS
    assert report.headers["trace_id"] == TRACE


def test_a_success_costs_and_a_failure_says_why() -> None:
    assert result("chat").payload["cost"] > 0
    assert "error_code" not in result("chat").payload
    failed = result("fail").payload
    assert (failed["status"], failed["cost"], failed["error_code"]) == ("error", 0, "job_failed")
    assert failed["error_message"]


@pytest.mark.parametrize(("job_type", "status"), [("chat", "accepted"), ("reject", "rejected")])
def test_an_ack_keeps_the_contract(job_type: str, status: str) -> None:
    report = reports.acknowledgement(assignment(job_type))
    read = read_exec_ack(orjson.dumps(report.payload), report.headers)
    assert report.subject == "caf.exec.assign.v1.ack"
    assert (read.assignment_id, read.status) == ("assignment-1", status)
    assert ("reason" in report.payload) is (status == "rejected")


def test_the_same_assignment_gives_the_same_ids_and_another_tenants_gives_others() -> None:
    def ids(tenant_id: str) -> tuple[str, ...]:
        taken = assignment(tenant_id=tenant_id)
        ack = reports.acknowledgement(taken)
        done = reports.result(taken, Outcome("success"), now_ms=NOW_MS)
        return (
            ack.payload["ack_id"],
            ack.headers["Nats-Msg-Id"],
            done.headers["Nats-Msg-Id"],
        )

    assert ids("acme") == ids("acme")
    assert len({*ids("acme"), *ids("globex")}) == 6


def test_every_message_goes_on_under_the_same_trace_with_a_span_of_its_own() -> None:
    sent = [reports.acknowledgement(assignment()), result("chat")]
    traceparents = [report.headers["traceparent"].split("-") for report in sent]
    assert [trace for _, trace, _, _ in traceparents] == [TRACE, TRACE]
    spans = {span for _, _, span, _ in traceparents} | {TRACEPARENT.split("-")[2]}
    assert len(spans) == 3


def test_a_broken_assignment_that_says_whose_it_is_is_rejected() -> None:
    broken = orjson.dumps(changed(ASSIGNMENT, "job", None))
    report = reports.refusal(broken, STORED_HEADERS, "job: must be an object, not null")
    assert report is not None
    read = read_exec_ack(orjson.dumps(report.payload), report.headers)
    assert (read.assignment_id, read.status) == ("assignment-1", "rejected")
    assert report.payload["reason"] == "job: must be an object, not null"


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"[]", b"7", b"null", b"{}", b'{"assignment_id": 7}', b'{"assignment_id": "a b"}'],
)
def test_what_does_not_say_whose_it_is_is_not_answered(payload: bytes) -> None:
    assert reports.refusal(payload, STORED_HEADERS, "no") is None


def test_an_assignment_with_unusable_headers_is_not_answered() -> None:
    assert reports.refusal(orjson.dumps(ASSIGNMENT), {}, "no") is None
