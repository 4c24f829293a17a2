"""Overview: all that the status page tells, as one value that JSON and the page are made of.

Whose is what: sums, streams and settings are the instance's and are told to whoever may see the status; ``/metrics``
tells as much to everybody. Single requests and messages are somebody's: of unknown outcomes and dead letters a caller
sees those of its own tenant, and how many others there are. There is no role above the tenants that would see all of
them by HTTP; who runs the gateway has its log and ``beamline-gateway dlq``.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

from bridge import Bridge, Health
from gateway.errors import ErrorCode, GatewayError
from gateway.operations.dead_letters import DeadLetter
from gateway.settings import Settings, variables
from gateway.status.figures import STATUS_CLASSES, Figures, latency_ms
from gateway.status.history import STEP_SECONDS, STEPS, History, Past, UnknownOutcome
from gateway.status.letters import Letters
from gateway.telemetry.metrics.exposition import registry
from gateway.telemetry.metrics.files import Unsettled

_WINDOWS_SECONDS: Final = (60, STEPS * STEP_SECONDS)
_QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_SETTINGS: Final = (
    "AUTH_MODE", "WEB_CONCURRENCY", "GATEWAY_THREADS", "ROUTER_REQUEST_TIMEOUT_MS", "NATS_REPLICAS",
    "NATS_MAX_DELIVER", "IDEMPOTENCY_TTL_MS", "USAGE_DEDUPE_WINDOW_MS", "STICKY_TTL_MS",
    "STICKY_SESSION_KEY", "RESULTS_TTL_MS", "RBAC_CACHE_TTL_MS", "RATE_LIMIT_GLOBAL_REQUESTS",
    "RATE_LIMIT_TENANT_REQUESTS", "RATE_LIMIT_WINDOW_MS", "LOG_LEVEL",
)  # fmt: skip
"""What decides how requests are treated. Not addresses, files and names of tenants: they are nobody's business here."""
_LONGEST: Final = 300
_LETTER_IDS: Final = ("msg_id", "trace_id")


class Status:
    """One in each worker: keeps its history, and tells of the whole instance."""

    def __init__(self, settings: Settings, bridge: Bridge) -> None:
        self.history = History()
        self._settings = settings
        self._bridge = bridge
        self._letters = Letters(bridge)

    def overview(self, tenant: str, *, draining: bool) -> dict[str, Any]:
        """What is to be told to a caller of ``tenant``. Raises GatewayError 503 when the metrics cannot be read."""
        try:
            figures = Figures.of(registry().collect())
        except Unsettled:
            raise GatewayError(
                ErrorCode.UNAVAILABLE, "The figures cannot be read now. Trying again is safe."
            ) from None
        health, past = self._bridge.health(), self.history.past()
        return {
            "at": _iso(time.time()),
            "ready": health.ready and not draining,
            "draining": draining,
            "instance": self._instance(figures),
            "nats": _nats(figures, health),
            "requests": _requests(figures, past),
            "idempotency": _shares(figures, "idempotency_hit_total", "idempotency_miss_total"),
            "sticky": _shares(figures, "sticky_hits_total", "sticky_miss_total")
            | {
                "moved": figures.total("beamline_gateway_sticky_moves_total"),
                "unavailable": figures.total("beamline_gateway_sticky_unavailable_total"),
            },
            "unknown_outcomes": _unknown_outcomes(figures, past, tenant),
            "dead_letters": self._dead_letters(figures, tenant),
            "settings": self._shown_settings(),
        }

    def _instance(self, figures: Figures) -> dict[str, Any]:
        return {
            "version": version("beamline-gateway"),
            "python": platform.python_version(),
            "workers": figures.total("beamline_gateway_workers"),
            "configured_workers": self._settings.workers,
            "connected_workers": figures.total("beamline_gateway_bridge_connected_workers"),
            "ready_workers": figures.total("beamline_gateway_ready_workers"),
            "worker_starts": figures.total("beamline_gateway_worker_starts_total"),
            "memory_bytes": figures.total("beamline_gateway_resident_memory_bytes"),
        }

    def _dead_letters(self, figures: Figures, tenant: str) -> dict[str, Any]:
        latest = self._letters.latest()
        own = [letter for letter in latest.letters if letter.body.get("tenant_id") == tenant]
        return {
            "since_start": figures.total("beamline_gateway_dead_letters_total"),
            "recent": [_letter(letter) for letter in own],
            "recent_of_others": len(latest.letters) - len(own),
            "trouble": latest.trouble,
        }

    def _shown_settings(self) -> list[dict[str, Any]]:
        by_name = {variable.name: variable for variable in variables()}
        return [
            {
                "name": name,
                "value": (value := by_name[name].shown(self._settings)),
                "is_default": value == (by_name[name].default or ""),
            }
            for name in _SETTINGS
        ]


