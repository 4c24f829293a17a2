"""The verdict of usage events sees what was lost, stored twice or stored elsewhere, in a real stream as well."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import nats
import pytest

from gateway.devstack.nats_server import NatsServer
from tests.bench.each_once import STREAM, Ledger, Verdict, judge, read_stream

TOLD = [("r1-0-1", 1), ("r1-0-2", 2)]


@pytest.mark.parametrize(
    ("stored", "verdict"),
    [
        ({"r1-0-1": [1], "r1-0-2": [2]}, Verdict(2, 2, twice=0, lost=0)),
        ({"r1-0-1": [1]}, Verdict(2, 1, twice=0, lost=1)),
        ({"r1-0-1": [1, 3], "r1-0-2": [2]}, Verdict(2, 3, twice=1, lost=0)),
        ({"r1-0-1": [1], "r1-0-2": [5]}, Verdict(2, 2, twice=0, lost=1)),
        # Stored and never answered for: no loss, unless it is there twice. Another run's are another cell's.
        ({"r1-0-1": [1], "r1-0-2": [2], "r1-0-3": [3, 4]}, Verdict(2, 4, twice=1, lost=0)),
        ({"r1-0-1": [1], "r1-0-2": [2], "r2-0-1": [3, 4]}, Verdict(2, 2, twice=0, lost=0)),
    ],
    ids=["each once", "lost", "twice", "elsewhere", "not answered for", "of another run"],
)
def test_the_verdict(stored: dict[str, list[int]], verdict: Verdict) -> None:
    assert judge(TOLD, ["r1"], stored) == verdict


def test_what_was_told_is_held_against_the_stream(tmp_path: Path) -> None:
    async def store(url: str) -> None:
        client = await nats.connect(url)
        js = client.jetstream()
        await js.add_stream(name=STREAM, subjects=["usage"])
        for id in ("r1-0-1", "r1-0-2", "r1-1-1", "r1-0-2"):
            await js.publish("usage", json.dumps({"assignment_id": f"a-{id}"}).encode())
        await client.close()

    ledger = Ledger(tmp_path / "told")
    single = {"ok": True, "usage_id": "u-r1-0-1", "emitted": True, "seq": 1}
    repeated = {"ok": True, "usage_id": "u-r1-0-9", "emitted": False, "seq": 1}
    events = [
        {"usage_id": "u-r1-1-1", "outcome": "accepted", "seq": 3},
        {"usage_id": "u-r1-1-2", "outcome": "accepted", "seq": 4},
        {"usage_id": "u-r1-1-3", "outcome": "unknown"},
    ]
    (ledger.folder / "r1-0").write_text(f"{json.dumps(single)}\n{json.dumps(repeated)}\n")
    (ledger.folder / "r1-1").write_text(json.dumps({"ok": True, "results": events}) + "\n")
    with NatsServer() as server:
        asyncio.run(store(server.url))
        stored = read_stream(server.url)
    assert ledger.verdict(stored) == Verdict(acknowledged=3, stored=4, twice=1, lost=1)
