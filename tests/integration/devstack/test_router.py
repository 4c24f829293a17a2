"""The reference Router over real NATS, as the gateway meets it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError

from gateway.devstack.behaviour import BROKEN_REPLIES
from gateway.devstack.contract import read_exec_assignment
from gateway.devstack.nats_server import NatsServer
from tests.integration.devstack.processes import ServiceProcess
from tests.support.nats_session import NatsSession
from tests.support.waiting import wait_until
from tests.unit.devstack.messages import (
    ACK,
    LEAST_DECIDE,
    REQUEST_HEADERS,
    RESULT,
    STORED_HEADERS,
    TRACE,
    changed,
)

DECIDE = "beamline.router.v1.decide"

pytestmark = pytest.mark.usefixtures("router")


def ask(
    nats: NatsSession,
    *,
    headers: Mapping[str, str] = REQUEST_HEADERS,
    timeout: float = 10.0,
    **fields: Any,
) -> Msg:
    message = {**LEAST_DECIDE, **fields}
    return nats.call(
        nats.client.request(DECIDE, orjson.dumps(message), timeout=timeout, headers=dict(headers))
    )


def answer(nats: NatsSession, **fields: Any) -> dict[str, Any]:
    reply: dict[str, Any] = orjson.loads(ask(nats, **fields).data)
    return reply


def silent(nats: NatsSession, **fields: Any) -> bool:
    with pytest.raises(NatsTimeoutError):
        ask(nats, timeout=0.3, **fields)
    return True


def test_a_valid_request_gets_a_decision(nats: NatsSession) -> None:
    reply = ask(nats)
    body = orjson.loads(reply.data)
    assert body["ok"] is True
    assert body["decision"]["provider_id"]
    assert body["context"] == {"request_id": "request-1", "trace_id": TRACE}
    assert reply.headers is not None
    assert reply.headers["traceparent"].startswith(f"00-{TRACE}-")
    assert reply.headers["traceparent"] != REQUEST_HEADERS["traceparent"]


def test_what_breaks_the_contract_is_refused_without_the_request_id(nats: NatsSession) -> None:
    body = answer(nats, assignement_id="misspelt")
    assert body["ok"] is False
    assert body["error"]["code"] == "invalid_request"
    assert body["error"]["intake_error_code"] == "SCHEMA_VALIDATION_FAILED"
    assert "assignement_id" in body["error"]["message"]
    assert body["context"] == {"trace_id": TRACE}


def test_a_request_without_headers_is_refused(nats: NatsSession) -> None:
    reply = nats.call(nats.client.request(DECIDE, orjson.dumps(LEAST_DECIDE), timeout=10))
    body = orjson.loads(reply.data)
    assert body["error"]["code"] == "invalid_request"
    assert body["context"] == {}


def test_a_request_with_credentials_is_refused(nats: NatsSession) -> None:
    reply = ask(nats, headers={**REQUEST_HEADERS, "Authorization": "Bearer x"})
    assert orjson.loads(reply.data)["error"]["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("policy_id", "code", "intake"),
    [
        ("error:denied", "denied", None),
        ("error:validator_blocked", "validator_blocked", None),
        ("error:policy_not_found", "policy_not_found", None),
        ("error:extension_timeout", "extension_timeout", None),
        (
            "error:invalid_request:PAYLOAD_TOO_SMALL",
            "invalid_request",
            "PAYLOAD_TOO_SMALL",
        ),
        ("error:unauthorized:TENANT_FORBIDDEN", "unauthorized", "TENANT_FORBIDDEN"),
        (
            "error:internal:INTERNAL_VALIDATION_ERROR",
            "internal",
            "INTERNAL_VALIDATION_ERROR",
        ),
        ("unknown-code", "code_of_another_version", None),
        ("delay:never", "policy_not_found", None),
    ],
)
def test_errors_come_on_demand(
    nats: NatsSession, policy_id: str, code: str, intake: str | None
) -> None:
    body = answer(nats, policy_id=policy_id)
    assert body["ok"] is False
    assert (body["error"]["code"], body["error"].get("intake_error_code")) == (code, intake)
    assert ("request_id" in body["context"]) is (intake is None)


@pytest.mark.parametrize("policy_id", BROKEN_REPLIES)
def test_broken_replies_come_on_demand(nats: NatsSession, policy_id: str) -> None:
    assert ask(nats, policy_id=policy_id).data == BROKEN_REPLIES[policy_id]


def test_silence_comes_on_demand(nats: NatsSession) -> None:
    assert silent(nats, policy_id="silence")


def test_a_slow_answer_holds_no_other_up(nats: NatsSession) -> None:
    async def both() -> list[str]:
        order: list[str] = []

        async def one(policy_id: str) -> None:
            message = orjson.dumps({**LEAST_DECIDE, "policy_id": policy_id})
            await nats.client.request(DECIDE, message, timeout=10, headers=dict(REQUEST_HEADERS))
            order.append(policy_id)

        slow = asyncio.create_task(one("delay:1000"))
        await asyncio.gather(*(one("default") for _ in range(20)))
        await slow
        return order

    assert nats.call(both()) == ["default"] * 20 + ["delay:1000"]


def test_a_late_answer_says_that_it_is_one(nats: NatsSession) -> None:
    assert answer(nats, policy_id="late:50")["decision"]["provider_id"] == "reference:late"


def test_a_repeated_idempotency_key_is_answered_with_silence(nats: NatsSession) -> None:
    assert answer(nats, idempotency_key="k-1")["ok"] is True
    assert silent(nats, idempotency_key="k-1", request_id="request-2")
    assert answer(nats, idempotency_key="k-2")["ok"] is True
    globex = {**REQUEST_HEADERS, "tenant_id": "globex"}
    assert ask(nats, headers=globex, tenant_id="globex", idempotency_key="k-1").data


def test_the_preferred_provider_is_honoured_until_it_is_gone(nats: NatsSession) -> None:
    preference = {"preferred_provider_id": "local:llama"}
    honoured = answer(nats, metadata=preference)["decision"]
    moved = answer(nats, metadata=preference, policy_id="without:local:llama")["decision"]
    assert (honoured["provider_id"], honoured["reason"]) == ("local:llama", "preferred")
    assert moved["provider_id"] != "local:llama"
    assert moved["metadata"]["preferred_provider_id"] == "local:llama"


def test_an_assignment_is_pushed_once_and_keeps_the_contract(
    nats: NatsSession, exec_stream: str
) -> None:
    for _ in range(2):
        body = answer(nats, push_assignment=True, assignment_id="a-1")
        assert body["ok"] is True
    stored = nats.stream_messages(exec_stream)
    assert [message.subject for message in stored] == ["caf.exec.assign.v1"]
    assignment = read_exec_assignment(stored[0].payload, stored[0].headers)
    assert assignment.assignment_id == "a-1"
    assert assignment.provider_id == body["decision"]["provider_id"]
    assert assignment.envelope.trace_id == TRACE
    assert assignment.envelope.cp_phase == "cp2"
    assert assignment.envelope.traceparent != REQUEST_HEADERS["traceparent"]


def test_an_assignment_that_no_stream_takes_is_an_error(nats: NatsSession) -> None:
    body = answer(nats, push_assignment=True)
    assert body["error"]["code"] == "internal"
    assert body["context"]["request_id"] == "request-1"


def test_acks_and_results_are_heard_and_broken_ones_refused(
    nats: NatsSession, router: ServiceProcess
) -> None:
    for subject, message in (("caf.exec.assign.v1.ack", ACK), ("caf.exec.result.v1", RESULT)):
        nats.publish(subject, orjson.dumps(message), STORED_HEADERS)
        nats.publish(subject, orjson.dumps(changed(message, "version", "2")), STORED_HEADERS)
    for said in (
        "ack of assignment-1: rejected",
        "refused an ack: version",
        "result of assignment-1 from openai:gpt-4o: error",
        "refused a result: version",
    ):
        router.wait_for_output(said)


def test_it_goes_on_when_nats_comes_back(nats: NatsSession, server: NatsServer) -> None:
    server.kill()
    server.start()

    def answered() -> bool:
        try:
            return bool(answer(nats)["ok"])
        except (NatsError, OSError):
            return False

    wait_until(answered, message="the Router does not answer after NATS was restarted")


def test_it_ends_in_order_when_it_is_told_to(router: ServiceProcess) -> None:
    assert router.terminate() is True
    assert router.exit_status() == 0
    assert "Traceback" not in router.output()


def test_it_chooses_from_the_providers_that_the_environment_lists(
    server: NatsServer, nats: NatsSession, router: ServiceProcess, tmp_path: Path
) -> None:
    router.terminate()
    listed = {"REFERENCE_ROUTER_PROVIDERS": "own:only"}
    (tmp_path / "second").mkdir()
    with ServiceProcess("router", server, tmp_path / "second", listed) as second:
        second.wait_for_output("listening to")
        assert answer(nats)["decision"]["provider_id"] == "own:only"
        gone = answer(nats, policy_id="without:own:only")
        assert gone["error"]["code"] == "decision_failed"
