"""``/status``: what an instance tells people about itself, and whom it tells what."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.support.access_credentials import KeyFile, bearer
from tests.support.documents import ASSIGNMENTS, DECIDE, assignment_body, decide_body, new_id
from tests.support.http_client import Answer, Client, as_tenant
from tests.support.idempotency_fleet import wait_until_each_worker_is_ready, worker_clients
from tests.support.nats_session import NatsSession
from tests.support.result_messages import publish, result_body, result_headers
from tests.support.stacks import Running, running
from tests.support.waiting import wait_until

STATUS: Final = "/status"
#: What browsers send.
HTML: Final = {
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
}
QUICK: Final = {"NATS_BACKOFF_MS": "10", "NATS_MAX_DELIVER": "1", "NATS_ACK_WAIT_MS": "2000"}


def status(client: Client) -> dict[str, Any]:
    answer = client.get(STATUS)
    assert answer.status == 200, answer
    told: dict[str, Any] = answer.json()["status"]
    return told


def from_each_worker(stack: Running, tenant: str = "acme") -> list[dict[str, Any]]:
    """The status as each worker tells it."""
    with worker_clients(stack.gateway, tenant=tenant) as clients:
        return [status(client) for client in clients.values()]


@pytest.fixture(scope="module")
def house() -> Iterator[Running]:
    """A gateway with a Router, which gives refused messages up at once. Shared: counters only rise."""
    with running("status", QUICK, reference_router=True) as started:
        wait_until_each_worker_is_ready(started.gateway)
        yield started


@pytest.fixture
def client(house: Running) -> Iterator[Client]:
    with house.gateway.client() as client:
        yield client


# -- what it tells --------------------------------------------------------------------------------------


def test_it_tells_whether_it_is_connected_and_how_its_streams_are(client: Client) -> None:
    # What a worker tells of itself is a second old.
    told = wait_until(
        lambda: told if (told := status(client))["instance"]["ready_workers"] == 2 else {}
    )
    assert told["ready"] is True and told["draining"] is False
    assert told["nats"]["connected"] is True and told["nats"]["missing"] == []
    instance = told["instance"]
    assert [instance[f"{what}workers"] for what in ("", "configured_", "connected_", "ready_")] == [
        2
    ] * 4
    names = {stream["name"] for stream in told["nats"]["streams"]}
    assert {"BEAMLINE_EXEC", "BEAMLINE_USAGE", "BEAMLINE_DLQ", "KV_BEAMLINE_IDEMPOTENCY"} <= names
    settings = {one["name"]: one for one in told["settings"]}
    assert settings["WEB_CONCURRENCY"] == {
        "name": "WEB_CONCURRENCY",
        "value": "2",
        "is_default": True,
    }
    assert settings["NATS_MAX_DELIVER"]["is_default"] is False


def test_it_counts_requests_over_all_workers_by_status(house: Running) -> None:
    with worker_clients(house.gateway, tenant="acme") as clients:
        first, second = clients.values()
        before = status(first)["requests"]["since_start"]
        for client in (first, second):
            assert client.post(DECIDE, decide_body()).status == 200
            assert client.post(DECIDE, {}).status == 400
            assert client.get("/readyz").status == 200
        for client in (first, second):
            after = status(client)["requests"]["since_start"]
            # Neither the probes nor the status itself are among them.
            assert {name: after[name] - before[name] for name in after} == {
                "2xx": 2,
                "3xx": 0,
                "4xx": 2,
                "5xx": 0,
            }


def test_every_worker_tells_the_last_minutes_of_all(house: Running) -> None:
    with worker_clients(house.gateway, tenant="acme") as clients:
        for client in clients.values():
            for _ in range(10):
                client.post(DECIDE, decide_body())

    def agreed() -> list[dict[str, Any]]:
        requests = [told["requests"] for told in from_each_worker(house)]
        agree = all(one["windows"][1]["requests"] == one["since_start"] for one in requests)
        return requests if agree else []

    # A worker's notes reach the others within a step of five seconds.
    for requests in wait_until(agreed):
        assert requests["since_start"]["2xx"] >= 20
        assert sum(requests["steps"]["2xx"]) == requests["since_start"]["2xx"]
        latency = requests["windows"][0]["latency_ms"]
        assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]


def test_hits_and_misses_move(client: Client) -> None:
    before = status(client)
    assignment = assignment_body()
    for _ in range(3):
        assert client.post(ASSIGNMENTS, assignment).status == 202
    session = {"session_id": new_id("s")}
    for _ in range(4):
        assert client.post(DECIDE, decide_body(context=session)).status == 200
    after = status(client)
    moved = {
        (what, side): after[what][side] - before[what][side]
        for what in ("idempotency", "sticky")
        for side in ("hits", "misses")
    }
    assert moved == {
        ("idempotency", "hits"): 2,
        ("idempotency", "misses"): 1,
        ("sticky", "hits"): 3,
        ("sticky", "misses"): 1,
    }


def test_dead_letters_are_told_to_their_own_tenant(house: Running) -> None:
    secret = "<script>alert('canary')</script>"
    with NatsSession(house.nats.url) as session:
        for tenant in ("acme", "acme", "initech"):
            headers = result_headers(tenant, trace_id="4bf92f3577b34da6a3ce929d0e0e4736")
            publish(session, result_body(cost=-1, error_message=secret), headers)

    def seen(tenant: str) -> dict[str, Any]:
        with house.gateway.client(as_tenant(tenant)) as client:
            letters: dict[str, Any] = status(client)["dead_letters"]
            return letters

    # Each worker looks again every two seconds.
    def all_seen(tenant: str) -> dict[str, Any]:
        def found() -> dict[str, Any]:
            letters = seen(tenant)
            there = len(letters["recent"]) + letters["recent_of_others"]
            # A letter is counted once it has been acknowledged, and may be read from the stream before.
            return letters if (there, letters["since_start"]) == (3, 3) else {}

        return wait_until(found)

    acme = all_seen("acme")
    assert acme["recent_of_others"] == 1 and acme["trouble"] is None
    assert acme["since_start"] == 3
    newest, older = acme["recent"]
    assert newest["seq"] > older["seq"]
    assert newest["subject"] == "caf.exec.result.v1" and newest["error_code"] == "schema_invalid"
    assert newest["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert len(all_seen("initech")["recent"]) == 1
    nobody = all_seen("umbrella")
    assert nobody["recent"] == [] and nobody["recent_of_others"] == 3

    def page() -> bytes:
        with house.gateway.client() as client:
            body = client.get(STATUS, HTML).body
        return body if b"schema_invalid" in body else b""

    assert secret.encode() not in wait_until(page)


def test_unknown_outcomes_are_told_to_their_own_tenant_by_every_worker() -> None:
    environment = {"ROUTER_REQUEST_TIMEOUT_MS": "400"}
    with running("unknown", environment) as stack:
        with stack.gateway.client() as client:
            first = client.post(ASSIGNMENTS, assignment_body())
            assert first.status == 202
            stack.nats.freeze()
            lost = client.post(ASSIGNMENTS, assignment_body())
            other = client.post(
                ASSIGNMENTS, assignment_body(tenant_id="initech"), as_tenant("initech")
            )
            # Seen while it lasts: neither figures nor page ask NATS for them.
            during = status(client)
            page = client.get(STATUS, HTML)
            stack.nats.thaw()
        assert (lost.status, lost.code) == (504, "outcome_unknown")
        assert (other.status, other.code) == (504, "outcome_unknown")
        assert lost.json()["context"]["request_id"] in page.body.decode()
        assert during["unknown_outcomes"]["since_start"] == 2

        def told_by_all() -> bool:
            return all(
                [one["request_id"] for one in told["unknown_outcomes"]["recent"]]
                == [lost.json()["context"]["request_id"]]
                and told["unknown_outcomes"]["recent_of_others"] == 1
                for told in from_each_worker(stack)
            )

        wait_until(told_by_all)
        with stack.gateway.client(as_tenant("initech")) as client:
            (one,) = status(client)["unknown_outcomes"]["recent"]
        assert one["operation"] == "assignments" and one["times"] == 1
        assert one["trace_id"] == other.header("X-Trace-ID")


def test_it_goes_on_without_nats_and_says_so() -> None:
    with running("cut-off", {"ROUTER_REQUEST_TIMEOUT_MS": "400"}) as stack:
        stack.nats.stop()

        def cut_off() -> dict[str, Any]:
            with stack.gateway.client() as client:
                told = status(client)
            return told if told["instance"]["connected_workers"] == 0 else {}

        told = wait_until(cut_off)
        assert told["ready"] is False and told["nats"]["connected"] is False
        assert told["nats"]["missing"] and told["dead_letters"]["trouble"]
        with stack.gateway.client() as client:
            page = client.get(STATUS, HTML).body.decode()
        assert "Not ready" in page and "not connected" in page


def test_workers_that_died_are_still_part_of_the_last_minutes() -> None:
    def counted() -> list[int]:
        told = from_each_worker(stack)
        return [one["requests"]["windows"][1]["requests"]["2xx"] for one in told]

    with running("replaced", reference_router=True) as stack:
        wait_until_each_worker_is_ready(stack.gateway)
        with worker_clients(stack.gateway, tenant="acme") as clients:
            for client in clients.values():
                for _ in range(15):
                    assert client.post(DECIDE, decide_body()).status == 200
        wait_until(lambda: counted() == [30, 30])  # each has left its notes to the other
        before = stack.gateway.workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        stack.gateway.wait_for_workers(2, without=frozenset(before))
        wait_until_each_worker_is_ready(stack.gateway)
        assert counted() == [30, 30]


# -- in which form --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        (HTML["Accept"], "text/html; charset=utf-8"),
        ("text/html", "text/html; charset=utf-8"),
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        (None, "application/json"),
        ("text/html;q=0.5, application/json", "application/json"),
        ("image/png", "application/json"),
        ("\x80,;q=;;", "application/json"),
    ],
)
def test_browsers_get_a_page_and_programs_get_json(
    client: Client, accept: str | None, media: str
) -> None:
    answer = client.get(STATUS, {} if accept is None else {"Accept": accept})
    assert (answer.status, answer.header("Content-Type")) == (200, media)
    assert answer.header("Vary") == "Accept" and answer.header("Cache-Control") == "no-store"


def test_the_page_takes_nothing_from_elsewhere_and_runs_nothing_inline(client: Client) -> None:
    answer = client.get(STATUS, HTML)
    page = answer.body.decode()
    policy = answer.header("Content-Security-Policy") or ""
    assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy
    assert not re.search(r"<script(?![^>]* src=)|\son\w+=|\sstyle=|<style", page)
    assets = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page)
    assert assets and not [one for one in assets if "://" in one.replace("http://www.w3.org/", "")]
    for asset in assets:
        if asset.startswith("/status/"):
            got = client.get(asset)
            assert got.status == 200 and got.header("X-Content-Type-Options") == "nosniff"
            assert b"://" not in got.body


@pytest.mark.parametrize("name", ["..%2fpage.py", "%2e%2e/page.py", "page.py", "", "%00", "a/b"])
def test_there_is_nothing_else_among_its_assets(client: Client, name: str) -> None:
    assert client.get(f"/status/assets/{name}").status == 404


def test_the_page_says_without_scripts_what_json_says(client: Client) -> None:
    told = status(client)
    page = client.get(STATUS, HTML).body.decode()
    assert '<noscript><meta http-equiv="refresh" content="5"></noscript>' in page
    for stream in told["nats"]["streams"]:
        assert stream["name"] in page
    for name in ("WEB_CONCURRENCY", "IDEMPOTENCY_TTL_MS"):
        assert name in page


def test_head_is_get_without_a_body(client: Client) -> None:
    answer = client.request("HEAD", STATUS, headers=HTML)
    assert (answer.status, answer.body) == (200, b"")


# -- whom it tells ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, KeyFile]]:
    """A gateway that wants API keys."""
    keys = KeyFile(tmp_path_factory.mktemp("keys"))
    with running("status-keys", keys.environment) as started:
        yield started, keys


def basic(password: str, user: str = "anybody") -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


def ask(stack: Running, headers: dict[str, str], path: str = STATUS) -> Answer:
    with stack.gateway.client(headers) as client:
        return client.get(path)


@pytest.mark.parametrize("path", [STATUS, "/status/assets/status.css"])
def test_it_wants_a_key_which_a_browser_may_send_as_a_password(
    keyed: tuple[Running, KeyFile], path: str
) -> None:
    stack, keys = keyed
    viewer, service = keys.make("acme", "viewer"), keys.make("acme", "service")
    assert ask(stack, bearer(viewer), path).status == 200
    assert ask(stack, basic(viewer), path).status == 200
    assert ask(stack, basic(viewer, user=""), path).status == 200
    assert ask(stack, bearer(service), path).status == 403
    assert ask(stack, basic(service), path).status == 403
    for headers in ({}, basic("wrong"), basic(viewer[:-1]), {"Authorization": "Basic !"}):
        refused = ask(stack, headers, path)
        assert refused.status == 401
        assert (refused.header("WWW-Authenticate") or "").startswith("Basic realm=")


def test_a_password_opens_nothing_else(keyed: tuple[Running, KeyFile]) -> None:
    stack, keys = keyed
    admin = keys.make("acme", "admin")
    refused = ask(stack, basic(admin), "/api/v1/results/as-1")
    assert refused.status == 401
    assert "Basic" not in (refused.header("WWW-Authenticate") or "")


def test_it_shows_no_secret_no_address_and_no_other_tenant(house: Running) -> None:
    with house.gateway.client(as_tenant("hooli")) as client:
        client.post(DECIDE, decide_body(tenant_id="hooli"))
    with house.gateway.client() as client:
        for headers in ({}, HTML):
            body = client.get(STATUS, headers).body.decode()
            assert "hooli" not in body and house.nats.url not in body
            assert "127.0.0.1" not in body and str(house.gateway.folder) not in body
        assert json.loads(client.get(STATUS).body)["ok"] is True
