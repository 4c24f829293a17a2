"""Principal: the answer to "who is calling", whatever way it was found out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """An authenticated caller: the tenant that it acts for and its roles, as claimed and not yet judged.

    ``expires_at``: seconds since 1970 from which the credential is none any more. ``key_prefix`` tells an API key
    from others, in logs too; it is no part of what is secret. ``good_until``: monotonic seconds from which what was
    looked up about the caller must be looked up again, by whoever keeps the principal that long.
    """

    tenant_id: str
    roles: tuple[str, ...]
    method: str
    expires_at: float | None = None
    key_prefix: str | None = None
    good_until: float = math.inf


class Unauthenticated(Exception):
    """No or no valid credentials. ``challenge`` is the value of ``WWW-Authenticate``; the text never holds
    what was presented."""

    def __init__(self, message: str, *, challenge: str) -> None:
        super().__init__(message)
        self.challenge = challenge


class RequestHeaders(Protocol):
    """The headers of a request, looked up without regard to case."""

    def get(self, key: str, default: str, /) -> str:
        """The value of ``key``; several of one name are joined by commas."""
        ...


class Authenticator(Protocol):
    """One way of finding out who is calling."""

    def authenticate(self, headers: RequestHeaders, peer: str, deadline: float) -> Principal:
        """The principal of a request with these headers from this address.

        Raises Unauthenticated, and SourceUnavailable when it cannot be told by ``deadline`` (monotonic seconds).
        Never guesses: an unreadable credential is none.
        """
        ...
