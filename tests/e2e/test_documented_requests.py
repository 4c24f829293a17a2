"""Every request that the documents name is answered with success, and what a trace's headers lead to is as they say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.devstack_process import Started, running_devstack
from tests.support.document_commands import requests
from tests.support.documents import (
    ACKS,
    ASSIGNMENTS,
    DECIDE,
    USAGE,
    ack_body,
    assignment_body,
    decide_body,
    new_id,
    usage_body,
)
from tests.support.gateway_process import REPOSITORY
from tests.support.http_client import Client

CONTRACTS = (REPOSITORY / "docs" / "API_CONTRACTS.md").read_text(encoding="utf-8")
#: What a request needs beside its path.
QUERIES = {
    "/api/v1/results": "?assignment_id={assignment_id}",
    "/api/v1/results/stream": "?assignment_id={assignment_id}&close_after_ms=1000",
    "/api/v1/operations/{operation}": "?id={id}",
}


@pytest.fixture(scope="module")
def devstack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    with running_devstack(tmp_path_factory.mktemp("requests")) as started:
        yield started


@pytest.fixture
def client(devstack: Started) -> Iterator[Client]:
    address = urlsplit(devstack.url)
    headers = {"Authorization": f"Bearer {devstack.admin}"}
    with Client(str(address.hostname), int(address.port or 0), headers=headers) as client:
        yield client


def test_every_request_that_is_named_succeeds(client: Client) -> None:
    ids = {operation: new_id("named") for operation in ("decide", "assignments", "acks", "usage")}
    bodies: dict[str, dict[str, Any]] = {
        DECIDE: decide_body(tenant_id="demo", assignment_id=ids["decide"]),
        ASSIGNMENTS: assignment_body(tenant_id="demo", assignment_id=ids["assignments"]),
        ACKS: ack_body(tenant_id="demo", ack_id=ids["acks"]),
        USAGE: usage_body(tenant_id="demo", usage_id=ids["usage"]),
        f"{USAGE}/batch": {"events": [usage_body(tenant_id="demo")]},
    }
    named = requests()
    assert {each.path for each in named if each.method == "POST"} == bodies.keys()
    for path, body in bodies.items():
        answer = client.post(path, body)
        assert answer.status in (200, 202), f"POST {path}: {answer}"
    waited = client.get(f"/api/v1/results/{ids['assignments']}?wait_ms=20000")
    assert waited.status == 200, waited
    page = client.get("/status", {"Accept": "text/html"}).body.decode()
    [asset, *_] = re.findall(r"/status/assets/([\w.-]+)", page)
    for each in named:
        if each.method == "GET":
            path = _filled(each.path + QUERIES.get(each.path, ""), ids, asset)
            answer = client.get(path)
            assert answer.status == 200, f"{each.document}: {each} ({path}): {answer}"


def _filled(path: str, ids: dict[str, str], asset: str) -> str:
    path = path.replace("{operation}", "assignments").replace("{name}", asset)
    operation = re.search(r"/operations/(\w+)", path)
    for name in ("{assignment_id}", "{id}"):
        path = path.replace(name, ids[operation[1] if operation else "assignments"])
    return path


def test_the_trace_that_a_client_names_is_the_one_it_is_told(client: Client) -> None:
    section = CONTRACTS.partition("## One trace")[2]
    rows = re.findall(r"^\| `([\w-]+): ([\w-]+)`[^|]* \| `?([\w ]+)`? \|", section, re.MULTILINE)
    assert {name for name, _, _ in rows} == {"traceparent", "X-Trace-ID"}
    for name, value, told in rows:
        answer = client.post(DECIDE, decide_body(tenant_id="demo"), {name: value})
        assert answer.header("X-Trace-ID") == (value if told == "the same" else told)
    not_recorded = rows[0][1].removesuffix("-01") + "-00"
    answer = client.post(DECIDE, decide_body(tenant_id="demo"), {"traceparent": not_recorded})
    assert answer.header("X-Trace-ID") == rows[0][2]
