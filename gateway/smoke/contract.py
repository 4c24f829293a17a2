"""The names that dashboards, alerts and clients rely on, written down a second time.

Not taken from the declarations on purpose: a name that was changed by mistake would change here, too, and nothing
would be found. A test compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal

USAGE: Final = "/api/v1/usage"
DECIDE: Final = "/api/v1/routes/decide"
ASSIGNMENTS: Final = "/api/v1/assignments"
RESULTS: Final = "/api/v1/results"


class By(Enum):
    """Whose requests write a metric."""

    USAGE = "usage events"
    ROUND_TRIP = "a decide and an assignment"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: its type and labels, who writes it, and which of its samples a check's own requests move."""

    name: str
    kind: Literal["counter", "histogram"]
    labels: frozenset[str]
    written_by: By
    where: dict[str, str] = field(default_factory=dict)
    at_least: int = 1

    @property
    def counted(self) -> str:
        """The sample that counts."""
        return self.name if self.kind == "counter" else f"{self.name}_count"


def _family(
    name: str,
    kind: Literal["counter", "histogram"],
    labels: str,
    written_by: By,
    at_least: int = 1,
    **where: str,
) -> Family:
    return Family(name, kind, frozenset(labels.split()), written_by, where, at_least)


_POSTED: Final = {"route": USAGE, "method": "POST"}

FAMILIES: Final = (
    _family(
        "beamline_gateway_cp_requests_total", "counter", "cp_phase route method status", By.USAGE,
        at_least=2, status="202", **_POSTED,
    ),
    _family(
        "beamline_gateway_cp_latency_seconds", "histogram", "cp_phase route method", By.USAGE,
        at_least=2, **_POSTED,
    ),
    _family(
        "beamline_gateway_nats_publishes_total", "counter", "subject outcome", By.USAGE, outcome="ok"
    ),
    _family(
        "beamline_gateway_usage_emitted_total", "counter", "tenant source result", By.USAGE,
        source="http", result="emitted",
    ),
    _family("idempotency_hit_total", "counter", "tenant key_type", By.USAGE, key_type="usage_id"),
    _family("idempotency_miss_total", "counter", "tenant key_type", By.USAGE, key_type="usage_id"),
    _family("beamline_gateway_rbac_decisions_total", "counter", "decision cache", By.USAGE),
    _family("sticky_miss_total", "counter", "tenant subject", By.ROUND_TRIP),
    _family("sticky_hits_total", "counter", "tenant subject", By.ROUND_TRIP),
    _family(
        "beamline_gateway_nats_requests_total", "counter", "subject outcome", By.ROUND_TRIP,
        at_least=2, outcome="ok",
    ),
    _family(
        "beamline_gateway_nats_consumption_total", "counter", "subject tenant result redelivered",
        By.ROUND_TRIP, result="ok",
    ),
    _family(
        "beamline_gateway_nats_consumption_latency_seconds", "histogram", "subject tenant",
        By.ROUND_TRIP,
    ),
)  # fmt: skip
"""Every metric whose name and labels are contract."""

PHASED: Final = frozenset({"cp_phase"})


@dataclass(frozen=True, slots=True)
class Expected:
    """A span of the contract: how to find it, and the attributes that it must have (beside tenant and phase)."""

    name: str | None
    kind: str | None
    attributes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name or f"{self.kind} span"


SERVER: Final = Expected(None, "server", ("http.route", "http.response.status_code"))
PUBLISH: Final = Expected("nats.publish", None, ("subject",))
REQUEST: Final = Expected("nats.request", None, ("subject",))
CONSUME: Final = Expected("nats.consume", None, ("subject", "durable", "redelivery_count"))
EVERYWHERE: Final = ("tenant_id", "cp_phase")
