"""Memory of the workers: idle, after 100,000 requests, after 1,000,000, everything on and every request traced.

Requests are those of the gateway, shared by its two workers: decides with sessions and with ids, usage events and
assignments in turn, as fast as they go (ten minutes and more). No worker is replaced meanwhile
(``GATEWAY_MAX_REQUESTS`` is 0): the same processes are looked at each time, or it fails.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from tests.bench.results import Measured, Settings
from tests.bench.rounds import AT_ONCE, tell
from tests.bench.site import Server, running
from tests.bench.wrk_load import Sample, measure

CELL: Final = f"memory gateway mixed {AT_ONCE}"
FIRST: Final = 100_000
LAST: Final = 1_000_000
_LONGEST_SECONDS: Final = 60.0
_GUESS_PER_SECOND: Final = 500.0


def memory(settings: Settings) -> dict[str, Measured]:
    """Figures in MB (10⁶ bytes), a worker each: ``<stage>_rss`` and ``<stage>_pss``; and ``<stage>_requests``, all."""
    samples: list[Sample] = []
    figures: dict[str, list[float]] = {}
    with running() as site:
        server = site.gateway(OTEL_EXPORTER_OTLP_ENDPOINT=site.collector, GATEWAY_MAX_REQUESTS="0")
        workers = server.workers()
        stages = (("idle", 0), ("first", FIRST), ("last", LAST))
        for stage, requests in stages:
            _load(server, site.key, samples, round(requests * settings.scale))
            assert server.workers() == workers, "a worker was replaced"
            figures |= _looked_at(stage, workers)
            figures[f"{stage}_requests"] = [sum(sample.requests for sample in samples)]
    return {CELL: Measured(settings, samples, figures)}


def _load(server: Server, key: str, samples: list[Sample], until: int) -> None:
    """Ask until there were so many requests, a minute or less at a time."""
    while (left := until - sum(sample.requests for sample in samples)) > 0:
        speed = samples[-1].per_second if samples else _GUESS_PER_SECOND
        seconds = max(1, math.ceil(min(_LONGEST_SECONDS, left / speed)))  # wrk knows whole ones
        samples.append(measure(server, "mixed", key=key, connections=AT_ONCE, seconds=seconds))
        assert samples[-1].requests > samples[-1].errors, "nothing is answered"
        tell(f"{until - left:,}", CELL, samples[-1])


def _looked_at(stage: str, workers: list[int]) -> dict[str, list[float]]:
    sizes = [resident_and_proportional(worker) for worker in workers]
    return {
        f"{stage}_rss": [resident / 1e6 for resident, _ in sizes],
        f"{stage}_pss": [proportional / 1e6 for _, proportional in sizes],
    }


def resident_and_proportional(pid: int) -> tuple[int, int]:
    """A process's resident memory in bytes, and its share of it where pages are of several processes."""
    fields = dict(
        line.split(":", 1)
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        if ":" in line.split(" ", 1)[0]
    )
    resident, proportional = (int(fields[name].split()[0]) * 1024 for name in ("Rss", "Pss"))
    return resident, proportional
