"""Session: what the checks are given, and what each leaves for the ones after it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

from gateway.smoke.client import Answer, Client
from gateway.smoke.failures import Failed, Failure
from gateway.telemetry.tracing.otlp.receiver import OtlpReceiver

T = TypeVar("T")

_SAMPLED: Final = "01"


@dataclass(frozen=True, slots=True)
class Root:
    """A trace that begins here, and is to be recorded: the caller's side of ``traceparent`` (W3C)."""

    trace_id: str = field(default_factory=lambda: secrets.token_hex(16))
    span_id: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def traceparent(self) -> str:
        """The header's value."""
        return f"00-{self.trace_id}-{self.span_id}-{_SAMPLED}"


@dataclass(slots=True, kw_only=True)
class Session:
    """One run of the checks against one gateway.

    ``caller`` and ``other_caller`` are the headers that authenticate two tenants. ``wait_seconds`` bounds the wait for
    what a gateway does after it has answered: counting, sending spans. ``nats`` is the environment that says where NATS
    is, None if the streams are not to be looked at.
    """

    gateway: Client
    metrics: Client
    caller: Mapping[str, str] = field(repr=False)
    other_caller: Mapping[str, str] | None = field(default=None, repr=False)
    cp_phase: str = "cp2"
    wait_seconds: float = 15.0
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    nats: bool = False
    receiver: OtlpReceiver | None = None
    round_trip: bool = False
    _evidence: dict[type[Any], Any] = field(default_factory=dict, repr=False)

    def keep(self, evidence: object) -> None:
        """Leave something for later checks; one of each type."""
        self._evidence[type(evidence)] = evidence

    def evidence(self, kind: type[T]) -> T:
        """What an earlier check has left. Only for checks that need that one."""
        return cast(T, self._evidence[kind])

    def found(self, kind: type[T]) -> T | None:
        """The same where it may be missing."""
        return self._evidence.get(kind)

    def post(
        self, path: str, document: object, *, root: Root, caller: Mapping[str, str] | None = None
    ) -> Answer:
        """POST as the first tenant (or ``caller``) in the trace of ``root``. Raises Failed if it is refused as such."""
        headers = self._headers(root, self.caller if caller is None else caller)
        return _let_in(f"POST {path}", self.gateway.post(path, document, headers))

    def get(self, path: str, *, root: Root) -> Answer:
        """GET as the first tenant."""
        return _let_in(f"GET {path}", self.gateway.get(path, self._headers(root, self.caller)))

    def _headers(self, root: Root, caller: Mapping[str, str]) -> dict[str, str]:
        return {**caller, "traceparent": root.traceparent, "X-CP-Phase": self.cp_phase}


def _let_in(what: str, answer: Answer) -> Answer:
    """The answer of a gateway that has listened to it. Raises Failed for the statuses that mean the same everywhere."""
    if answer.status == 401:
        raise Failed(Failure.UNAUTHORIZED, f"{what}: {answer}")
    if answer.status == 403:
        raise Failed(Failure.FORBIDDEN, f"{what}: {answer}")
    if answer.status == 429 or (answer.status == 503 and _code(answer) == "overloaded"):
        raise Failed(Failure.REQUEST_FAILED, f"{what}: {answer}")
    return answer


def _code(answer: Answer) -> object:
    error = answer.document().get("error")
    return error.get("code") if isinstance(error, dict) else None
