"""``AUTH_MODE=jwt``: signed tokens of an identity provider, in ``Authorization: Bearer`` (RFC 7519, 8725).

The algorithm must be one of the allowlist **and** fit the key that it is checked with, so that a token cannot choose
how it is judged: no ``none``, no public key taken for a shared secret. Issuer, audience and expiry are always checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import jwt

from gateway.identity.bearer import bearer_token, invalid, missing
from gateway.identity.principal import Principal, RequestHeaders
from gateway.identity.signing_keys import SigningKeys
from gateway.names import ROLE_PATTERN, TENANT_PATTERN

KeyOf = Callable[[str | None, str, float], Any]
"""kid, algorithm, deadline → the key to check with, or None."""

_REQUIRED: Final = ("exp", "iss", "aud")
_LATEST: Final = 253_402_300_800
"""The year 10000: no token lasts so long, and what counts with times can count so far."""
_REFUSED: Final = (
    jwt.PyJWTError, ValueError, TypeError, KeyError, OverflowError, RecursionError,
)  # fmt: skip
"""What a hostile token can make the library raise."""
_FITTING: Final = {"RS256": "RSA", "ES256": "EC"}


def shared_secret(secret: str) -> KeyOf:
    """HS256 with one secret."""
    return lambda _kid, algorithm, _deadline: secret if algorithm == "HS256" else None


def public_keys(keys: SigningKeys) -> KeyOf:
    """RS256 and ES256 with the keys of a JWKS."""

    def key_of(kid: str | None, algorithm: str, deadline: float) -> Any:
        key = keys.find(kid, deadline)
        if key is None or key.key_type != _FITTING.get(algorithm):
            return None
        # A key may name its one algorithm (RFC 7517, 4.4).
        return key.key if key.algorithm_name == algorithm else None

    return key_of


class JwtAuthenticator:
    """Believes tokens of ``issuer`` for ``audience``, with the claims ``tenant_id`` and ``roles``."""

    def __init__(
        self,
        key_of: KeyOf,
        *,
        algorithms: Iterable[str],
        issuer: str,
        audience: str,
        leeway_seconds: float,
    ) -> None:
        self._key_of = key_of
        self._algorithms = frozenset(algorithms)
        self._issuer = issuer
        self._audience = audience
        self._leeway = leeway_seconds
        self._jwt = jwt.PyJWT()

    def authenticate(self, headers: RequestHeaders, peer: str, deadline: float) -> Principal:
        """See `Authenticator`."""
        token = bearer_token(headers)
        if token is None:
            raise missing("A token is required: Authorization: Bearer <JWT>.")
        claims = self._claims(token, deadline)
        expires_at, tenant_id = claims["exp"], claims.get("tenant_id")
        roles = claims.get("roles", [])
        # The library reads a text or a boolean as a number, too.
        if type(expires_at) not in (int, float) or not 0 < expires_at < _LATEST:
            raise invalid("The token's claim exp is no time.")
        if not isinstance(tenant_id, str) or not TENANT_PATTERN.fullmatch(tenant_id):
            raise invalid("The token has no valid claim tenant_id.")
        if isinstance(roles, str):
            roles = [roles]
        if not isinstance(roles, list) or not all(
            isinstance(role, str) and ROLE_PATTERN.fullmatch(role) for role in roles
        ):
            raise invalid("The token's claim roles is no list of names.")
        return Principal(
            tenant_id=tenant_id,
            roles=tuple(roles),
            method="jwt",
            expires_at=expires_at + self._leeway,
        )

    def _claims(self, token: str, deadline: float) -> dict[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
            algorithm, kid = header.get("alg"), header.get("kid")
        except _REFUSED:
            raise invalid("The token cannot be read.") from None
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise invalid("The token is not signed with an allowed algorithm.")
        if "crit" in header:  # RFC 7515, 4.1.11: extensions that must be understood, and none is
            raise invalid("The token asks for an extension that is not known here.")
        key = self._key_of(kid, algorithm, deadline)
        if key is None:
            raise invalid("The token is signed with a key that is not known.")
        try:
            return self._jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                issuer=self._issuer,
                audience=self._audience,
                leeway=self._leeway,
                options={"require": list(_REQUIRED)},
            )
        except jwt.ExpiredSignatureError:
            raise invalid("The token has expired.") from None
        except _REFUSED:
            raise invalid("The token is not valid here.") from None
