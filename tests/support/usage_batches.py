"""A big batch of usage events in which everything happens that can, and what is to become of each event."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from tests.support.documents import new_id, now_ms, usage_body

DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True)
class Expected:
    """An event of the big batch, and what is to become of it."""

    event: Any
    outcome: str
    error: str | None = None
    replayed: bool = False
    duplicate_of: str | None = None


def thousand(seed: int) -> list[Expected]:
    """1,000 events: 880 new ones, 100 duplicates (half equal, half another id for a pair), 10 conflicts, 10 invalid.

    In a random order in which everything follows what it repeats.
    """
    chance = random.Random(seed)
    new = [Expected(usage_body(latency_ms=n), "accepted") for n in range(880)]
    of = chance.sample(new, 110)
    repeats = [Expected(one.event, "accepted", replayed=True) for one in of[:50]]
    repeats += [
        Expected(
            {**one.event, "usage_id": new_id("us")},
            "duplicate",
            duplicate_of=one.event["usage_id"],
        )
        for one in of[50:100]
    ]
    repeats += [
        Expected({**one.event, "cost": 99}, "conflict", "idempotency_conflict") for one in of[100:]
    ]
    mistakes: list[Any] = [
        {**usage_body(), "cost": -1},
        {**usage_body(), "cost": 0.0000000001},
        {**usage_body(), "status": "odd"},
        {**usage_body(), "timestamp": now_ms() - DAY_MS - 60_000},
        {**usage_body(), "misspelt": 1},
        {name: value for name, value in usage_body().items() if name != "usage_id"},
        {name: value for name, value in usage_body().items() if name != "assignment_id"},
        {**usage_body(), "usage_id": 42},
        None,
        "event",
    ]
    invalid = [Expected(event, "invalid", "invalid_request") for event in mistakes]
    batch: list[Expected] = list(new)
    for one in repeats:
        original = next(
            n
            for n, other in enumerate(batch)
            if other.outcome == "accepted"
            and not other.replayed
            and other.event["assignment_id"] == one.event["assignment_id"]
        )
        batch.insert(chance.randint(original + 1, len(batch)), one)
    for one in invalid:
        batch.insert(chance.randint(0, len(batch)), one)
    return batch
