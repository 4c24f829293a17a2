"""Hits and misses: the repeat counted as one, the first requests as the other, each under its tenant's label.

A tenant that is not in ``METRICS_TENANT_LABEL_ALLOWLIST`` is counted as ``other``, together with whoever else is.
"""

from __future__ import annotations

from collections import Counter

from gateway.smoke.checks.formats import Before
from gateway.smoke.checks.once import Metered
from gateway.smoke.exposition import Exposition
from gateway.smoke.failures import Failed, Failure
from gateway.smoke.polling import first_without_failure
from gateway.smoke.session import Session

_OTHER = "other"
_HITS = "idempotency_hit_total"
_MISSES = "idempotency_miss_total"


def check(session: Session) -> str:
    """What others do at the same time can only add to it."""
    before = session.evidence(Before).metrics
    tenants = list(session.evidence(Metered).receipts)
    labels: dict[str, str] = {}

    def look(now: Exposition) -> None:
        labels.update({tenant: _label(tenant, now) for tenant in tenants})
        for label, least in Counter(labels.values()).items():
            _moved(_MISSES, label, least, before, now, Failure.MISSES_STILL)
        _moved(_HITS, labels[tenants[0]], 1, before, now, Failure.HITS_STILL)

    first_without_failure(session, look)
    shown = ", ".join(sorted(set(labels.values())))
    return f"{len(tenants)} misses and a hit are counted (tenant label: {shown})"


def _label(tenant: str, now: Exposition) -> str:
    """The tenant's own label if there is one by now: its first request is a miss, so there would be."""
    own = any(("tenant", tenant) in labels for labels in now.samples.get(_MISSES, {}))
    return tenant if own else _OTHER


def _moved(
    name: str, tenant: str, least: int, before: Exposition, now: Exposition, failure: Failure
) -> None:
    where = {"tenant": tenant, "key_type": "usage_id"}
    moved = now.total(name, where) - before.total(name, where)
    if moved < least:
        raise Failed(
            failure,
            f'{name}{{key_type="usage_id", tenant="{tenant}"}} moved by {moved:g}, expected {least} or more',
        )
