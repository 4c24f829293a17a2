"""The bench does not rot: its servers start and answer, and its loads are requests that are taken."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.bench.cells import SERVERS
from tests.bench.site import Site, running
from tests.support.http_client import Client

DECIDE = {
    "policy_id": "default",
    "task": {"type": "chat", "payload": {"text": "hello there"}},
    "context": {"session_id": "s-1"},
}


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running() as started:
        yield started


def usage(number: int) -> dict[str, Any]:
    return {
        "usage_id": f"u-{number}",
        "assignment_id": f"a-{number}",
        "event_type": "chat",
        "provider_id": "openai:gpt-4o",
        "latency_ms": 850,
        "cost": 0.012,
        "status": "success",
        "timestamp": time.time_ns() // 1_000_000,
    }


@pytest.mark.parametrize("name", list(SERVERS))
def test_a_server_starts_and_does_what_is_measured(name: str, site: Site) -> None:
    server = SERVERS[name](site)
    caller = {"Authorization": f"Bearer {site.key}"}
    if name in ("gateway-headers", "gateway-bare"):
        caller = {"X-Tenant-ID": "acme", "X-Role": "service"}
    try:
        with Client("127.0.0.1", server.port, headers=caller) as client:
            decided = client.post("/api/v1/routes/decide", DECIDE)
            assert decided.status == 200 and decided.json()["ok"] is True, decided
            if name not in ("hello", "naive"):
                assert decided.json()["decision"]["provider_id"] == "openai:gpt-4o"
                event = usage(list(SERVERS).index(name))
                first, again = (client.post("/api/v1/usage", event) for _ in range(2))
                assert first.status == again.status == 202 and first.json()["emitted"] is True
                assert again.header("Idempotency-Replayed") == "true"
        assert server.cpu_seconds() > 0 and server.memory_bytes() > 1 << 20
    finally:
        site.stop(server)
