"""``METRICS_BIND``: the metrics on an address of their own, and on that alone."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from gateway.devstack.ports import PortReservation
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Client, send_raw
from tests.support.scraping import OPENMETRICS, Scrape, read, scrape
from tests.support.stacks import Running, running
from tests.support.waiting import AT_ONCE_SECONDS, wait_until


class Own(Running):
    """A gateway whose metrics have an address of their own."""

    def scraper(self) -> Client:
        host, _, port = self.gateway.environment["METRICS_BIND"].rpartition(":")
        return Client(host, int(port), headers={}, timeout=10.0)

    def scrape(self) -> Scrape:
        with self.scraper() as client:
            return scrape(client)


@contextlib.contextmanager
def own(name: str, **environment: str) -> Iterator[Own]:
    with (
        PortReservation() as port,
        running(name, {"METRICS_BIND": port.address, **environment}) as started,
    ):
        found = Own(started.gateway, started.nats)
        workers = int(found.gateway.environment["WEB_CONCURRENCY"])
        wait_until(lambda: found.scrape().total("beamline_gateway_ready_workers") == workers)
        yield found


@pytest.fixture(scope="module")
def started() -> Iterator[Own]:
    """Shared by those that end nothing."""
    with own("metrics-bind") as started:
        yield started


def test_they_are_there_and_not_on_the_public_address(started: Own) -> None:
    with started.gateway.client(headers={}) as public:
        assert public.get("/metrics").status == 404
        assert public.get("/livez").status == 200
    assert started.scrape().total("beamline_gateway_workers") == 2


def test_there_is_nothing_else_on_their_address(started: Own) -> None:
    with started.scraper() as client:
        for path in (
            "/",
            "/livez",
            "/status",
            "/metrics/",
            "/docs",
            "/api/v1/usage",
            "/../metrics",
        ):
            assert client.get(path).status == 404, path
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "BREW"):
            answer = client.request(method, "/metrics")
            assert (answer.status, answer.header("Allow")) == (405, "GET, HEAD"), method


def test_they_are_negotiated_as_on_the_public_one(started: Own) -> None:
    with started.scraper() as client:
        answer = client.get("/metrics", {"Accept": OPENMETRICS})
        assert (answer.header("Content-Type") or "").startswith(OPENMETRICS)
        assert read(answer).samples
        assert client.get("/metrics", {"Accept-Encoding": "gzip"}).header("Content-Encoding")
        head = client.request("HEAD", "/metrics")
        assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"\xff\xfe\x00\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_nonsense_is_answered_or_cut_off_and_changes_nothing(started: Own, raw: bytes) -> None:
    host, _, port = started.gateway.environment["METRICS_BIND"].rpartition(":")
    send_raw(host, int(port), [raw], timeout=10.0)
    assert started.scrape().total("beamline_gateway_workers") == 2


def test_clients_that_say_nothing_are_given_up_and_scrapes_go_on(started: Own) -> None:
    host, _, port = started.gateway.environment["METRICS_BIND"].rpartition(":")
    with contextlib.ExitStack() as stack:
        idle = [
            stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
            for _ in range(32)
        ]

        def answered() -> bool:
            with contextlib.suppress(OSError, AssertionError):
                return started.scrape().total("beamline_gateway_workers") == 2
            return False

        # More than there are places for: some are turned away, and the rest when their time is over.
        wait_until(answered)
        for connection in idle:
            assert connection.recv(1024)[:12] in (b"", b"HTTP/1.0 503")


def test_a_scrape_is_answered_while_all_threads_are_busy() -> None:
    """Connections that send nothing hold gunicorn's threads: on the public address nobody would be answered."""
    with (
        own("metrics-busy", GATEWAY_THREADS="4", WEB_CONCURRENCY="1") as started,
        contextlib.ExitStack() as stack,
    ):
        address = (started.gateway.host, started.gateway.port)
        for _ in range(64):
            connection = stack.enter_context(socket.create_connection(address, timeout=20))
            connection.send(b"POST /api/v1/usage HTTP/1.1\r\nHost: x\r\nContent-Le")
        with started.gateway.client(headers={}, timeout=0.3) as public:
            wait_until(lambda: _is_busy(public))
        began = time.monotonic()
        assert started.scrape().total("beamline_gateway_workers") == 1
        assert time.monotonic() - began < 10 * AT_ONCE_SECONDS


def test_a_worker_that_is_replaced_hands_on(started: Own) -> None:
    old = started.gateway.workers()
    os.kill(old[0], signal.SIGKILL)
    started.gateway.wait_for_workers(2, without=frozenset(old[:1]))
    wait_until(lambda: started.scrape().total("beamline_gateway_ready_workers") == 2)


def test_they_are_told_to_the_end_and_the_port_is_free_after_it() -> None:
    with own("metrics-end", GATEWAY_DRAIN_MS="1500") as started:
        gateway, scrapes = started.gateway, 0
        gateway.terminate()
        wait_until(lambda: started.scrape().total("beamline_gateway_ready_workers") == 0)
        over = threading.Event()

        def scrape_on() -> None:
            nonlocal scrapes
            while not over.is_set():
                with contextlib.suppress(OSError):
                    started.scrape()
                    scrapes += 1

        scraper = threading.Thread(target=scrape_on)
        scraper.start()
        began = time.monotonic()
        try:
            assert gateway.wait() == 0
        finally:
            over.set()
            scraper.join()
        assert scrapes > 0
        assert time.monotonic() - began < 15.0
        host, _, port = gateway.environment["METRICS_BIND"].rpartition(":")
        with pytest.raises(OSError):  # noqa: PT011 - refused, or reset
            socket.create_connection((host, int(port)), timeout=5.0).close()


def test_an_address_in_use_stops_the_start_and_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        gateway = GatewayProcess(environment={"METRICS_BIND": address})
        gateway.spawn()
        try:
            assert gateway.wait() != 0
            assert str(taken.getsockname()[1]) in gateway.output()
        finally:
            gateway.close()


def test_the_public_address_for_both_is_a_wrong_setting() -> None:
    gateway = GatewayProcess()
    gateway.environment["METRICS_BIND"] = gateway.environment["GATEWAY_BIND"]
    gateway.spawn()
    try:
        assert gateway.wait() == 2
        assert "METRICS_BIND: expected another address" in gateway.output()
    finally:
        gateway.close()


def _is_busy(public: Client) -> bool:
    try:
        public.get("/livez")
    except OSError:
        return True
    return False
