"""``AUTH_MODE=headers``: an authenticating proxy in front sets ``X-Tenant-ID`` and ``X-Role``.

The headers are believed only from ``TRUSTED_PROXIES``; from anyone else they are no credential at all. The proxy
must remove them from what its clients send.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache

from gateway.identity.principal import Principal, RequestHeaders, Unauthenticated
from gateway.names import ROLE_PATTERN, TENANT_PATTERN

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_ROLE = ROLE_PATTERN.pattern
_ROLES = re.compile(rf"{_ROLE}(\s*,\s*{_ROLE}){{0,15}}")
_CHALLENGE = 'Proxy realm="beamline-gateway"'


class HeaderAuthenticator:
    """Believes the identity headers of requests that come from ``trusted_proxies``."""

    def __init__(self, trusted_proxies: Sequence[Network]) -> None:
        self._trusted_proxies = tuple(trusted_proxies)
        self._is_trusted = lru_cache(maxsize=1024)(self._look_up)

    def authenticate(self, headers: RequestHeaders, peer: str, deadline: float) -> Principal:
        """See `Authenticator`. ``X-Role`` may hold several roles, comma separated."""
        if not self._is_trusted(peer):
            raise Unauthenticated(
                "Identity headers are accepted from the authenticating proxy only.",
                challenge=_CHALLENGE,
            )
        tenant_id = headers.get("X-Tenant-ID", "")
        if not TENANT_PATTERN.fullmatch(tenant_id):
            raise Unauthenticated("X-Tenant-ID is missing or malformed.", challenge=_CHALLENGE)
        roles = headers.get("X-Role", "")
        if not _ROLES.fullmatch(roles):
            raise Unauthenticated("X-Role is missing or malformed.", challenge=_CHALLENGE)
        return Principal(
            tenant_id=tenant_id,
            roles=tuple(role.strip() for role in roles.split(",")),
            method="headers",
        )

    def _look_up(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:10.0.0.1, from a dual-stack socket
        return any(
            address in network or (mapped is not None and mapped in network)
            for network in self._trusted_proxies
        )
