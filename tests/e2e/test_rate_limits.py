"""Limits of requests over two workers: exactly so many in a window, and a client that can go on."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.documents import DECIDE, USAGE, new_id, usage_body
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Answer, Client, as_tenant
from tests.support.idempotency_fleet import wait_until_each_worker_is_ready, worker_clients
from tests.support.load import NO_ANSWER, Load, at_once, kinds
from tests.support.stacks import Running, running
from tests.support.waiting import wait_until
from tests.support.wire import expect_error

LIMIT = 60
WINDOW_SECONDS = 3600
CLIENTS = 12
REFUSED = "429 rate_limit_exceeded"
JSON_TYPE = {"Content-Type": "application/json"}
# Threads for every client in either worker, however the kernel spreads their connections.
ENVIRONMENT: Mapping[str, str] = {
    "GATEWAY_THREADS": "32",
    "RATE_LIMIT_WINDOW_MS": str(WINDOW_SECONDS * 1000),
}
TENANT_LIMIT = {**ENVIRONMENT, "RATE_LIMIT_TENANT_REQUESTS": str(LIMIT)}
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def limited() -> Iterator[Running]:
    """A gateway with a limit for each tenant. Shared: a test takes tenants that nobody else has."""
    with running("limited", TENANT_LIMIT) as started:
        wait_until_each_worker_is_ready(started.gateway)
        yield started


@pytest.fixture
def own() -> Iterator[Running]:
    """The same for one test, which may kill and restart."""
    with running("limited-own", TENANT_LIMIT) as started:
        wait_until_each_worker_is_ready(started.gateway)
        yield started


@pytest.fixture
def tenant() -> str:
    return new_id("tenant")


def publish(client: Client) -> Answer:
    """A request that is worth 202 when it is let in. The tenant is the client's."""
    body = usage_body()
    del body["tenant_id"]
    return client.post(USAGE, body)


def spend(gateway: GatewayProcess, tenant: str, requests: int) -> Counter[str]:
    """So many requests of a tenant, as fast as they go, over all workers; how they ended."""

    def work(number: int) -> list[str]:
        ended = []
        for _ in range(number, requests, CLIENTS):
            with gateway.client(as_tenant(tenant)) as client:  # another connection, perhaps worker
                answer = publish(client)
                ended.append(f"{answer.status} {answer.code or ''}".rstrip())
        return ended

    return Counter(kind for ended in at_once(range(CLIENTS), work) for kind in ended)


def expect_refused(answer: Answer, limit: int, *, tenant: str | None) -> int:
    """The answer is a refusal with all that belongs to it; returns the seconds until the window ends."""
    expect_error(answer, 429, "rate_limit_exceeded", tenant=tenant)
    assert answer.header("X-RateLimit-Limit") == str(limit)
    assert answer.header("X-RateLimit-Remaining") == "0"
    reset = int(answer.header("X-RateLimit-Reset") or 0)
    assert 1 <= reset <= WINDOW_SECONDS
    assert answer.header("Retry-After") == str(reset)
    return reset


def scraped(gateway: GatewayProcess, limit: str) -> int:
    """How many requests this limit has refused, over all workers."""
    answer = gateway.get("/metrics")
    assert answer is not None and answer.status == 200
    name = "beamline_gateway_rate_limited_requests_total"
    prefix = f'{name}{{limit="{limit}"}} '
    lines = answer.body.decode().splitlines()
    return sum(int(float(line.removeprefix(prefix))) for line in lines if line.startswith(prefix))


# -- exactly so many --------------------------------------------------------------------------------


def test_of_many_concurrent_requests_exactly_the_limit_is_let_in(
    limited: Running, tenant: str
) -> None:
    before = scraped(limited.gateway, "tenant")
    assert spend(limited.gateway, tenant, 2 * LIMIT) == {"202": LIMIT, REFUSED: LIMIT}
    wait_until(
        lambda: scraped(limited.gateway, "tenant") == before + LIMIT,
        message=lambda: (
            f"{scraped(limited.gateway, 'tenant') - before} refused requests are counted"
        ),
    )


