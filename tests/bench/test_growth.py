"""What growth is measured with is what the gateway itself would find; and wrk's loads are answered."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import filling, memory
from tests.bench.__main__ import GROWTH, PARTS, chosen
from tests.bench.cells import GROUPS
from tests.bench.each_once import Ledger, read_stream
from tests.bench.growth import NAMED, tenants
from tests.bench.results import Settings
from tests.bench.site import Server, Site, running
from tests.bench.wrk_load import measure
from tests.support.http_client import Client

TINY = Settings(seconds=1.0, rounds=1, scale=0.001, machine="", commit="")
LIVE = 3_000
LOADS = (
    *("decide", "decide-plain", "decide-id", "assignments", "usage", "batch"),
    *("replay", "mixed", "session-known", "session-new", "session-any"),
)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with running() as started:
        yield started


@pytest.fixture(scope="module")
def server(site: Site) -> Server:
    return site.gateway(OTEL_EXPORTER_OTLP_ENDPOINT=site.collector)


@pytest.fixture
def client(site: Site, server: Server) -> Iterator[Client]:
    headers = {"Authorization": f"Bearer {site.key}"}
    with Client("127.0.0.1", server.port, headers=headers) as connected:
        yield connected


def test_the_gateway_goes_on_from_a_claim_that_was_filled_in(site: Site, client: Client) -> None:
    now_ms = time.time_ns() // 1_000_000
    content = filling.claims(now_ms)
    filling.refill(site.nats.url, content, LIVE)
    assert filling.live(site.nats.url, content.bucket) == LIVE
    for number in (0, LIVE - 1):
        answer = client.post("/api/v1/usage", filling.usage_event(number, now_ms))
        assert answer.status == 202, answer
        assert answer.header("Idempotency-Replayed") == "true"
    other = client.post("/api/v1/usage", filling.usage_event(1, now_ms) | {"cost": 1.0})
    assert other.status == 409, other
    new = client.post("/api/v1/usage", filling.usage_event(LIVE, now_ms))
    assert new.status == 202 and new.header("Idempotency-Replayed") is None
    filling.refill(site.nats.url, content, 10)
    assert filling.live(site.nats.url, content.bucket) == 10


def test_a_session_that_was_filled_in_is_a_hit(site: Site, client: Client) -> None:
    filling.refill(site.nats.url, filling.sessions(), LIVE)
    task = {"type": "chat", "payload": {"text": "hello there"}}
    for number, sticky in ((LIVE - 1, "hit"), (LIVE, "miss")):
        body = {"task": task, "context": {"session_id": f"live-{number}"}}
        assert client.post("/api/v1/routes/decide", body).header("X-Sticky") == sticky


@pytest.mark.parametrize("load", LOADS)
def test_every_load_is_answered_and_what_is_told_is_stored(
    load: str, site: Site, server: Server, tmp_path: Path
) -> None:
    told = Ledger(tmp_path / "told")
    given = {"BENCH_LIVE": str(LIVE)}
    sample = measure(
        server, load, key=site.key, connections=4, seconds=1, given=given, receipts=told.folder
    )
    assert sample.requests > 0 and sample.errors == 0
    if load in ("usage", "batch"):
        verdict = told.verdict(read_stream(site.nats.url))
        assert verdict.acknowledged == sample.requests * (100 if load == "batch" else 1)
        assert verdict.lost == verdict.twice == 0


def test_a_thousand_tenants_have_as_many_labels_as_are_named() -> None:
    found = tenants(TINY)
    one, thousand = found.values()
    assert all(cell.samples[0].errors == 0 for cell in found.values())
    assert one.figures["tenants"] == [1] and thousand.figures["tenants"] == [1_000]
    assert thousand.figures["tenant_labels"] == [NAMED + 1]


def test_memory_is_looked_at_in_the_same_workers_three_times() -> None:
    (cell,) = memory.memory(TINY).values()
    idle, first, last = (
        cell.figures[f"{stage}_requests"][0] for stage in ("idle", "first", "last")
    )
    assert idle == 0 and first >= 100 and last >= 1_000
    for kind in ("rss", "pss"):
        assert len(cell.figures[f"idle_{kind}"]) == 2
        assert all(10 < size < 1_000 for size in cell.figures[f"last_{kind}"])


def test_growth_is_of_the_full_bench_and_each_part_stands_alone() -> None:
    assert set(chosen((), full=False)) == set(GROUPS) and not set(GROUPS) & set(GROWTH)
    assert set(GROWTH) < set(chosen((), full=True)) == set(PARTS)
    assert chosen(("growth", "memory"), full=False) == list(GROWTH)
    assert chosen(("memory",), full=False) == ["memory"]
