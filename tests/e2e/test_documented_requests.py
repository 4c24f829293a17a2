"""Every request that the documents name is answered with success, and what a trace's headers lead to is as they say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.devstack_process import Started, running_devstack
from tests.support.document_commands import requests
from tests.support.document_text import blocks, for_readers
from tests.support.documents import (
    ACKS,
    ASSIGNMENTS,
    DECIDE,
    USAGE,
    ack_body,
    assignment_body,
    decide_body,
    new_id,
    now_ms,
    usage_body,
)
from tests.support.gateway_process import REPOSITORY
from tests.support.http_client import Client
from tests.support.nats_session import NatsSession
from tests.support.result_messages import usage_of

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


def test_the_bodies_that_are_shown_are_taken(client: Client) -> None:
    """An answer stands right below its request, and is compared by test_readme.py; schemas are made from the code."""
    shown = [
        block
        for document in for_readers()
        if document.name != "SCHEMAS.md"
        for above, block in pairwise([None, *blocks(document)])
        if block is not None
        and block.language == "json"
        and not (above is not None and above.is_right_above(block))
    ]
    assert {block.document for block in shown} == {"docs/MIGRATION.md", "docs/NATS_SUBJECTS.md"}
    for block in shown:
        body = json.loads(block.text)
        if block.document == "docs/MIGRATION.md":
            answer = client.post(DECIDE, body)
            assert answer.status == 200, f"{block}: {answer}"
            assert answer.json()["context"]["request_id"] == "m-1"
        else:
            ours = {"tenant_id": "demo", "timestamp": now_ms(), "usage_id": new_id("u")}
            answer = client.post(USAGE, {**body, **ours})
            assert answer.status == 202, f"{block}: {answer}"


def test_the_event_that_is_shown_is_what_is_on_the_wire(devstack: Started, client: Client) -> None:
    [block] = [
        block
        for block in blocks(REPOSITORY / "docs" / "NATS_SUBJECTS.md")
        if block.language == "json"
    ]
    shown = json.loads(block.text)
    event = usage_body(tenant_id="demo", request_id=new_id("r"))
    assert client.post(USAGE, event).status == 202
    with NatsSession(devstack.operators["NATS_URL"]) as session:
        [message] = usage_of(session, assignment_id=event["assignment_id"])
    assert json.loads(message.payload).keys() == shown.keys()
