"""Every way in which a Router can say no, or say nothing sensible, and the status it becomes."""

from __future__ import annotations

import json
import uuid

import pytest

from tests.support.documents import DECIDE, decide_body
from tests.support.http_client import Answer
from tests.support.scripted_router import Reply, ScriptedRouter, decision, router_error
from tests.support.stacks import Running
from tests.support.wire import expect_error

# The table of the wire contract, row by row.
INTAKE = [
    "SCHEMA_VALIDATION_FAILED",
    "VERSION_UNSUPPORTED",
    "CORRELATION_FIELDS_INVALID",
    "IDEMPOTENCY_VIOLATION",
    "PAYLOAD_TOO_SMALL",
]
TABLE: list[tuple[str, str | None, int, str]] = [
    ("invalid_request", None, 400, "invalid_request"),
    *(("invalid_request", intake, 400, "invalid_request") for intake in INTAKE),
    ("unauthorized", None, 401, "unauthorized"),
    ("unauthorized", "TENANT_FORBIDDEN", 401, "unauthorized"),
    ("denied", None, 403, "denied"),
    ("validator_blocked", None, 403, "denied"),
    ("policy_not_found", None, 404, "policy_not_found"),
    ("extension_not_found", None, 404, "extension_not_found"),
    ("decision_failed", None, 500, "decision_failed"),
    ("post_processor_failed", None, 500, "post_processor_failed"),
    ("extension_error", None, 500, "extension_error"),
    ("internal", None, 500, "internal"),
    ("internal", "INTERNAL_VALIDATION_ERROR", 500, "internal"),
    ("extension_unavailable", None, 503, "unavailable"),
    ("extension_timeout", None, 504, "timeout"),
]

_GOOD = json.dumps(decision()).encode()
BAD_REPLIES: dict[str, Reply] = {
    "unknown code": router_error("gremlins"),
    "code of another case": router_error("DENIED"),
    "code of the gateway's own": router_error("rate_limit_exceeded"),
    "empty code": router_error(""),
    "no code": {"ok": False, "error": {"message": "no"}},
    "code is a number": {"ok": False, "error": {"code": 404, "message": "no"}},
    "code is null": {"ok": False, "error": {"code": None}},
    "error is a string": {"ok": False, "error": "denied"},
    "no error": {"ok": False},
    "empty object": {},
    "no decision": {"ok": True},
    "decision is a string": {"ok": True, "decision": "openai:gpt-4o"},
    "decision is null": {"ok": True, "decision": None},
    "decision is empty": {"ok": True, "decision": {}},
    "provider is a number": {"ok": True, "decision": {"provider_id": 4}},
    "provider is empty": {"ok": True, "decision": {"provider_id": ""}},
    "ok is a string": {**decision(), "ok": "true"},
    "ok is missing": {"decision": decision()["decision"]},
    "nothing": b"",
    "broken JSON": _GOOD[:-5],
    "text": b"503 Service Unavailable",
    "list": b"[" + _GOOD + b"]",
    "null": b"null",
    "true": b"true",
    "not UTF-8": _GOOD.replace(b"best_score", b"best\xff\xfe"),
    "NaN": _GOOD.replace(b"0.012", b"NaN"),
    "two documents": _GOOD + _GOOD,
    "bottomless nest": b'{"ok": true, "decision": ' + b"[" * 100_000,
}


def ask(running: Running, reply: Reply) -> tuple[str, Answer]:
    """A decide that the Router answers with ``reply``: its request id and its answer."""
    body = decide_body(request_id=f"r-{uuid.uuid4().hex}")
    with (
        ScriptedRouter(running.nats.url, lambda request: reply),
        running.gateway.client() as client,
    ):
        return body["request_id"], client.post(DECIDE, body)


@pytest.mark.parametrize(("code", "intake", "status", "ours"), TABLE)
def test_router_error_becomes_its_row(
    routerless: Running, code: str, intake: str | None, status: int, ours: str
) -> None:
    request_id, answer = ask(routerless, router_error(code, intake, "the router's words"))
    expect_error(answer, status, ours)
    assert answer.json()["error"]["intake_error_code"] == intake
    # The Router loses the request's id in intake errors; the gateway does not.
    assert answer.json()["context"]["request_id"] == request_id


@pytest.mark.parametrize("name", BAD_REPLIES)
def test_reply_that_no_router_may_give_is_a_bad_gateway(routerless: Running, name: str) -> None:
    request_id, answer = ask(routerless, BAD_REPLIES[name])
    expect_error(answer, 502, "bad_reply")
    assert answer.json()["context"]["request_id"] == request_id


def test_router_message_is_passed_on(routerless: Running) -> None:
    _, answer = ask(routerless, router_error("policy_not_found", message="no policy 'gold'"))
    assert "no policy 'gold'" in answer.json()["error"]["message"]


def test_bad_reply_does_not_spoil_the_next_request(routerless: Running) -> None:
    replies: list[Reply] = [b"\x00", decision("p-1"), {}, decision("p-2")]
    with (
        ScriptedRouter(routerless.nats.url, lambda request: replies.pop(0)),
        routerless.gateway.client() as client,
    ):
        statuses = [client.post(DECIDE, decide_body()).status for _ in range(4)]
    assert statuses == [502, 200, 502, 200]
