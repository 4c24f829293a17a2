"""``AUTH_MODE=api_key``: a key of the gateway's own, in ``Authorization: Bearer`` or ``X-API-Key``."""

from __future__ import annotations

import hmac
from datetime import UTC, datetime

from gateway.access.cache import FailClosedCache
from gateway.identity.bearer import bearer_token, invalid, missing
from gateway.identity.keys import KEY_PATTERN, ApiKey, KeySource, digest_of
from gateway.identity.principal import Principal, RequestHeaders


class ApiKeyAuthenticator:
    """Keys, looked up by digest through the fail-closed cache: a revoked one is refused within its TTL."""

    def __init__(self, source: KeySource, *, ttl_seconds: float, deny_ttl_seconds: float) -> None:
        self._keys: FailClosedCache[str, ApiKey] = FailClosedCache(
            source.find,
            name="API keys",
            ttl_seconds=ttl_seconds,
            deny_ttl_seconds=deny_ttl_seconds,
        )

    def authenticate(self, headers: RequestHeaders, peer: str, deadline: float) -> Principal:
        """See `Authenticator`. A key that does not look like one is refused without a lookup."""
        digest = digest_of(_presented(headers))
        answer, _ = self._keys.get(digest, deadline)
        key = answer.value
        # The digest is what was looked up by; compared again in constant time, so that no source that is careless
        # about what it returns lets anybody in.
        if key is None or not hmac.compare_digest(key.digest, digest):
            raise invalid("The API key is not known.")
        # By today's clock and not by the cache: a key ends when it ends.
        state = key.state(datetime.now(UTC))
        if state != "active":
            raise invalid(f"The API key is {state}.")
        return Principal(
            tenant_id=key.tenant_id,
            roles=key.roles,
            method="api_key",
            expires_at=key.expires_at.timestamp() if key.expires_at else None,
            key_prefix=key.prefix,
            good_until=answer.good_until,
        )


def _presented(headers: RequestHeaders) -> str:
    token = bearer_token(headers)
    header = headers.get("X-API-Key", "")
    if token is None and not header:
        raise missing("An API key is required: Authorization: Bearer <key>, or X-API-Key.")
    if token is not None and header and header != token:
        raise invalid("Authorization and X-API-Key hold different keys; send one.")
    key = token or header
    if not KEY_PATTERN.fullmatch(key):
        raise invalid("That is no API key of this gateway: blk_…")
    return key
