"""The bench does not rot: its servers start and answer, and its loads are requests that are taken."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.bench import report
from tests.bench.cells import SERVERS
from tests.bench.site import Site, running
from tests.bench.wrk_load import Sample
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


def test_the_report_says_which_targets_are_met(tmp_path: Any) -> None:
    results = {
        "decide gateway decide 8": [Sample(100, 50.0, 1.0, 3.0, 500.0, 0)] * 2,
        "decide fastapi decide 8": [Sample(100, 40.0, 1.0, 2.0, 500.0, 0)] * 2,
        "decide hello decide 8": [Sample(1000, 500.0, 1.0, 2.0, 100.0, 7)] * 2,
    }
    text = report.write(results, tmp_path, 1.0)
    assert "| traced decide to FastAPI, 8 connections | 1.00 | 1.25 | met |" in text
    assert "| traced decide to Flask hello, 8 | 0.35 | 0.10 | **not met** |" in text
    assert "| decide | hello | decide | 8 | 500 | 1.0 | 2.0 | 100 | 14 |" in text
    assert report.read(tmp_path / "bench.json") == results
    assert json.loads((tmp_path / "bench.json").read_text())["seconds"] == 1.0
    assert (tmp_path / "bench.svg").read_text().count("<rect") == 3
