"""Record: what the bucket ``BEAMLINE_IDEMPOTENCY`` holds for one key.

Its lifetime is the server's (the bucket's TTL, from the record's last change); nothing here compares clocks. The first
call's ids are part of it, so that whoever executes the effect sends the same message.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Self

from bridge import Unknown
from gateway import json
from gateway.context import RequestContext
from gateway.telemetry.tracing.tracer import recorded_span

BUCKET: Final = "BEAMLINE_IDEMPOTENCY"


class State(StrEnum):
    """Where the operation stands."""

    CLAIMED = "claimed"
    """A publish: sending the same request again settles it."""
    IN_PROGRESS = "in_progress"
    """A call: its owner is at work, or died."""
    DONE = "done"
    """Finished: the outcome is replayed."""
    RELEASED = "released"
    """A call that ended without an outcome to keep; the next one may try."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """An answer as the client got it."""

    status: int
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One operation's state. ``claim_id`` is random: by it a writer recognises its own record.

    ``span`` is the span of the first call, where it was recorded: repeats link to it.
    """

    claim_id: str
    fingerprint: str
    state: State
    request_id: str
    trace_id: str
    cp_phase: str
    first_seen: float | None = None
    span: str | None = None
    outcome: Outcome | None = None

    @classmethod
    def new(
        cls,
        state: State,
        fingerprint: str,
        context: RequestContext,
        first_seen: float | None = None,
    ) -> Self:
        """A first record of the request at work; ``first_seen`` is the server's time (seconds since 1970)."""
        return cls(
            claim_id=random.randbytes(12).hex(),
            fingerprint=fingerprint,
            state=state,
            request_id=context.request_id,
            trace_id=context.trace_id,
            cp_phase=context.cp_phase,
            first_seen=first_seen,
            span=recorded_span(),
        )

    def holds_id_against(self, wanted: Record) -> bool:
        """Whether the id belongs to another request than ``wanted``'s: one that ended without an outcome to keep
        has given it back."""
        return self.state is not State.RELEASED and self.fingerprint != wanted.fingerprint

    def ended(self, state: State, outcome: Outcome | None) -> Self:
        """The same operation, ended."""
        return replace(self, state=state, outcome=outcome)

    def first_call(self, context: RequestContext) -> RequestContext:
        """``context`` under the ids of the call that made this record."""
        return context._replace(
            request_id=self.request_id, trace_id=self.trace_id, cp_phase=self.cp_phase
        )

    def encode(self) -> bytes:
        """As it is stored."""
        outcome = self.outcome
        return json.dumps(
            {
                "claim": self.claim_id,
                "fingerprint": self.fingerprint,
                "state": self.state,
                "request_id": self.request_id,
                "trace_id": self.trace_id,
                "cp_phase": self.cp_phase,
                "first_seen": self.first_seen,
                **({"span": self.span} if self.span else {}),
                **({"status": outcome.status, "body": outcome.body} if outcome else {}),
            }
        )

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Raises Unknown for what is no record: whether the operation happened cannot be told."""
        try:
            raw = json.loads(value)
            return cls(
                claim_id=raw["claim"],
                fingerprint=raw["fingerprint"],
                state=State(raw["state"]),
                request_id=raw["request_id"],
                trace_id=raw["trace_id"],
                cp_phase=raw["cp_phase"],
                first_seen=raw.get("first_seen"),
                span=raw.get("span"),
                outcome=Outcome(raw["status"], raw["body"]) if "status" in raw else None,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise Unknown("unreadable idempotency record") from error
