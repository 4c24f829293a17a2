"""The targets: what was wanted, what was measured, met or not."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from tests.bench import memory
from tests.bench.results import Results
from tests.bench.rounds import AT_ONCE
from tests.bench.wrk_load import Sample

TARGETS: Final[tuple[tuple[str, str, str, float], ...]] = (
    ("traced decide to FastAPI, 8 connections", "decide gateway decide 8", "decide fastapi decide 8", 1.0),
    ("traced decide to FastAPI, 32", "decide gateway decide 32", "decide fastapi decide 32", 1.0),
    ("traced decide to Flask hello, 8", "decide gateway decide 8", "decide hello decide 8", 0.35),
    ("traced decide to Flask hello, 32", "decide gateway decide 32", "decide hello decide 32", 0.35),
    ("untraced decide to FastAPI, 8", "decide gateway-untraced decide 8", "decide fastapi-untraced decide 8", 0.75),
    ("untraced decide to FastAPI, 32", "decide gateway-untraced decide 32", "decide fastapi-untraced decide 32", 0.75),
    ("traced usage to FastAPI, 8", "usage gateway usage 8", "usage fastapi usage 8", 1.25),
    ("traced usage to FastAPI, 32", "usage gateway usage 32", "usage fastapi usage 32", 1.25),
    ("local replay, 1 % sampled, to Flask hello", "local gateway-1% replay 32", "local hello decide 32", 0.6),
    ("denied, 1 % sampled, to Flask hello", "local gateway-1% denied 32", "local hello decide 32", 0.6),
    ("everything on to everything off", "parts gateway decide 32", "parts gateway-bare decide-plain 32", 0.4),
)  # fmt: skip
"""What, the cell, the cell that it is compared with, and the ratio of their requests a second that is wanted."""


_LIVE: Final = (
    ("claims", "usage"), ("claims", "decide-id"), ("sessions", "session-known"), ("sessions", "session-new"),
)  # fmt: skip
_LIVE_RATIO: Final = 0.9
_EVENTS: Final = 100
"""In a batch."""
_BATCH_EVENTS: Final = 8_000.0
_MEMORY_MB: Final = 150.0
_GROWN: Final = 1.05


@dataclass(frozen=True)
class Target:
    """``at_most``: the wanted value is a bound from above."""

    what: str
    wanted: float
    found: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether it is."""
        return self.found <= self.wanted if self.at_most else self.found >= self.wanted


def judged(results: Results) -> list[Target]:
    """Every target whose cells were measured."""
    found = [
        Target(what, wanted, got)
        for what, cell, to, wanted in TARGETS
        if (got := ratio(results, cell, to)) is not None
    ]
    for more in (_live, _latencies, _batches, _each_once, _memory, _tenant_labels):
        found += more(results)
    return found


def ratio(results: Results, cell: str, to: str) -> float | None:
    """Of the medians of the rounds' ratios: both of a round met the same machine. None where one was not measured."""
    pairs = list(zip(_samples(results, cell), _samples(results, to), strict=False))
    return statistics.median(a.per_second / b.per_second for a, b in pairs) if pairs else None


def median(samples: list[Sample], value: Callable[[Sample], float]) -> float:
    """Over the rounds."""
    return statistics.median(value(sample) for sample in samples)


def _samples(results: Results, cell: str) -> list[Sample]:
    return results[cell].samples if cell in results else []


def _live(results: Results) -> Iterator[Target]:
    for part, load in _LIVE:
        many, few = (f"{part} gateway-{size} {load} {AT_ONCE}" for size in ("many", "few"))
        if (found := ratio(results, many, few)) is not None:
            count, thousand = (results[name].figures["filled"][0] for name in (many, few))
            what = f"{load} with {count:,.0f} live {part} to {thousand:,.0f}"
            yield Target(what, _LIVE_RATIO, found)


def _latencies(results: Results) -> Iterator[Target]:
    for connections in (8, 32):
        ours, theirs = (
            _samples(results, f"decide {name} decide {connections}")
            for name in ("gateway", "fastapi")
        )
        if ours and theirs:
            p99, p50 = median(ours, lambda s: s.p99_ms), median(ours, lambda s: s.p50_ms)
            peer = median(theirs, lambda s: s.p99_ms)
            yield Target(f"p99 of decide to FastAPI's, {connections}", 1.0, p99 / peer, True)
            yield Target(f"p99 to p50 of decide, {connections}", 4.0, p99 / p50, True)


def _batches(results: Results) -> Iterator[Target]:
    batch, single = (
        _samples(results, f"publish gateway {load}") for load in ("batch 8", "usage 32")
    )
    if batch:
        events = median(batch, lambda s: s.per_second) * _EVENTS
        yield Target("usage/batch of 100, events/s", _BATCH_EVENTS, events)
    if batch and single:
        times = statistics.median(
            b.per_second * _EVENTS / s.per_second for b, s in zip(batch, single, strict=False)
        )
        yield Target("usage/batch of 100, events/s to single events", 10.0, times)


def _each_once(results: Results) -> Iterator[Target]:
    for name, cell in results.items():
        # A peer's verdict is in its figures, and is nobody's target.
        if "lost" in cell.figures and " gateway" in name:
            wrong = cell.figures["lost"][0] + cell.figures["twice"][0]
            told = f"{cell.figures['acknowledged'][0]:,.0f} acknowledged"
            yield Target(f"each once, {name} ({told}): lost or twice", 0.0, wrong, True)


def _memory(results: Results) -> Iterator[Target]:
    if memory.CELL not in results:
        return
    figures = results[memory.CELL].figures
    first, last = (f"{figures[f'{stage}_requests'][0]:,.0f}" for stage in ("first", "last"))
    largest = max(figures["first_rss"])
    yield Target(f"memory of a worker after {first} requests, MB", _MEMORY_MB, largest, True)
    for kind in ("rss", "pss"):
        grown = max(
            after / before
            for before, after in zip(figures[f"first_{kind}"], figures[f"last_{kind}"], strict=True)
        )
        yield Target(f"{kind.upper()} after {last} requests to that", _GROWN, grown, True)


def _tenant_labels(results: Results) -> Iterator[Target]:
    for cell in results.values():
        if "tenant_labels" in cell.figures and cell.figures["tenants"][0] > 1:
            labels, most = (cell.figures[n][0] for n in ("tenant_labels", "tenant_labels_at_most"))
            yield Target("values of the label tenant", most, labels, True)
