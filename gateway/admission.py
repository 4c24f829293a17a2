"""Admission: who is calling, and may they? Asked by the door, and again for what stays open longer than that is good.

Knows headers and addresses but no request, so that an open stream is judged as its request was.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Final

from werkzeug.datastructures import Headers

from gateway.access import Allowlists, Authoriser, Permission
from gateway.errors import ErrorCode, GatewayError, access_unavailable, denied
from gateway.identity import Authenticator, Principal, Unauthenticated
from gateway.identity.basic import BASIC_CHALLENGE, PasswordAsBearer
from gateway.sources import SourceUnavailable

_JUDGING_SECONDS: Final = 2.5
"""What judging an open stream again may take; a lookup ends before."""


@dataclass(frozen=True, slots=True)
class Admission:
    """The parts that judge, in the order of the errors' precedence."""

    authenticator: Authenticator
    authoriser: Authoriser
    allowlists: Allowlists

    def identify(
        self, headers: Headers, peer: str, deadline: float, *, basic: bool = False
    ) -> Principal:
        """Who is calling. Raises GatewayError 401, and 503 where that cannot be told.

        ``basic``: the credential may come as the password of HTTP Basic, which is what browsers have.
        """
        try:
            presented = PasswordAsBearer(headers) if basic else headers
            return self.authenticator.authenticate(presented, peer, deadline)
        except Unauthenticated as error:
            challenge = f"{BASIC_CHALLENGE}, {error.challenge}" if basic else error.challenge
            raise GatewayError(
                ErrorCode.UNAUTHORIZED, str(error), headers={"WWW-Authenticate": challenge}
            ) from None
        except SourceUnavailable:
            raise access_unavailable() from None

    def admit(
        self,
        principal: Principal,
        headers: Headers,
        permission: Permission | None,
        deadline: float,
    ) -> Principal:
        """The caller, if it may do this, for its own tenant; its ``good_until`` covers who it is and what it may.

        Raises GatewayError 403, and 503 as above.
        """
        named = headers.get("X-Tenant-ID")
        if named is not None and named != principal.tenant_id:
            raise denied("X-Tenant-ID names a tenant that is not the caller's.")
        self.allowlists.check_tenant(principal.tenant_id)
        good_until = self.authoriser.check(principal.roles, permission, deadline)
        if principal.good_until <= good_until:
            return principal
        return replace(principal, good_until=good_until)


class Standing:
    """The right of a caller to an answer that goes on: judged again when what it rests on is no longer good, which is
    within a TTL of its lookup and not of its use, and when its credential ends."""

    def __init__(
        self,
        admission: Admission,
        principal: Principal,
        headers: Headers,
        peer: str,
        permission: Permission,
    ) -> None:
        self._admission = admission
        self._headers = Headers(headers)  # the request's own end with it
        self._peer = peer
        self._permission = permission
        self._good_until = _end(principal)

    def check(self) -> None:
        """Raises GatewayError, as `Admission` does, once the caller may not go on or it cannot be told."""
        now = time.monotonic()
        if now < self._good_until:
            return
        deadline = now + _JUDGING_SECONDS
        principal = self._admission.identify(self._headers, self._peer, deadline)
        self._good_until = _end(
            self._admission.admit(principal, self._headers, self._permission, deadline)
        )


def _end(principal: Principal) -> float:
    if principal.expires_at is None:
        return principal.good_until
    return min(principal.good_until, time.monotonic() + principal.expires_at - time.time())
