"""What is taken in as a result, and why a message is none (wire contract, "ExecResult")."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import Delivery, Reject
from gateway.operations.deliveries import ids_of
from gateway.operations.results import Filter, Intake, IntakeRules, check
from tests.support.documents import now_ms
from tests.support.result_messages import RESULT_SUBJECT, result_body, result_headers

WINDOW_MS = 3_600_000
RULES = IntakeRules(
    subject_allowlist=(RESULT_SUBJECT, "other.result.*"),
    tenant_allowlist=frozenset({"acme", "umbrella"}),
    usage_subject="beamline.usage.v1.metered",
    usage_window_ms=WINDOW_MS,
    meter=True,
)
CODES = {
    "subject_not_allowed",
    "msg_id_missing",
    "unreadable",
    "version_unsupported",
    "tenant_missing",
    "tenant_not_allowed",
    "schema_invalid",
    "late",
}


def delivery(
    payload: object, headers: Mapping[str, str] | None = None, *, subject: str = RESULT_SUBJECT
) -> Delivery:
    """A first delivery; bytes go as they are, ``headers`` None: the contract's."""
    return Delivery(
        subject=subject,
        payload=payload if isinstance(payload, bytes) else json.dumps(payload).encode(),
        headers=result_headers() if headers is None else headers,
        num_delivered=1,
        stream="BEAMLINE_EXEC",
        stream_seq=7,
    )


def refused(message: Delivery, rules: IntakeRules = RULES) -> Reject:
    with pytest.raises(Reject) as caught:
        check(message, rules)
    return caught.value


def test_a_result_as_workers_send_it_is_taken_in() -> None:
    headers = result_headers()
    body = result_body(request_id="r-1", error_code="none", tokens={"in": 3})
    intake = check(delivery(body, headers), RULES)
    assert intake.tenant_id == "acme"
    expected = {**body, "tenant_id": "acme", "trace_id": headers["trace_id"]}
    assert intake.body == expected
    assert json.loads(intake.value) == expected
    assert intake.context.trace_id == headers["trace_id"]


def test_headers_win_over_fields_of_the_same_name() -> None:
    headers = result_headers("umbrella")
    body = result_body(version="2", tenant_id="acme", trace_id="nonsense")
    intake = check(delivery(body, headers), RULES)
    assert (intake.tenant_id, intake.body["version"]) == ("umbrella", "1")
    assert intake.body["trace_id"] == headers["trace_id"]


def test_names_of_headers_have_no_case() -> None:
    headers = {name.upper(): value for name, value in result_headers("umbrella").items()}
    assert check(delivery(result_body(), headers), RULES).tenant_id == "umbrella"


def test_a_message_without_headers_says_all_in_its_payload() -> None:
    body = result_body(tenant_id="acme", trace_id="0af76519-16cd-43dd-8448-eb211c80319c")
    intake = check(delivery(body, {}), RULES)
    assert intake.tenant_id == "acme"
    assert intake.context.trace_id == "0af7651916cd43dd8448eb211c80319c"


def test_a_result_of_a_request_needs_no_assignment() -> None:
    intake = check(delivery(result_body(assignment_id=None, request_id="r-1")), RULES)
    assert intake.body["request_id"] == "r-1"


def test_an_absent_version_is_the_one_there_is() -> None:
    headers = result_headers()
    del headers["version"]
    assert check(delivery(result_body(version=None), headers), RULES).tenant_id == "acme"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (delivery(result_body(), subject="caf.exec.result.v2"), "subject_not_allowed"),
        (delivery(result_body(), subject="other.result.v1.more"), "subject_not_allowed"),
        (delivery(result_body(), {"version": "1", "tenant_id": "acme"}), "msg_id_missing"),
        (delivery(b"\xff\x00"), "unreadable"),
        (delivery(b""), "unreadable"),
        (delivery(b"{"), "unreadable"),
        (delivery(b"NaN"), "unreadable"),
        (delivery([result_body()]), "unreadable"),
        (delivery("text"), "unreadable"),
        (delivery(b"[" * 5_000), "unreadable"),
        (delivery(result_body(), result_headers(version="2")), "version_unsupported"),
        (delivery(result_body(), result_headers(version="")), "version_unsupported"),
        (delivery(result_body(version=1), {}), "version_unsupported"),
        (delivery(result_body(), {"Nats-Msg-Id": "m"}), "tenant_missing"),
        (delivery(result_body(tenant_id=7), {}), "tenant_missing"),
        (delivery(result_body(tenant_id="acme"), result_headers("")), "tenant_missing"),
        (delivery(result_body(), result_headers("ac me")), "tenant_missing"),
        (delivery(result_body(), result_headers("a" * 65)), "tenant_missing"),
        (delivery(result_body(), result_headers("stranger")), "tenant_not_allowed"),
        (delivery(result_body(tenant_id="acme"), result_headers("Acme")), "tenant_not_allowed"),
    ],
)  # fmt: skip
def test_a_message_that_is_no_result_is_refused_by_name(message: Delivery, code: str) -> None:
    why = refused(message)
    assert why.code == code
    assert not why.final, "another delivery may find other settings"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"assignment_id": None}, "assignment_id"),
        ({"assignment_id": ""}, "assignment_id"),
        ({"assignment_id": "with blank"}, "assignment_id"),
        ({"status": "done"}, "status"),
        ({"status": None}, "status"),
        ({"provider_id": None}, "provider_id"),
        ({"job": None}, "job"),
        ({"job": {}}, "job"),
        ({"job": {"type": ""}}, "job"),
        ({"job": "chat"}, "job"),
        ({"latency_ms": -1}, "latency_ms"),
        ({"latency_ms": "5"}, "latency_ms"),
        ({"latency_ms": True}, "latency_ms"),
        ({"cost": None}, "cost"),
        ({"cost": -0.1}, "cost"),
        ({"timestamp": None}, "timestamp"),
        ({"timestamp": "2026-01-01"}, "timestamp"),
        ({"timestamp": 1.5}, "timestamp"),
        ({"error_message": 5}, "error_message"),
    ],
)
def test_a_result_that_breaks_the_schema_is_refused_and_the_field_named(
    changes: dict[str, Any], named: str
) -> None:
    why = refused(delivery(result_body(**changes)))
    assert why.code == "schema_invalid"
    assert named in str(why)


