"""Authoriser: may these roles do this? Never yes by default."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.access.cache import FailClosedCache
from gateway.access.permissions import Permission
from gateway.access.roles import ROLE_PATTERN, PermissionSource
from gateway.errors import access_unavailable, denied
from gateway.sources import SourceUnavailable
from gateway.telemetry.metrics import declarations as metrics

_MOST_ROLES: Final = 32
"""Of a caller that names more only the first ones count: a lookup's key stays small."""

Question = tuple[tuple[str, ...], Permission]
"""Roles and what is asked for: a tuple, so that no two questions are ever spelt alike."""


class Authoriser:
    """Roles and permissions through the fail-closed cache."""

    def __init__(
        self, source: PermissionSource, *, ttl_seconds: float, deny_ttl_seconds: float
    ) -> None:
        self._source = source
        self._cache: FailClosedCache[Question, bool] = FailClosedCache(
            self._look_up,
            name="roles",
            ttl_seconds=ttl_seconds,
            deny_ttl_seconds=deny_ttl_seconds,
        )

    def check(self, roles: Sequence[str], permission: Permission | None, deadline: float) -> float:
        """Until when they may, in monotonic seconds.

        Raises GatewayError: 403 where no role has the permission, 503 where that cannot be told.

        A view without a permission and a caller without a well-formed role are denied without a lookup.
        """
        named = tuple(role for role in roles[:_MOST_ROLES] if ROLE_PATTERN.fullmatch(role))
        if permission is None or not named:
            metrics.RBAC_DECISIONS.labels("deny", "none").inc()
            raise denied("The caller has no role that may do this.")
        try:
            answer, cached = self._cache.get((named, permission), deadline)
        except SourceUnavailable:
            metrics.RBAC_DECISIONS.labels("error", "miss").inc()
            raise access_unavailable() from None
        decision = "allow" if answer.value else "deny"
        metrics.RBAC_DECISIONS.labels(decision, "hit" if cached else "miss").inc()
        metrics.RBAC_CACHE_AGE.observe(answer.age())
        if not answer.value:
            raise denied(f"The caller has no role with the permission {permission}.")
        return answer.good_until

    def _look_up(self, question: Question) -> bool | None:
        roles, permission = question
        known = self._source.roles()
        return True if any(permission in known.get(role, ()) for role in roles) else None
