"""Credentials as clients present them: ``Authorization: Bearer …`` or, for API keys, ``X-API-Key`` (RFC 6750)."""

from __future__ import annotations

import re
from typing import Final

from gateway.identity.principal import RequestHeaders, Unauthenticated

_REALM: Final = 'Bearer realm="beamline-gateway"'
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]{1,8192}=*")


def missing(message: str) -> Unauthenticated:
    """Nothing was presented."""
    return Unauthenticated(message, challenge=_REALM)


def invalid(message: str) -> Unauthenticated:
    """Something was presented, and it is no good. The message is for the client: never what was presented."""
    return Unauthenticated(message, challenge=f'{_REALM}, error="invalid_token"')


def bearer_token(headers: RequestHeaders) -> str | None:
    """The token of ``Authorization: Bearer``; None without that header.

    Raises Unauthenticated for another scheme, and for several tokens, which a server joins by commas.
    """
    header = headers.get("Authorization", "")
    if not header:
        return None
    scheme, _, token = header.partition(" ")
    token = token.strip(" ")
    if scheme.lower() != "bearer" or not _TOKEN.fullmatch(token):
        raise invalid("Authorization must be one Bearer credential.")
    return token