def test_a_malformed_trace_id_is_refused() -> None:
    assert refused(delivery(result_body(), result_headers(trace_id="x"))).code == "schema_invalid"


@pytest.mark.parametrize("older_ms", [1_000, 10 * WINDOW_MS])
def test_a_result_older_than_the_window_is_given_up_at_once(older_ms: int) -> None:
    why = refused(delivery(result_body(timestamp=now_ms() - WINDOW_MS - older_ms)))
    assert (why.code, why.final) == ("late", True)


def test_a_result_inside_the_window_is_not_late() -> None:
    assert check(delivery(result_body(timestamp=now_ms() - WINDOW_MS + 60_000)), RULES)


def test_an_empty_list_of_tenants_lets_all_of_them_in() -> None:
    rules = IntakeRules(
        subject_allowlist=(RESULT_SUBJECT,),
        tenant_allowlist=frozenset(),
        usage_subject="u",
        usage_window_ms=WINDOW_MS,
        meter=False,
    )
    assert check(delivery(result_body(), result_headers("stranger")), rules).tenant_id == "stranger"


@given(
    payload=st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    ).map(lambda document: json.dumps(document).encode())
    | st.fixed_dictionaries(
        {},
        optional={
            name: st.none() | st.integers() | st.text(max_size=5) | st.just(value)
            for name, value in result_body().items()
        },
    ).map(lambda document: json.dumps(document).encode()),
    headers=st.dictionaries(
        st.sampled_from(["version", "tenant_id", "trace_id", "Nats-Msg-Id", "cp_phase", "X"]),
        st.text(max_size=8) | st.sampled_from(["1", "acme", "a" * 32]),
    ),
)
def test_whatever_comes_is_a_result_or_refused_by_name(
    payload: bytes, headers: dict[str, str]
) -> None:
    """Anything else would be a bug of the handler, and the message delivered again and again."""
    outcome: Intake | Reject
    try:
        outcome = check(delivery(payload, headers), RULES)
    except Reject as why:
        outcome = why
    if isinstance(outcome, Reject):
        assert outcome.code in CODES
    else:
        assert outcome.tenant_id in RULES.tenant_allowlist


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        (
            {"Tenant_ID": "acme", "trace_id": "A" * 32},
            {"tenant_id": "umbrella"},
            {"tenant_id": "acme", "trace_id": "a" * 32},
        ),
        ({}, {"tenant_id": "umbrella"}, {"tenant_id": "umbrella"}),
        ({"tenant_id": "no good"}, {"tenant_id": "umbrella"}, {}),
        ({}, {"tenant_id": ["umbrella"], "trace_id": 7}, {}),
        ({}, ["tenant_id"], {}),
        ({"trace_id": "0" * 32}, b"not json", {}),
    ],
)
def test_a_letter_is_filed_under_what_its_message_says_of_itself(
    headers: dict[str, str], body: object, expected: dict[str, str]
) -> None:
    assert ids_of(delivery(body, headers)) == expected


@pytest.mark.parametrize(
    ("wanted", "accepted"),
    [
        (Filter(), {"a", "b", "c"}),
        (Filter(provider_id="a"), {"a"}),
        (Filter(provider_exclude=frozenset({"a", "c"})), {"b"}),
        (Filter(provider_id="a", provider_exclude=frozenset({"a"})), set()),
    ],
)
def test_a_filter_names_the_wanted_and_the_unwanted(wanted: Filter, accepted: set[str]) -> None:
    assert {p for p in "abc" if wanted.accepts({"provider_id": p})} == accepted
