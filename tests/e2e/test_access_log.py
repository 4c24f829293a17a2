"""One line a request, in JSON, with what correlates it and nothing secret."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest

from tests.support.documents import DECIDE, decide_body
from tests.support.http_client import Client
from tests.support.stacks import Running
from tests.support.waiting import wait_until


def access_lines(stack: Running, request_id: str) -> list[dict[str, Any]]:
    """The JSON lines of the output that tell of this request's end."""
    lines = []
    for line in stack.gateway.output().splitlines():
        if request_id in line and line.startswith("{"):
            document = json.loads(line)
            if document.get("request_id") == request_id and "status" in document:
                lines.append(document)
    return lines


def test_each_request_has_one_access_line_in_json(stack: Running, client: Client) -> None:
    body = decide_body()
    answer = client.post(DECIDE, body)
    wait_until(lambda: access_lines(stack, body["request_id"]))
    (line,) = access_lines(stack, body["request_id"])
    assert line["status"] == 200
    assert line["trace_id"] == answer.header("X-Trace-ID")
    assert line["route"] == DECIDE
    assert line["tenant_id" if "tenant_id" in line else "tenant"] == "acme"


@pytest.mark.parametrize(
    ("document", "headers", "status", "error_type"),
    [
        pytest.param({}, {"X-Role": ""}, 401, "auth_gateway", id="auth_gateway"),
        pytest.param({"tenant_id": "umbrella"}, {}, 403, "auth_gateway", id="denied"),
        pytest.param({"asignment_id": "1"}, {}, 400, "request_gateway", id="request_gateway"),
    ],
)
def test_access_line_names_the_type_of_the_error(
    stack: Running,
    client: Client,
    document: dict[str, Any],
    headers: dict[str, str],
    status: int,
    error_type: str,
) -> None:
    answer = client.post(DECIDE, decide_body(**document), headers)
    assert answer.status == status
    request_id = answer.json()["context"]["request_id"]
    wait_until(lambda: access_lines(stack, request_id))
    (line,) = access_lines(stack, request_id)
    assert line["error_type"] == error_type


def test_output_holds_no_credential_and_no_payload(stack: Running, client: Client) -> None:
    secret, text = "canary-secret-41c7", "canary-payload-88d2"
    body = decide_body(task={"type": "chat", "payload": {"text": text}})
    headers = {"Authorization": f"Bearer {secret}", "X-API-Key": secret, "Cookie": secret}
    assert client.post(DECIDE, body, headers).status == 200
    refused = client.post(DECIDE, {**body, "asignment_id": text}, headers)
    assert refused.status == 400
    for request_id in (body["request_id"], refused.json()["context"]["request_id"]):
        wait_until(functools.partial(access_lines, stack, request_id))
    assert secret not in stack.gateway.output()
    assert text not in stack.gateway.output()
