"""Probes: what lives, what is ready and what is missing, as NATS comes and goes."""

from __future__ import annotations

import time

import pytest

from gateway.devstack.nats_server import NatsServer
from gateway.runtime import EXTENSION
from tests.integration.gateway.wired import Wired, wired
from tests.support.documents import ACKS, DECIDE, ack_body, decide_body
from tests.support.nats_session import NatsSession
from tests.support.waiting import AT_ONCE_SECONDS, GENEROUS_SECONDS, RECOVERY_SECONDS, wait_until

PUBLIC = ["/health", "/_health", "/metrics", "/openapi.json"]


def missing(gateway: Wired) -> str:
    """What ``/readyz`` says is missing; it must say that something is."""
    answer = gateway.get("/readyz")
    body = answer.get_json()
    assert answer.status_code == 503 and body["status"] == "not_ready", body
    return "; ".join(body["missing"])


def assert_unavailable_at_once(gateway: Wired) -> None:
    for path, body in ((DECIDE, decide_body()), (ACKS, ack_body())):
        began = time.monotonic()
        answer = gateway.post(path, body)
        took = time.monotonic() - began
        assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "unavailable")
        assert answer.headers["Retry-After"]
        assert took < AT_ONCE_SECONDS


def test_a_ready_gateway_says_so_and_misses_nothing(shared: Wired) -> None:
    answer = shared.get("/readyz")
    assert answer.status_code == 200
    assert answer.get_json()["status"] == "ready" and answer.get_json()["missing"] == []
    assert shared.get("/livez").get_json() == {"status": "ok"}


def test_a_bridge_that_was_not_started_is_not_alive(nats: NatsServer) -> None:
    with wired(nats.url, start=False) as gateway:
        assert gateway.get("/livez").status_code == 503
        assert gateway.get("/livez").get_json() == {"status": "failed"}
        assert "loop" in missing(gateway)
        assert_unavailable_at_once(gateway)
        for path in PUBLIC:
            assert gateway.get(path).status_code == 200


def test_a_draining_worker_is_alive_answers_and_is_not_ready(nats: NatsServer) -> None:
    with wired(nats.url) as gateway:
        gateway.until_ready()
        gateway.app.extensions[EXTENSION].draining.set()
        assert "draining" in missing(gateway)
        assert gateway.get("/livez").status_code == 200


def test_nats_may_come_later_go_and_come_back() -> None:
    server = NatsServer(name="comes-and-goes")
    try:
        with wired(server.url) as gateway:
            assert gateway.get("/livez").status_code == 200
            assert "NATS" in missing(gateway)
            assert_unavailable_at_once(gateway)

            for _ in range(2):
                server.start()
                gateway.until_ready()
                assert gateway.post(ACKS, ack_body()).status_code == 202
                server.kill()
                wait_until(lambda: gateway.get("/readyz").status_code == 503, GENEROUS_SECONDS)
                assert gateway.get("/livez").status_code == 200
                assert "NATS" in missing(gateway)
                assert_unavailable_at_once(gateway)

            server.start()
            wait_until(lambda: gateway.post(ACKS, ack_body()).status_code == 202, RECOVERY_SECONDS)
    finally:
        server.close()


def test_what_a_bridge_lost_it_says_until_it_has_it_again() -> None:
    """A stream that somebody deletes is made again, and until then a publish says that nothing was stored."""
    with NatsServer(name="loses-a-stream") as server, wired(server.url) as gateway:
        gateway.until_ready()
        with NatsSession(server.url) as session:
            session.delete_stream("BEAMLINE_EXEC")
        assert gateway.post(ACKS, ack_body()).status_code == 503
        wait_until(lambda: gateway.post(ACKS, ack_body()).status_code == 202, GENEROUS_SECONDS)


@pytest.mark.parametrize("path", ["/livez", "/readyz", *PUBLIC])
def test_probes_need_no_credentials_and_take_head(shared: Wired, path: str) -> None:
    assert shared.get(path).status_code == 200
    assert shared.app.test_client().head(path).status_code == 200
