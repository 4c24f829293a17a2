"""One NATS connection a worker, however many HTTP connections there are."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support.documents import DECIDE, USAGE, decide_body, usage_body
from tests.support.http_client import Client, send_raw
from tests.support.idempotency_fleet import wait_until_each_worker_is_ready
from tests.support.load import at_once
from tests.support.scripted_router import ScriptedRouter
from tests.support.stacks import running
from tests.support.waiting import wait_until

REQUESTS = 1000
CONNECTIONS = 32
WORKERS = 2


def test_thousand_requests_at_32_connections_open_no_nats_connection_of_their_own() -> None:
    """The server's count of connections ever made rises by the number of workers, no more."""
    # Threads for all connections in one worker: this test is about connections, not about overload.
    environment = {"WEB_CONCURRENCY": str(WORKERS), "GATEWAY_THREADS": str(CONNECTIONS + 4)}
    with running("connections", environment) as started:
        wait_until(lambda: started.nats.varz()["connections"] == WORKERS)
        at_boot = started.nats.varz()["total_connections"]
        assert at_boot == WORKERS
        with ScriptedRouter(started.nats.url):

            def work(number: int) -> set[int]:
                with started.gateway.client() as client:
                    return {send(client, turn) for turn in range(REQUESTS // CONNECTIONS + 1)}

            statuses = set().union(*at_once(range(CONNECTIONS), work))
            total = started.nats.varz()["total_connections"]
    assert statuses == {200, 202}
    assert total == at_boot + 1, "more than the Router's one were made"


def send(client: Client, turn: int) -> int:
    """Decides and publishes in turn."""
    if turn % 2:
        return client.post(DECIDE, decide_body()).status
    return client.post(USAGE, usage_body()).status


def test_more_kept_connections_than_threads_are_all_served() -> None:
    """A thread stays with its connection for a moment only, and not at all while others wait for one."""
    environment = {"WEB_CONCURRENCY": str(WORKERS), "GATEWAY_THREADS": "6"}
    with running("many-connections", environment) as started:

        def work(_number: int) -> list[int]:
            with started.gateway.client() as client:
                return [client.get("/health").status for _ in range(20)]

        answers = at_once(range(CONNECTIONS), work)
    assert answers == [[200] * 20] * CONNECTIONS


def test_requests_sent_without_waiting_for_answers_are_answered_in_their_order() -> None:
    """HTTP/1.1 pipelining (RFC 9112, section 9.3.2), the last of them ending the connection."""
    paths = ["/health", "/livez", "/nowhere", "/health"]
    with running("pipelined", {}) as started:
        lines = [f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n" for path in paths[:-1]]
        lines.append(f"GET {paths[-1]} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = send_raw(started.gateway.host, started.gateway.port, ["".join(lines).encode()])
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", received)]
    assert statuses == [200, 200, 404, 200]


def test_the_workers_share_connections_evenly() -> None:
    """Whoever wakes first would take them all, and be at its limit while the others are idle."""
    environment = {"WEB_CONCURRENCY": str(WORKERS)}
    with running("shared-connections", environment) as started, contextlib.ExitStack() as kept:
        wait_until_each_worker_is_ready(started.gateway, WORKERS)
        workers = started.gateway.workers()
        # Not counted: what the question for readiness has left open, which ends by itself.
        wait_until(lambda: len({_open_after(pause, workers) for pause in (0.0, 0.2)}) == 1)
        before = {worker: open_sockets(worker) for worker in workers}

        def connect(_number: int) -> int:
            client = kept.enter_context(started.gateway.client())
            return client.get("/health").status

        assert set(at_once(range(CONNECTIONS), connect)) == {200}
        shares = [open_sockets(worker) - before[worker] for worker in workers]
    assert min(shares) >= CONNECTIONS // 4, shares


def test_clients_that_keep_no_connection_are_shared_out_too() -> None:
    with running("single-requests", {"WEB_CONCURRENCY": str(WORKERS)}) as started:
        wait_until_each_worker_is_ready(started.gateway, WORKERS)
        workers = started.gateway.workers()
        before = {worker: cpu_ticks(worker) for worker in workers}
        for _ in range(400):
            with started.gateway.client() as client:
                assert client.get("/openapi.json").status == 200
        spent = [cpu_ticks(worker) - before[worker] for worker in workers]
    assert min(spent) >= sum(spent) / 5, spent


def _open_after(seconds: float, workers: Sequence[int]) -> int:
    time.sleep(seconds)
    return sum(map(open_sockets, workers))


def cpu_ticks(pid: int) -> int:
    """The processor time that a process has used, in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def open_sockets(pid: int) -> int:
    """How many sockets a process has open."""
    found = 0
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            found += str(descriptor.readlink()).startswith("socket:")
    return found
