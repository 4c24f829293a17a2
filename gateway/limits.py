"""Limits: how many requests an instance, and each of its tenants, may make in a window.

Exact across all workers of one instance (`gateway.windows`); not across instances, docs/adr/0009 says why.

**When they cannot be counted**, requests pass: a limit is there to spare what is behind it, and refusing everybody for
the sake of a counter would do what an overload does. The in-flight gate still holds. A metric counts those that passed,
and the log says so once a minute.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, Literal, Self

from gateway.errors import ErrorCode, GatewayError
from gateway.settings import Settings
from gateway.telemetry.metrics import declarations as metrics
from gateway.windows import VARIABLE, Uncountable, Windows

_log = logging.getLogger(__name__)

_LOG_EVERY_SECONDS: Final = 60.0


class Limits:
    """The limits that are set. Asked by the door; a limit that is off costs nothing and opens nothing.

    Answers carry one limit's headers: the tenant's, or the global one's if only that is on.
    """

    def __init__(
        self,
        windows: Windows | None,
        *,
        of_all: int = 0,
        of_tenant: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._windows = windows
        self._of_all = of_all
        self._of_tenant = of_tenant
        self._clock = clock
        self._lock = threading.Lock()
        self._logged_at: float | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Those of the settings. Raises ValueError if a limit is on and there is no file to count in."""
        of_all = settings.rate_limit_global_requests
        of_tenant = settings.rate_limit_tenant_requests
        if not (of_all or of_tenant):
            return cls(None)
        if settings.rate_limit_file is None:
            raise ValueError(f"{VARIABLE} is not set: gunicorn's master makes the file (`prepare`)")
        windows = Windows(settings.rate_limit_file, settings.rate_limit_window_ms)
        return cls(windows, of_all=of_all, of_tenant=of_tenant)

    def check_global(self) -> Mapping[str, str]:
        """Count a request of anybody. Returns headers for its answer; raises GatewayError 429 over the limit."""
        headers = self._check("global", "all", self._of_all, "The gateway is")
        return {} if self._of_tenant else headers

    def check_tenant(self, tenant_id: str) -> Mapping[str, str]:
        """The same for a request of this tenant, which must be the principal's: nobody spends another's."""
        return self._check("tenant", f"tenant:{tenant_id}", self._of_tenant, "The tenant is")

    def close(self) -> None:
        """Close the file; a later check opens it again."""
        if self._windows is not None:
            self._windows.close()

    def _check(
        self, name: Literal["global", "tenant"], key: str, limit: int, who: str
    ) -> Mapping[str, str]:
        if limit == 0 or self._windows is None:
            return {}
        try:
            tally = self._windows.take(key, limit)
        except Uncountable as error:
            metrics.RATE_LIMIT_UNCOUNTED.labels(name).inc()
            self._log(error)
            return {}
        if not tally.allowed:
            metrics.RATE_LIMITED.labels(name).inc()
            raise GatewayError(
                ErrorCode.RATE_LIMIT_EXCEEDED,
                f"{who} over its limit of {limit} requests; nothing was done. Trying again is safe.",
                details={"limit": name},
                headers={**tally.headers, "Retry-After": str(tally.reset_seconds)},
            )
        return tally.headers

    def _log(self, error: Uncountable) -> None:
        now = self._clock()
        with self._lock:
            if self._logged_at is not None and now < self._logged_at + _LOG_EVERY_SECONDS:
                return
            self._logged_at = now
        _log.warning("requests pass without rate limits, which cannot be counted: %s", error)