def _nats(figures: Figures, health: Health) -> dict[str, Any]:
    return {
        "connected": health.connected,
        "missing": list(health.missing),
        "findings": [
            {"resource": one.resource, "message": one.message, "blocking": one.blocking}
            for one in health.findings
        ],
        "reconnects": figures.total("beamline_gateway_nats_reconnects_total"),
        "streams": [
            {
                "name": name,
                "messages": level.messages,
                "size_bytes": level.size_bytes,
                "max_bytes": level.max_bytes,
            }
            for name, level in sorted(health.streams.items())
        ],
        "consumers": [
            {
                "name": name,
                "pending": level.pending,
                "unacknowledged": level.unacknowledged,
                "redelivered": level.redelivered,
            }
            for name, level in sorted(health.consumers.items())
        ],
    }


def _requests(figures: Figures, past: Past) -> dict[str, Any]:
    return {
        # Without the one that asks.
        "in_flight": max(0, figures.total("beamline_gateway_in_flight_requests") - 1),
        "waiting": figures.total("beamline_gateway_waiting_requests"),
        "rate_limited": figures.total("beamline_gateway_rate_limited_requests_total"),
        "since_start": figures.requests(),
        "windows": [_window(past, seconds) for seconds in _WINDOWS_SECONDS],
        "step_seconds": STEP_SECONDS,
        # Oldest first; the last one goes on.
        "steps": {
            name: [round(step.get(name, 0)) for step in past.steps] for name in STATUS_CLASSES
        },
    }


def _window(past: Past, seconds: int) -> dict[str, Any]:
    counted = past.last(seconds)
    classes = _classes(counted)
    quantiles = {name: latency_ms(counted, quantile) for name, quantile in _QUANTILES.items()}
    return {
        "seconds": seconds,
        "requests": classes,
        "per_second": round(sum(classes.values()) / seconds, 2),
        "latency_ms": {
            name: None if value is None else round(value, 1) for name, value in quantiles.items()
        },
    }


def _classes(counted: Mapping[str, float]) -> dict[str, int]:
    return {name: round(counted.get(name, 0)) for name in STATUS_CLASSES}


def _shares(figures: Figures, hit: str, miss: str) -> dict[str, Any]:
    hits, misses = figures.total(hit), figures.total(miss)
    share = round(hits / (hits + misses), 4) if hits + misses else None
    return {"hits": hits, "misses": misses, "hit_share": share}


def _unknown_outcomes(figures: Figures, past: Past, tenant: str) -> dict[str, Any]:
    own = [outcome for outcome in past.unknown if outcome.tenant == tenant]
    return {
        "since_start": figures.total("beamline_gateway_unknown_outcomes_total"),
        "recent": [_unknown(outcome) for outcome in own],
        "recent_of_others": len(past.unknown) - len(own),
    }


def _unknown(outcome: UnknownOutcome) -> dict[str, Any]:
    return {
        "at": _iso(outcome.at),
        "operation": outcome.operation,
        "request_id": outcome.request_id,
        "trace_id": outcome.trace_id,
        "times": outcome.times,
    }


def _letter(letter: DeadLetter) -> dict[str, Any]:
    body = letter.body
    told = {name: body.get(name) for name in ("error_code", "reason", *_LETTER_IDS)}
    return {
        "seq": letter.seq,
        "at": _iso(body["timestamp"] / 1000),
        "subject": body["original_subject"],
        # Whoever may write letters may write long ones.
        **{name: value[:_LONGEST] for name, value in told.items() if isinstance(value, str)},
    }


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
