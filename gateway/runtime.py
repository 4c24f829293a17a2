"""Runtime: the parts that a request needs, reachable from the app that serves it."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar, cast

from flask import current_app, g

from bridge import Bridge, BridgeError, Bus
from gateway.admission import Admission
from gateway.context import RequestContext
from gateway.errors import conflict, from_bridge, in_progress
from gateway.gate import Gate
from gateway.idempotency import Conflict, InProgress, KeyType, Leases, Replays
from gateway.limits import Limits
from gateway.settings import Settings
from gateway.status import Status
from gateway.sticky import Sessions, Stickiness
from gateway.telemetry.metrics import declarations as metrics
from gateway.telemetry.metrics.declarations import TenantLabel

T = TypeVar("T")
EXTENSION: Final = "beamline_gateway"


@dataclass(frozen=True, slots=True)
class Runtime:
    """Made once an app (`gateway.app.create_app`); ``draining`` is set when the worker is asked to stop;
    ``waiting`` counts long polls and open streams."""

    settings: Settings
    bridge: Bridge
    admission: Admission
    tenant_label: TenantLabel
    replays: Replays
    leases: Leases
    sessions: Sessions
    gate: Gate
    limits: Limits
    waiting: threading.BoundedSemaphore
    status: Status
    draining: threading.Event = field(default_factory=threading.Event)

    def cross(
        self, operation: Callable[[Bus], Awaitable[T]], deadline: float, *, publishing: bool
    ) -> T:
        """The one hop of a request: run ``operation`` on the bridge's loop until ``deadline``.

        Raises GatewayError for what the bridge says (`gateway.errors.from_bridge`) and for an id that another
        request holds.
        """
        try:
            return self.bridge.run(operation, deadline)
        except BridgeError as error:
            raise from_bridge(error, publishing=publishing) from error
        except Conflict:
            raise conflict() from None
        except InProgress:
            raise in_progress() from None

    def counter(self, tenant_id: str, key_type: KeyType, operation: str) -> Callable[[bool], None]:
        """Counts a request as the first of its id (True) or a repeat (False)."""
        tenant = self.tenant_label(tenant_id)

        def count(first: bool) -> None:
            metric = metrics.IDEMPOTENCY_MISS if first else metrics.IDEMPOTENCY_HIT
            metric.labels(tenant, key_type).inc()
            metrics.CLAIMS.labels(operation, "first" if first else "repeated").inc()

        return count

    def usage_counter(self, tenant_id: str) -> Callable[[bool], None]:
        """Counts a client's usage event as emitted (True) or as one whose usage was metered before (False)."""
        tenant = self.tenant_label(tenant_id)

        def count(emitted: bool) -> None:
            result = "emitted" if emitted else "duplicate"
            metrics.USAGE_EMITTED.labels(tenant, "http", result).inc()

        return count

    def sticky_counter(self, tenant_id: str) -> Callable[[Stickiness], None]:
        """Counts a decide of a session: with its provider, freely, or with the bucket out of reach; and, after it,
        that the Router moved it."""
        labels = (self.tenant_label(tenant_id), self.settings.decide_subject)

        def count(stickiness: Stickiness) -> None:
            _STICKY[stickiness].labels(*labels).inc()

        return count


_STICKY: Final = {
    Stickiness.HIT: metrics.STICKY_HITS,
    Stickiness.MISS: metrics.STICKY_MISS,
    Stickiness.MOVED: metrics.STICKY_MOVES,
    Stickiness.UNAVAILABLE: metrics.STICKY_UNAVAILABLE,
}


def runtime() -> Runtime:
    """The runtime of the app at work."""
    return cast(Runtime, current_app.extensions[EXTENSION])


def context() -> RequestContext:
    """The context of the request at work."""
    return cast(RequestContext, g.context)
