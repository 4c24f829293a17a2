"""Zero series: counters whose labels can be foretold are there from the start, at 0.

A series that appears with 1 in it has never risen: Prometheus would miss the first of the very increments that alerts
wait for. Left out are requests by route and status, of which there are many and none is alerted on alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from gateway.errors import STATUS
from gateway.settings import Settings
from gateway.telemetry.metrics import declarations as metrics
from gateway.telemetry.metrics import labels
from gateway.telemetry.metrics.families import Label, Metric


def begin_at_zero(settings: Settings) -> None:
    """Make them in this worker; the tenants are those that have a label value of their own."""
    subjects = _subjects(settings)
    for family in metrics.families():
        if family.kind == "counter" and family.metric is not metrics.ERRORS:
            own = subjects.get(family.metric, ())
            known = [_values(label, settings, own) for label in family.labels]
            for values in product(*known) if known else ():
                family.metric.labels(*values)
    for code, (_status, error_type) in STATUS.items():
        metrics.ERRORS.labels(error_type, code)


def _values(label: Label, settings: Settings, subjects: Sequence[str]) -> Sequence[str]:
    """What a label may hold, as far as that can be told; nothing makes no series."""
    if label is labels.TENANT:
        return (*settings.metrics_tenants, labels.OTHER)
    return subjects if label is labels.SUBJECT else label.values


def _subjects(settings: Settings) -> dict[Metric, tuple[str, ...]]:
    """Metric → the subjects that it counts."""
    decide, result = (settings.decide_subject,), (settings.result_subject,)
    assign = settings.assignment_subject
    published = (assign, f"{assign}.ack", settings.usage_subject, f"{settings.result_subject}.dlq")
    return {
        metrics.STICKY_HITS: decide,
        metrics.STICKY_MISS: decide,
        metrics.STICKY_MOVES: decide,
        metrics.STICKY_UNAVAILABLE: decide,
        metrics.NATS_REQUESTS: decide,
        metrics.NATS_PUBLISHES: published,
        metrics.CONSUMPTION: result,
        metrics.DEAD_LETTERS: result,
    }
