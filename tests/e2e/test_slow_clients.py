"""Clients that are slow or silent hold no thread for longer than a request may take to arrive."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.documents import USAGE, usage_body
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import send_raw
from tests.support.stacks import Running, running
from tests.support.waiting import PATIENCE, wait_until

THREADS = 8
READ_SECONDS = 1.0
MANY = 4 * THREADS


@pytest.fixture
def bounded() -> Iterator[Running]:
    environment = {
        "WEB_CONCURRENCY": "1",
        "GATEWAY_THREADS": str(THREADS),
        "GATEWAY_READ_TIMEOUT_MS": f"{READ_SECONDS * 1000:.0f}",
    }
    with running("slow-clients", environment) as started:
        yield started


@contextlib.contextmanager
def trickling(gateway: GatewayProcess, start: bytes) -> Iterator[None]:
    """Many clients that have sent ``start``, and go on with a byte now and then for as long as the block lasts."""
    clients: list[socket.socket] = []
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(0.1):
            for client in clients:
                with contextlib.suppress(OSError):
                    client.send(b"x")

    thread = threading.Thread(target=go_on)
    try:
        for _ in range(MANY):
            client = socket.create_connection((gateway.host, gateway.port), timeout=5.0)
            clients.append(client)
            client.sendall(start)
        thread.start()
        yield
    finally:
        over.set()
        if thread.ident is not None:
            thread.join()
        for client in clients:
            client.close()


def head(path: str = USAGE, length: int = 500) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: gateway\r\nX-Tenant-ID: acme\r\nX-Role: admin\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n"
    ).encode()


def accepted(gateway: GatewayProcess) -> bool:
    with gateway.client(timeout=2.0) as client, contextlib.suppress(OSError):
        return client.post(USAGE, usage_body()).status == 202
    return False


@pytest.mark.parametrize(
    "start", [head() + b"\r\n{", head() + b"X-Slow: "], ids=["in the body", "in the head"]
)
def test_others_are_served_again_though_the_slow_ones_go_on(bounded: Running, start: bytes) -> None:
    before = bounded.gateway.workers()
    with trickling(bounded.gateway, start):
        wait_until(
            lambda: accepted(bounded.gateway),
            (2 * READ_SECONDS + 1.0) * PATIENCE,
            "slow clients hold all threads",
        )
    assert "Traceback" not in bounded.gateway.output()
    assert bounded.gateway.workers() == before


def test_connections_that_say_nothing_take_no_thread(bounded: Running) -> None:
    silent = [
        socket.create_connection((bounded.gateway.host, bounded.gateway.port), timeout=5.0)
        for _ in range(MANY)
    ]
    try:
        begun = time.monotonic()
        assert accepted(bounded.gateway)
        assert time.monotonic() - begun < 1.0 * PATIENCE
    finally:
        for one in silent:
            one.close()


@pytest.mark.parametrize("start", [head() + b"\r\n{", head()], ids=["in the body", "in the head"])
def test_a_request_that_does_not_arrive_in_time_is_answered_408_and_its_connection_ends(
    bounded: Running, start: bytes
) -> None:
    begun = time.monotonic()
    received = send_raw(bounded.gateway.host, bounded.gateway.port, [start])
    assert received.startswith(b"HTTP/1.1 408 "), received
    assert b"invalid_request" in received
    assert b"\r\nConnection: close\r\n" in received
    assert READ_SECONDS * 0.9 <= time.monotonic() - begun <= (2 * READ_SECONDS + 0.5) * PATIENCE
