"""Every metric that the gateway exposes, declared once.

Prometheus client in multiprocess mode: each worker writes its own files, a scrape of any worker sums them. The
folder is chosen and wiped before the workers start (`gateway.gunicorn_conf`), because the client looks for it when
it is imported.

No label holds anything that a caller can make up: `route` is the URL rule or ``none``, `method` a known verb or
``other``, `cp_phase` a known phase or ``unknown``, `tenant` one of the allowlist or ``other``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    exposition,
    multiprocess,
)

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER: Final = "other"
LATENCY_BUCKETS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip

CP_REQUESTS: Final = Counter(
    "beamline_gateway_cp_requests_total",
    "HTTP requests by checkpoint phase.",
    ["cp_phase", "route", "method", "status"],
)
CP_LATENCY: Final = Histogram(
    "beamline_gateway_cp_latency_seconds",
    "Time from the arrival of a request to its answer.",
    ["cp_phase", "route", "method"],
    buckets=LATENCY_BUCKETS,
)
IN_FLIGHT: Final = Gauge(
    "beamline_gateway_in_flight_requests",
    "Requests at work now, probes not counted.",
    multiprocess_mode="livesum",
)
NATS_REQUESTS: Final = Counter(
    "beamline_gateway_nats_requests_total",
    "Request-reply calls by outcome (ok, not_sent, unknown, refused, closed).",
    ["subject", "outcome"],
)
NATS_PUBLISHES: Final = Counter(
    "beamline_gateway_nats_publishes_total",
    "JetStream publishes by outcome (ok, not_sent, unknown, refused, closed).",
    ["subject", "outcome"],
)


IDEMPOTENCY_HIT: Final = Counter(
    "idempotency_hit_total",
    "Requests whose id was known: answered with the first one's outcome.",
    ["tenant", "key_type"],
)
IDEMPOTENCY_MISS: Final = Counter(
    "idempotency_miss_total",
    "Requests that were the first of their id: executed.",
    ["tenant", "key_type"],
)


STICKY_HITS: Final = Counter(
    "sticky_hits_total",
    "Decides of a session that went out with its provider.",
    ["tenant", "subject"],
)
STICKY_MISS: Final = Counter(
    "sticky_miss_total",
    "Decides of a session that went out without a preferred provider.",
    ["tenant", "subject"],
)
STICKY_UNAVAILABLE: Final = Counter(
    "beamline_gateway_sticky_unavailable_total",
    "Decides of a session that could not be looked up: the bucket was out of reach.",
    ["tenant", "subject"],
)
CONSUMPTION: Final = Counter(
    "beamline_gateway_nats_consumption_total",
    "Messages taken in by result (ok, rejected, failed).",
    ["subject", "tenant", "result", "redelivered"],
)
CONSUMPTION_LATENCY: Final = Histogram(
    "beamline_gateway_nats_consumption_latency_seconds",
    "Time to handle one delivery.",
    ["subject", "tenant"],
    buckets=LATENCY_BUCKETS,
)
DEAD_LETTERS: Final = Counter(
    "beamline_gateway_dead_letters_total", "Messages given up, by reason.", ["subject", "reason"]
)
USAGE_EMITTED: Final = Counter(
    "beamline_gateway_usage_emitted_total",
    "Usage events by source (http, result) and result (emitted, duplicate).",
    ["tenant", "source", "result"],
)


class TenantLabel:
    """The ``tenant`` label: the tenant if it is in the allowlist, else ``other``."""

    def __init__(self, allowlist: Iterable[str]) -> None:
        self._allowlist = frozenset(allowlist)

    def __call__(self, tenant_id: str | None) -> str:
        return tenant_id if tenant_id in self._allowlist and tenant_id else OTHER


def method_label(method: str) -> str:
    """A known HTTP verb, or ``other``."""
    return method if method in _METHODS else OTHER


def render(accept: str) -> tuple[bytes, str]:
    """The exposition of all workers' metrics and its content type, as the scraper accepts it."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    encoder: Callable[[CollectorRegistry], bytes]
    encoder, content_type = exposition.choose_encoder(accept)
    return encoder(registry), content_type