def test_workers_count_together(limited: Running, tenant: str) -> None:
    with worker_clients(limited.gateway, tenant=tenant) as clients:
        assert len(clients) == 2
        turns = [*clients.values()] * (LIMIT // 2)
        remaining = [publish(client).header("X-RateLimit-Remaining") for client in turns]
        assert remaining == [str(LIMIT - number) for number in range(1, LIMIT + 1)]
        for client in clients.values():
            expect_refused(publish(client), LIMIT, tenant=tenant)


def test_other_tenants_are_not_affected(limited: Running, tenant: str) -> None:
    assert spend(limited.gateway, tenant, LIMIT + 5)[REFUSED] == 5
    assert spend(limited.gateway, new_id("other"), LIMIT) == {"202": LIMIT}


def test_a_killed_worker_takes_no_counted_request_with_it(own: Running, tenant: str) -> None:
    """What it had counted and not answered stays counted: its clients may have had their effect."""
    gateway = own.gateway
    victim, survivor = gateway.workers()
    limit_before_kill = LIMIT // 3
    with Load(
        lambda: gateway.client(as_tenant(tenant)), publish, clients=CLIENTS, keep_alive=False
    ) as load:
        load.wait_for(limit_before_kill, "202")
        os.kill(victim, signal.SIGKILL)
        load.wait_for(CLIENTS, REFUSED)
        outcomes = load.stop()
    counted = kinds(outcomes)
    assert set(counted) <= {"202", REFUSED, NO_ANSWER}, counted
    assert LIMIT - counted[NO_ANSWER] <= counted["202"] <= LIMIT, counted
    gateway.wait_for_workers(2, without=frozenset({victim}))
    wait_until_each_worker_is_ready(gateway)
    assert survivor in gateway.workers()
    with worker_clients(gateway, tenant=tenant) as clients:
        for client in clients.values():
            expect_refused(publish(client), LIMIT, tenant=tenant)


# -- in which order ---------------------------------------------------------------------------------

BROKEN: Mapping[str, tuple[bytes, Mapping[str, str]]] = {
    "broken JSON": (b'{"usage_id": ', JSON_TYPE),
    "no JSON": (b"hello", {"Content-Type": "text/plain"}),
    "nothing": (b"", JSON_TYPE),
    "an invalid header": (b"{}", {**JSON_TYPE, "X-Trace-ID": "zz"}),
    "a role that may nothing": (b"{}", {**JSON_TYPE, "X-Role": "nobody"}),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_one_over_the_limit_is_refused_whatever_else_is_wrong_with_it(
    limited: Running, tenant: str, broken: tuple[bytes, Mapping[str, str]]
) -> None:
    body, headers = broken
    with limited.gateway.client(as_tenant(tenant)) as client:
        for _ in range(LIMIT):
            answer = client.request("POST", USAGE, body=body, headers=headers)
            assert answer.status in (400, 403, 415), answer
        expect_refused(
            client.request("POST", USAGE, body=body, headers=headers), LIMIT, tenant=tenant
        )


def test_who_has_no_credentials_spends_only_the_global_limit() -> None:
    environment = {
        **ENVIRONMENT,
        "RATE_LIMIT_GLOBAL_REQUESTS": "10",
        "RATE_LIMIT_TENANT_REQUESTS": "4",
    }
    with running("limited-all", environment) as started, started.gateway.client() as client:
        nobody = {"X-Role": ""}
        for _ in range(3):
            assert client.post(USAGE, usage_body(), nobody).status == 401
        assert client.get("/api/v1/nothing").status == 404
        for remaining in "3210":
            answer = publish(client)
            assert (answer.status, answer.header("X-RateLimit-Remaining")) == (202, remaining)
        expect_refused(publish(client), 4, tenant="acme")
        # Nine so far, one by the tenant's limit: the global one has a place for one more.
        assert client.post(USAGE, usage_body(), nobody).status == 401
        expect_refused(client.post(USAGE, usage_body(), nobody), 10, tenant=None)
        expect_refused(client.get("/api/v1/nothing"), 10, tenant=None)
        expect_refused(publish(client), 10, tenant=None)
        for probe in ("/livez", "/readyz", "/health", "/_health", "/metrics"):
            assert client.get(probe).status == 200
        line = wait_until(lambda: refusal_in_the_log(started.gateway))
        assert (line["error_type"], line["error_code"]) == ("rate_limit", "rate_limit_exceeded")


def refusal_in_the_log(gateway: GatewayProcess) -> dict[str, object]:
    """An access line with status 429; empty if there is none."""
    for text in gateway.output().splitlines():
        if text.startswith("{"):
            line: dict[str, object] = json.loads(text)
            if line.get("status") == 429:
                return line
    return {}


# -- time -------------------------------------------------------------------------------------------


def test_who_waits_as_long_as_it_was_told_is_let_in_again() -> None:
    environment = {
        **ENVIRONMENT,
        "RATE_LIMIT_WINDOW_MS": "2000",
        "RATE_LIMIT_TENANT_REQUESTS": "5",
    }
    with running("limited-window", environment) as started:
        gateway = started.gateway
        wait_until_each_worker_is_ready(gateway)
        with worker_clients(gateway) as clients:
            one, other = clients.values()
            began = time.monotonic()
            assert [publish(one).status for _ in range(5)] == [202] * 5
            refused = publish(other)
            told = expect_refused(refused, 5, tenant="acme")
            assert told <= math.ceil(2.0)
            time.sleep(told)
            assert [publish(other).status for _ in range(5)] == [202] * 5
            assert time.monotonic() - began >= 2.0 or told >= 2
            expect_refused(publish(one), 5, tenant="acme")


# -- the connection ---------------------------------------------------------------------------------


def spent(limited: Running, tenant: str) -> Running:
    assert spend(limited.gateway, tenant, LIMIT) == {"202": LIMIT}
    return limited


@pytest.mark.parametrize("size", [30, 40_000])
def test_a_connection_goes_on_after_a_refusal_whose_body_nobody_read(
    limited: Running, tenant: str, size: int
) -> None:
    started = spent(limited, tenant)
    body = b"GET /hidden HTTP/1.1\r\n\r\n".ljust(size)
    with started.gateway.client(as_tenant(tenant)) as client:
        client.get("/livez")
        port = client.local_port
        for _ in range(3):
            answer = client.request("POST", USAGE, body=body, headers=JSON_TYPE)
            expect_refused(answer, LIMIT, tenant=tenant)
        assert client.get("/livez").status == 200
        assert client.local_port == port, "the connection was closed"


@pytest.mark.parametrize("size", [10, 60_000, 65_536, 70_000, MIB, 8 * MIB])
@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks"])
def test_a_connection_that_ends_with_a_refusal_says_so(
    limited: Running, tenant: str, chunked: bool, size: int
) -> None:
    """The client reads its refusal and knows that it needs another connection: no request of it fails."""
    started = spent(limited, tenant)
    body = b" " * size
    pieces = [body[start : start + 65_536] for start in range(0, size, 65_536)]
    with started.gateway.client(as_tenant(tenant)) as client:
        for _ in range(3):
            answer = client.request(
                "POST", USAGE, body=iter(pieces) if chunked else body, headers=JSON_TYPE
            )
            expect_refused(answer, LIMIT, tenant=tenant)
            assert client.get("/livez").status == 200


def test_a_body_that_never_comes_does_not_hold_the_refusal_up(
    limited: Running, tenant: str
) -> None:
    started = spent(limited, tenant)
    identity = "".join(f"{name}: {value}\r\n" for name, value in as_tenant(tenant).items())
    head = (
        f"POST {DECIDE} HTTP/1.1\r\nHost: gateway\r\n{identity}Content-Type: application/json\r\n"
    )
    address = (started.gateway.host, started.gateway.port)
    with socket.create_connection(address, timeout=30.0) as connection:
        connection.sendall(f"{head}Content-Length: 1000\r\n\r\n".encode())
        first = connection.recv(65536)
        assert first.startswith(b"HTTP/1.1 429 "), first


# -- the file ---------------------------------------------------------------------------------------


def test_requests_pass_and_the_metrics_tell_while_there_is_no_file_to_count_in(
    tmp_path: Path,
) -> None:
    """Its folder is taken away from a running gateway; with the folder back the limit holds again."""
    folder = tmp_path / "counts"
    folder.mkdir()
    environment = {
        **ENVIRONMENT,
        "RATE_LIMIT_FILE": str(folder / "file"),
        "RATE_LIMIT_TENANT_REQUESTS": "1",
    }
    with running("limited-file", environment) as started, started.gateway.client() as client:
        assert publish(client).status == 202
        expect_refused(publish(client), 1, tenant="acme")
        shutil.rmtree(folder)
        wait_until(lambda: publish(client).status == 202)
        answer = publish(client)
        assert (answer.status, answer.header("X-RateLimit-Limit")) == (202, None)
        text = client.get("/metrics").body.decode()
        assert 'rate_limit_uncounted_requests_total{limit="tenant"}' in text
        wait_until(lambda: "requests pass without rate limits" in started.gateway.output())
        folder.mkdir()
        wait_until(lambda: publish(client).status == 429)
        expect_refused(publish(client), 1, tenant="acme")


def test_new_workers_of_a_reloaded_gateway_count_on(own: Running, tenant: str) -> None:
    gateway = spent(own, tenant).gateway
    old = frozenset(gateway.workers())
    os.kill(gateway.pid, signal.SIGHUP)
    gateway.wait_for_workers(2, without=old)
    wait_until_each_worker_is_ready(gateway)
    with worker_clients(gateway, tenant=tenant) as clients:
        for client in clients.values():
            expect_refused(publish(client), LIMIT, tenant=tenant)


def counted_in(folder: Path) -> list[Path]:
    """The files of limits anywhere in a folder."""
    return [path for path in folder.rglob("*") if "rate-limit" in path.name]


def test_a_gateway_starts_with_nothing_counted_and_leaves_no_file(tmp_path: Path) -> None:
    environment = {**ENVIRONMENT, "TMPDIR": str(tmp_path), "RATE_LIMIT_TENANT_REQUESTS": "1"}

    def one_and_no_more() -> None:
        with started.gateway.client() as client:
            assert publish(client).status == 202
            expect_refused(publish(client), 1, tenant="acme")

    with running("limited-start", environment) as started:
        one_and_no_more()
        assert counted_in(tmp_path)
        started.gateway.terminate()
        assert started.gateway.wait() == 0
        assert not counted_in(tmp_path)
        started.gateway.start()
        one_and_no_more()


def test_a_gateway_whose_file_cannot_be_made_does_not_start(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "file"
    gateway = GatewayProcess(
        environment={"RATE_LIMIT_FILE": str(path), "RATE_LIMIT_GLOBAL_REQUESTS": "1"}
    )
    try:
        gateway.spawn()
        assert gateway.wait() == 2
        assert "RATE_LIMIT_FILE: cannot use" in gateway.output()
        assert "Traceback" not in gateway.output()
    finally:
        gateway.close()
