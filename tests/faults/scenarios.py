"""Scenarios: what a client asks for while something is killed, and what it must find afterwards."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from tests.support.documents import (
    ASSIGNMENTS,
    DECIDE,
    USAGE,
    assignment_body,
    decide_body,
    new_id,
    usage_body,
)
from tests.support.http_client import Answer

#: Answers to which the contract's advice is "send the same request again".
_NOT_FINAL: Final = frozenset({409, 429})
_CONFLICT: Final = "idempotency_conflict"


@dataclass(frozen=True)
class Attempt:
    """One HTTP request: under which ids, when (monotonic seconds), and what came of it (None: no answer)."""

    id: str
    sent: float
    ended: float
    answer: Answer | None

    @property
    def accepted(self) -> bool:
        return self.answer is not None and 200 <= self.answer.status < 300

    @property
    def settled(self) -> bool:
        """Whether a client stops here: 2xx, or 4xx that repeating does not change."""
        answer = self.answer
        if answer is None or answer.status >= 500:
            return False
        return answer.status not in _NOT_FINAL or answer.code == _CONFLICT


@dataclass(frozen=True)
class Scenario:
    """One operation under one circumstance. ``status`` and ``emitted`` are what its every 2xx must say.

    ``earlier`` is what was sent, and answered, before: by the same client or another one.
    """

    name: str
    path: str
    status: int
    body: Callable[[str], dict[str, Any]]
    subject: str = ""
    emitted: bool = True
    earlier: Scenario | None = None

    @property
    def decides(self) -> bool:
        return self.path == DECIDE


@dataclass
class Request:
    """What one client wants once, and all its attempts to get it; used from several threads."""

    scenario: Scenario
    fault: str
    assignment_id: str
    body: dict[str, Any]
    attempts: list[Attempt] = field(default_factory=list)
    stored_outcome: Any = None
    """For decide: the body that `GET operations` showed."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, attempt: Attempt) -> Attempt:
        with self._lock:
            self.attempts.append(attempt)
        return attempt

    @property
    def accepted(self) -> list[Attempt]:
        with self._lock:
            return [attempt for attempt in self.attempts if attempt.accepted]

    @property
    def seconds(self) -> float:
        """From the first attempt to the first answer that settled it."""
        with self._lock:
            ends = [attempt.ended for attempt in self.attempts if attempt.settled]
            begun = min(attempt.sent for attempt in self.attempts)
        return min(ends) - begun if ends else float("inf")


def request(scenario: Scenario, fault: str, *, like: Request | None = None) -> Request:
    """A new request, under a new id or the one of ``like``."""
    assignment_id = like.assignment_id if like else new_id("as")
    if like is not None and like.scenario.body is scenario.body:
        return Request(scenario, fault, assignment_id, like.body)
    return Request(scenario, fault, assignment_id, scenario.body(assignment_id))


def new_trace_id() -> str:
    return uuid.uuid4().hex


def _assignment(assignment_id: str) -> dict[str, Any]:
    body = assignment_body(assignment_id=assignment_id)
    del body["request_id"]  # each attempt has its own, as honest repeats do
    return body


def _usage(assignment_id: str) -> dict[str, Any]:
    return usage_body(assignment_id=assignment_id)


def _other_usage(assignment_id: str) -> dict[str, Any]:
    return usage_body(assignment_id=assignment_id)


def _decide(assignment_id: str) -> dict[str, Any]:
    body = decide_body(assignment_id=assignment_id)
    del body["request_id"]
    return body


ASSIGN: Final = Scenario("assignments", ASSIGNMENTS, 202, _assignment, "caf.exec.assign.v1")
METER: Final = Scenario("usage", USAGE, 202, _usage, "beamline.usage.v1.metered")
ASK: Final = Scenario("decide", DECIDE, 200, _decide)
ASSIGN_AGAIN: Final = Scenario(
    "assignments, repeated", ASSIGNMENTS, 202, _assignment, ASSIGN.subject, earlier=ASSIGN
)
METER_OTHER: Final = Scenario(
    "usage, metered before", USAGE, 200, _other_usage, METER.subject, emitted=False, earlier=METER
)
ASK_AGAIN: Final = Scenario("decide, repeated", DECIDE, 200, _decide, earlier=ASK)

#: The first three are what the product is asked for; the others are the ways that a repeat takes.
FIRST_CALLS: Final = (ASSIGN, METER, ASK)
ALL: Final = (*FIRST_CALLS, ASSIGN_AGAIN, METER_OTHER, ASK_AGAIN)
