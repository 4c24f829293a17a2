"""Planted canaries: no secret, payload text or personal data in any span, log line or metric of any process."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterator

import pytest

from tests.support.documents import (
    ACKS,
    ASSIGNMENTS,
    DECIDE,
    USAGE,
    ack_body,
    assignment_body,
    decide_body,
    usage_body,
)
from tests.support.http_client import Client
from tests.support.nats_session import NatsSession
from tests.support.result_messages import RESULTS, publish, result_body, result_headers
from tests.support.scripted_router import Reply, RouterRequest, ScriptedRouter
from tests.support.traces import GATEWAY, ROUTER, WORKER, Traced, traced

KEY = "canary-key-5d1e"
TEXT = "canary-text-9a70"
EMAIL = "canary.person@example.com"
SESSION = "canary-session-33f8"
USER_AGENT = "canary-agent/7"
ADDRESS = "203.0.113.77"
CANARIES = (KEY, TEXT, EMAIL, SESSION, USER_AGENT, ADDRESS)

TELLING = {
    "Authorization": f"Bearer {KEY}",
    "X-API-Key": KEY,
    "Cookie": f"session={KEY}",
    "User-Agent": USER_AGENT,
    "X-Forwarded-For": ADDRESS,
    "From": EMAIL,
    "Referer": f"https://portal.example/{EMAIL}?token={KEY}",
    "baggage": f"user={EMAIL}",
    "tracestate": f"vendor={KEY}",
}
TASK = {"type": "chat", "payload": {"text": TEXT, "prompt": EMAIL}}
ABOUT = {"session_id": SESSION, "user_id": EMAIL}
ENVIRONMENT = {"NATS_BACKOFF_MS": "50", "NATS_MAX_DELIVER": "2", "LOG_LEVEL": "debug"}


@pytest.fixture(scope="module")
def stack() -> Iterator[Traced]:
    with traced("privacy", ENVIRONMENT, router=True, worker=True) as started:
        yield started


@pytest.fixture
def client(stack: Traced) -> Iterator[Client]:
    with stack.gateway.client() as client:
        yield client


def in_trace(**more: str) -> tuple[str, dict[str, str]]:
    """A new trace, and all that a careless client sends along."""
    trace_id = uuid.uuid4().hex
    return trace_id, {**TELLING, "traceparent": f"00-{trace_id}-00f067aa0ba902b7-01", **more}


def check_nothing_told(stack: Traced) -> None:
    """Look through everything that anybody can see."""
    spans = stack.settle()
    with stack.gateway.client(headers={}) as scraper:
        metrics = scraper.get("/metrics").body.decode()
    for canary in CANARIES:
        telling = [span for span in spans if canary in repr(span)]
        assert not telling, f"{canary} is in {telling[0]}"
        assert canary not in metrics
        lines = [line for line in stack.gateway.output().splitlines() if canary in line]
        assert not lines, f"{canary} is in {lines[0]}"


def test_what_clients_send_is_in_no_span_log_line_or_metric(stack: Traced, client: Client) -> None:
    traces = []

    def post(path: str, document: object, status: int) -> None:
        trace_id, headers = in_trace()
        answer = client.post(path, document, headers)
        assert answer.status == status, answer
        traces.append(trace_id)

    job = {"type": "chat", "payload": TASK["payload"]}
    post(DECIDE, decide_body(task=TASK, context=ABOUT, metadata={"password": KEY}), 200)
    post(DECIDE, decide_body(task=TASK, push_assignment=True, assignment_id=uuid.uuid4().hex), 200)
    post(ASSIGNMENTS, assignment_body(job=job, metadata={"mail": EMAIL}), 202)
    post(ACKS, ack_body(status="rejected", reason=f"{TEXT} {EMAIL}"), 202)
    post(USAGE, usage_body(), 202)
    # Refused, with what is wrong: the value is the client's.
    post(DECIDE, decide_body(task=TASK, **{TEXT: KEY}), 400)
    post(DECIDE, decide_body(task={"type": KEY}), 400)
    post(DECIDE, decide_body(tenant_id="umbrella", task=TASK), 403)
    post(DECIDE, [TEXT, KEY], 400)
    for trace_id in traces:
        stack.server_span(trace_id)
    check_nothing_told(stack)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", f"/api/v1/{TEXT}/{EMAIL}"),
        ("GET", f"{RESULTS}/{TEXT}-{EMAIL}"),
        ("GET", f"{RESULTS}?assignment_id={EMAIL}&token={KEY}"),
        ("POST", f"{DECIDE}?api_key={KEY}&session={SESSION}"),
        ("GET", f"http://{KEY}.example/{TEXT}"),
        (KEY.upper().replace("-", ""), DECIDE),
    ],
)
def test_what_stands_in_the_request_line_is_in_no_span(
    stack: Traced, client: Client, method: str, target: str
) -> None:
    trace_id, headers = in_trace(**{"X-Forwarded-Host": f"{KEY}.example"})
    client.request(method, target, headers=headers)
    span = stack.server_span(trace_id)
    for canary in (*CANARIES, KEY.upper().replace("-", "")):
        assert canary not in repr(span)


def test_ids_that_are_somebodys_address_are_not_told(stack: Traced, client: Client) -> None:
    trace_id, headers = in_trace()
    assert client.post(DECIDE, decide_body(request_id=EMAIL), headers).status == 200
    span = stack.server_span(trace_id)
    assert span.attributes["request_id"]
    check_nothing_told(stack)


def test_what_workers_send_is_in_no_span_log_line_or_metric(stack: Traced) -> None:
    with NatsSession(stack.nats.url, name="telling") as worker:
        for body in (
            result_body(status="error", error_message=f"{TEXT} {EMAIL}", error_code="failed"),
            result_body(status=TEXT, provider_id=EMAIL),
            {"text": TEXT, "mail": EMAIL},
            f'{{"{TEXT}": "{EMAIL}"'.encode(),
        ):
            trace_id, telling = in_trace()
            publish(
                worker, body, result_headers(**telling) | {"Nats-Msg-Id": f"{trace_id}.{EMAIL}"}
            )
            stack.wait_for(trace_id, name="nats.consume")
    check_nothing_told(stack)


def same(answer: Reply, _request: RouterRequest) -> Reply:
    """A Router that always answers this."""
    return answer


def test_what_a_router_answers_is_in_no_span_log_line_or_metric() -> None:
    answers: tuple[Reply, ...] = (
        {"ok": False, "error": {"code": "internal", "message": f"{TEXT} {EMAIL} {KEY}"}},
        {"ok": True, "decision": {"provider_id": "p", "reason": TEXT, "metadata": ABOUT}},
        {"ok": False, "error": {"code": f"no such {TEXT}"}},
        f"{TEXT} is no JSON".encode(),
    )
    with traced("telling-router", ENVIRONMENT) as stack, stack.gateway.client() as client:
        for answer in answers:
            trace_id, headers = in_trace()
            with ScriptedRouter(stack.nats.url, functools.partial(same, answer)):
                client.post(DECIDE, decide_body(task=TASK, context=ABOUT), headers)
            assert stack.server_span(trace_id)
        check_nothing_told(stack)


def test_the_devstacks_own_spans_tell_nothing_either(stack: Traced, client: Client) -> None:
    trace_id, headers = in_trace()
    body = decide_body(task=TASK, context=ABOUT, push_assignment=True)
    assert client.post(DECIDE, body, headers).status == 200
    stack.wait_for(trace_id, name="nats.publish", subject="beamline.usage.v1.metered")
    spans = [span for span in stack.settle() if span.trace_id == trace_id]
    assert {span.service for span in spans} == {GATEWAY, ROUTER, WORKER}
    for canary in CANARIES:
        assert canary not in repr(spans)
