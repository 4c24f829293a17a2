"""``/metrics`` can be read in both formats; what it says now is what later values are compared with."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.smoke.exposition import OPENMETRICS, TEXT, Exposition, scrape
from gateway.smoke.session import Session


@dataclass(frozen=True, slots=True)
class Before:
    """The metrics before the checks' own requests."""

    metrics: Exposition


def check(session: Session) -> str:
    """Leaves `Before`."""
    before = scrape(session.metrics, TEXT)
    scrape(session.metrics, OPENMETRICS)
    session.keep(Before(before))
    samples = sum(map(len, before.samples.values()))
    return f"/metrics parses as Prometheus text and as OpenMetrics ({samples} samples)"
