"""Principal: the answer to "who is calling", whatever way it was found out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """An authenticated caller: the tenant that it acts for and its roles, as claimed and not yet judged."""

    tenant_id: str
    roles: tuple[str, ...]
    method: str


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

    def authenticate(self, headers: RequestHeaders, peer: str) -> Principal:
        """The principal of a request with these headers from this address.

        Raises Unauthenticated. Never guesses: an unreadable credential is none.
        """
        ...
