"""Allowlists of tenants and policies. An empty one allows all; nothing is looked up, so nothing can be down."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.errors import denied


@dataclass(frozen=True, slots=True)
class Allowlists:
    """The operator's lists."""

    tenants: frozenset[str]
    policies: frozenset[str]

    @classmethod
    def of(cls, tenants: Iterable[str], policies: Iterable[str]) -> Allowlists:
        """From the settings."""
        return cls(frozenset(tenants), frozenset(policies))

    def check_tenant(self, tenant_id: str) -> None:
        """Raises GatewayError 403 for a tenant that is not served."""
        if self.tenants and tenant_id not in self.tenants:
            raise denied("This gateway does not serve the tenant.")

    def check_policy(self, policy_id: str | None) -> None:
        """Raises GatewayError 403 for a policy that may not be named; naming none is allowed."""
        if self.policies and policy_id is not None and policy_id not in self.policies:
            raise denied("This gateway does not allow the policy.")
