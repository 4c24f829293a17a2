"""The account that docs/NATS_ACCOUNT.md gives is enough for everything, and nothing in it is for show."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from bridge import Bridge, BridgeConfig, Tls
from gateway.devstack.nats_server import NatsServer
from gateway.devstack.providers import Catalogue
from gateway.devstack.router import ReferenceRouter
from tests.integration.gateway.wired import CALLER, wired
from tests.support.certificates import Certificates, make_certificates
from tests.support.documented_account import (
    GATEWAY_LOGIN,
    ROUTER_PASSWORD,
    documented_account,
)
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
from tests.support.waiting import GENEROUS_SECONDS, wait_until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@contextmanager
def router_at(url: str, tls: Tls | None = None) -> Iterator[Bridge]:
    reference = ReferenceRouter(Catalogue.from_environ({}))
    config = BridgeConfig(servers=(url,), user="router", password=ROUTER_PASSWORD, tls=tls)
    bridge = Bridge(config, services=(reference.decide,))
    bridge.start()
    try:
        yield bridge
    finally:
        bridge.close(5.0)


def assert_everything_works(
    url: str, tls: Tls | None = None, environ: Mapping[str, str] | None = None
) -> None:
    with router_at(url, tls) as router, wired(url, {**GATEWAY_LOGIN, **(environ or {})}) as gateway:
        gateway.until_ready()
        wait_until(lambda: gateway.post(DECIDE, decide_body()).status_code == 200, GENEROUS_SECONDS)
        for path, body in (
            (ASSIGNMENTS, assignment_body()),
            (ACKS, ack_body()),
            (USAGE, usage_body()),
        ):
            answers = [gateway.post(path, body) for _ in range(2)]
            assert [answer.status_code for answer in answers] == [202, 202], answers[0].data
        assignment_id = new_id("as")
        publish_result(router, assignment_id)
        waited = gateway.get(f"/api/v1/results/{assignment_id}?wait_ms=10000", **CALLER)
        assert waited.status_code == 200, waited.data
        assert gateway.get("/readyz").get_json()["missing"] == []


def publish_result(worker: Bridge, assignment_id: str) -> None:
    """What a worker says when it is done."""
    result = {
        "version": "1",
        "assignment_id": assignment_id,
        "status": "success",
        "provider_id": "openai:gpt-4o",
        "job": {"type": "chat"},
        "latency_ms": 850,
        "cost": 0.012,
        "timestamp": now_ms(),
    }
    headers = {
        "version": "1",
        "tenant_id": "acme",
        "trace_id": TRACE,
        "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
        "Nats-Msg-Id": assignment_id,
    }
    deadline = time.monotonic() + GENEROUS_SECONDS
    payload = json.dumps(result).encode()
    worker.run(
        lambda bus: bus.publish("caf.exec.result.v1", payload, headers=headers, deadline=deadline),
        deadline,
    )


def test_the_documented_account_is_enough() -> None:
    with NatsServer(name="documented", config=documented_account()) as server:
        assert_everything_works(server.url)


def test_the_documented_account_is_enough_with_tls_on_both_sides(tmp_path: Path) -> None:
    made: Certificates = make_certificates(tmp_path)
    config = documented_account() + "\n" + made.nats_config()
    with NatsServer(name="documented-tls", config=config) as server:
        assert_everything_works(
            server.url.replace("nats://", "tls://"),
            Tls(ca_file=made.authority, cert_file=made.client, key_file=made.client_key),
            {
                "NATS_TLS_CA_FILE": str(made.authority),
                "NATS_TLS_CERT_FILE": str(made.client),
                "NATS_TLS_KEY_FILE": str(made.client_key),
            },
        )


@pytest.mark.parametrize(
    "subject",
    [
        "beamline.router.v1.decide",
        "caf.exec.assign.v1.ack",
        "$JS.API.STREAM.CREATE.BEAMLINE_USAGE",
        "$SYS.REQ.USER.INFO",
        "_INBOX.>",
    ],
)
def test_one_permission_less_is_named_by_readyz(subject: str) -> None:
    less = documented_account().replace(f'"{subject}"\n', "", 1)
    with (
        NatsServer(name="one-less", config=less) as server,
        wired(server.url, GATEWAY_LOGIN) as gateway,
    ):
        wait_until(
            lambda: subject in gateway.get("/readyz").get_data(as_text=True),
            GENEROUS_SECONDS,
            lambda: gateway.get("/readyz").get_data(as_text=True),
        )
        assert gateway.get("/readyz").status_code == 503
        assert gateway.get("/livez").status_code == 200
